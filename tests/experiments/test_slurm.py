"""Jobs on a cluster, played by tests/support/slurm_stub: real submitit, real processes, no Slurm."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import slurm_stub
from support.jobs import python_job
from support.slurm_stub import SlurmStub, wait_until

from pcdet.experiments.running.pool import run_jobs
from pcdet.experiments.running.slurm import SlurmPlaces, SlurmRun
from pcdet.registry import ConfigError

FAST = {"poll_s": 0.1, "query_s": 0.2, "lag_s": 0.5}

# Counts its starts; when it is told to end it saves its state, and a later start finds that state and finishes.
RESUMES = """
import pathlib, signal, sys, time
me = pathlib.Path({name!r})
with open(f"{{me}}.starts", "a") as file:
    file.write("start\\n")
def save(*_):
    pathlib.Path(f"{{me}}.state").write_text("half")
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
while not pathlib.Path(f"{{me}}.state").exists() and not pathlib.Path("go").exists():
    time.sleep(0.05)
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    root = tmp_path / "cluster"
    root.mkdir()
    monkeypatch.setenv("SLURM_STUB", str(root))
    monkeypatch.setenv("SLURM_STUB_PYTHON", sys.executable)
    monkeypatch.setenv("PATH", f"{slurm_stub.BIN}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)  # elsewhere than the checkout, whose modules the tasks must find all the same
    stub = SlurmStub(root)
    yield stub
    stub.stop()


@pytest.fixture
def places(stub, tmp_path):
    return lambda **settings: SlurmPlaces(tmp_path / "plan", "gpu", **{**FAST, **settings})


def resuming_job(folder, name, **more):
    return python_job(folder, name, RESUMES.format(name=name), **more)


def starts(folder, name):
    path = folder / f"{name}.starts"
    return len(path.read_text().splitlines()) if path.is_file() else 0


# The same pool in a process of its own, to be killed.
POOL = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from experiments.test_slurm import FAST, resuming_job
from pcdet.experiments.running.pool import run_jobs
from pcdet.experiments.running.slurm import SlurmPlaces
folder = Path({folder!r})
jobs = [resuming_job(folder, name, facts={facts!r}) for name in {names!r}]
run_jobs(jobs, SlurmPlaces(folder / "plan", "gpu", **FAST))
"""


def pool_process(repo_root, folder, names, facts=None):
    paths = [str(repo_root / "tests"), str(repo_root)]
    code = POOL.format(paths=paths, folder=str(folder), names=names, facts=facts or {})
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, stderr=subprocess.DEVNULL)


def test_all_products_are_there_and_the_jobs_of_a_stage_are_one_array(stub, places, tmp_path):
    teacher = python_job(tmp_path, "teacher", "print('of the teacher')")
    students = [python_job(tmp_path, f"student{i}", needs=[teacher]) for i in range(3)]
    said = []
    run_jobs([*students, teacher], places(), say=said.append)
    assert all(job.product.read_text() == "weights" for job in [teacher, *students])
    assert stub.history("sbatch") == ["1 1", "2 3"]
    assert "of the teacher" in teacher.log.read_text()
    assert sorted(line.split()[0] for line in said) == ["student0", "student1", "student2", "teacher"]


def test_slurm_is_asked_for_what_the_settings_say(stub, places, tmp_path):
    settings = {"timeout_min": 90, "gpus_per_node": 2, "cpus_per_task": 7, "max_parallel": 3}
    options = {"account": "lidar", "mail_type": "END", "exclusive": True}
    run_jobs([python_job(tmp_path, str(i)) for i in range(2)], places(**settings, options=options))
    script = (stub.root / "1/script").read_text()
    asked = {line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")}
    assert {"partition=gpu", "time=90", "gpus-per-node=2", "cpus-per-task=7", "array=0-1%2"} <= asked
    assert {"account=lidar", "mail-type=END", "exclusive", "requeue", "signal=USR2@90", "open-mode=append"} <= asked


@pytest.mark.parametrize("settings", [{"cpus_per_task": 1}, {"cpus_per_task": 1, "gpus_per_node": 0}])
def test_a_task_without_gpus_asks_for_none(stub, places, tmp_path, settings):
    run_jobs([python_job(tmp_path, "a")], places(**settings))
    assert ("--gpus-per-node" in (stub.root / "1/script").read_text()) == ("gpus_per_node" not in settings)


def test_no_more_tasks_run_at_once_than_may_with_several_arrays_too(stub, places, tmp_path):
    first = python_job(tmp_path, "first")
    # What works at once counts: a task that has left its product takes a moment more to end.
    write = "open('works', 'a').write({!r})"
    wait = f"import time; {write.format('+')}; time.sleep(0.3); {write.format('-')}"
    jobs = [first, *(python_job(tmp_path, f"a{i}", wait) for i in range(3))]
    jobs += [python_job(tmp_path, f"b{i}", wait, needs=[first]) for i in range(3)]
    run_jobs(jobs, places(max_parallel=2))
    assert all(job.product.is_file() for job in jobs)
    assert stub.history("sbatch")[0] == "1 4" and len(stub.history("sbatch")) > 1
    working = [1 if letter == "+" else -1 for letter in (tmp_path / "works").read_text()]
    assert len(working) == 12 and max(itertools.accumulate(working)) <= 2


@pytest.mark.parametrize("signals", [["SIGTERM", "SIGUSR2"], ["SIGUSR2"]], ids=["preempted", "at its time limit"])
def test_a_task_taken_away_saves_its_state_and_ends_with_its_product(stub, places, tmp_path, repo_root, signals):
    pool = pool_process(repo_root, tmp_path, ["a", "b"])
    wait_until(lambda: starts(tmp_path, "a") and starts(tmp_path, "b"))
    stub.signal("1_0", *signals)
    wait_until(lambda: starts(tmp_path, "a") == 2)
    assert (tmp_path / "a.state").read_text() == "half"
    (tmp_path / "go").touch()
    assert pool.wait(60) == 0
    assert (tmp_path / "a/product").is_file() and (tmp_path / "b/product").is_file()
    assert stub.history("requeue") == ["1_0"] and stub.history("sbatch") == ["1 2"]
    assert "taken away by Slurm; the same command goes on" in (tmp_path / "a/output.txt").read_text()
    assert starts(tmp_path, "b") == 1


def test_a_killed_pool_that_is_started_again_submits_nothing_twice(stub, places, tmp_path, repo_root):
    pool = pool_process(repo_root, tmp_path, ["a", "b"])
    wait_until(lambda: starts(tmp_path, "a") and starts(tmp_path, "b"))
    pool.kill()
    pool.wait()
    old = [resuming_job(tmp_path, name) for name in "ab"]
    new = python_job(tmp_path, "new", "open('go', 'w')")  # a and b wait for it
    said = []
    run_jobs([*old, new], places(), say=said.append)
    assert "2 jobs go on from an earlier call" in said[0]
    assert all(job.product.is_file() for job in [*old, new])
    assert [starts(tmp_path, name) for name in "ab"] == [1, 1]
    assert stub.history("sbatch") == ["1 2", "2 1"]


def test_a_task_that_waits_in_the_queue_is_not_submitted_twice_either(stub, places, tmp_path, repo_root):
    (stub.root / "full").touch()
    pool = pool_process(repo_root, tmp_path, ["a"])
    record = tmp_path / "plan/slurm/submitted.json"
    wait_until(lambda: record.is_file() and '"task": "1"' in record.read_text())
    pool.kill()
    pool.wait()
    (tmp_path / "go").touch()
    job, plan = resuming_job(tmp_path, "a"), places()
    assert plan.adopt([job]) == [job] and job.queued
    (stub.root / "full").unlink()
    run_jobs([job], plan)
    assert stub.history("sbatch") == ["1 1"] and starts(tmp_path, "a") == 1


def test_a_pool_killed_in_the_middle_of_a_submission_leaves_no_second_task_running(stub, places, tmp_path, repo_root):
    (stub.root / "kill_caller").touch()
    assert pool_process(repo_root, tmp_path, ["a", "b"]).wait(60) == -9
    (entry, _) = json.loads((tmp_path / "plan/slurm/submitted.json").read_text()).values()
    assert entry["task"] is None
    (tmp_path / "go").touch()
    run_jobs([resuming_job(tmp_path, name) for name in "ab"], places())
    assert sorted(stub.history("scancel")) == ["1_0", "1_1"]
    assert [starts(tmp_path, name) for name in "ab"] == [1, 1]


def test_a_task_of_other_facts_is_cancelled_before_its_folder_is_claimed(stub, places, tmp_path, repo_root):
    pool = pool_process(repo_root, tmp_path, ["a"], {"WIDTH": 0.5})
    wait_until(lambda: starts(tmp_path, "a"))
    pool.kill()
    pool.wait()
    said = []
    run_jobs([resuming_job(tmp_path, "a", facts={"WIDTH": 0.25})], places(), say=said.append)
    assert stub.history("scancel") == ["1"] and stub.history("CANCELLED") == ["1"]
    assert "a is done anew: WIDTH: 0.5, now 0.25" in said[0]
    assert (tmp_path / "a-old1/output.txt").is_file() and (tmp_path / "a/product").is_file()


def test_a_failing_task_is_reported_with_its_log_and_the_others_save_their_state(stub, places, tmp_path):
    slow = resuming_job(tmp_path, "slow")
    wait = "import os, time\nwhile not os.path.exists('slow.starts'): time.sleep(0.05)\n"
    broken = python_job(tmp_path, "broken", wait + "time.sleep(0.3)\nraise SystemExit('out of luck')")
    with pytest.raises(SystemExit, match="(?s)broken failed .exit 1.*out of luck.*ended with exit 1"):
        run_jobs([slow, broken], places())
    assert (tmp_path / "slow.state").read_text() == "half"
    assert stub.history("scancel") == ["1_0"] and stub.history("CANCELLED") == ["1_0"]


def test_a_task_that_ends_well_without_its_product_has_failed(stub, places, tmp_path):
    with pytest.raises(SystemExit, match="exit 0 without .*product"):
        run_jobs([python_job(tmp_path, "empty", product=False)], places())


def test_a_task_lost_with_its_node_is_submitted_again(stub, places, tmp_path, repo_root):
    pool = pool_process(repo_root, tmp_path, ["a"])
    wait_until(lambda: starts(tmp_path, "a"))
    stub.flag("1", "lose", "NODE_FAIL")
    wait_until(lambda: stub.history("NODE_FAIL"))
    (tmp_path / "a.state").write_text("saved before")
    assert pool.wait(60) == 0
    assert stub.history("sbatch") == ["1 1", "2 1"] and starts(tmp_path, "a") == 2
    assert (tmp_path / "a/product").is_file()


def test_a_task_that_needed_too_much_memory_is_not_tried_again(stub, places, tmp_path):
    lose = "import os, pathlib, time\npathlib.Path(os.environ['SLURM_STUB'], '1/single.lose').write_text"
    job = python_job(tmp_path, "a", lose + "('OUT_OF_MEMORY')\ntime.sleep(60)")
    with pytest.raises(SystemExit, match="left the queue without a result: OUT_OF_MEMORY"):
        run_jobs([job], places())
    assert stub.history("sbatch") == ["1 1"]


def test_what_sbatch_refuses_is_said_at_once(stub, places, tmp_path):
    (stub.root / "refuse").touch()
    with pytest.raises(SystemExit, match="a cannot be submitted to Slurm: .*Invalid account"):
        run_jobs([python_job(tmp_path, "a")], places())


def test_while_others_run_a_refused_job_is_tried_again(stub, places, tmp_path, monkeypatch):
    monkeypatch.setattr("pcdet.experiments.running.slurm.TRY_AGAIN_S", 1.0)
    first = python_job(tmp_path, "first", f"open({str(stub.root / 'refuse')!r}, 'w')")
    wait = f"import time\nwhile 'refused' not in open({str(stub.root / 'history')!r}).read(): time.sleep(0.05)"
    second = python_job(tmp_path, "second", "", needs=[first])
    allow = python_job(tmp_path, "allow", f"{wait}\nimport os; os.remove({str(stub.root / 'refuse')!r})")
    run_jobs([first, allow, second], places())
    assert second.product.is_file()


def test_a_silent_controller_stops_nothing_that_runs(stub, places, tmp_path):
    down = stub.root / "down"
    job = python_job(tmp_path, "a", f"open({str(down)!r}, 'w'); import time; time.sleep(2)")
    run_jobs([job], places())
    assert job.product.is_file()


def test_nothing_is_submitted_before_slurm_says_what_runs_already(stub, places, tmp_path):
    run_jobs([python_job(tmp_path, "a")], places())
    (stub.root / "down").touch()
    with pytest.raises(SystemExit, match="Unable to contact.*nothing is submitted before"):
        run_jobs([python_job(tmp_path, "b")], places())
    assert stub.history("sbatch") == ["1 1"]


def test_a_job_in_the_queue_is_not_timed(stub, places, tmp_path):
    job, plan = python_job(tmp_path, "a"), places()
    plan.poll_s = 0.05
    (stub.root / "full").touch()
    assert plan.start([job], []) == [job]
    time.sleep(0.5)
    waited = time.monotonic()
    assert job.process.poll() is None and job.queued
    (stub.root / "full").unlink()
    wait_until(lambda: job.process.poll() == 0)
    assert job.began >= waited


def test_a_job_that_ends_between_two_questions_to_slurm_has_run_since_the_first(stub, places, tmp_path):
    """It is looked at far more often than Slurm is asked: an answer that is kept does not say that it waits still."""
    job, plan = python_job(tmp_path, "a"), places(query_s=1000)
    (stub.root / "full").touch()
    assert plan.start([job], []) == [job]
    assert job.process.poll() is None and job.queued
    asked = time.monotonic()
    (stub.root / "full").unlink()
    wait_until(lambda: job.process.poll() == 0)
    assert job.began <= asked


def test_a_task_that_cleans_up_no_longer_waits(tmp_path):
    """Its state is COMPLETING for a while after its command, whose time is that since it waited."""
    job, places = python_job(tmp_path, "a"), SimpleNamespace(outcome=lambda task: None)
    run, job.queued = SlurmRun(places, job, "1"), True
    for places.answered, state in ((10.0, "PENDING"), (25.0, "CONFIGURING"), (40.0, "COMPLETING")):
        places.state = {"1": state}.get
        assert run.poll() is None
    assert job.began == 25.0


def test_without_slurm_it_is_said_where_to_go(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="sbatch, squeue, scancel, srun not found"):
        SlurmPlaces(tmp_path)


def test_settings_that_cannot_hold_are_refused_together(stub, tmp_path):
    with pytest.raises(ConfigError) as error:
        SlurmPlaces(tmp_path, max_parallel=0, options={"array": "0-3", "job_name": "x"})
    assert [text.split()[0:3] for text in error.value.problems] == [
        ["max_parallel", "must", "be"], ["sbatch's", "option", "array"], ["sbatch's", "option", "job_name"],
    ]  # fmt: skip


def test_a_damaged_record_says_what_to_do(stub, places, tmp_path):
    plan = places()
    path = Path(plan.files) / "submitted.json"
    path.parent.mkdir(parents=True)
    path.write_text("[")
    with pytest.raises(SystemExit, match="cannot be read.*delete the file"):
        run_jobs([python_job(tmp_path, "a")], plan)
