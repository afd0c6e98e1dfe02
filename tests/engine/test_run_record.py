"""run.json: facts, times over several sessions, results."""

import json
import subprocess
import time

import numpy as np
import pytest
import torch
from test_trainer import StopAt, make_trainer
from toy import ToyDataset

from pcdet.engine.checkpoint import read_checkpoint
from pcdet.engine.hooks import Checkpoint, Hook
from pcdet.engine.run_record import (
    RecordTimes,
    RunRecord,
    cpu_seconds,
    dataset_facts,
    describe_run,
    git_commit,
    jsonable,
)
from pcdet.engine.trainer import Interrupted


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
            time.sleep(0.5)  # such as an evaluation: after RecordTimes in the list

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
    assert 0.2 <= content["train_wall_s"] < 0.5 + 0.2
    assert 0 < content["train_cpu_s"] < content["train_wall_s"] + 1


def test_results_are_kept_by_epoch(tmp_path):
    record = RunRecord(tmp_path / "run.json", {})
    record.add_result(2, {"Car_3d/easy_R40": np.float64(1.5)})
    RunRecord(tmp_path / "run.json", {}).add_result(4, {})
    assert json.loads((tmp_path / "run.json").read_text())["results"] == {"2": {"Car_3d/easy_R40": 1.5}, "4": {}}


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
