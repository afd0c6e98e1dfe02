"""Children end with the process that started them, killed though it was."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import warm_python

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can end a child with its parent")

WAIT = """
import os, pathlib, time
def announce(*_):
    pathlib.Path(os.environ["PIDS"], str(os.getpid())).touch()
    time.sleep(600)
"""

LOADER = """
import torch
from torch.utils.data import DataLoader
from pcdet.datasets.seeding import seed_worker
class Slow(torch.utils.data.Dataset):
    def __len__(self): return 100
    def __getitem__(self, index): announce()
if __name__ == "__main__":
    next(iter(DataLoader(Slow(), num_workers=2, worker_init_fn=seed_worker, multiprocessing_context="{method}")))
"""

BLOCKED = """
import os, pathlib, threading
import torch
from torch.utils.data import DataLoader
from pcdet.datasets.seeding import seed_worker
class Large(torch.utils.data.Dataset):  # a sample does not go into a pipe at once
    def __len__(self): return 100
    def __getitem__(self, index):
        pathlib.Path(os.environ["PIDS"], str(os.getpid())).touch()
        return bytes(1 << 20)
def begin():
    global batches
    batches = iter(DataLoader(Large(), num_workers=2, worker_init_fn=seed_worker, collate_fn=list))
    while len(os.listdir(os.environ["PIDS"])) < 2:
        time.sleep(0.05)
    time.sleep(0.5)
if __name__ == "__main__":
    {begin}
    time.sleep(600)  # nothing is read: the workers block
"""

AHEAD = """
import os, sys, threading, time
import torch
from torch.utils.data import DataLoader
from pcdet.datasets.seeding import seed_worker
class Slow(torch.utils.data.Dataset):
    def __len__(self): return 8
    def __getitem__(self, index):
        time.sleep(0.2)
        return index
def begin():
    global batches, first  # the first is there when the workers have begun
    batches = iter(DataLoader(Slow(), num_workers=2, worker_init_fn=seed_worker, multiprocessing_context=sys.argv[1]))
    first = next(batches)
if __name__ == "__main__":
    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    time.sleep(1)
    print(int(first) + sum(int(batch) for batch in batches))
"""

INFOS = """
from pcdet.datasets.workers import worker_pool
if __name__ == "__main__":
    with worker_pool(2) as run:
        list(run(announce, list(range(16)), "frames"))
"""

SIMULATOR = """
from pcdet.datasets.simulated.output import map_in_processes
if __name__ == "__main__":
    list(map_in_processes(announce, list(range(16)), 2, share=8))
"""

RANKS = """
from pcdet.engine.dist import init_dist
init_dist("pytorch", "cpu")
announce()
"""


IN_A_THREAD = "thread = threading.Thread(target=begin); thread.start(); thread.join()"


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def start(tmp_path, code, *launcher):
    """A program that has started two children, and their numbers."""
    script, pids, output = tmp_path / "program.py", tmp_path / "pids", tmp_path / "output"
    script.write_text(WAIT + code)
    pids.mkdir()
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    environment = {**os.environ, "PYTHONPATH": path, "PIDS": str(pids), "OMP_NUM_THREADS": "1"}
    program = warm_python.shared().start([*launcher, script], cwd=tmp_path, env=environment, output=output)
    wait_for(lambda: len(list(pids.iterdir())) == 2 or program.poll() is not None, 100)
    children = [int(file.name) for file in pids.iterdir()]
    assert len(children) == 2, output.read_text()[-2000:]
    assert all(map(is_running, children)), "it tells running processes from others"
    return program, children


def assert_killed_together(program, children):
    program.kill()
    program.wait()
    try:
        assert wait_for(lambda: not any(map(is_running, children)), 5), "children live on after five seconds"
    finally:
        for pid in filter(is_running, children):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "code",
    [
        LOADER.format(method="fork"),
        LOADER.format(method="spawn"),
        LOADER.format(method="forkserver"),
        BLOCKED.format(begin="begin()"),
        BLOCKED.format(begin=IN_A_THREAD),
        INFOS,
        SIMULATOR,
    ],
    ids=["fork", "spawn", "forkserver", "full pipe", "full pipe, of a thread that has ended", "infos", "simulator"],
)
def test_workers_end_with_a_killed_main_process(tmp_path, code):
    assert_killed_together(*start(tmp_path, code))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_outlive_the_thread_that_started_them(tmp_path, method):
    (tmp_path / "ahead.py").write_text(AHEAD)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with warm_python.shared().start([tmp_path / "ahead.py", method], cwd=tmp_path, env=environment) as program:
        assert program.stdout.read() == f"{sum(range(8))}\n"
        assert program.wait(120) == 0


def test_ranks_end_with_a_killed_torchrun(tmp_path):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    assert_killed_together(*start(tmp_path, RANKS, *torchrun))


def test_a_worker_whose_parent_is_gone_before_it_asks_ends_itself(tmp_path):
    """The worker's parent is another process than the one that its multiprocessing names as its starter."""
    code = """
import multiprocessing, os, sys, time
from pcdet.utils.parent_death import die_with_parent
def work():
    while os.getppid() == multiprocessing.parent_process().pid:
        time.sleep(0.01)
    die_with_parent()
    open(sys.argv[1], "w").write("lives on")
if __name__ == "__main__":
    multiprocessing.get_context("fork").Process(target=work).start()
    os._exit(0)
"""
    mark = tmp_path / "mark"
    done = subprocess.Popen([sys.executable, "-c", code, str(mark)], env={**os.environ, "PYTHONPATH": str(ROOT)},
                            stdout=subprocess.PIPE)  # fmt: skip
    done.communicate(timeout=60)  # ends when the worker, which shares the pipe, has ended
    assert not mark.exists()
