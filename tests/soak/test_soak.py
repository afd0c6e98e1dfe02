"""The soak finds what it is there to find, and the cases that once failed do so no more."""

import errno
import json
import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from support import warm_python

from pcdet.utils import safe_files
from soak import (
    compare,
    endurance,
    faults,
    kept_cases,
    loader_workers,
    process,
    ranks,
    real_starts,
    report,
    short_reads,
)
from soak.lab import EPOCHS, Reference
from soak.scenarios import SCENARIOS, draw
from soak.trial import Case, Tally

HERE = Path(__file__).resolve().parent


def ended(call, tmp_path, seconds=30):
    """A fork that has ended."""
    child = process.fork(call, tmp_path / "log.txt")
    assert child.wait(seconds), child.text()
    return child


def faulty(fault, folder, call):
    def run():
        faults.install(fault, folder)
        call()

    return run


def write(path, content):
    with open(path, "wb", buffering=0) as stream:
        while content:
            content = content[stream.write(content) :]


# ------------------------------------------------------------------------------------------------------------- faults


def test_a_process_dies_in_the_middle_of_a_write_at_the_byte_named(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "first").touch()
    fault = {"kind": "bytes", "at": 1300, "signal": "KILL"}

    def two_files():
        write(tmp_path / "elsewhere", bytes(5000))
        write(folder / "first", bytes(1000))
        write(folder / "second", bytes(1000))

    assert ended(faulty(fault, folder, two_files), tmp_path).code == -signal.SIGKILL
    sizes = {file.name: file.stat().st_size for file in (*folder.iterdir(), tmp_path / "elsewhere")}
    assert sizes == {"first": 1000, "second": 300, "elsewhere": 5000}


def test_a_process_dies_just_before_a_file_operation(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "file").write_bytes(b"old")

    def replace():
        with safe_files.replacing(folder / "file") as stream:
            stream.write(b"new")

    fault = {"kind": "operation", "at": 2, "signal": "KILL"}  # 1 flushes the file to the disk, 2 deletes the old sum
    assert ended(faulty(fault, folder, replace), tmp_path).code == -signal.SIGKILL
    assert (folder / "file").read_bytes() == b"old"
    assert len(compare.half_written(folder)) == 1


def test_a_full_disk_takes_what_fits_and_then_says_so_like_a_real_one(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "there").write_bytes(bytes(60))

    def fill():
        with pytest.raises(OSError) as error:
            write(folder / "file", bytes(100))
        assert error.value.errno == errno.ENOSPC and error.value.filename == str(folder / "file")

    child = ended(faulty({"kind": "full", "at": 100}, folder, fill), tmp_path)
    assert child.code == 0, child.text()
    assert (folder / "file").stat().st_size == 40


def test_text_and_appended_text_pass_the_meter_unchanged(tmp_path):
    def lines():
        (tmp_path / "file").write_text("ä\n", encoding="utf-8")
        with (tmp_path / "file").open("a+", encoding="utf-8") as stream:
            stream.write("b\n")
            stream.seek(0)
            assert stream.read() == "ä\nb\n"

    child = ended(faulty({"kind": "full", "at": 1000}, tmp_path, lines), tmp_path)
    assert child.code == 0, child.text()


# ---------------------------------------------------------------------------------------------------------- processes


@pytest.mark.parametrize(
    "call, code",
    [
        (lambda: None, 0),
        (lambda: sys.exit(3), 3),
        (lambda: sys.exit("a message"), 1),
        (lambda: 1 / 0, 1),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), -signal.SIGTERM),
    ],
)
def test_a_fork_ends_as_an_interpreter_does(call, code, tmp_path):
    assert ended(call, tmp_path).code == code


def test_a_thread_that_never_ends_is_seen_as_a_hang(tmp_path):
    import threading

    child = process.fork(lambda: threading.Thread(target=time.sleep, args=(60,)).start(), tmp_path / "log.txt")
    try:
        assert not child.wait(1)
    finally:
        child.end()
    assert child.code == -signal.SIGKILL


def test_what_a_killed_process_leaves_behind_is_found_and_ended(tmp_path):
    """In a process of its own: the one that runs the tests may have children."""
    script = (
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from soak import process\n"
        "process.adopt_orphans()\n"
        "def parent():\n"
        "    os.fork()\n"
        "    time.sleep(60)\n"
        "child = process.fork(parent, Path(sys.argv[1]))\n"
        "assert process.wait_until(lambda: process.children(child.pid), 20)\n"
        "child.signal(signal.SIGKILL)\n"
        "assert child.wait(10) and len(process.orphans(0.2)) == 1 and process.orphans(0) == []\n"
    )
    text, code = run_warm("-c", script, tmp_path / "log.txt")
    assert code == 0, text


