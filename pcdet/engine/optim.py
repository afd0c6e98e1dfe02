"""Optimizers and learning-rate schedules by OpenPCDet's names.

A schedule is a pure function of the global iteration, so resuming needs nothing but that number. ``adam_onecycle`` is
OpenPCDet's: Adam with decoupled decay (p *= 1 - lr * wd, BatchNorm and biases included), which is AdamW, with one
learning-rate cycle and the first moment's beta moving against it. Two differences: parameters that a container module
owns directly are optimised too, and the step-decay schedules of ``adam`` and ``sgd`` work.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from pcdet.engine import eager_optim
from pcdet.registry import OPTIMIZERS, ConfigError, parse_node

WARMUP_START = 1 / 3  # adam_cosineanneal: share of LR at iteration 0
COSINE_FLOOR = 1e-3  # adam_cosineanneal: share of LR at the end
ONECYCLE_FLOOR = 1e-4  # adam_onecycle: the last learning rate is LR / DIV_FACTOR times this


@dataclass(frozen=True, kw_only=True)
class OptimizationConfig:
    """The ``OPTIMIZATION`` block. Learning rates and momenta have no unit; decay steps and warm-up are in epochs."""

    batch_size_per_gpu: int
    num_epochs: int
    optimizer: str
    lr: float
    weight_decay: float = 0.0
    momentum: float = 0.9
    betas: tuple[float, float] | None = None
    moms: tuple[float, float] = (0.95, 0.85)
    pct_start: float = 0.4
    div_factor: float = 10.0
    warmup_iter: int = 0
    decay_step_list: list[float] | tuple[float, ...] = ()
    lr_decay: float = 0.1
    lr_clip: float = 1e-7
    lr_warmup: bool = False
    warmup_epoch: float = 1
    grad_norm_clip: float = 10.0
    use_amp: bool = False
    loss_scale_fp16: float = 2.0**16

    def __post_init__(self):
        OPTIMIZERS.get(self.optimizer, "OPTIMIZER")
        problems = [
            f"{key}: must be {rule}, got {value}"
            for key, value, rule, holds in (
                ("BATCH_SIZE_PER_GPU", self.batch_size_per_gpu, "at least 1", self.batch_size_per_gpu >= 1),
                ("NUM_EPOCHS", self.num_epochs, "at least 0", self.num_epochs >= 0),
                ("LR", self.lr, "above 0", self.lr > 0),
                ("PCT_START", self.pct_start, "between 0 and 1", 0 <= self.pct_start <= 1),
                ("DIV_FACTOR", self.div_factor, "above 0", self.div_factor > 0),
                ("GRAD_NORM_CLIP", self.grad_norm_clip, "above 0", self.grad_norm_clip > 0),
            )
            if not holds
        ]
        if problems:
            raise ConfigError(problems)


class Schedule(NamedTuple):
    """Learning rate and, for Adam with a moving beta1, momentum at a global iteration."""

    lr_at: Callable[[int], float]
    momentum_at: Callable[[int], float] | None = None


class IterationScheduler:
    """Writes a schedule's values, plain floats, into every group of an optimizer."""

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Schedule):
        self.optimizer = optimizer
        self.schedule = schedule
        self.last_iter = -1

    def step(self, iteration: int) -> None:
        """Sets the values for global iteration ``iteration`` (0 is the first); call it before the optimizer's step."""
        lr = float(self.schedule.lr_at(iteration))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
            if self.schedule.momentum_at is not None:
                group["betas"] = (float(self.schedule.momentum_at(iteration)), group["betas"][1])
        self.last_iter = iteration

    @property
    def lr(self) -> float:
        """The learning rate now in use."""
        return self.optimizer.param_groups[0]["lr"]

    def state_dict(self) -> dict:
        """What a checkpoint keeps: the last iteration."""
        return {"last_iter": self.last_iter}

    def load_state_dict(self, state: dict) -> None:
        """Takes over the last iteration and sets its values."""
        if state["last_iter"] >= 0:
            self.step(state["last_iter"])


def build_optimizer(model: nn.Module, optim_cfg) -> torch.optim.Optimizer:
    """The optimizer that ``OPTIMIZATION.OPTIMIZER`` names, over the parameters of ``model`` that require a gradient.

    Args:
        model: already on its device.
        optim_cfg: the ``OPTIMIZATION`` node or an :class:`OptimizationConfig`.
    """
    cfg = parse_node(optim_cfg, OptimizationConfig, path="OPTIMIZATION")
    return OPTIMIZERS.get(cfg.optimizer, "OPTIMIZATION.OPTIMIZER").build(model, cfg)


def build_scheduler(
    optimizer: torch.optim.Optimizer, total_iters_each_epoch: int, total_epochs: int, last_epoch: int, optim_cfg
) -> IterationScheduler:
    """The schedule that belongs to the optimizer; its ``step(iteration)`` is called before every iteration.

    Args:
        optimizer: from :func:`build_optimizer` with the same configuration.
        total_iters_each_epoch: iterations of one epoch on this process.
        total_epochs: length of the whole training.
        last_epoch: finished epochs (0 or less at a fresh start), as in OpenPCDet's signature; the values after a
            resume follow from the iteration alone.
        optim_cfg: the ``OPTIMIZATION`` node or an :class:`OptimizationConfig`.
    """
    cfg = parse_node(optim_cfg, OptimizationConfig, path="OPTIMIZATION")
    kind = OPTIMIZERS.get(cfg.optimizer, "OPTIMIZATION.OPTIMIZER")
    scheduler = IterationScheduler(optimizer, kind.schedule(cfg, max(total_iters_each_epoch, 1), total_epochs))
    scheduler.step(max(last_epoch, 0) * total_iters_each_epoch)
    return scheduler


