"""Writes and reads training states: OpenPCDet's dictionary, with what a faithful resume needs beside it.

Keys: ``epoch`` (finished epochs), ``it`` (finished iterations), ``model_state``, ``optimizer_state`` and ``version`` as
in OpenPCDet; ``scheduler_state``, ``scaler_state``, ``rng_state`` (of rank 0), ``seed`` and ``iters_per_epoch`` are
ours. ``best``, in ``checkpoint_best.pth`` alone, says by which metric, value and epoch it is the best. Everything is a
tensor, a number, a string or a plain container, so ``torch.load(weights_only=True)`` reads it.

A model may be more than the detector that it trains. It then has ``detector``, which is evaluated and stored as
``model_state``; ``extra_state()``, the further entries of its checkpoints; ``load_extra_state(state, name, logger)``,
which takes them back, or raises CheckpointError and leaves the model as it was; and ``all_modules()``.
"""

from __future__ import annotations

import contextlib
import logging
import numbers
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pcdet
from pcdet.engine.runtime import rng_state
from pcdet.utils import safe_files
from pcdet.utils.checkpoint_reader import CheckpointError, read_checkpoint
from pcdet.utils.safe_files import WriteError
from pcdet.utils.spconv_utils import find_all_spconv_keys
from pcdet.utils.weights import compare_weights, to_spconv2

__all__ = [
    "CheckpointError",
    "checkpoint_state",
    "load_checkpoint",
    "read_checkpoint",
    "save_checkpoint",
    "unwrap",
]

OTHER_COPY = "use another copy (the weights alone: --pretrained_model)"


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, or the model itself."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def plain_detector(model: nn.Module) -> nn.Module:
    """What is evaluated and stored: the ``detector`` of a model that is more, or the model itself."""
    return getattr(unwrap(model), "detector", unwrap(model))


def checkpoint_state(
    model: nn.Module | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    epoch: int | None = None,
    it: int | None = None,
    **parts: Any,
) -> dict:
    """A dictionary ready to be saved, on the CPU, with the generators' states as they are now.

    Args:
        model: a detector, a model that holds one, or either within DistributedDataParallel.
        optimizer: its state is stored where one is given.
        epoch: finished epochs.
        it: finished iterations.
        **parts: further entries. Objects with a ``state_dict`` (``scheduler``, ``scaler``) are stored as
            ``<name>_state``, values as they are; None is left out.
    """
    state = {
        "epoch": epoch,
        "it": it,
        "model_state": None,
        "optimizer_state": plain(optimizer.state_dict()) if optimizer is not None else None,
        "version": f"pcdet+{pcdet.__version__}",
        "rng_state": rng_state(),
    }
    if model is not None:
        state["model_state"] = plain(plain_detector(model).state_dict())
        if hasattr(unwrap(model), "extra_state"):
            state |= plain(unwrap(model).extra_state())
    for name, part in parts.items():
        if hasattr(part, "state_dict"):
            state[f"{name}_state"] = plain(part.state_dict())
        elif part is not None:
            state[name] = plain(part)
    return state


def save_checkpoint(state: dict, filename: str | os.PathLike = "checkpoint") -> Path:
    """Writes ``state`` to ``filename`` (``.pth`` is added where it is missing), its SHA-256 beside it.

    A kill or a full disk never leaves half a file: the one that was there stays.

    Raises:
        WriteError: the disk is full, or the folder cannot be written to.
    """
    path = Path(filename)
    if path.suffix != ".pth":
        path = path.with_name(f"{path.name}.pth")
    try:
        with safe_files.replacing(path, checksum=True) as stream:
            torch.save(state, stream)
    except WriteError:  # it is in place, but its sum is not
        raise
    except (OSError, RuntimeError) as error:
        reason = _os_error_in(error)
        if reason is None:
            raise
        raise WriteError(
            f"checkpoint {path} cannot be written: {reason.strerror or reason}; what was there before is kept. Make "
            "room or give --output_dir on another disk, and start the same command again"
        ) from error
    return path


