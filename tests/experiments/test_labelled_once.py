"""Methods whose teacher labels the unlabelled frames once, before the trainings of its students."""

import pickle

import pytest
import yaml
from support.fake_tools import SMALL, FakeTools

from pcdet.experiments.plans import laboratory
from pcdet.experiments.plans.plan import load_plan
from pcdet.experiments.running.pool import run_jobs
from pcdet.registry import ConfigError

ONCE, EVERY_PASS = "slices+labelled", "slices+unlabelled"
BLOCK = {"INIT": {"NAME": "slice"}, "LABELS": {"SCORE": 0.3}, "LOSSES": []}
PLAN = SMALL | {
    "DATA": {
        "PATH": "../data",
        "TRAIN": {"INFOS": ["train.pkl"], "FRAMES": 4},
        "UNLABELLED": {"INFOS": ["train.pkl"], "FIRST": 4, "FRAMES": 3},
        "SEARCH": {"INFOS": ["val.pkl"], "FRAMES": 16},
        "REPORT": {"INFOS": ["val.pkl"], "FIRST": 16},
    },
    "METHODS": {ONCE: BLOCK, EVERY_PASS: BLOCK},
    "UNLABELLED": [ONCE, EVERY_PASS],
    "LABELLED_ONCE": [ONCE],
    "PAIRS": [[ONCE, EVERY_PASS]],
    "SEEDS": {"SCREENING": 1, "FINALS": 1, "CURVES": 1},
    "FINALISTS": {"BEST": 2},
    "LENGTHS": [1, 2],
}  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(tools, results) of a plan with a method of each kind."""
    fake = FakeTools(tmp_path_factory.mktemp("once") / "fake")
    return fake, fake.carry_out(PLAN)


def runs_of(results, method):
    return [run for run in results.runs if run.method == method]


def model_file(fake, run):
    command = run.run.command
    return yaml.safe_load((fake.tools / command[command.index("--cfg_file") + 1]).read_text())


def test_the_teacher_labels_the_unlabelled_frames_in_one_job_for_all_trainings(done):
    fake, results = done
    assert fake.starts().count("labels/full") == 1 and len(runs_of(results, ONCE)) > 1
    [file] = fake.output.glob("labels/full/eval/epoch_2/val/default/result.pkl")
    assert [result["frame_id"] for result in pickle.loads(file.read_bytes())] == ["000004", "000005", "000006"]


def test_its_trainings_read_these_labels_and_have_no_others_of_the_teacher(done):
    fake, results = done
    for run in runs_of(results, ONCE):
        content = model_file(fake, run)
        labels = content["DATA_CONFIG"]["PSEUDO_LABELS"]
        assert (fake.tools / labels.pop("FILE")).is_file() and labels == {"SCORE": 0.3}
        assert content["KD"]["LABELS"] is None and content["KD"]["INIT"] == {"NAME": "slice"}
        assert len(content["DATA_CONFIG"]["INFO_PATH"]["unlabelled"]) == 1
    for run in runs_of(results, EVERY_PASS):
        assert "PSEUDO_LABELS" not in model_file(fake, run)["DATA_CONFIG"]


def test_its_cost_has_the_teachers_pass_over_each_frame_once(done):
    """By hand: 7 samples an epoch of 3 M; the teacher's pass of 3 M on 3 frames, against one of 0.5 M in every step."""
    _, results = done
    once, every = ({run.epochs: run.training_macs for run in runs_of(results, method)} for method in (ONCE, EVERY_PASS))
    assert once == {epochs: 7 * 3e6 * epochs + 3 * 3e6 for epochs in (1, 2)}
    assert every == {epochs: 7 * 3.5e6 * epochs for epochs in (1, 2)}


def test_both_have_the_control_that_labels_the_frames_itself(done):
    _, results = done
    controlled = {c.method for c in results.comparisons if c.control == "slices+self-training"}
    assert controlled == {ONCE, EVERY_PASS}


def test_the_time_to_go_counts_the_teachers_pass_over_each_frame(done, tmp_path, monkeypatch):
    """Beside what every command needs: by hand, 3 M on 3 frames."""
    seen = []
    monkeypatch.setattr(laboratory, "run_jobs", lambda jobs, *rest: seen.extend(jobs) or run_jobs(jobs, *rest))
    done[0].copy(tmp_path / "twin").carry_out(PLAN)
    work = {job.name: job.work for job in seen}
    assert work["labels of full"] - work["cost of 4x/plain"] == 3 * 3e6


def test_a_second_call_labels_nothing_again_and_a_better_teacher_does(done, tmp_path):
    fake, _ = done
    twin = fake.copy(tmp_path / "twin")
    before = len(twin.starts())
    twin.carry_out(PLAN)
    assert len(twin.starts()) == before
    twin.carry_out(PLAN | {"TEACHERS": {"full": {**PLAN["TEACHERS"]["full"], "EPOCHS": [4]}}})
    assert twin.starts()[before:].count("labels/full") == 1


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"UNLABELLED": [EVERY_PASS]}, "LABELLED_ONCE: slices.labelled has no frames without labels; name it in UNLAB"),
        ({"LABELLED_ONCE": ["slices"]}, "LABELLED_ONCE: METHODS has no 'slices'"),
        (
            {"METHODS": {ONCE: {"LABELS": {"SCORE": 0.3}, "LOSSES": []}, EVERY_PASS: BLOCK}},
            "LABELLED_ONCE: slices.labelled of 4x needs INIT or LOSSES beside the labels",
        ),
    ],
)
def test_a_method_without_such_frames_or_with_labels_alone_is_refused(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        load_plan(FakeTools(tmp_path / "fake").write_plan(PLAN, changes))
