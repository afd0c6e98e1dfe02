"""Times the edge convolution of 6000 centres with 128 neighbours each among 16,000 rows, onto 32 channels.

    python tools/benchmarks/bm_edge_conv.py [--device cpu] [--repeats 9] [--threads N] [--json FILE]

Contenders: DGCNN's form (a 1 x 1 Conv2d on a (1, 2C, N, K) tensor), a linear layer on gathered and concatenated rows,
and the factorised form W_n x_j + W_c x_i in plain PyTorch. Memory is the rise at a first call in a process of its own.
"""

from __future__ import annotations

import torch
from _benchmark import OURS, Benchmark
from _memory import note_peaks, serve_peak
from torch.nn import functional

from pcdet.ops.edge_conv import edge_conv

CENTRES, NEIGHBOURS, ROWS, OUT = 6000, 128, 16_000, 32


def inputs(channels: int, device: torch.device, small: bool, gradients: bool):
    """Rows (M, C), which are centres (G,), idx (G, K), weight (C', 2C)."""
    share = 100 if small else 1
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS // share, channels, generator=generator).to(device).requires_grad_(gradients)
    centres = torch.randperm(len(x), generator=generator)[: CENTRES // share].to(device)
    idx = torch.randint(0, len(x), (len(centres), NEIGHBOURS // (4 if small else 1)), generator=generator).to(device)
    weight = (torch.randn(OUT, 2 * channels, generator=generator) / channels).to(device).requires_grad_(gradients)
    return x, centres, idx, weight


def conv2d(x, centres, idx, weight, reduce):
    edges = torch.cat([x[idx], x[centres][:, None].expand(-1, idx.shape[1], -1)], dim=2)
    out = functional.conv2d(edges.permute(2, 0, 1)[None].contiguous(), weight[:, :, None, None])
    return out.amax(dim=3) if reduce == "max" else out


def linear(x, centres, idx, weight, reduce):
    edges = torch.cat([x[idx], x[centres][:, None].expand(-1, idx.shape[1], -1)], dim=2)
    out = edges @ weight.T
    return out.amax(dim=1) if reduce == "max" else out


def factorised(x, centres, idx, weight, reduce):
    to_neighbour, to_centre = weight.chunk(2, dim=1)
    out = functional.embedding(idx, x @ to_neighbour.T) + (x[centres] @ to_centre.T)[:, None]
    return out.amax(dim=1) if reduce == "max" else out


def ours(x, centres, idx, weight, reduce):
    return edge_conv(x, x[centres], idx, weight, reduce=reduce)


CONTENDERS = {
    OURS: ours,
    "factorised, plain PyTorch": factorised,
    "gather + cat + linear": linear,
    "gather + cat + conv2d": conv2d,
}


def contenders(channels: int, reduce: str, backward: bool):
    """The calls of one case, as ``serve_peak`` wants them."""

    def make(device, small):
        given = inputs(channels, device, small, backward)

        def call(function):
            out = function(*given, reduce)
            return torch.autograd.grad(out, (given[0], given[3]), torch.ones_like(out)) if backward else out

        return {name: lambda f=function: call(f) for name, function in CONTENDERS.items()}

    return make


CASES = {
    f"{'forward + backward' if backward else 'forward'}, C {channels}, {reduce}": contenders(channels, reduce, backward)
    for backward in (False, True)
    for channels in (64, 32)
    for reduce in ("none", "max")
}


def agreement(ours, other):
    """The largest difference relative to the largest entry; the conv2d form's result has another layout."""
    if isinstance(ours, tuple):
        return f"differs by {max(_apart(a, b) for a, b in zip(ours, other, strict=True)):.0e}"
    if other.dim() == 4:
        other = other[0].permute(1, 2, 0)
    elif other.dim() == 3 and other.shape[0] == 1:
        other = other[0].T
    return f"differs by {_apart(ours, other):.0e}"


def _apart(a, b):
    return float((a - b).abs().max() / b.abs().max())


def main() -> None:
    serve_peak(CASES)
    benchmark = Benchmark(__doc__)
    for case, make in CASES.items():
        benchmark.run(
            f"{case}: {CENTRES} x {NEIGHBOURS} edges, {ROWS} rows", make(benchmark.device, benchmark.small), agreement
        )
        note_peaks(CASES, case, benchmark.rows[-len(CONTENDERS) :], benchmark)
    benchmark.finish()


if __name__ == "__main__":
    main()