def parameter_groups(model: nn.Module) -> list[dict]:
    """[parameters of non-BatchNorm modules][parameters of BatchNorm modules], each in module order.

    For a model whose parameters all live in leaf modules this is OpenPCDet's order, so its optimizer states fit.
    A parameter shared by two modules is taken once, where it is met first.
    """
    groups: tuple[list, list] = ([], [])
    seen = set()
    for module in model.modules():
        is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                groups[is_norm].append(parameter)
    return [{"params": group} for group in groups]


@OPTIMIZERS.register(name="adam_onecycle")
class AdamOneCycle:
    """Decoupled-decay Adam on one cycle of learning rate and momentum; ``BETAS`` defaults to (0.9, 0.99)."""

    @staticmethod
    def build(model: nn.Module, cfg: OptimizationConfig) -> torch.optim.Optimizer:
        """AdamW in one fused pass over the parameters."""
        groups = parameter_groups(model)
        betas = tuple(cfg.betas or (0.9, 0.99))
        return eager_optim.AdamW(groups, lr=cfg.lr, betas=betas, weight_decay=cfg.weight_decay, fused=True)

    @staticmethod
    def schedule(cfg: OptimizationConfig, iters_per_epoch: int, epochs: int) -> Schedule:
        """LR / DIV_FACTOR -> LR over the first ``PCT_START`` of all iterations, then down to almost nothing."""
        total = max(iters_per_epoch * epochs, 1)
        turn = int(total * cfg.pct_start)
        low = cfg.lr / cfg.div_factor

        def between(iteration: int, *, low_value: float, high_value: float, last_value: float) -> float:
            if iteration < turn:
                return cosine(low_value, high_value, iteration / turn)
            return cosine(high_value, last_value, min((iteration - turn) / max(total - turn, 1), 1.0))

        first, middle = cfg.moms
        return Schedule(
            lambda it: between(it, low_value=low, high_value=cfg.lr, last_value=low * ONECYCLE_FLOOR),
            lambda it: between(it, low_value=first, high_value=middle, last_value=first),
        )


@OPTIMIZERS.register(name="adam_cosineanneal")
class AdamCosineAnneal(AdamOneCycle):
    """The same optimizer, warmed up for ``WARMUP_ITER`` iterations, then one cosine that steps every epoch."""

    @staticmethod
    def schedule(cfg: OptimizationConfig, iters_per_epoch: int, epochs: int) -> Schedule:
        """LR / 3 -> LR in ``WARMUP_ITER`` iterations, then LR -> LR / 1000 by epochs; momentum as in one-cycle."""

        def lr_at(iteration: int) -> float:
            if iteration < cfg.warmup_iter:
                share = iteration / cfg.warmup_iter
                return cfg.lr * (WARMUP_START * (1 - share) + share)
            return cosine(cfg.lr, cfg.lr * COSINE_FLOOR, min(iteration // iters_per_epoch / max(epochs, 1), 1.0))

        return Schedule(lr_at, AdamOneCycle.schedule(cfg, iters_per_epoch, epochs).momentum_at)


@OPTIMIZERS.register(name="adam")
class Adam:
    """Adam with L2 decay; the learning rate drops at ``DECAY_STEP_LIST``. ``BETAS`` defaults to torch's."""

    @staticmethod
    def build(model: nn.Module, cfg: OptimizationConfig) -> torch.optim.Optimizer:
        """Adam in one fused pass over the parameters."""
        betas = tuple(cfg.betas or (0.9, 0.999))
        return eager_optim.Adam(
            trainable_parameters(model), lr=cfg.lr, betas=betas, weight_decay=cfg.weight_decay, fused=True
        )

    @staticmethod
    def schedule(cfg: OptimizationConfig, iters_per_epoch: int, epochs: int) -> Schedule:
        """LR times ``LR_DECAY`` per passed epoch of the list, not below ``LR_CLIP``; a cosine warm-up if asked for."""
        decay_iters = [epoch * iters_per_epoch for epoch in cfg.decay_step_list]
        warmup_iters = cfg.warmup_epoch * iters_per_epoch if cfg.lr_warmup else 0
        low = cfg.lr / cfg.div_factor

        def lr_at(iteration: int) -> float:
            if iteration < warmup_iters:
                return cosine(low, cfg.lr, iteration / warmup_iters)
            drops = sum(iteration >= at for at in decay_iters)
            return max(cfg.lr * cfg.lr_decay**drops, cfg.lr_clip)

        return Schedule(lr_at)


@OPTIMIZERS.register(name="sgd")
class SGD(Adam):
    """Stochastic gradient descent with ``MOMENTUM`` and L2 decay, on the schedule of ``adam``."""

    @staticmethod
    def build(model: nn.Module, cfg: OptimizationConfig) -> torch.optim.Optimizer:
        """SGD in one fused pass over the parameters."""
        return eager_optim.SGD(
            trainable_parameters(model), lr=cfg.lr, momentum=cfg.momentum, weight_decay=cfg.weight_decay, fused=True
        )


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that require a gradient, in module order, each once."""
    return [p for p in model.parameters() if p.requires_grad]


def cosine(start: float, end: float, share: float) -> float:
    """Half a cosine from ``start`` (share 0) to ``end`` (share 1)."""
    return end + (start - end) / 2 * (math.cos(math.pi * share) + 1)
