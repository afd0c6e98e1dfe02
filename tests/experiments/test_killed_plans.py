"""Plans whose call is killed and started again: the same results, and no epoch twice."""

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from support import fake_plan, warm_python
from support.fake_tools import SHORT, FakeTools, same

from pcdet.experiments.results.files import read_results
from pcdet.utils.folder_lock import FolderInUseError, FolderLock


@pytest.fixture
def fake(tmp_path):
    return FakeTools(tmp_path / "fake", step_s=0.05)


def call(fake):
    """Starts the command."""
    args = [Path(fake_plan.__file__), fake.tools, "--plan", fake.write_plan(SHORT), "--output_dir", fake.output]
    return warm_python.shared().start(args, cwd=fake.root, output=fake.root / "call.txt")


def said(fake):
    return (fake.root / "call.txt").read_text()


def wait_for(condition, command=None):
    """Until the condition holds or the command has ended."""
    end = time.monotonic() + 120
    while not condition() and (command is None or command.poll() is None):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def is_free(folder):
    """Whether nothing that a killed call left still runs."""
    try:
        FolderLock(folder, advice="wait").release()
    except FolderInUseError:
        return False
    return True


@pytest.mark.parametrize("with_its_jobs", [True, False])
def test_a_plan_killed_at_random_moments_ends_with_the_results_of_one_that_was_not(short_plan, fake, with_its_jobs):
    chance = random.Random(with_its_jobs)
    for first in (1, 7, 14):  # a moment in each third of the 21 jobs
        jobs, rest_s = first + chance.randrange(6), chance.uniform(0, 0.5)
        before, command = len(fake.starts()), call(fake)
        wait_for(lambda: len(fake.starts()) > before and len({*fake.starts()}) >= jobs, command)  # noqa: B023
        time.sleep(rest_s)
        (os.killpg if with_its_jobs else os.kill)(command.pid, signal.SIGKILL)
        assert command.wait() == -signal.SIGKILL, said(fake)
        wait_for(lambda: is_free(fake.output))
    assert not (fake.output / "results.json").exists()
    assert call(fake).wait() == 0, said(fake)
    found = read_results(fake.output / "results.json")
    assert same(found) == same(short_plan[1])
    epochs = Counter((fake.tools / "epochs.txt").read_text().splitlines())
    assert max(epochs.values()) == 1 and not list(fake.output.rglob("*-old*"))


def test_a_second_call_is_refused_while_jobs_of_a_killed_one_run(fake):
    (fake.tools / "hold").touch()
    command = call(fake)
    wait_for(lambda: "teachers/full/epochs2/seed0" in fake.starts(), command)
    assert command.returncode is None, said(fake)
    os.kill(command.pid, signal.SIGKILL)
    command.wait()
    assert call(fake).wait() != 0 and "is written to by process" in said(fake)
    assert "end what is left running (pgrep -af" in said(fake)
    (fake.tools / "hold").unlink()
    wait_for(lambda: is_free(fake.output))
    record = json.loads((fake.output / "teachers/full/epochs2/seed0/run.json").read_text())
    assert record["seed"] == 0, "the job ended its work"
