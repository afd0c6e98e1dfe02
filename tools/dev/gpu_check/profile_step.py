"""Lists the kernels of the distilled training steps by the time that they take on the device.

    python -m gpu_check.profile_step --device cuda --json FILE [--small] [--detectors pointpillar ...]

On a CPU, and on the emulated GPU, whose kernels run in calls of the CPU, PyTorch's operators stand for the kernels.
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from _device import Device
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from gpu_check.distilled import CONFIGS, build_distillation
from gpu_check.state import write_json

WARM_UP, STEPS, TOP = 3, 3, 15
OURS = re.compile(r"\bpcdet::")
NAME_LENGTH = 120


def kernels_of(detector: str, device: Device, small: bool) -> list[dict]:
    """Name, milliseconds and calls of every kernel of a step, and its share of all kernels' time; the slowest first."""
    run = build_distillation(detector, device, small)
    batch, steps = run.batch(0), 1 if small else STEPS
    for _ in range(1 if small else WARM_UP):
        run.step(batch)
    device.wait()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.is_cuda else [])]
    with profile(activities=activities) as profiler:
        for _ in range(steps):
            run.step(batch)
        device.wait()
    wanted = DeviceType.CUDA if device.is_cuda else DeviceType.CPU
    found = []
    for event in profiler.key_averages():
        time_us = event.self_device_time_total if device.is_cuda else event.self_cpu_time_total
        # An annotation, such as that of the optimizer, spans kernels that are listed themselves.
        if event.device_type == wanted and time_us > 0 and not getattr(event, "is_user_annotation", False):
            found.append({"name": event.key, "ms": time_us / 1e3 / steps, "calls": round(event.count / steps, 1)})
    total = sum(row["ms"] for row in found)
    rows = [{**row, "share": row["ms"] / total} for row in found]
    return sorted(rows, key=lambda row: -row["ms"])


def slowest_of_ours(kernels: dict[str, list[dict]]) -> tuple[str, str] | None:
    """(detector, name) of the kernel of pcdet that takes longest in any detector's step; None where there is none."""
    found = [(row["ms"], detector, row["name"]) for detector, rows in kernels.items() for row in rows]
    ours = [entry for entry in found if OURS.search(entry[2])]
    return max(ours)[1:] if ours else None


def summary(kernels: dict[str, list[dict]]) -> dict:
    """What the report keeps: the slowest kernels of each detector, and which of ours is the slowest."""
    slowest = slowest_of_ours(kernels)
    top = {
        detector: [{**row, "name": row["name"][:NAME_LENGTH]} for row in rows[:TOP]]
        for detector, rows in kernels.items()
    }
    return {
        "kernels": top,
        "slowest_of_ours": slowest and slowest[1],
        "slowest_in": slowest and slowest[0],
        "problem": None if slowest else "no kernel of pcdet was seen",
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--detectors", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    device = Device(args.device)
    kernels = {detector: kernels_of(detector, device, args.small) for detector in args.detectors}
    write_json(args.json, summary(kernels))


if __name__ == "__main__":
    main()
