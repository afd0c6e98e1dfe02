"""Fitting the weights of checkpoints to a model.

Sparse convolutions store their weights in three layouts. spconv 2.2 and later: (out, k, k, k, in). spconv 1.x, and 2.0
and 2.1 with the native algorithm: (k, k, k, in, out) or (k, k, k, out, in). The layout is found once for a whole file,
so that a layer whose shape fits two layouts follows the others.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
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
NAMED_IN_AN_ERROR = 30  # entries that differ; a model of another kind differs in hundreds


class MisfitError(CheckpointError):
    """A checkpoint that can be read, but is not for the model that it is loaded into."""


@dataclasses.dataclass(frozen=True)
class SparseLayout:
    """How a file lays out the weights of sparse convolutions.

    Attributes:
        name: the layout in which most of them fit, a key of ``SPCONV_LAYOUTS``; None where none fits in any.
        rivals: further layouts in which as many fit, as other weights: the shapes cannot tell which was meant.
    """

    name: str | None
    rivals: tuple[str, ...] = ()

    def doubts(self) -> str | None:
        """What a reader of the file must know about the layout; None where it is certain."""
        if self.name is None:
            return "its sparse convolutions fit in none of spconv's layouts"
        if self.rivals:
            others = " and ".join(self.rivals)
            return f"its sparse convolutions fit in {others} as well as in {self.name}; they are read as the latter"
        return None


@dataclasses.dataclass(frozen=True)
class WeightsReport:
    """How the weights of one file, or of several of which later ones take precedence, compare with a model's.

    Attributes:
        fitting: what can be loaded, by name.
        wrong_shape: name -> (shape in the file, shape in the model).
        missing: names that only the model has.
        unexpected: names that only the files have.
        layouts: of the sparse convolutions of each file; None for a file without any.
    """

    fitting: dict[str, Tensor]
    wrong_shape: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    missing: list[str]
    unexpected: list[str]
    layouts: tuple[SparseLayout | None, ...]

    @property
    def layout(self) -> str | None:
        """Name of the first file's layout; None without sparse convolutions, or where none fits."""
        return self.layouts[0].name if self.layouts and self.layouts[0] else None

    def problems(self) -> list[str]:
        """One sentence for each entry that differs."""
        return [
            *(f"{k}: shape {list(a)} in the file, {list(b)} in the model" for k, (a, b) in self.wrong_shape.items()),
            *(f"{k}: not in the file" for k in self.missing),
            *(f"{k}: not in the model" for k in self.unexpected),
        ]


def model_state_of(checkpoint: Mapping, name: object = "the checkpoint") -> Mapping[str, Tensor]:
    """The weights of a checkpoint: its ``model_state``, or the whole if it is a bare state dict."""
    state = checkpoint.get("model_state", checkpoint)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{name} has no model_state; its keys are {', '.join(map(str, checkpoint))}")
    return state


def compare_weights(model: nn.Module, *states: Mapping[str, Tensor]) -> WeightsReport:
    """What of ``states`` fits ``model``, the sparse layout of each adapted; later states take precedence."""
    target = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    keys = find_all_spconv_keys(model)
    layouts, state, shapes = [], {}, {}
    for own in states:
        sparse = {name: own[name] for name in sorted(keys & own.keys()) if own[name].dim() == len(target[name])}
        layout = _sparse_layout(sparse, target)
        layouts.append(layout)
        shapes |= {name: tuple(value.shape) for name, value in own.items()}
        state |= own
        if layout is not None and layout.name is not None:
            state |= {name: to_spconv2(value, layout.name) for name, value in sparse.items()}
    fitting = {name: state[name] for name in target if name in state and tuple(state[name].shape) == target[name]}
    optional = [name for name in target if name in OPTIONAL_KEYS or name.endswith(OPTIONAL_SUFFIX)]
    return WeightsReport(
        fitting=fitting,
        wrong_shape={k: (shapes[k], target[k]) for k in target if k in state and k not in fitting},
        missing=[name for name in target if name not in state and name not in optional],
        unexpected=[name for name in state if name not in target and name not in OPTIONAL_KEYS],
        layouts=tuple(layouts),
    )