def _os_error_in(error: BaseException | None) -> OSError | None:
    """The OSError behind what ``torch.save`` makes of a stream that fails, a RuntimeError on the stream's position."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def load_checkpoint(
    state: dict | str | os.PathLike,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    scheduler=None,
    scaler=None,
    name: str | os.PathLike | None = None,
    logger: logging.Logger | None = None,
) -> tuple[int, int]:
    """Puts a training state into its parts, strictly, and returns (finished epochs, finished iterations).

    The optimizer keeps its own settings (learning rate, decay, ...): only moments and step counts are taken over. Where
    sparse convolutions are laid out as in spconv 1.x, their weights and moments are turned alike. The random generators
    are left alone: the trainer sets them where its first iteration begins.

    Args:
        state: a checkpoint's dictionary, or its file.
        model: a detector, or a model that holds one; that takes its further entries too.
        optimizer: gets ``optimizer_state``. Without one only the weights are taken; with one the training goes on.
        scheduler: gets ``scheduler_state`` likewise.
        scaler: gets ``scaler_state`` likewise.
        name: the file, for messages, where ``state`` is a dictionary.
        logger: told what was loaded.

    Raises:
        CheckpointError: where the file cannot be read, or an entry is missing, is of another kind or does not fit.
    """
    if not isinstance(state, dict):
        name, state = state, read_checkpoint(state)
    name = name or "checkpoint"
    if state.get("model_state") is None:
        raise CheckpointError(f"{name} has no model_state; it holds {', '.join(map(str, state)) or 'nothing'}")
    check_form(state, name)
    if optimizer is not None and state.get("optimizer_state") is None:
        raise CheckpointError(
            f"{name} has no optimizer_state, so training cannot go on from it; "
            "to start anew from its weights use --pretrained_model"
        )
    layout = _load_model(unwrap(model), state, name, logger)
    if optimizer is not None:
        _load_optimizer(optimizer, _in_our_layout(state["optimizer_state"], optimizer, unwrap(model), layout), name)
    for part, key in ((scheduler, "scheduler_state"), (scaler, "scaler_state")):
        if part is not None and state.get(key):
            with naming_entry(name, key):
                part.load_state_dict(state[key])
    epoch, it = int(state.get("epoch") or 0), int(state.get("it") or 0)
    if logger is not None:
        logger.info(f"==> Done (loaded {name}: epoch {epoch}, iteration {it})")
    return epoch, it


def check_form(state: Mapping, name: object) -> None:
    """Raises CheckpointError where an entry of a training state is of another kind than a training writes.

    Entries that are not there, or None, pass.

    Args:
        state: a checkpoint's dictionary.
        name: its file, for the message.
    """
    for key in ("epoch", "it", "iters_per_epoch", "seed"):
        value = state.get(key)
        if value is not None and (not isinstance(value, numbers.Integral) or value < 0):
            raise _misformed(name, key, "a whole number from 0 on", value)
    weights = state.get("model_state")
    if weights is not None and not (_is_dict(weights) and all(map(torch.is_tensor, weights.values()))):
        raise _misformed(name, "model_state", "tensors by name", weights)
    for key in ("scheduler_state", "scaler_state", "rng_state"):
        if state.get(key) is not None and not _is_dict(state[key]):
            raise _misformed(name, key, "a dictionary", state[key])
    optimizer = state.get("optimizer_state")
    if optimizer is not None and not _is_optimizer_state(optimizer):
        raise _misformed(name, "optimizer_state", "state (a dictionary by parameter) and param_groups", optimizer)


def _is_optimizer_state(value: Any) -> bool:
    if not _is_dict(value):
        return False
    moments, groups = value.get("state"), value.get("param_groups")
    return (
        _is_dict(moments)
        and all(map(_is_dict, moments.values()))
        and isinstance(groups, (list, tuple))
        and all(_is_dict(group) and isinstance(group.get("params"), (list, tuple)) for group in groups)
    )


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping)


def _misformed(name: object, key: str, rule: str, value: Any) -> CheckpointError:
    found = f"{type(value).__name__} {str(value)[:80]}"
    return CheckpointError(f"{name}: {key} must be {rule}, got {found}; {OTHER_COPY}")


@contextlib.contextmanager
def naming_entry(name: object, key: str):
    """Turns what a part of a training makes of a state that is not its own into a CheckpointError.

    Args:
        name: the checkpoint's file.
        key: the entry.
    """
    try:
        yield
    except CheckpointError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise CheckpointError(f"{name}: {key} cannot be taken over ({reason}); {OTHER_COPY}") from error


def plain(value: Any) -> Any:
    """``value`` with tensors on the CPU, numpy scalars as Python numbers, and containers as dict, list and tuple."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else list(map(plain, value))
    return value.item() if hasattr(value, "dtype") and hasattr(value, "item") else value


