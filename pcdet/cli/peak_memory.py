"""How much memory a detection takes at its peak, beyond the weights and the batch, which are there before it.

On a GPU this is what PyTorch has allocated. On a CPU it is the growth of the resident memory of a process that has done
nothing else: whatever is taken counts, tensors and scratch space of native code alike.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from pcdet.cli.contender import Conditions, Contender
from pcdet.utils.parent_death import die_with_parent

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # what Linux resets VmHWM by

Entry = tuple[str, str, str, Conditions]  # name, model file, checkpoint


def measures_resident_memory() -> bool:
    """Whether this system says how much memory a process has had at its peak since it was last asked: Linux does."""
    try:
        CLEAR.write_text(RESET_PEAK)
        return "VmHWM:" in STATUS.read_text()
    except OSError:
        return False


def peak_memory(entries: Sequence[Entry], batch_sizes: Sequence[int]) -> list[dict[int, int]]:
    """Bytes by batch size, one dictionary for each entry; empty ones where a CPU's memory cannot be measured.

    For a CPU a new process imports the package once, and each entry is measured in a fork of it.

    Args:
        entries: what to run, all on one device.
        batch_sizes: numbers of frames, the first of the test split.

    Raises:
        RuntimeError: a process ended before it was done, as it does when memory is exhausted.
    """
    if entries[0][-1].device.type != "cpu":
        return [_measure(entry, batch_sizes) for entry in entries]
    if not measures_resident_memory():
        return [{} for _ in entries]
    return _in_process("spawn", _measure_each, list(entries), list(batch_sizes))


def _measure_each(entries: Sequence[Entry], batch_sizes: Sequence[int]) -> list[dict[int, int]]:
    """In the new process, which runs no model itself: threads that it had started would be missing in its forks."""
    return [_in_process("fork", _measure, entry, batch_sizes) for entry in entries]


def _in_process(how: str, function: Callable, *args: Any) -> Any:
    """What a function returns in a process of its own, which ends with this one."""
    context = multiprocessing.get_context(how)
    try:
        with ProcessPoolExecutor(1, mp_context=context, initializer=die_with_parent) as executor:
            return executor.submit(function, *args).result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"the process that measures peak memory ended while it ran {args[0]}; where memory is exhausted, give "
            "smaller --batch_sizes, or --no_memory to leave it out"
        ) from error


def _measure(entry: Entry, batch_sizes: Sequence[int]) -> dict[int, int]:
    name, cfg_file, ckpt, conditions = entry
    torch.set_num_threads(conditions.threads)
    logger = logging.getLogger("pcdet")
    logger.setLevel("WARNING")  # it was all told when the model was evaluated
    contender = Contender(name, cfg_file, ckpt, conditions, logger)
    contender.detect(contender.batch([0]))  # code and kernels are loaded, weights are laid out
    peaks = {}
    for size in batch_sizes:
        batch = contender.batch(range(size))
        peaks[size] = growth(conditions.device, lambda batch=batch: contender.detect(batch))
        del batch  # the model has written into it
    return peaks


def growth(device: torch.device, work: Callable[[], object]) -> int:
    """Bytes that are taken at most on a device while this process works, beyond those before."""
    return growth_on_cpu(work) if device.type == "cpu" else growth_on_gpu(work, device)


def growth_on_cpu(work: Callable[[], object]) -> int:
    """Bytes of resident memory that this process gains at most while it works, on Linux."""
    gc.collect()
    _give_back_freed()
    CLEAR.write_text(RESET_PEAK)
    before = _status("VmRSS")
    work()
    return max(_status("VmHWM") - before, 0)


def growth_on_gpu(work: Callable[[], object], device: torch.device) -> int:
    """Bytes that PyTorch allocates at most on a GPU while it works, beyond those before."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _give_back_freed() -> None:
    """Hands freed memory back to the system, which glibc keeps: else work would take it unseen."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _status(key: str) -> int:
    """Bytes of an entry of Linux's /proc/self/status."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return 1024 * int(line.split()[1])
