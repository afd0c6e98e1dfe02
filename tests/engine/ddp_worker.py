"""Called by test_ddp.py in every rank: gradients, evaluation of few frames, a stopped and resumed training."""

import json
import logging
from pathlib import Path

import torch
from support.toy import OPTIMIZATION, ToyDataset, ToyModel
from support.trainers import weights
from torch.utils.data import DataLoader

from pcdet.engine.checkpoint import read_checkpoint
from pcdet.engine.dist import end_dist, init_dist
from pcdet.engine.evaluate import EvalSettings, eval_one_epoch
from pcdet.engine.hooks import Checkpoint, Hook
from pcdet.engine.optim import build_optimizer, build_scheduler
from pcdet.engine.runtime import parallelize, seed_process
from pcdet.engine.trainer import Interrupted, Trainer, TrainSettings

CPU = torch.device("cpu")
FRAMES = 12  # divisible by 1, 2, 3 and 4 processes


class FrozenNorm(ToyModel):
    """Without noise, and with norms that see the same statistics whatever the batch."""

    def forward(self, batch_dict):
        self.norm.eval()
        score = self.head(torch.relu(self.norm(self.linear(batch_dict["points"]))).to(torch.float64)).squeeze(-1)
        return {"loss": (score - 1).square().mean()}, {}, {}


def gradients(rank, world_size, model=None):
    """Name -> gradient of one step on this process's share of the same twelve frames, in double precision."""
    torch.manual_seed(0)
    model = (model or FrozenNorm)().double()
    ddp = parallelize(model, CPU)
    dataset = ToyDataset(FRAMES)
    mine = dataset.collate([dataset[index] for index in range(rank, FRAMES, world_size)])
    ddp({"points": torch.from_numpy(mine["points"])})[0]["loss"].backward()
    return {name: p.grad.tolist() for name, p in model.named_parameters()}


def results(out):
    """Metrics of 0 to 7 frames; rank 0 has them."""
    torch.manual_seed(0)
    model, logger = ToyModel(), logging.getLogger("quiet")
    logger.setLevel(logging.ERROR)
    settings, found = EvalSettings(class_names=["Car"], recall_thresholds=[0.3], progress=False), {}
    for frames in range(8):
        dataset = ToyDataset(frames)
        loader = DataLoader(dataset, batch_size=2, sampler=range(frames), collate_fn=dataset.collate)
        folder = out / f"frames{frames}"
        found[frames] = eval_one_epoch(model, loader, settings, epoch_id=1, result_dir=folder, logger=logger)
    return found


class StopAt(Hook):
    def __init__(self, iteration):
        self.iteration = iteration

    def after_iteration(self, trainer):
        if trainer.it == self.iteration:
            trainer.request_stop()


def train(info, out, seed, state=None, stop_at=None):
    """(weights, optimizer state) of a training of the noisy toy over two epochs of four iterations."""
    seed_process(seed)
    dataset = ToyDataset(8 * info.world_size)
    share = range(info.rank, len(dataset), info.world_size)
    loader = DataLoader(dataset, batch_size=2, sampler=share, collate_fn=dataset.collate)
    model = ToyModel()
    optimizer = build_optimizer(model, OPTIMIZATION)
    scheduler = build_scheduler(optimizer, len(loader), 2, -1, OPTIMIZATION)
    hooks = [*([Checkpoint(out)] if info.is_main else []), *([StopAt(stop_at)] if stop_at else [])]
    settings = TrainSettings(epochs=2, seed=0)
    trainer = Trainer(parallelize(model, CPU), loader, optimizer, scheduler, hooks, settings=settings)
    if state is not None:
        trainer.load_state_dict(state)
    trainer.run()
    moments = optimizer.state_dict()["state"]
    return weights(trainer), {(i, name): torch.as_tensor(v) for i, of in moments.items() for name, v in of.items()}


def resumed_is_the_same(info, out):
    """Whether a training that was stopped in an epoch, at its end and in the next one ends as one that was not."""
    straight, same = train(info, out / "straight", seed=0), []
    for stop_at in (2, 4, 6):
        folder = out / f"stop{stop_at}"
        try:
            train(info, folder, seed=0, stop_at=stop_at)
        except Interrupted:
            torch.distributed.barrier()
        again = train(info, folder, seed=5, state=read_checkpoint(folder / "latest_model.pth"))
        for mine, theirs in zip(straight, again, strict=True):
            same.append(mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine))
    return same


def work(rank, port, out):
    out, info = Path(out), init_dist("pytorch", "cpu")
    facts = {"gradients": gradients(info.rank, info.world_size), "results": results(out)}
    if info.world_size == 2:
        facts["same"] = resumed_is_the_same(info, out)
    (out / f"rank{rank}.json").write_text(json.dumps(facts))
    end_dist()
