"""Reads the hardware's counters of one call of the slowest kernel of pcdet, with Nsight Compute.

    python -m gpu_check.counters --kernels PROFILE.json --json FILE

PROFILE.json is what ``profile_step`` has written. ``--step DETECTOR`` is the program that ncu watches: one training
step.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from gpu_check.state import write_json

SECTIONS = ("SpeedOfLight", "MemoryWorkloadAnalysis", "Occupancy", "LaunchStats")


def function_name(kernel: str) -> str:
    """A kernel's name as the profiler writes it -> the function's own, without scope, template and arguments.

    Raises:
        ValueError: there is none in it.
    """
    plain = kernel.replace("(anonymous namespace)::", "").removeprefix("void ")
    name = re.split("[<(]", plain, maxsplit=1)[0].rsplit("::", 1)[-1].strip()
    if not name.isidentifier():
        raise ValueError(f"no function's name in the kernel {kernel!r}")
    return name


def command_of(kernel: str, detector: str) -> list[str]:
    """Nsight Compute on one call of the kernel; the clocks are left as they are."""
    ncu = ["ncu", "--kernel-name", f"regex:^{function_name(kernel)}$", "--launch-count", "1", "--clock-control", "none"]
    for section in SECTIONS:
        ncu += ["--section", section]
    return [*ncu, sys.executable, "-m", "gpu_check.counters", "--step", detector]


def one_step(detector: str) -> None:
    """One training step on the GPU."""
    from _device import Device  # what ncu does not watch needs no torch

    from gpu_check.distilled import build_distillation

    device = Device("cuda")
    run = build_distillation(detector, device, small=False)
    run.step(run.batch(0))
    device.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--step", metavar="DETECTOR")
    args = parser.parse_args()
    if args.step:
        one_step(args.step)
        return
    profile = json.loads(args.kernels.read_text())
    done = subprocess.run(command_of(profile["slowest_of_ours"], profile["slowest_in"]), capture_output=True, text=True)
    print(done.stdout + done.stderr)
    lines = [line for line in done.stdout.splitlines() if line and not line.startswith("==PROF==")]
    problem = f"ncu ended with exit status {done.returncode}: {lines[-1] if lines else ''}" if done.returncode else None
    if problem is None and not any("Duration" in line for line in lines):
        problem = f"ncu saw no call of {profile['slowest_of_ours']}"
    write_json(args.json, {"kernel": profile["slowest_of_ours"], "counters": "\n".join(lines), "problem": problem})


if __name__ == "__main__":
    main()
