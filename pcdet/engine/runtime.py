"""What a process runs on and with: device, threads, seeds, its share of a parallel model.

Precision and memory layout are those of :mod:`pcdet.engine.precision`, importable from here too.
"""

from __future__ import annotations

import contextlib
import os
import random

import numpy as np
import torch
from torch import nn

from pcdet.engine.precision import Precision, use_channels_last  # noqa: F401 (offered here too)
from pcdet.registry import ConfigError
from pcdet.utils import commu_utils
from pcdet.utils.common_utils import set_random_seed

FIXED_SEED = 666  # OpenPCDet's --fix_random_seed
SEEDS = 2**32  # numpy takes no others; torch takes these too


def select_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """The device called ``auto`` (CUDA if there is one), ``cpu`` or ``cuda``; GPUs are numbered by local rank.

    Raises:
        ValueError: for another name, or CUDA where torch finds none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device cuda was asked for, but torch {torch.__version__} finds no GPU; use --device cpu, or see "
            "`python -m pcdet.doctor`"
        )
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank)


def set_threads(threads: int | None = None, processes: int = 1) -> int:
    """Sets the threads of torch and of the linear-algebra libraries for this process, and returns their number.

    Args:
        threads: their number; None: ``OMP_NUM_THREADS`` where it is set, else one with several processes on this
            machine (their threads would only take time from each other), else all CPUs that this process may use.
        processes: processes of this run on this machine.
    """
    if threads is None and "OMP_NUM_THREADS" in os.environ:
        threads = torch.get_num_threads()
    if threads is None:
        threads = 1 if processes > 1 else available_cpus()
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    torch.set_num_threads(threads)
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=threads)
    return threads


def available_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rng_state() -> dict:
    """State of the generators of Python, numpy and torch, as containers of numbers and tensors only."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    version, internal, gauss_next = random.getstate()
    return {
        "python": (version, torch.tensor(internal, dtype=torch.int64), gauss_next),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict) -> None:
    """Puts the generators back to a state from :func:`rng_state`; GPUs that are not there now are left out."""
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss_next))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index, cuda_state in enumerate(state["cuda"][:devices]):
        torch.cuda.set_rng_state(cuda_state, index)


@contextlib.contextmanager
def preserved_rng():
    """Leaves the generators after the block as they were before it."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


def read_seed(text: str) -> int:
    """The number in a ``--seed`` flag.

    Raises:
        ConfigError: it is not a whole number that every generator takes.
    """
    try:
        seed = int(text)
    except ValueError:
        seed = -1
    if not 0 <= seed < SEEDS:
        raise ConfigError(f"--seed must be a whole number from 0 to {SEEDS - 1}, got {text!r}")
    return seed


def choose_seed(seed: int | None = None, fixed: bool = False, state: dict | None = None) -> int:
    """The seed of a run, the same on every rank: as named, else the checkpoint's, else 666 if fixed, else a new one."""
    if seed is None and state is not None:
        seed = state.get("seed")
    if seed is None:
        seed = FIXED_SEED if fixed else int.from_bytes(os.urandom(4), "little") % 2**31
    return commu_utils.broadcast_from_main(seed)


def seed_process(seed: int, deterministic: bool = False) -> None:
    """Seeds every generator of this rank; ``deterministic`` asks cuDNN for repeatable kernels."""
    set_random_seed(seed + commu_utils.get_rank())
    torch.backends.cudnn.deterministic = deterministic


def parallelize(
    model: nn.Module, device: torch.device, *, sync_bn: bool = False, find_unused: bool = False
) -> nn.Module:
    """The model in DistributedDataParallel where a launcher started several processes, else the model itself.

    Args:
        model: on its device. An attribute ``find_unused_parameters`` that is true counts like ``find_unused``.
        device: of this process.
        sync_bn: share BatchNorm statistics between GPUs.
        find_unused: some parameters may not take part in a loss; costs time.

    Raises:
        ConfigError: for ``sync_bn`` without GPUs.
    """
    if commu_utils.get_world_size() == 1:
        return model
    if sync_bn:
        if device.type == "cpu":
            raise ConfigError("--sync_bn needs GPUs: torch's SyncBatchNorm has no CPU version; leave it out")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    # Every forward sends all buffers to all processes. Those that no checkpoint holds, such as anchors (9 MB for
    # PointPillars on KITTI), are constants that each process has made itself.
    constants = {name for name, _ in model.named_buffers()} - set(model.state_dict())
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, constants)
    return nn.parallel.DistributedDataParallel(
        model,
        device_ids=None if device.type == "cpu" else [device.index],
        find_unused_parameters=find_unused or getattr(model, "find_unused_parameters", False),
    )