def load_weights(
    model: nn.Module, *states: Mapping[str, Tensor], name: object = "the checkpoint", allow_partial: bool = False
) -> WeightsReport:
    """Copies weights into a model.

    Args:
        model: takes them, in place.
        *states: name -> tensor, of each file; later ones take precedence.
        name: the file, for messages.
        allow_partial: take what fits instead of refusing files that do not fit entirely.

    Raises:
        MisfitError: something differs and ``allow_partial`` is not set, or no parameter fits; the model is untouched.
    """
    report = compare_weights(model, *states)
    problems = report.problems()
    if problems and not (allow_partial and fitting_share(model, report) > 0):
        fit = f"{len(report.fitting)} of {len(model.state_dict())} entries fit"
        doubts = "".join(f"; {layout.doubts()}" for layout in report.layouts if layout and layout.doubts())
        raise MisfitError(
            f"{name} is not for this {type(model).__name__}: {fit}{doubts}; class count, widths and modules must be "
            "those it was trained with\n  " + "\n  ".join(_shortened(problems))
        )
    model.load_state_dict(report.fitting, strict=False)
    return report


def _shortened(problems: list[str]) -> list[str]:
    """The first sentences, and of a long list in which modules the others are."""
    if len(problems) <= NAMED_IN_AN_ERROR:
        return problems
    counts = Counter(problem.partition(".")[0] for problem in problems[NAMED_IN_AN_ERROR:])
    places = ", ".join(f"{count} in {module}" for module, count in counts.items())
    return [*problems[:NAMED_IN_AN_ERROR], f"and {counts.total()} more: {places}"]


def fitting_share(model: nn.Module, report: WeightsReport) -> float:
    """How much of a model's parameters the files hold, 0 to 1; buffers and counters are nothing to start from."""
    sizes = {name: value.numel() for name, value in model.named_parameters()}
    return sum(sizes[name] for name in report.fitting if name in sizes) / max(sum(sizes.values()), 1)


def weights_fingerprint(model: nn.Module) -> str:
    """Twelve hexadecimal digits that tell a model's parameters from others; buffers, which a forward changes, not."""
    digest = hashlib.sha256()
    for name, value in model.named_parameters():
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:12]


def to_spconv2(weight: Tensor, layout: str) -> Tensor:
    """A sparse convolution's weight in the layout of spconv 2.x, (out, *kernel, in)."""
    order = SPCONV_LAYOUTS[layout]
    if order is None:
        return weight
    kernel = range(weight.dim() - 2)
    first, last = (-1, -2) if order == "in_out" else (-2, -1)
    return weight.permute(weight.dim() + first, *kernel, weight.dim() + last).contiguous()


def _sparse_layout(weights: Mapping[str, Tensor], target: Mapping[str, tuple[int, ...]]) -> SparseLayout | None:
    """The layout that makes most of a file's sparse weights fit, the first of equals; None without such weights."""
    if not weights:
        return None
    turned = {layout: {k: to_spconv2(v, layout) for k, v in weights.items()} for layout in SPCONV_LAYOUTS}
    fitting = {layout: [k for k, v in of.items() if tuple(v.shape) == target[k]] for layout, of in turned.items()}
    best = max(SPCONV_LAYOUTS, key=lambda layout: len(fitting[layout]))
    if not fitting[best]:
        return SparseLayout(None)

    def differs(layout: str) -> bool:
        return any(not torch.equal(turned[best][k], turned[layout][k]) for k in fitting[best])

    equals = [layout for layout in SPCONV_LAYOUTS if len(fitting[layout]) == len(fitting[best])]
    return SparseLayout(best, tuple(layout for layout in equals if layout != best and differs(layout)))
