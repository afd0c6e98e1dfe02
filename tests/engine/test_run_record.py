"""run.json: facts, times over several sessions, results."""

import contextlib
import errno
import json
import logging
import subprocess
import time

import numpy as np
import pytest
import torch
from support.toy import ToyDataset
from support.trainers import StopAt, make_trainer

from pcdet.engine import run_record
from pcdet.engine.checkpoint import read_checkpoint
from pcdet.engine.hooks import Checkpoint, Hook
from pcdet.engine.run_facts import cpu_seconds, dataset_facts, describe_run, git_commit, jsonable
from pcdet.engine.run_record import RecordTimes, RunRecord
from pcdet.engine.trainer import Interrupted
from pcdet.utils import safe_files


def test_a_record_says_how_the_run_was_made(tmp_path):
    facts = describe_run(
        command=["train.py", "--x"], cfg={"A": {"B": np.float32(1)}}, device=torch.device("cpu"), seed=3,
        dataset=ToyDataset(), precision="float32",
    )  # fmt: skip
    RunRecord(tmp_path / "run.json", facts).write()
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["command"] == ["train.py", "--x"] and content["seed"] == 3 and content["config"] == {"A": {"B": 1.0}}
    assert {"python", "torch", "numpy", "pcdet"} <= content["versions"].keys()
    assert content["device"]["type"] == "cpu" and content["device"]["threads"] >= 1 and content["device"]["cpu"]
    assert content["dataset"]["samples"] == 8 and content["world_size"] == 1


def test_times_add_up_over_a_kill_and_leave_evaluation_out(tmp_path):
    path = tmp_path / "run.json"

    class Sleep(Hook):
        def after_iteration(self, trainer):
            time.sleep(0.02)

        def after_epoch(self, trainer):
            time.sleep(1)  # such as an evaluation: after RecordTimes in the list

    record = RunRecord(path, {"seed": 1})
    with pytest.raises(Interrupted):
        make_trainer([Checkpoint(tmp_path), Sleep(), StopAt(3), RecordTimes(record)]).run()
    resumed = make_trainer()
    resumed.load_state_dict(read_checkpoint(tmp_path / "latest_model.pth"))
    resumed.hooks = [Checkpoint(tmp_path), RecordTimes(RunRecord(path, {"seed": 1})), Sleep()]
    resumed.run()
    content = json.loads(path.read_text())
    first, second = content["sessions"]
    assert (first["to_iteration"], second["from_epoch"], second["to_epoch"]) == (3, 0, 2)
    assert content["train_wall_s"] == pytest.approx(first["wall_s"] + second["wall_s"], abs=2e-3)
    assert 0.2 <= content["train_wall_s"] < 1
    assert 0 < content["train_cpu_s"] < content["train_wall_s"] + 1


def test_results_are_kept_by_epoch(tmp_path):
    record = RunRecord(tmp_path / "run.json", {})
    record.add_result(2, {"Car_3d/easy_R40": np.float64(1.5)})
    RunRecord(tmp_path / "run.json", {}).add_result(4, {})
    assert json.loads((tmp_path / "run.json").read_text())["results"] == {"2": {"Car_3d/easy_R40": 1.5}, "4": {}}


def session(path, seed, begin, ends, **facts):
    """A session of epochs of five iterations: it begins after ``begin`` epochs, and each end is 10 s later."""
    record = RunRecord(path, {"seed": seed, **facts})
    record.begin_session(int(begin), round(begin * 5), 5)
    for end in ends:
        record.add_time(int(end), round(end * 5), 5, 10.0, 20.0)
    record.write()
    return record


def test_what_is_trained_over_no_longer_counts(tmp_path):
    path = tmp_path / "run.json"
    record = session(path, 1, 0, [1, 2, 3, 4, 5])
    record.add_result(3, {"ap": 1.0})
    record.add_result(5, {"ap": 2.0})
    record.set_best("ap", 2.0, 5)
    session(path, 1, 3, [4, 4.6])
    content = json.loads(path.read_text())
    first, second = content["sessions"]
    assert (first["from_epoch"], first["to_epoch"], first["wall_s"], first["times_dropped"]) == (0, 3, 30.0, 2)
    assert (second["from_epoch"], second["to_epoch"], second["to_iteration"]) == (3, 4, 23)
    assert content["train_wall_s"] == 50.0 and content["train_cpu_s"] == 100.0
    assert content["results"] == {"3": {"ap": 1.0}} and "best" not in content
    session(path, 1, 4.6, [5])  # from the iteration on which the last one stopped: all of it counts
    assert json.loads(path.read_text())["train_wall_s"] == 60.0
    session(path, 1, 2, [3])  # of the second and third nothing is left
    assert [s["wall_s"] for s in json.loads(path.read_text())["sessions"]] == [20.0, 10.0]


