"""The control of methods that train on unlabelled frames: the student that labels those frames itself."""

import pickle

import pytest
import yaml
from support.fake_tools import SMALL, FakeTools

from pcdet.experiments.plans.plan import load_plan
from pcdet.registry import ConfigError

SCORE = {"unlabelled": 0.5, "slices+unlabelled": 0.3}
ROWS = [("self-training", "plain", "unlabelled"), ("slices+self-training", "slices", "slices+unlabelled")]
DATA = {
    "PATH": "../data",
    "TRAIN": {"INFOS": ["train.pkl"], "FRAMES": 4},
    "UNLABELLED": {"INFOS": ["train.pkl"], "FIRST": 4, "FRAMES": 3},
    "SEARCH": {"INFOS": ["val.pkl"], "FRAMES": 16},
    "REPORT": {"INFOS": ["val.pkl"], "FIRST": 16},
}
UNLABELLED = SMALL | {
    "DATA": DATA,
    "METHODS": {
        "fitnet": SMALL["METHODS"]["fitnet"],
        "unlabelled": {"LABELS": {"SCORE": SCORE["unlabelled"]}, "LOSSES": []},
        "slices+unlabelled": {"INIT": {"NAME": "slice"}, "LABELS": {"SCORE": SCORE["slices+unlabelled"]}, "LOSSES": []},
    },
    "UNLABELLED": ["unlabelled", "slices+unlabelled"],
    "SEEDS": {"SCREENING": 1, "FINALS": 2, "CURVES": 1},
    "FINALISTS": {"BEST": 0, "ALWAYS": ["fitnet", *SCORE]},
    "LENGTHS": [1, 2],
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(tools, results) of a plan with two finalists on unlabelled frames: one begins as slices, one does not."""
    fake = FakeTools(tmp_path_factory.mktemp("unlabelled") / "fake")
    return fake, fake.carry_out(UNLABELLED)


def flag(run, name):
    return run.run.command[run.run.command.index(name) + 1]


@pytest.mark.parametrize("row, base, _", ROWS)
def test_it_learns_from_and_begins_as_its_base_of_the_same_length_and_seed(done, row, base, _):
    _, results = done
    runs = {run.id: run for run in results.runs if run.method == row}
    # Labelled are 4 frames, of 7: 2 epochs of those are 8 samples, 1 epoch of these is 7; 4 are 16, 2 are 14.
    epochs = {("x1", 1): (2, 1), ("x1", 2): (2, 1), ("x2", 0): (4, 2)}
    assert set(runs) == {f"4x/{row}/{x}/seed{seed}" for x, seed in epochs}
    for (x, seed), (of_base, own) in epochs.items():
        run = runs[f"4x/{row}/{x}/seed{seed}"]
        weights = f"../output/4x/{base}/{x}/seed{seed}/ckpt/checkpoint_epoch_{of_base}.pth"
        assert flag(run, "--teacher_ckpt") == flag(run, "--pretrained_model") == weights
        assert run.epochs == own


@pytest.mark.parametrize("row, _, method", ROWS)
def test_its_file_has_the_labels_of_the_method_beside_it_and_the_student_as_teacher(done, row, _, method):
    fake, results = done
    run = next(run for run in results.runs if run.method == row)
    content = yaml.safe_load((fake.tools / flag(run, "--cfg_file")).read_text())
    [file] = content["DATA_CONFIG"]["INFO_PATH"]["unlabelled"]
    frames = pickle.loads((fake.root / "data" / file).read_bytes())
    assert [info["point_cloud"]["lidar_idx"] for info in frames] == ["000004", "000005", "000006"]
    kd = content["KD"]
    assert kd["TEACHER"]["CFG"] == "cfgs/simulated_models/lab/pointpillar_student.yaml"
    assert (kd["INIT"], kd["LABELS"], kd["LOSSES"]) == ({"NAME": "none"}, {"SCORE": SCORE[method]}, [])


@pytest.mark.parametrize("row, _, method", ROWS)
def test_a_gain_over_it_counts_both_of_its_trainings(done, row, _, method):
    """By hand, 7 samples of 3 M and 0.5 M for the teacher; 8 of 3 M, then 7 of 3 M and 1 M for the student itself."""
    _, results = done
    found = {(c.method, c.length): c for c in results.comparisons if c.control == row and c.metric == "3d"}
    assert set(found) == {(method, 1.0), (method, 2.0)}
    comparison = found[method, 1.0]
    assert (comparison.seeds, comparison.control_length) == (2, 1.0)
    assert comparison.cost == pytest.approx(7 * 3.5 / (8 * 3 + 7 * 4))


def test_methods_of_one_control_have_the_same_labels(tmp_path):
    other = {"INIT": {"NAME": "l1"}, "LABELS": {"SCORE": 0.6}, "LOSSES": []}
    plan = UNLABELLED | {"METHODS": {**UNLABELLED["METHODS"], "l1+unlabelled": other}}
    fake = FakeTools(tmp_path / "fake")
    file = fake.write_plan(plan, {"UNLABELLED": [*SCORE, "l1+unlabelled"]})
    message = (
        "UNLABELLED: l1.unlabelled has other LABELS than slices.unlabelled, and slices.self-training is the control"
    )
    with pytest.raises(ConfigError, match=message):
        load_plan(file)