def _load_model(model: nn.Module, state: dict, name, logger: logging.Logger | None) -> str | None:
    """Loads the weights and returns the layout of the file's sparse convolutions, None without any."""
    detector = plain_detector(model)
    report = compare_weights(detector, state["model_state"])
    if problems := report.problems():
        raise CheckpointError(
            f"{name} does not fit the model, so training cannot go on from it (weights alone: --pretrained_model)\n  "
            + "\n  ".join(problems)
        )
    if hasattr(model, "load_extra_state"):
        model.load_extra_state(state, name, logger)
    detector.load_state_dict(report.fitting, strict=False)
    (layout,) = report.layouts
    if layout is not None and layout.doubts() and logger is not None:
        logger.warning(f"{name}: {layout.doubts()}")
    return report.layout


def _in_our_layout(state: dict, optimizer: torch.optim.Optimizer, model: nn.Module, layout: str | None) -> dict:
    """An optimizer's state with the moments of sparse convolutions as spconv 2.x lays out their weights."""
    if layout is None:
        return state
    keys = find_all_spconv_keys(model)
    sparse = {id(p) for name, p in model.named_parameters() if name in keys}
    moments = dict(state["state"])
    for mine, theirs in zip(optimizer.param_groups, state["param_groups"], strict=False):
        for parameter, index in zip(mine["params"], theirs["params"], strict=False):
            if id(parameter) in sparse and index in moments:
                moments[index] = {
                    key: to_spconv2(value, layout)
                    if isinstance(value, torch.Tensor) and value.dim() == parameter.dim()
                    else value
                    for key, value in moments[index].items()
                }
    return {**state, "state": moments}


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict, name) -> None:
    """Takes moments and step counts; hyper-parameters stay those of the configuration."""
    current = optimizer.state_dict()["param_groups"]
    wanted, got = ([len(g["params"]) for g in groups] for groups in (current, state["param_groups"]))
    if wanted != got:
        raise CheckpointError(
            f"{name} holds an optimizer state for parameter groups of {got} tensors, the model has {wanted}"
        )
    _check_moments(optimizer, state, name)
    groups = [{**mine, "params": theirs["params"]} for mine, theirs in zip(current, state["param_groups"], strict=True)]
    with naming_entry(name, "optimizer_state"):
        optimizer.load_state_dict({"state": state["state"], "param_groups": groups})


def _check_moments(optimizer: torch.optim.Optimizer, state: dict, name) -> None:
    """Raises CheckpointError where a moment has another shape than its parameter, which a step would trip over."""
    for mine, theirs in zip(optimizer.param_groups, state["param_groups"], strict=True):
        for parameter, index in zip(mine["params"], theirs["params"], strict=True):
            for key, value in state["state"].get(index, {}).items():
                if isinstance(value, torch.Tensor) and value.dim() and value.shape != parameter.shape:
                    raise CheckpointError(
                        f"{name}: {key} of parameter {index} in the optimizer state has shape {list(value.shape)}, the "
                        f"parameter has {list(parameter.shape)}; to start anew from its weights use --pretrained_model"
                    )
