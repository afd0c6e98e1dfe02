"""Times PointDistiller's criterion and its gradients: 6000 x 128 edges, teacher 64, student 32, 32 channels compared.

    python tools/benchmarks/bm_kd_loss.py [--device cpu] [--repeats 9] [--threads N] [--json FILE]

Both sides: edge convolution, batch norm in training mode, ReLU; then the weighted mean squared difference. Gradients of
the student's features and adapter, and of the teacher's adapter where it is trained. Neighbours are given. Contenders:
the released form (1 x 1 Conv2d + BatchNorm2d on (1, 2C, N, K) tensors), linear layers on gathered and concatenated
rows, and the factorised form in plain PyTorch. Memory is the rise at a first call in a process of its own. The error is
the largest over the loss and the gradients, relative to each one's largest entry, against the linear form in float64.
"""

from __future__ import annotations

import torch
from _benchmark import OURS, Benchmark
from _memory import note_peaks, serve_peak
from torch import nn
from torch.nn import functional

from pcdet.ops.edge_conv import edge_distance, edge_graph, linear_terms, normed

CENTRES, NEIGHBOURS, ROWS, TEACHER, STUDENT, OUT = 6000, 128, 16_000, 64, 32, 32


class Side:
    """One side's features and adapter."""

    def __init__(
        self, rows: int, channels: int, generator: torch.Generator, device, dtype, features: bool, adapter: bool
    ):
        self.x = torch.randn(rows, channels, generator=generator).to(device, dtype).requires_grad_(features)
        weight = torch.randn(OUT, 2 * channels, generator=generator) / channels**0.5
        self.weight = weight.to(device, dtype).requires_grad_(adapter)
        self.norm = nn.BatchNorm1d(OUT).to(device, dtype).requires_grad_(adapter)
        self.wanted = [self.x] * features + [self.weight, *self.norm.parameters()] * adapter


def inputs(device: torch.device, small: bool, both: bool, dtype=torch.float32):
    """student, teacher, centres (G,), idx (G, K), weights (G,) with a mean of one."""
    share = 100 if small else 1
    generator = torch.Generator().manual_seed(0)
    rows, count = ROWS // share, CENTRES // share
    student = Side(rows, STUDENT, generator, device, dtype, True, True)
    teacher = Side(rows, TEACHER, generator, device, dtype, False, both)
    centres = torch.randperm(rows, generator=generator)[:count].to(device)
    idx = torch.randint(0, rows, (count, NEIGHBOURS // (4 if small else 1)), generator=generator).to(device)
    weights = torch.rand(count, generator=generator).to(device, dtype) * 2
    return student, teacher, centres, idx, weights


def _edges(x, centres, idx):
    return torch.cat([x[idx], x[centres][:, None].expand(-1, idx.shape[1], -1)], dim=2)


def _weighted_mean(a, b, weights):
    return ((a - b).square().mean(dim=(1, 2)) * weights).mean()


def conv2d(student, teacher, centres, idx, weights):
    described = []
    for side in (student, teacher):
        edges = _edges(side.x, centres, idx).permute(2, 0, 1)[None].contiguous()
        out = functional.conv2d(edges, side.weight[:, :, None, None])
        norm = side.norm
        described.append(functional.batch_norm(out, None, None, norm.weight, norm.bias, training=True).relu())
    return ((described[0] - described[1]).square().mean(dim=(0, 1, 3)) * weights).mean()


def linear(student, teacher, centres, idx, weights):
    described = []
    for side in (student, teacher):
        out = _edges(side.x, centres, idx) @ side.weight.T
        described.append(side.norm(out.flatten(0, 1)).relu().view_as(out))
    return _weighted_mean(*described, weights)


def factorised(student, teacher, centres, idx, weights):
    described = []
    for side in (student, teacher):
        to_neighbour, to_centre = side.weight.chunk(2, dim=1)
        out = functional.embedding(idx, side.x @ to_neighbour.T) + (side.x[centres] @ to_centre.T)[:, None]
        described.append(side.norm(out.flatten(0, 1)).relu().view_as(out))
    return _weighted_mean(*described, weights)


def ours(student, teacher, centres, idx, weights):
    graph = edge_graph(idx, len(student.x))
    described = [
        normed(linear_terms(side.x, side.x[centres], side.weight), graph, side.norm)._replace(relu=True)
        for side in (student, teacher)
    ]
    return (edge_distance(*described, graph) * weights).mean() / (idx.shape[1] * OUT)


CONTENDERS = {
    OURS: ours,
    "factorised, plain PyTorch": factorised,
    "gather + cat + linear": linear,
    "gather + cat + conv2d (released)": conv2d,
}


def results(function, given, backward=True):
    """The loss and, with ``backward``, the gradients of both sides."""
    loss = function(*given)
    return (loss, *torch.autograd.grad(loss, [*given[0].wanted, *given[1].wanted])) if backward else (loss,)


def contenders(both: bool, backward: bool):
    """The calls of one case, as ``serve_peak`` wants them."""

    def make(device, small):
        given = inputs(device, small, both)
        return {name: lambda f=function: results(f, given, backward) for name, function in CONTENDERS.items()}

    return make


CASES = {
    "loss, and gradients of the student's side": contenders(False, True),
    "loss, and gradients of both adapters and the student": contenders(True, True),
    "loss alone": contenders(False, False),
}


def error(found, truth) -> float:
    """The largest relative error of any result."""
    return max(
        float(((a.double() - b).abs().max() / b.abs().max()).detach()) for a, b in zip(found, truth, strict=True)
    )


def main() -> None:
    serve_peak(CASES)
    benchmark = Benchmark(__doc__)
    truth = results(linear, inputs(benchmark.device, benchmark.small, True, torch.float64))
    errors = {}
    for name, function in CONTENDERS.items():
        errors[name] = error(results(function, inputs(benchmark.device, benchmark.small, True)), truth)
        print(f"error      {name:34s} {errors[name]:.1e}")
    del truth
    for case, make in CASES.items():
        benchmark.run(f"{case}: {CENTRES} x {NEIGHBOURS} edges, {ROWS} rows", make(benchmark.device, benchmark.small))
        rows = benchmark.rows[-len(CONTENDERS) :]
        for row in rows:
            row["error"] = errors[row["contender"]]
        note_peaks(CASES, case, rows, benchmark)
    benchmark.finish()


if __name__ == "__main__":
    main()
