"""Peak memory of benchmark contenders.

On a CPU each is measured in a process of its own, so that none reuses what another left behind. A GPU's allocator
counts what lives, not what is held: there the process that measures the time tells the peaks too.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from _benchmark import Benchmark
from _device import Device

FLAG = "--peak-of"
# (device, small) -> contender -> call
Contenders = Callable[[torch.device, bool], Mapping[str, Callable[[], object]]]


def serve_peak(cases: Mapping[str, Contenders]) -> None:
    """Ends the process with its answer if ``peak_mb`` started it; the first thing a benchmark calls."""
    if FLAG not in sys.argv:
        return
    case, contender, device, threads = sys.argv[sys.argv.index(FLAG) + 1 :]
    torch.set_num_threads(int(threads))
    make, where = cases[case], torch.device(device)
    make(where, True)[contender]()  # loads libraries and starts threads
    call = make(where, False)[contender]
    _return_free_memory()
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    call()
    print((_status("VmHWM") - before) / 2**20)
    sys.exit(0)


def peak_mb(case: str, contender: str, device: torch.device) -> float | None:
    """MB by which the first call of a contender raises the process's memory; None where the system does not tell."""
    if device.type != "cpu" or not Path("/proc/self/clear_refs").exists():
        return None
    command = [sys.executable, sys.argv[0], FLAG, case, contender, str(device), str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def peak_mb_of_gpu(make: Contenders, contender: str, device: Device) -> float:
    """MB of tensors that a call of a contender adds at its peak to those that it is given."""
    call = make(device.torch, False)[contender]
    device.wait()
    device.forget_peak()
    before = device.allocated()
    call()
    device.wait()
    return (device.peak() - before) / 2**20


def note_peaks(cases: Mapping[str, Contenders], case: str, rows: Iterable[dict], benchmark: Benchmark) -> None:
    """Puts ``peak_mb`` into the rows of a case, and prints it; None in a rehearsal."""
    device = benchmark.measured
    for row in rows:
        contender = row["contender"]
        if benchmark.small:
            row["peak_mb"] = None
        elif device.is_cuda:
            row["peak_mb"] = peak_mb_of_gpu(cases[case], contender, device)
        else:
            row["peak_mb"] = peak_mb(case, contender, device.torch)
        if row["peak_mb"] is not None:
            print(f"  {row['contender']:34s} {row['peak_mb']:10.1f} MB")


def _return_free_memory() -> None:
    """Gives back what is freed but still the process's own, which a contender would use without a rise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")
