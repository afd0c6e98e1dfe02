"""Losses and gradients that are not finite, and the limits on gradients of detectors and distillers."""

import pytest
import torch
from support.toy import ToyDistiller, ToyModel, make_loader
from support.trainers import make_trainer, weights

from pcdet.engine.hooks import Checkpoint
from pcdet.engine.trainer import NonFiniteError


def test_a_loss_that_is_not_finite_names_frames_and_term_and_saves_nothing(tmp_path):
    loader = make_loader(10, bad_frame=6)
    with pytest.raises(NonFiniteError, match=r"the loss is nan at epoch 1, .*rpn_loss=nan; frames: .*000006"):
        make_trainer([Checkpoint(tmp_path)], loader=loader).run()
    assert list(tmp_path.iterdir()) == []


def test_a_gradient_that_is_not_finite_is_caught_before_it_reaches_the_weights():
    class Steep(ToyModel):
        def forward(self, batch_dict):
            ret, tb, disp = super().forward(batch_dict)
            return {"loss": ret["loss"] + torch.sqrt(self.head.bias.sum() * 0)}, tb, disp

    trainer = make_trainer(model=Steep)
    before = weights(trainer)
    with pytest.raises(NonFiniteError, match="the gradient norm is nan"):
        trainer.run()
    assert torch.equal(before["linear.weight"], trainer.model.linear.weight)


def gradients_of_a_step(kind, limit, factors):
    """(gradients in the optimizer's order, by name; the logged norm) of a step that multiplies those of the loss.

    ``factors``: prefix of a parameter's name -> factor on its gradient.
    """

    def build():
        model = kind()
        for name, p in model.named_parameters():
            factor = next(value for prefix, value in factors.items() if name.startswith(prefix))
            p.register_hook(lambda gradient, factor=factor: gradient * factor)
        return model

    trainer = make_trainer(model=build, grad_norm_clip=limit)
    trainer.train_step(next(iter(trainer.loader)))
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    ordered = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    return {names[id(p)]: p.grad.clone() for p in ordered}, trainer.last.grad_norm


def norm_of(gradients):
    return float(torch.stack([g.square().sum() for g in gradients]).sum().sqrt())


def test_a_distillers_own_gradients_do_not_shorten_the_detectors():
    """However large they are: each part has the limit to itself, and the detector's norm is the one that is logged."""
    found = [gradients_of_a_step(ToyDistiller, 2.0, {"student.": 1e3, "adapter.": factor}) for factor in (1e3, 1e6)]
    (small, norm), (large, same) = found
    students = [name for name in small if name.startswith("student.")]
    assert same == norm > 2.0 and all(torch.equal(small[name], large[name]) for name in students)
    assert norm_of([large[name] for name in students]) == pytest.approx(2.0, rel=1e-4)
    assert norm_of([large[name] for name in large if name not in students]) == pytest.approx(2.0, rel=1e-4)


def test_adapters_whose_gradients_are_not_finite_are_caught_too():
    with pytest.raises(NonFiniteError, match="the gradient norm is inf"):
        gradients_of_a_step(ToyDistiller, 2.0, {"student.": 1.0, "adapter.": float("inf")})


def test_a_plain_detectors_gradients_are_clipped_as_pytorch_does():
    clipped, norm = gradients_of_a_step(ToyModel, 2.0, {"": 1e3})
    whole, _ = gradients_of_a_step(ToyModel, 1e9, {"": 1e3})
    wanted = [torch.nn.Parameter(torch.zeros_like(g)) for g in whole.values()]
    for parameter, gradient in zip(wanted, whole.values(), strict=True):
        parameter.grad = gradient
    assert norm == float(torch.nn.utils.clip_grad_norm_(wanted, 2.0)) > 2.0
    assert all(torch.equal(p.grad, g) for p, g in zip(wanted, clipped.values(), strict=True))