def test_a_training_from_the_beginning_has_a_record_of_its_own_and_the_old_one_is_kept(tmp_path):
    path = tmp_path / "run.json"
    for seed in (1, 2, 3):
        session(path, seed, 0, [1]).add_result(1, {"ap": float(seed)})
    contents = [json.loads((tmp_path / name).read_text()) for name in ("run.json", "run-old1.json", "run-old2.json")]
    assert [c["seed"] for c in contents] == [3, 1, 2]
    assert [c["results"]["1"]["ap"] for c in contents] == [3.0, 1.0, 2.0]
    assert [c["train_wall_s"] for c in contents] == [10.0, 10.0, 10.0]


def test_sessions_say_what_they_changed(tmp_path):
    path = tmp_path / "run.json"
    session(path, 1, 0, [1], config={"OPTIMIZATION": {"LR": 0.1, "DECAY": 1}, "OLD": 1}, command=["a"])
    session(path, 2, 1, [2], config={"OPTIMIZATION": {"LR": 0.2, "DECAY": 1}, "NEW": 2}, command=["b"])
    first, second = json.loads(path.read_text())["sessions"]
    assert (first["seed"], first["changed"], first["command"]) == (1, {}, ["a"])
    assert (second["seed"], second["command"]) == (2, ["b"])
    assert second["changed"] == {
        "seed": [1, 2], "config.OPTIMIZATION.LR": [0.1, 0.2], "config.OLD": [1, None], "config.NEW": [None, 2],
    }  # fmt: skip


def test_going_on_with_other_data_or_settings_is_warned_of_and_on_another_machine_is_not(tmp_path, caplog):
    path = tmp_path / "run.json"
    first = {"dataset": {"fingerprint": "old"}, "config": {"LR": 0.1}, "device": {"cpu": "a"}, "git_commit": "1"}
    first["config"]["ROOT_DIR"] = "/home"
    session(path, 1, 0, [1], **first)
    elsewhere = {"config": {"LR": 0.1, "ROOT_DIR": "/cluster"}, "device": {"cpu": "b"}, "git_commit": "2"}
    session(path, 1, 1, [2], **{**first, **elsewhere})
    assert not caplog.messages
    session(path, 1, 2, [3], **{**first, "dataset": {"fingerprint": "new"}, "config": {"LR": 0.2}})
    (message,) = caplog.messages
    assert "goes on with other settings: dataset.fingerprint: old, now new; config.LR: 0.1, now 0.2" in message
    assert "ROOT_DIR" not in message


def test_the_warning_of_many_other_settings_names_the_first_ones(tmp_path, caplog):
    path = tmp_path / "run.json"
    session(path, 1, 0, [1], config={f"KEY{i}": "a" * 1000 for i in range(9)})
    session(path, 1, 1, [2], config={f"KEY{i}": "b" * 1000 for i in range(9)})
    (message,) = caplog.messages
    assert f"and 4 more; {path} names them all" in message and len(message) < 1000


def test_long_settings_that_differ_far_into_them_are_warned_of_by_name(tmp_path, caplog):
    """Two texts that are cut to the same one would look as if nothing had changed."""
    path = tmp_path / "run.json"
    session(path, 1, 0, [1], config={"STEPS": ["a" * 60, 1], "LR": 0.1})
    session(path, 1, 1, [2], config={"STEPS": ["a" * 60, 2], "LR": 0.2})
    (message,) = caplog.messages
    assert message.endswith("other settings: config.STEPS; config.LR: 0.1, now 0.2")


def test_evaluating_a_finished_training_leaves_its_facts(tmp_path):
    session(tmp_path / "run.json", 1, 0, [1])
    RunRecord(tmp_path / "run.json", {"seed": 2}).add_result(1, {"ap": 1.0})
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["seed"] == 1 and content["results"] == {"1": {"ap": 1.0}}


def test_sessions_of_older_files_are_cut_evenly(tmp_path):
    """They have the sum of their times alone."""
    path = tmp_path / "run.json"
    old = {"from_epoch": 0, "to_epoch": 5, "to_iteration": 25, "wall_s": 50.0, "cpu_s": 100.0, "ended": "then"}
    path.write_text(json.dumps({"sessions": [old], "results": {}, "train_wall_s": 50.0, "train_cpu_s": 100.0}))
    session(path, 1, 3, [4])
    assert json.loads(path.read_text())["train_wall_s"] == 40.0


def test_optional_entries_may_be_null(tmp_path, caplog):
    path = tmp_path / "run.json"
    old = {"from_epoch": 0, "to_epoch": 2, "times": None, "wall_s": 20.0, "cpu_s": None}
    path.write_text(json.dumps({"sessions": [old], "results": None, "best": None}))
    session(path, 1, 2, [3])
    assert json.loads(path.read_text())["train_wall_s"] == 30.0 and not caplog.records