# ---------------------------------------------------------------------------------------------------------- judgement


@pytest.mark.parametrize(
    "found, where",
    [
        ({"a": torch.tensor([1.0, -0.0])}, "x/a differs"),  # equal as numbers, not as bits
        ({"a": torch.tensor([1.0, 0.0], dtype=torch.float64)}, "x/a differs"),
        ({"a": [1.0, 0.0]}, "x/a is a list, not a Tensor"),
        ({}, "x differs in ['a']"),
    ],
)
def test_the_comparison_sees_a_single_bit(found, where):
    wanted = {"a": torch.tensor([1.0, 0.0])}
    assert compare.differing_entries(wanted, {"a": wanted["a"].clone()}, "x") == []
    assert compare.differing_entries(wanted, found, "x") == [where]


def test_a_truncated_checkpoint_and_one_with_a_foreign_sum_are_named(tmp_path):
    for name in ("good", "short", "swapped"):
        torch.save({"epoch": 1}, tmp_path / f"{name}.pth")
    os.truncate(tmp_path / "short.pth", 100)
    safe_files.sum_path(tmp_path / "swapped.pth").write_text("0" * 64 + "  swapped.pth\n")
    assert [problem.split(":")[0] for problem in compare.unreadable(tmp_path)] == ["short.pth", "swapped.pth"]


@pytest.mark.parametrize("what, growing", [("handles", 1), ("threads", 1), ("children", 1), ("memory", 300_000)])
def test_growth_of_anything_is_seen_and_a_flat_run_passes(what, growing):
    noise = random.Random(0)
    flat = [
        {"memory": 5 * 10**8 + noise.randrange(200_000), "handles": 9, "threads": 2, "children": 0} for _ in range(40)
    ]
    assert endurance.growth(flat) == []
    leaking = [{**sample, what: sample[what] + growing * i} for i, sample in enumerate(flat)]
    (problem,) = endurance.growth(leaking)
    assert problem.startswith(what)


class StubLab:
    """Starts that run a Python call each instead of a training."""

    def __init__(self, folder, *calls):
        self.folder, self.calls, self.forks = folder, calls, []
        folder.mkdir(exist_ok=True)

    def new_folder(self, name="run"):
        return self.folder / name

    def reference(self, training, ranks=1):
        return Reference(self.folder, 0.1, {})

    def start(self, training, folder, **options):
        return [process.fork(call, self.folder / f"{i}.txt") for i, call in enumerate(self.calls)]


@pytest.fixture
def case(tmp_path, monkeypatch):
    """Makes a case of stubs; its end is not compared, and other children of this process are left alone."""
    monkeypatch.setattr(Case, "finish", lambda self: self.tally)
    monkeypatch.setattr(Case, "expect_no_orphans", lambda self: None)

    def make(*calls, **facts):
        lab = StubLab(tmp_path / "lab", *calls)
        return Case(lab, {"training": "pointpillar", "ranks": len(calls), **facts})

    return make


def lose(status):
    """A rank whose partner is lost, and that ends in a second."""

    def call():
        time.sleep(1)
        sys.exit(status)

    return call


def victim():
    print("Start logging")
    time.sleep(60)


@pytest.mark.parametrize(
    "status, problem",
    [
        ("RuntimeError: Connection closed by peer [127.0.0.1]:1", None),
        (0, "exit status 0, not one of [1]"),
        ("something is wrong", "the output names none of"),
        (3, "exit status 3, not one of [1]"),
    ],
)
def test_a_rank_that_is_left_must_fail_and_tell_of_the_lost_one(case, status, problem):
    made = case(victim, lose(status))
    ranks.disturb(made, {"rank": 0, "at": 0, "signal": "KILL"})
    assert made.tally.kills == 1
    assert [p for p in made.tally.problems if problem and problem in p] or (not problem and not made.tally.problems)


def test_a_rank_that_had_nothing_left_to_train_may_end_well(case):
    made = case(victim, lose(0))
    (made.folder / "ckpt").mkdir(parents=True)
    (made.folder / "ckpt" / f"checkpoint_epoch_{EPOCHS}.pth").touch()
    ranks.disturb(made, {"rank": 0, "at": 0, "signal": "KILL"})
    assert not made.tally.problems


def test_a_training_without_the_workers_that_were_to_be_killed_is_a_problem(case):
    made = case(lambda: print("no workers"), faults=[{"kind": "worker", "at": 0, "which": 0}])
    (problem,) = loader_workers.play(made.facts, made.lab).problems
    assert problem == "the fault could not be played: no two loader workers were seen: no workers"


