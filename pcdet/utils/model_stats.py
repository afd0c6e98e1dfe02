"""Size and arithmetic of a model: parameters and multiply-accumulates (MACs), dense and sparse told apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pcdet.utils.spconv_utils import is_sparse_convolution


class Macs(NamedTuple):
    """Multiply-accumulates of one forward pass.

    Attributes:
        dense: of convolutions, transposed convolutions and matrix products on dense tensors.
        sparse: of sparse convolutions, which depend on where the points are.
    """

    dense: int
    sparse: int

    @property
    def total(self) -> int:
        """Both."""
        return self.dense + self.sparse


def count_parameters(model: nn.Module) -> int:
    """Number of learnable values in ``model``."""
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, *inputs: Any) -> Macs:
    """Multiply-accumulates of one forward pass; see ``count_macs_by_part``, whose parts are added here."""
    parts = count_macs_by_part(model, *inputs).values()
    return Macs(sum(part.dense for part in parts), sum(part.sparse for part in parts))


@torch.no_grad()
def count_macs_by_part(model: nn.Module, *inputs: Any) -> dict[str, Macs]:
    """Multiply-accumulates of one forward pass by child of ``model``, gradients off, in the mode the model is in.

    Counted: convolutions (the 1x1 ones of point networks among them), transposed convolutions and matrix products,
    through PyTorch's ``FlopCounterMode`` (which reports two FLOPs for each MAC); and spconv's convolutions, as pairs
    of an input and an output site times their channels. Not counted: normalisation, activations, pooling, scatters,
    sorting, the search for sites, the project's own ops (voxels, neighbours, sampling, interpolation, boxes) and
    post-processing. Work on a point cloud depends on the cloud, so quote the frame with the number.

    Returns:
        For every direct child that ran, and "" for what runs outside of them.
    """
    counter = FlopCounterMode(display=False)
    tally = _Tally(counter)
    with tally.watching(model), counter:
        model(*inputs)
    return tally.by_part()


class _Tally:
    """Who did how much, read off a running counter whenever a module begins or ends."""

    def __init__(self, counter: FlopCounterMode):
        self._counter = counter
        self._handles: list[Any] = []
        self._started: dict[nn.Module, int] = {}
        self._inside_sparse = 0  # FLOPs that the counter saw spconv do: on a CPU it multiplies matrices, on a GPU not
        self._before: dict[str, tuple[int, int]] = {}
        self._parts: dict[str, Macs] = {}
        self._sparse = 0

    def watching(self, model: nn.Module) -> _Tally:
        """Itself as a context in which the modules of ``model`` are watched."""
        for module in filter(is_sparse_convolution, model.modules()):
            self._handles.append(module.register_forward_pre_hook(self._begin_sparse))
            self._handles.append(module.register_forward_hook(self._end_sparse))
        for name, child in model.named_children():
            self._handles.append(child.register_forward_pre_hook(lambda _m, _a, name=name: self._begin_part(name)))
            self._handles.append(child.register_forward_hook(lambda _m, _a, _o, name=name: self._end_part(name)))
        return self

    def __enter__(self) -> _Tally:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def by_part(self) -> dict[str, Macs]:
        """What each part did, and the rest if there is any."""
        dense, sparse = self._now()
        parts = self._parts.values()
        rest = Macs(dense - sum(part.dense for part in parts), sparse - sum(part.sparse for part in parts))
        return {**self._parts, **({"": rest} if rest.total else {})}

    def _now(self) -> tuple[int, int]:
        return (self._counter.get_total_flops() - self._inside_sparse) // 2, self._sparse

    def _begin_part(self, name: str) -> None:
        self._before[name] = self._now()

    def _end_part(self, name: str) -> None:
        known = self._parts.get(name, Macs(0, 0))
        (dense, sparse), (dense_before, sparse_before) = self._now(), self._before[name]
        self._parts[name] = Macs(known.dense + dense - dense_before, known.sparse + sparse - sparse_before)

    def _begin_sparse(self, module: nn.Module, _args: Any) -> None:
        self._started[module] = self._counter.get_total_flops()

    def _end_sparse(self, module: nn.Module, args: Any, out: Any) -> None:
        self._sparse += count_pairs(module, args[0], out) * module.in_channels * module.out_channels
        self._inside_sparse += self._counter.get_total_flops() - self._started.pop(module)


def count_pairs(module: Any, given: Any, out: Any) -> int:
    """How many pairs of an input and an output site a sparse convolution multiplies.

    Args:
        module: spconv's convolution.
        given: its input, with ``indices`` (M, 4) [frame, z, y, x].
        out: its output.
    """
    if module.transposed:
        raise NotImplementedError(f"the MACs of {type(module).__name__} are not counted: transposed sparse convolution")
    layout = module
    fine, coarse = given.indices, out.indices
    if module.inverse:  # it undoes the convolution of the same key, over the same pairs
        layout, fine, coarse = given.find_indice_pair(module.indice_key), coarse, fine
    kernel, dilation = getattr(layout, "kernel_size", None) or layout.ksize, layout.dilation
    stride, padding = ([1] * len(kernel), None) if module.subm else (layout.stride, layout.padding)
    if padding is None:  # a site stays where it is: the kernel's centre lies on it
        padding = [d * (k // 2) for k, d in zip(kernel, dilation, strict=True)]
    return _pairs(fine.long(), coarse.long(), kernel, stride, padding, dilation)


def _pairs(
    fine: Tensor,
    coarse: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> int:
    """Pairs with fine = coarse * stride - padding + tap * dilation in the same frame, over all taps of the kernel."""
    if len(fine) == 0 or len(coarse) == 0:
        return 0
    reach = coarse.new_tensor([0, *(d * (k - 1) for k, d in zip(kernel, dilation, strict=True))])
    corner = coarse * coarse.new_tensor([1, *stride]) - coarse.new_tensor([0, *padding])
    low = torch.minimum(fine.amin(0), corner.amin(0))
    size = torch.maximum(fine.amax(0), (corner + reach).amax(0)) - low + 1
    step = size.flip(0).cumprod(0).flip(0).roll(-1)
    step[-1] = 1
    occupied = ((fine - low) * step).sum(1).sort().values
    corner = ((corner - low) * step).sum(1)
    found = 0
    for tap in itertools.product(*(range(0, d * k, d) for k, d in zip(kernel, dilation, strict=True))):
        site = corner + int((step[1:] * step.new_tensor(tap)).sum())
        at = torch.searchsorted(occupied, site).clamp(max=len(occupied) - 1)
        found += int((occupied[at] == site).sum())
    return found
