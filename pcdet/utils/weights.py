"""Fitting the weights of a checkpoint to a model.

Sparse convolutions store their weights in three layouts. spconv 2.2 and later: (out, k, k, k, in). spconv 1.x, and 2.0
and 2.1 with the native algorithm: (k, k, k, in, out) or (k, k, k, out, in). The layout is found once for a whole
checkpoint, so that a layer whose shape fits two layouts follows the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
import torch.nn as nn
from torch import Tensor

from pcdet.utils.checkpoint_reader import CheckpointError
from pcdet.utils.spconv_utils import find_all_spconv_keys

SPCONV_LAYOUTS = {
    "spconv 2.x (out, k, k, k, in)": None,
    "spconv 1.x (k, k, k, in, out)": "in_out",
    "spconv 2.0 native (k, k, k, out, in)": "out_in",
}
OPTIONAL_KEYS = ("global_step",)  # a plain counter: its absence changes no prediction
OPTIONAL_SUFFIX = ".num_batches_tracked"  # absent from files older than PyTorch 0.4.1


@dataclasses.dataclass(frozen=True)
class WeightsReport:
    """How the weights of a file compare with a model's.

    Attributes:
        fitting: what can be loaded, by name.
        wrong_shape: name -> (shape in the file, shape in the model).
        missing: names that only the model has.
        unexpected: names that only the file has.
        layout: the layout of sparse convolutions that was found; None without any.
    """

    fitting: dict[str, Tensor]
    wrong_shape: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    missing: list[str]
    unexpected: list[str]
    layout: str | None

    def problems(self) -> list[str]:
        """One sentence for each entry that differs."""
        return [
            *(f"{k}: shape {list(a)} in the file, {list(b)} in the model" for k, (a, b) in self.wrong_shape.items()),
            *(f"{k}: not in the file" for k in self.missing),
            *(f"{k}: not in the model" for k in self.unexpected),
        ]


def model_state_of(checkpoint: Mapping) -> Mapping[str, Tensor]:
    """The weights of a checkpoint: its ``model_state``, or the whole if it is a bare state dict."""
    state = checkpoint.get("model_state", checkpoint)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"the checkpoint has no model_state; its keys are {', '.join(map(str, checkpoint))}")
    return state


def compare_weights(model: nn.Module, state: Mapping[str, Tensor]) -> WeightsReport:
    """What of ``state`` fits ``model``, sparse layouts adapted."""
    target = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    sparse = find_all_spconv_keys(model) & state.keys()
    layout = _spconv_layout({name: (tuple(state[name].shape), target[name]) for name in sorted(sparse)})
    fitting, wrong_shape = {}, {}
    for name in target.keys() & state.keys():
        value = state[name]
        if name in sparse and layout is not None:
            value = to_spconv2(value, layout)
        if tuple(value.shape) == target[name]:
            fitting[name] = value
        else:
            wrong_shape[name] = (tuple(state[name].shape), target[name])
    optional = [name for name in target if name in OPTIONAL_KEYS or name.endswith(OPTIONAL_SUFFIX)]
    return WeightsReport(
        fitting={name: fitting[name] for name in target if name in fitting},
        wrong_shape={name: wrong_shape[name] for name in target if name in wrong_shape},
        missing=[name for name in target if name not in state and name not in optional],
        unexpected=[name for name in state if name not in target and name not in OPTIONAL_KEYS],
        layout=layout,
    )


def load_weights(model: nn.Module, state: Mapping[str, Tensor], *, allow_partial: bool = False) -> WeightsReport:
    """Copies weights into a model.

    Args:
        model: takes them, in place.
        state: name -> tensor.
        allow_partial: take what fits instead of refusing a file that does not fit entirely.

    Raises:
        CheckpointError: something differs and ``allow_partial`` is not set; the model is untouched.
    """
    report = compare_weights(model, state)
    problems = report.problems()
    if problems and not allow_partial:
        total = len(model.state_dict())
        raise CheckpointError(
            f"the checkpoint is not for this model: {len(report.fitting)} of {total} entries fit; class count, widths "
            "and modules must be those it was trained with (--allow_partial takes what fits)\n  "
            + "\n  ".join(problems)
        )
    model.load_state_dict(report.fitting, strict=False)
    return report


def to_spconv2(weight: Tensor, layout: str) -> Tensor:
    """A sparse convolution's weight in the layout of spconv 2.x, (out, *kernel, in)."""
    order = SPCONV_LAYOUTS[layout]
    if order is None:
        return weight
    kernel = range(weight.dim() - 2)
    first, last = (-1, -2) if order == "in_out" else (-2, -1)
    return weight.permute(weight.dim() + first, *kernel, weight.dim() + last).contiguous()


def _spconv_layout(shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> str | None:
    """The layout that makes most layers fit, the first of equals; ``shapes``: name -> (in the file, in the model)."""
    if not shapes:
        return None

    def fits(layout: str) -> int:
        return sum(_shape_in_spconv2(found, layout) == wanted for found, wanted in shapes.values())

    return max(SPCONV_LAYOUTS, key=fits)


def _shape_in_spconv2(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    return tuple(to_spconv2(torch.empty(shape, device="meta"), layout).shape)
