"""``checkpoint_best.pth``: chosen by which metric, kept over a resume, and never mixed with another training's."""

import json
import logging

import pytest
from support.trainers import make_trainer

from pcdet.engine.best import BestCheckpoint
from pcdet.engine.checkpoint_folder import checkpoint_epochs, prune_checkpoints
from pcdet.engine.hooks import Checkpoint, Evaluate
from pcdet.engine.run_record import RecordTimes, RunRecord
from pcdet.registry import ConfigError
from pcdet.utils.checkpoint_reader import read_checkpoint

METRICS = {
    1: {"Car_3d/moderate_R40": 1.0, "Cyclist_3d/moderate_R40": 9.0, "recall/rcnn_0.3": 0.9},
    2: {"Car_3d/moderate_R40": 6.0, "Cyclist_3d/moderate_R40": 6.0, "recall/rcnn_0.3": 0.5},
    3: {"Car_3d/moderate_R40": 8.0, "Cyclist_3d/moderate_R40": 2.0, "recall/rcnn_0.3": 0.1},
}


def headline(result):
    """The mean of the classes, as a data set may choose it."""
    aps = [value for name, value in result.items() if name.endswith("_3d/moderate_R40")]
    return ("mean_3d/moderate_R40", sum(aps) / len(aps)) if aps else None


def train(folder, metric=None, epochs=4, state=None, values=METRICS):
    record = RunRecord(folder / "run.json", {})
    best = BestCheckpoint(folder, record, metric, headline=headline)

    def evaluate(epoch):
        record.add_result(epoch, values[epoch])
        return values[epoch]

    trainer = make_trainer(epochs=epochs)
    if state is not None:
        trainer.load_state_dict(state)
    trainer.hooks = [Checkpoint(folder), RecordTimes(record), Evaluate(evaluate, 1, best)]
    trainer.run()
    return json.loads((folder / "run.json").read_text()).get("best")


@pytest.mark.parametrize(
    "metric, name, value, epoch",
    [
        (None, "mean_3d/moderate_R40", 6.0, 2),  # means of 5, 6, 5
        ("Car_3d/moderate_R40", "Car_3d/moderate_R40", 8.0, 3),
        ("recall/rcnn_0.3", "recall/rcnn_0.3", 0.9, 1),
    ],
)
def test_the_best_by_the_metric_is_kept_whole(tmp_path, metric, name, value, epoch):
    assert train(tmp_path, metric) == {"metric": name, "value": value, "epoch": epoch}
    state = read_checkpoint(tmp_path / "checkpoint_best.pth")
    assert state["epoch"] == epoch and state["optimizer_state"] is not None
    assert list(checkpoint_epochs(tmp_path)) == [1, 2, 3, 4]
    prune_checkpoints(tmp_path, 1, epoch=9)
    assert (tmp_path / "checkpoint_best.pth").is_file()


def test_an_unknown_metric_is_an_error_that_lists_those_there(tmp_path):
    with pytest.raises(ConfigError, match="--best_metric: .* no metric 'Van'; it has Car_3d/moderate_R40, Cyclist"):
        train(tmp_path, "Van")


def test_without_a_moderate_ap_and_a_name_nothing_is_kept(tmp_path):
    assert train(tmp_path, values={epoch: {"ap": 1.0} for epoch in METRICS}) is None
    assert not (tmp_path / "checkpoint_best.pth").exists()


def test_a_resume_knows_the_best_so_far(tmp_path):
    train(tmp_path, "recall/rcnn_0.3", epochs=3)
    state = read_checkpoint(tmp_path / "checkpoint_epoch_2.pth")
    best = train(tmp_path, "recall/rcnn_0.3", state=state)
    assert best == {"metric": "recall/rcnn_0.3", "value": 0.9, "epoch": 1}
    assert read_checkpoint(tmp_path / "checkpoint_best.pth")["epoch"] == 1


def test_the_best_of_what_is_trained_over_is_put_aside(tmp_path):
    train(tmp_path, "Car_3d/moderate_R40")
    state = read_checkpoint(tmp_path / "checkpoint_epoch_2.pth")
    worse = {**METRICS, 3: {"Car_3d/moderate_R40": 0.5}}
    assert train(tmp_path, "Car_3d/moderate_R40", state=state, values=worse)["value"] == 0.5
    assert read_checkpoint(tmp_path / "checkpoint_best-old1.pth")["epoch"] == 3


def test_values_that_are_no_numbers_are_never_the_best(tmp_path):
    record = RunRecord(tmp_path / "run.json", {})
    best = BestCheckpoint(tmp_path, record, "ap", logging.getLogger("toy"))
    assert not best.update(1, {"ap": float("nan")}, lambda: pytest.fail("nothing is to be saved"))


def test_a_kill_between_the_file_and_the_record_loses_nothing(tmp_path):
    record = RunRecord(tmp_path / "run.json", {})
    BestCheckpoint(tmp_path, record, "ap").update(1, {"ap": 1.0}, lambda: {"epoch": 1})
    before = (tmp_path / "run.json").read_bytes()
    BestCheckpoint(tmp_path, record, "ap").update(2, {"ap": 3.0}, lambda: {"epoch": 2})
    (tmp_path / "run.json").write_bytes(before)
    again = BestCheckpoint(tmp_path, RunRecord(tmp_path / "run.json", {}), "ap")
    assert not again.update(3, {"ap": 2.0}, lambda: pytest.fail("epoch 2 was better"))
    assert again.record.content["best"] == {"metric": "ap", "value": 3.0, "epoch": 2}


def test_a_damaged_best_is_named_and_gives_way(tmp_path, caplog):
    record = RunRecord(tmp_path / "run.json", {})
    BestCheckpoint(tmp_path, record, "ap").update(1, {"ap": 5.0}, lambda: {"epoch": 1})
    (tmp_path / "checkpoint_best.pth").write_bytes(b"cut short")
    assert BestCheckpoint(tmp_path, record, "ap").update(2, {"ap": 1.0}, lambda: {"epoch": 2})
    assert "checkpoint_best.pth" in caplog.text and "no longer counts as the best" in caplog.text
    assert read_checkpoint(tmp_path / "checkpoint_best.pth")["epoch"] == 2


@pytest.mark.parametrize("already, evaluated", [(set(), [2, 3]), ({2}, [3])])
def test_a_training_killed_before_an_evaluation_was_noted_begins_with_it(tmp_path, already, evaluated):
    make_trainer([Checkpoint(tmp_path)], epochs=2).run()
    calls, marks = [], []

    def evaluate(epoch):
        calls.append(epoch)
        return {}

    resumed = make_trainer(epochs=4)
    resumed.load_state_dict(read_checkpoint(tmp_path / "checkpoint_epoch_2.pth"))
    resumed.hooks = [Evaluate(evaluate, 1, mark=marks.append, evaluated=lambda: already)]
    resumed.run()
    assert calls == marks == evaluated


def test_an_epoch_is_noted_as_evaluated_only_once_its_best_is_kept(tmp_path):
    marks = []
    best = BestCheckpoint(tmp_path, RunRecord(tmp_path / "run.json", {}), "none")
    trainer = make_trainer([Evaluate(lambda epoch: {"ap": 1.0}, 1, best, mark=marks.append)])
    with pytest.raises(ConfigError, match="no metric 'none'"):
        trainer.run()
    assert marks == []
