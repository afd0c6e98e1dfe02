"""Starting several processes that train or evaluate together."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from pcdet.utils.parent_death import die_with_parent

# A rank that waits longer than this for another gives up. Evaluation of nuScenes on rank 0 takes minutes.
TIMEOUT = timedelta(minutes=30)
LAUNCHERS = ("none", "pytorch", "slurm")
TORCHRUN_MARK = "TORCHELASTIC_RUN_ID"  # in the environment of every process that torchrun starts
LAST_DROP_S = 0.05  # in which the group's thread gets the interpreter's lock; it needs it for microseconds
_LEFT: list[dist.ProcessGroup] = []  # groups that this process has left


@dataclass(frozen=True)
class DistInfo:
    """Where this process stands: ``rank`` of ``world_size``, and ``local_rank`` on its own machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def distributed(self) -> bool:
        """Whether a launcher started this process, alone or with others."""
        return dist.is_available() and dist.is_initialized()

    @property
    def is_main(self) -> bool:
        """Whether this process logs and writes files."""
        return self.rank == 0


def init_dist(
    launcher: str = "none", device: str = "auto", *, tcp_port: int = 18888, timeout: timedelta = TIMEOUT
) -> DistInfo:
    """Joins the group of processes that the launcher started.

    NCCL carries tensors between GPUs; gloo carries CPU tensors and Python objects. A process that torchrun started ends
    when torchrun is killed.

    Args:
        launcher: ``none`` (one process), ``pytorch`` (torchrun) or ``slurm`` (srun).
        device: ``auto``, ``cpu`` or ``cuda``; ``cpu`` keeps NCCL out.
        tcp_port: where rank 0 listens; slurm only, torchrun brings its own.
        timeout: how long a collective waits for a rank before the run fails.

    Raises:
        ValueError: for an unknown launcher, or where the launcher's environment is missing.
    """
    if launcher == "none":
        return DistInfo()
    if launcher not in LAUNCHERS:
        raise ValueError(f"launcher must be one of {', '.join(LAUNCHERS)}, got {launcher!r}")
    if launcher == "slurm":
        _environment_from_slurm(tcp_port)
    missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ValueError(
            f"--launcher pytorch needs {', '.join(missing)} in the environment; start with "
            "`bash scripts/dist_train.sh NUM_PROCESSES ...` or torchrun, or leave --launcher out"
        )
    use_cuda = device != "cpu" and torch.cuda.is_available()
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if use_cuda:
        if local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"process {local_rank} of this machine needs a GPU of its own, but there are "
                f"{torch.cuda.device_count()}; start fewer processes or add --device cpu"
            )
        torch.cuda.set_device(local_rank)
    if TORCHRUN_MARK in os.environ:  # srun ends the processes of a step itself
        die_with_parent()
    dist.init_process_group(backend="cpu:gloo,cuda:nccl" if use_cuda else "gloo", timeout=timeout)
    return DistInfo(
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
        local_rank=local_rank,
        local_world_size=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
    )


def end_dist() -> None:
    """Leaves the group, if there is one.

    The group itself stays until the process ends. Else its last reference may be DistributedDataParallel's, which goes
    with the interpreter's lock held and waits for the group's own thread; that thread may need the lock to drop the
    tensors of the last exchange, and both would wait for ever (torch 2.13, gloo).
    """
    if dist.is_available() and dist.is_initialized():
        _LEFT.append(dist.group.WORLD)
        dist.destroy_process_group()
        time.sleep(LAST_DROP_S)


def split_batch_size(batch_size: int | None, per_process: int, world_size: int) -> int:
    """Samples per process: the total over all processes divided among them, or the configured number per process.

    Raises:
        ValueError: where the total cannot be divided evenly.
    """
    if batch_size is None:
        return per_process
    if batch_size < 1 or batch_size % world_size:
        raise ValueError(
            f"--batch_size is the total over all processes and must be a positive multiple of their number "
            f"({world_size}), got {batch_size}; try {max(batch_size // world_size, 1) * world_size}"
        )
    return batch_size // world_size


def _environment_from_slurm(tcp_port: int) -> None:
    """Translates srun's variables into those that torch.distributed reads."""
    env = os.environ
    missing = [name for name in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_NODELIST") if name not in env]
    if missing:
        raise ValueError(f"--launcher slurm needs {', '.join(missing)} in the environment; start with srun")
    if "MASTER_ADDR" not in env:
        hosts = subprocess.run(
            ["scontrol", "show", "hostnames", env["SLURM_NODELIST"]], capture_output=True, text=True, check=True
        )
        env["MASTER_ADDR"] = hosts.stdout.split()[0]
    env["MASTER_PORT"] = str(tcp_port)
    env["RANK"], env["WORLD_SIZE"] = env["SLURM_PROCID"], env["SLURM_NTASKS"]
    env["LOCAL_RANK"] = env.get("SLURM_LOCALID", "0")
    env["LOCAL_WORLD_SIZE"] = env.get("SLURM_NTASKS_PER_NODE", "1")
