"""Several processes: two on the CPU under torchrun, and the ways in which starting them can go wrong."""

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support.ranks import free_port

from pcdet.engine import dist as engine_dist
from pcdet.engine.dist import DistInfo, end_dist, init_dist, split_batch_size
from pcdet.engine.runtime import parallelize
from pcdet.registry import ConfigError
from pcdet.utils import commu_utils

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]

HERE = Path(__file__).resolve().parent


def torchrun(script, *args, processes=2):
    """Runs a script in several processes that can import pcdet and what tests share."""
    path = os.pathsep.join([str(HERE.parent), str(HERE.parents[1])])
    return subprocess.run(
        [*TORCHRUN, str(processes), str(script), *args], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What both ranks of dist_worker.py have written."""
    out = tmp_path_factory.mktemp("dist")
    done = torchrun(HERE / "dist_worker.py", str(out))
    assert done.returncode == 0, done.stderr[-3000:]
    return out, [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_ranks_know_their_places_and_share_the_seed(two_processes):
    _, (first, second) = two_processes
    assert first["info"] == [0, 2, 2] and second["info"] == [1, 2, 2]
    assert first["seed"] == second["seed"]


def test_both_ranks_train_the_same_weights_and_rank_0_saves_them(two_processes):
    out, (first, second) = two_processes
    assert first["weight"] == second["weight"] and first["epoch"] == 2
    assert sorted(p.name for p in out.glob("*.pth")) == ["checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth"]
    assert json.loads((out / "run.json").read_text())["train_cpu_s"] > 0


def test_a_checkpoint_that_one_rank_alone_cannot_read_is_left_out_by_all(two_processes):
    _, ranks = two_processes
    for rank in ranks:
        evaluated, error = rank["one_unreadable"]
        assert evaluated == [4]  # epoch 2 on both ranks
        assert error.startswith("1 of 2 checkpoints were not evaluated") and "checkpoint_epoch_1.pth" in error


def test_buffers_that_no_checkpoint_holds_are_not_sent_around(two_processes):
    """Such as anchors. Others, such as statistics of norms, rank 1 gets from rank 0."""
    _, (first, second) = two_processes
    assert first["buffers"] == [0, 0] and second["buffers"] == [1, 0]


def test_values_are_exchanged(two_processes):
    for facts in two_processes[1]:
        assert facts["tensors"] == {"a": 3.0} and facts["mean"] == 0.5
        assert facts["all"] == [{"rank": 0}, {"rank": 1}]


def test_an_odd_number_of_frames_is_evaluated_without_duplicates(two_processes):
    out, (first, second) = two_processes
    annos = pickle.loads((out / "r/result.pkl").read_bytes())
    assert [anno["frame_id"] for anno in annos] == [f"{i:06d}" for i in range(5)]
    assert first["result"]["recall/rcnn_0.3"] == 0.5 and second["result"] == {}
    assert first["epochs"] == second["epochs"] == [1, 2]


def test_a_dead_rank_ends_the_others_soon(tmp_path):
    script = tmp_path / "dies.py"
    script.write_text(
        "import datetime, os, torch\n"
        "from pcdet.engine.dist import init_dist\n"
        "info = init_dist('pytorch', 'cpu', timeout=datetime.timedelta(seconds=60))\n"
        "if info.rank == 1: os._exit(3)\n"
        "torch.distributed.all_reduce(torch.ones(1))\n"
    )
    started = time.monotonic()
    done = torchrun(script)
    assert done.returncode != 0 and time.monotonic() - started < 50


def test_one_process_is_a_world_of_its_own():
    info = init_dist("none")
    assert info == DistInfo() and info.is_main and not info.distributed
    assert commu_utils.all_gather(1) == commu_utils.gather_to_main(1) == [1]
    assert commu_utils.broadcast_from_main("x") == "x" and commu_utils.average_reduce_value(2) == 2.0
    tensors = {"a": torch.ones(1)}
    assert commu_utils.reduce_dict(tensors) is tensors
    commu_utils.synchronize()
    end_dist()


@pytest.fixture
def no_launcher(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "MASTER_")) or name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name)
    return monkeypatch


def test_a_missing_launcher_is_explained(no_launcher):
    with pytest.raises(ValueError, match="needs RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT.*dist_train.sh"):
        init_dist("pytorch")
    with pytest.raises(ValueError, match="needs SLURM_PROCID.*srun"):
        init_dist("slurm")
    with pytest.raises(ValueError, match="got 'mpi'"):
        init_dist("mpi")


def test_slurms_variables_are_understood(no_launcher, tmp_path):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\necho localhost\necho other\n")
    scontrol.chmod(0o755)
    no_launcher.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name, value in {"PROCID": "0", "NTASKS": "1", "NODELIST": "a[1-2]", "LOCALID": "0"}.items():
        no_launcher.setenv(f"SLURM_{name}", value)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        no_launcher.setenv(name, "")
        no_launcher.delenv(name)
    try:
        info = init_dist("slurm", "cpu", tcp_port=free_port())
        assert (info.rank, info.world_size, info.distributed) == (0, 1, True)
        assert os.environ["MASTER_ADDR"] == "localhost"
        model = torch.nn.Linear(1, 1)
        assert parallelize(model, torch.device("cpu")) is model
    finally:
        end_dist()


def test_more_processes_than_gpus_are_refused(no_launcher):
    for name, value in {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "x",
        "MASTER_PORT": "1",
    }.items():
        no_launcher.setenv(name, value)
    no_launcher.setattr(torch.cuda, "is_available", lambda: True)
    no_launcher.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="there are 1; start fewer processes or add --device cpu"):
        init_dist("pytorch")


def test_a_group_that_was_left_is_kept_until_the_process_ends():
    """What it keeps from happening is a race of two processes, which `make soak` plays (ranks-b21c031a.json)."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    group = torch.distributed.group.WORLD
    end_dist()
    assert not torch.distributed.is_initialized() and engine_dist._LEFT[-1] is group


def test_the_batch_is_divided_by_the_world_size():
    assert split_batch_size(8, 3, 4) == 2
    assert split_batch_size(None, 3, 4) == 3
    with pytest.raises(ValueError, match=r"multiple of their number \(4\), got 6; try 4"):
        split_batch_size(6, 3, 4)


def test_sync_bn_needs_gpus(monkeypatch):
    monkeypatch.setattr(commu_utils, "get_world_size", lambda: 2)
    with pytest.raises(ConfigError, match="--sync_bn needs GPUs"):
        parallelize(torch.nn.Linear(1, 1), torch.device("cpu"), sync_bn=True)