@pytest.mark.parametrize(
    "text, problem",
    [
        ('{"sessions": [', "is not JSON"),
        ("[]", "must hold an object, got list"),
        ('{"sessions": {}}', "must hold a list as sessions, got dict"),
        ('{"sessions": [3]}', "has an entry of sessions that is none: 3"),
        ('{"sessions": [{"from_epoch": 0, "wall_s": "x"}]}', "has an entry of sessions that is none"),
        ('{"sessions": [{"from_epoch": 0, "times": [1]}]}', "has times without epoch, position"),
        (
            '{"sessions": [{"from_epoch": 0, "times": [{"position": 1, "wall_s": 1, "cpu_s": 1}]}]}',
            "has times without epoch",
        ),
        ('{"results": {"4": 1}}', "has an entry of results that is none: 1"),
        ('{"best": {"metric": "ap"}}', "has a best that lacks metric, value or epoch"),
        ("\x00\xff", "is not JSON"),
    ],
)
def test_a_record_that_cannot_be_used_is_put_aside_with_a_warning(tmp_path, caplog, text, problem):
    path = tmp_path / "run.json"
    path.write_bytes(text.encode("latin-1"))
    RunRecord(path, {"seed": 1}, logging.getLogger("toy")).write()
    assert json.loads(path.read_text())["seed"] == 1
    assert (tmp_path / "run-old1.json").read_bytes() == text.encode("latin-1")
    assert f"{path} {problem}" in caplog.text and "run-old1.json" in caplog.text


def test_a_record_that_cannot_be_written_is_warned_of_and_written_with_the_next_epoch(tmp_path, monkeypatch, caplog):
    full = []

    @contextlib.contextmanager
    def replacing(path):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        with safe_files.replacing(path) as stream:
            yield stream

    class Room(Hook):
        def before_epoch(self, trainer):
            full[:] = [True] if trainer.epoch == 0 else []

    monkeypatch.setattr(run_record, "replacing", replacing)
    record = RunRecord(tmp_path / "run.json", {})
    make_trainer([Room(), RecordTimes(record)]).run()
    assert "run.json cannot be written: No space left on device" in caplog.text
    assert [t["epoch"] for t in json.loads((tmp_path / "run.json").read_text())["sessions"][0]["times"]] == [1, 2]
    full[:] = [True]
    with pytest.raises(safe_files.WriteError, match="run.json cannot be written"):
        record.add_result(2, {})


def test_a_stop_during_an_evaluation_does_not_count_the_epoch_twice(tmp_path):
    class SlowEpoch(Hook):
        def after_iteration(self, trainer):
            time.sleep(0.1)

    record = RunRecord(tmp_path / "run.json", {})

    class StopsAfterwards(Hook):
        def after_epoch(self, trainer):
            trainer.request_stop()

    with pytest.raises(Interrupted):
        make_trainer([Checkpoint(tmp_path), SlowEpoch(), RecordTimes(record), StopsAfterwards()]).run()
    (only,) = record.content["sessions"]
    assert [t["epoch"] for t in only["times"]] == [1]
    assert record.content["train_wall_s"] == only["times"][0]["wall_s"] >= 0.5


def test_the_fingerprint_is_the_data_sets_own_where_it_has_one():
    plain = dataset_facts(ToyDataset(8))
    assert plain != dataset_facts(ToyDataset(9)) and plain == dataset_facts(ToyDataset(8))
    dataset = ToyDataset(8)
    dataset.fingerprint = "abc"
    assert dataset_facts(dataset) == {"name": "ToyDataset", "samples": 8, "fingerprint": "abc"}


def test_the_commit_is_named_and_absent_outside_a_repository(tmp_path):
    assert git_commit(tmp_path) is None
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    (tmp_path / "f").write_text("1")
    for command in (["init", "-q"], ["add", "f"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    clean = git_commit(tmp_path)
    (tmp_path / "f").write_text("2")
    assert len(clean) == 40 and git_commit(tmp_path) == f"{clean}-dirty"


def test_cpu_time_includes_ended_children():
    before = cpu_seconds()
    subprocess.run(["python3", "-c", "sum(range(6_000_000))"], check=True)
    assert cpu_seconds() - before > 0.05


def test_everything_becomes_json():
    values = {"a": np.arange(2), "b": (np.int64(1), None), "c": torch.ones(1), 4: {1}, "d": torch.float16}
    assert json.dumps(jsonable(values)) == '{"a": [0, 1], "b": [1, null], "c": [1.0], "4": [1], "d": "torch.float16"}'
