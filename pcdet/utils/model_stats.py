"""Size and arithmetic of a model: parameters and multiply-accumulates (MACs), dense and sparse told apart.

``count_macs`` counts a forward pass, ``MacCounter`` whatever runs in its block, backward passes too.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, register_flop_formula

from pcdet.utils.spconv_utils import is_sparse_convolution

SPACE = 3  # coordinates up to which neighbours are searched for without all distances


class Macs(NamedTuple):
    """Multiply-accumulates.

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

    def plus(self, other: Macs) -> Macs:
        """With others'."""
        return Macs(self.dense + other.dense, self.sparse + other.sparse)

    def minus(self, earlier: Macs) -> Macs:
        """Those that came after ``earlier``."""
        return Macs(self.dense - earlier.dense, self.sparse - earlier.sparse)


NO_MACS = Macs(0, 0)


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

    ``MacCounter`` says what is counted. Work on a point cloud depends on the cloud, so quote the frame with the number.

    Returns:
        For every direct child that ran, and "" for what runs outside of them.
    """
    parts: dict[str, Macs] = {}
    before: dict[str, Macs] = {}
    counter = MacCounter(model)

    def begin(name: str) -> None:
        before[name] = counter.done

    def end(name: str) -> None:
        parts[name] = parts.get(name, NO_MACS).plus(counter.done.minus(before[name]))

    with contextlib.ExitStack() as watched:
        watched.enter_context(counter)  # first: what a layer did counts before its part ends
        for name, child in model.named_children():
            watched.enter_context(child.register_forward_pre_hook(lambda _m, _a, name=name: begin(name)))
            watched.enter_context(child.register_forward_hook(lambda _m, _a, _o, name=name: end(name)))
        model(*inputs)
    rest = counter.done
    for part in parts.values():
        rest = rest.minus(part)
    return {**parts, **({"": rest} if rest.total else {})}


class _Flops:
    """Computes each op of its block, and adds the FLOPs that PyTorch's formulas give it."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=out)
        return out


class _FlopCounter(_Flops, TorchDispatchMode):
    """The same as a mode: what PyTorch's ``FlopCounterMode`` counts, but for its table of modules.

    PyTorch wraps a method ``__torch_dispatch__`` that a mode has of its own, so that its compiler leaves it alone, and
    loads the compiler for that: 2.2 s. This one is inherited.
    """


class MacCounter:
    """Context that counts the multiply-accumulates of what runs in it, forward and backward.

    Counted: convolutions (the 1x1 ones of point networks among them), transposed convolutions and matrix products,
    by PyTorch's own formulas (which give two FLOPs for each MAC); spconv's convolutions, as pairs of an
    input and an output site times their channels, and twice that in the backward pass, which multiplies the same pairs
    for the gradients of input and weights; and all distances between rows of more than three channels (``knn``,
    ``torch.cdist``), as pairs of rows of a frame times channels. Not counted: products with a vector, normalisation,
    activations, pooling, scatters, sums over edges and differences of them, sorting, the search for sites, the
    project's other ops (voxels, neighbours in space, sampling, interpolation, boxes) and post-processing.

    Args:
        *models: whose sparse convolutions are told apart.
    """

    def __init__(self, *models: nn.Module):
        _register_formulas()
        self._counter = _FlopCounter()
        self._models = models
        self._handles: list[Any] = []
        self._started: dict[Any, int] = {}  # FLOPs at the start of a layer's forward, or of a node of its backward
        self._inside_sparse = 0  # FLOPs that the counter saw spconv do: on a CPU it multiplies matrices, on a GPU not
        self._sparse = 0

    @property
    def done(self) -> Macs:
        """Those so far."""
        return Macs((self._counter.total - self._inside_sparse) // 2, self._sparse)

    def __enter__(self) -> MacCounter:
        for model in self._models:
            for module in filter(is_sparse_convolution, model.modules()):
                self._handles.append(module.register_forward_pre_hook(lambda module, _: self._begin(module)))
                self._handles.append(module.register_forward_hook(self._end_forward))
        self._counter.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._counter.__exit__(*error)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _begin(self, what: Any) -> None:
        self._started[what] = self._counter.total

    def _end(self, what: Any) -> None:
        self._inside_sparse += self._counter.total - self._started.pop(what)

    def _end_forward(self, module: nn.Module, args: Any, out: Any) -> None:
        self._end(module)
        macs = count_pairs(module, args[0], out) * module.in_channels * module.out_channels
        self._add_sparse(macs)
        last = out.features.grad_fn
        if last is None:
            return
        self._handles.append(last.register_prehook(lambda _: self._add_sparse(2 * macs)))
        for node in _nodes_between(last, args[0].features.grad_fn):
            self._handles.append(node.register_prehook(lambda _, node=node: self._begin(node)))
            self._handles.append(node.register_hook(lambda _i, _o, node=node: self._end(node)))

    def _add_sparse(self, macs: int) -> None:
        self._sparse += macs


def _nodes_between(last: Any, before: Any) -> list[Any]:
    """The nodes of an autograd graph from ``last`` on, up to the leaves and to ``before``, which is left out."""
    found, waiting = [], [last]
    while waiting:
        node = waiting.pop()
        if node is None or node is before or node in found:
            continue
        found.append(node)
        waiting += [following for following, _ in node.next_functions]
    return found


def _register_formulas() -> None:
    """Tells PyTorch's counter of all-pairs distances, which it leaves out."""
    for op, formula in ((_loaded_knn(), _knn_flops), (torch.ops.aten._cdist_forward, _cdist_flops)):
        if op is not None and op not in flop_registry:
            register_flop_formula(op, get_raw=True)(formula)
    if torch.ops.aten._cdist_backward not in flop_registry:
        register_flop_formula(torch.ops.aten._cdist_backward, get_raw=True)(_cdist_backward_flops)


def _loaded_knn() -> Any:
    """The native op, or None where no module has loaded the library yet."""
    return getattr(torch.ops.pcdet, "knn", None)


def _knn_flops(query: Tensor, base: Tensor, _k: int, query_frame=None, base_frame=None, *_, out_val=None) -> int:
    """Of a search among wide rows, which takes the distance of every query from every row of its frame.

    In space, up to three coordinates, a CPU finds neighbours in a tree and leaves most distances out.
    """
    if query.shape[1] <= SPACE:
        return 0
    if query_frame is None:
        return 2 * len(query) * len(base) * query.shape[1]
    frames = 1 + max((int(ids.max()) for ids in (query_frame, base_frame) if len(ids)), default=0)
    counts = [torch.bincount(ids, minlength=frames) for ids in (query_frame, base_frame)]
    return 2 * int((counts[0] * counts[1]).sum()) * query.shape[1]


def _cdist_flops(first: Tensor, second: Tensor, *_, out_val=None, **__) -> int:
    """Of all distances between the rows of two (..., rows, channels) tensors."""
    return 2 * out_val.numel() * first.shape[-1] if first.shape[-1] > SPACE else 0


def _cdist_backward_flops(_grad: Tensor, first: Tensor, _second: Tensor, _p: float, table: Tensor, *_, **__) -> int:
    """Of the gradient of one of both sides."""
    return 2 * table.numel() * first.shape[-1] if first.shape[-1] > SPACE else 0


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
