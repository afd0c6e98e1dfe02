"""Trainings of the toy: a trainer in one call, a hook that stops it, and the comparison of its weights."""

import os
import signal

import torch

from pcdet.engine.hooks import Hook
from pcdet.engine.optim import build_optimizer, build_scheduler
from pcdet.engine.runtime import seed_process
from pcdet.engine.trainer import Trainer, TrainSettings
from support.toy import OPTIMIZATION, ToyModel, make_loader


def make_trainer(hooks=(), *, epochs=2, seed=0, model=None, loader=None, merged=False, optimizer="adam_onecycle", **kw):
    """A trainer of a toy over five iterations an epoch; other settings are those of TrainSettings."""
    seed_process(seed)
    model = (model or ToyModel)()
    loader = make_loader(10) if loader is None else loader
    node = {**OPTIMIZATION, "NUM_EPOCHS": epochs, "OPTIMIZER": optimizer}
    settings = TrainSettings(epochs=epochs, merged=merged, seed=seed, **kw)
    optimizer = build_optimizer(model, node)
    scheduler = build_scheduler(optimizer, settings.iters_per_epoch(loader), epochs, -1, node)
    return Trainer(model, loader, optimizer, scheduler, hooks, settings=settings)


class StopAt(Hook):
    """Sends SIGTERM to this process at an iteration."""

    def __init__(self, iteration):
        self.iteration = iteration

    def after_iteration(self, trainer):
        if trainer.it == self.iteration:
            os.kill(os.getpid(), signal.SIGTERM)


def weights(trainer):
    """A copy of the model's state."""
    return {k: v.clone() for k, v in trainer.model.state_dict().items()}


def assert_same(a, b):
    """Two states are equal bit by bit."""
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key
