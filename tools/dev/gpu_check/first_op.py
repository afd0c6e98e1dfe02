"""Runs one native op on the device and holds its result against the CPU's: the library loads and a kernel starts."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from _device import Device

from gpu_check.state import write_json
from pcdet.ops.knn import knn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--small", action="store_true", help="changes nothing: the op is small")
    args = parser.parse_args()
    device = Device(args.device)
    base = torch.randn(1000, 16, generator=torch.Generator().manual_seed(0))
    began = time.perf_counter()
    distance, index = (part.cpu() for part in knn(base[:50].to(device.torch), base.to(device.torch), 8))
    seconds = time.perf_counter() - began
    wanted_distance, wanted_index = knn(base[:50], base, 8)
    torch.testing.assert_close(distance, wanted_distance, rtol=1e-4, atol=1e-5)  # a GPU fuses products and sums
    same = float((index == wanted_index).float().mean())
    problem = None if same > 0.99 else f"only {same:.1%} of the neighbours are the CPU's"
    write_json(args.json, {"op": "knn", "seconds": seconds, "same_neighbours": same, "problem": problem})


if __name__ == "__main__":
    main()