@pytest.mark.parametrize("what, words", [("checkpoint", "ckpt has 0 checkpoints"), ("run.json", "has no run.json")])
def test_a_result_that_is_not_there_to_be_cut_is_a_problem(case, what, words):
    made = case(lambda: None)
    short_reads.cut_result(made, {"kind": "cut", "what": what, "keep": 0.5, "at": 0})
    (problem,) = made.tally.problems
    assert problem.startswith("the fault could not be played") and words in problem


def test_a_start_that_never_logs_the_iteration_of_its_kill_is_a_problem(case, monkeypatch, tmp_path):
    made = case(lambda: None, faults=[{"kind": "main", "after": 1, "rank": 0}])
    monkeypatch.setattr(real_starts, "start", lambda case: ended(lambda: print("Train: 1"), tmp_path))
    (problem,) = real_starts.play(made.facts, made.lab).problems
    assert "1 iterations were logged, not 2" in problem


# ------------------------------------------------------------------------------------------------------ bookkeeping


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_seed_draws_the_same_cases_and_they_are_plain_json(name):
    case = partial(draw, SCENARIOS[name], number=1, seconds=10)
    assert case(seed=1) == case(seed=1) != case(seed=2)
    assert json.loads(json.dumps(case(seed=1))) == case(seed=1)


def test_a_failing_case_is_kept_and_read_again_as_it_was(tmp_path):
    case = draw(SCENARIOS["small tmpfs"], 1, 0, 10)
    path = kept_cases.keep(case, ["it hung"], tmp_path)
    assert kept_cases.kept(tmp_path) == [path] and kept_cases.load(path) == case
    assert json.loads(path.read_text())["problems"] == ["it hung"]


def test_counts_of_several_soaks_add_up_in_the_summary(tmp_path):
    row = report.Row()
    row.add(Tally(runs=1, kills=7, resumes=8, hangs=1, problems=["hung"]), 10)
    row.add(Tally(runs=1, kills=3, resumes=2, problems=["wrong"]), 20)
    for seed in (1, 2):
        report.append(tmp_path / f"{seed}.jsonl", {"kills": row}, seed)
    last = report.summary([tmp_path / "1.jsonl", tmp_path / "2.jsonl"]).splitlines()[-1]
    assert last == "| kills | 4 | 20 | 20 | 2 | 2 | 60 |"


# ------------------------------------------------------------------------------------------------------ whole cases


def run_warm(*arguments):
    """(output, exit status) of a Python command in the folder of the tests."""
    with warm_python.shared().start(arguments, cwd=HERE.parent) as command:
        return command.stdout.read(), command.wait(900)


@pytest.mark.slow
def test_a_kill_in_a_checkpoint_that_is_written_in_place_is_found_out(tmp_path):
    """The soak's whole path, from the kill to the exit status, against the mistake that it is there to find."""
    script = (
        "import sys, torch\n"
        "from pcdet.engine import best, hooks\n"
        "from soak.__main__ import main\n"
        "def in_place(state, filename):\n"
        "    with open(f'{filename}'.removesuffix('.pth') + '.pth', 'wb') as stream:\n"
        "        torch.save(state, stream)\n"
        "best.save_checkpoint = hooks.save_checkpoint = in_place\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    fault = {"kind": "bytes", "at": 0.3, "signal": "KILL"}
    case = {"scenario": "kills", "training": "pointpillar", "workers": 0, "faults": [fault]}
    file = kept_cases.keep(case, [], tmp_path)
    text, code = run_warm("-c", "import soak\n" + script, "--replay", file)
    assert code == 1, text
    assert ".pth" in text.partition(f"kills, {file}:\n")[2], text


def why_not(file):
    """Why a kept case cannot be played here; None if it can."""
    scenario = SCENARIOS[kept_cases.load(file)["scenario"]]
    return scenario.why_not() if hasattr(scenario, "why_not") else None


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    """What one soak says of all kept cases that can be played here: they share the trainings to compare with."""
    counts = tmp_path_factory.mktemp("replayed") / "counts.jsonl"
    files = [file for file in kept_cases.kept() if why_not(file) is None]
    text, code = run_warm("-m", "soak", "--json", counts, "--replay", *files)
    assert code in (0, 1) and counts.is_file(), text  # which it writes in the end
    return text


@pytest.mark.slow
@pytest.mark.parametrize("file", kept_cases.kept(), ids=lambda file: file.stem)
def test_what_once_failed_holds(file, replayed):
    if reason := why_not(file):
        pytest.skip(reason)
    assert f", {file}:\n" not in replayed, replayed
