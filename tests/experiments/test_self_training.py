"""The control of methods that train on unlabelled frames: the student that labels those frames itself."""

import pickle

import pytest
import yaml
from support.fake_tools import SMALL, FakeTools

LABELS = {"SCORE": 0.3}
DATA = {
    "PATH": "../data",
    "TRAIN": {"INFOS": ["train.pkl"], "FRAMES": 4},
    "UNLABELLED": {"INFOS": ["train.pkl"], "FIRST": 4},
    "SEARCH": {"INFOS": ["val.pkl"], "FRAMES": 16},
    "REPORT": {"INFOS": ["val.pkl"], "FIRST": 16},
}
UNLABELLED = SMALL | {
    "DATA": DATA,
    "METHODS": {
        "fitnet": SMALL["METHODS"]["fitnet"],
        "unlabelled": {"LABELS": LABELS, "LOSSES": []},
        "slices+unlabelled": {"INIT": {"NAME": "slice"}, "LABELS": LABELS, "LOSSES": []},
    },
    "UNLABELLED": ["unlabelled", "slices+unlabelled"],
    "SEEDS": {"SCREENING": 1, "FINALS": 2, "CURVES": 1},
    "FINALISTS": {"BEST": 0, "ALWAYS": ["fitnet", "slices+unlabelled"]},
    "LENGTHS": [1, 2],
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(tools, results) of a plan with one finalist on unlabelled frames, which begins as slices."""
    fake = FakeTools(tmp_path_factory.mktemp("unlabelled") / "fake")
    return fake, fake.carry_out(UNLABELLED)


def flag(run, name):
    return run.run.command[run.run.command.index(name) + 1]


def test_its_teacher_is_the_student_that_it_begins_as_of_the_same_length_and_seed(done):
    _, results = done
    rows = {run.id: run for run in results.runs if run.method == "slices+self-training"}
    lengths = {("x1", 1), ("x1", 2), ("x2", 0)}
    assert set(rows) == {f"4x/slices+self-training/{x}/seed{seed}" for x, seed in lengths}
    for (x, seed), epochs in zip(sorted(lengths), (2, 2, 4), strict=True):
        run = rows[f"4x/slices+self-training/{x}/seed{seed}"]
        expected = f"../output/4x/slices/{x}/seed{seed}/ckpt/checkpoint_epoch_{epochs}.pth"
        assert flag(run, "--teacher_ckpt") == expected
        assert run.epochs == epochs // 2, "as many samples, of twice the frames"
    assert not any(run.method == "self-training" for run in results.runs), "no finalist begins as the plain student"


def test_its_file_has_the_labels_of_the_method_beside_it_and_the_student_as_teacher(done):
    fake, results = done
    run = next(run for run in results.runs if run.method == "slices+self-training")
    content = yaml.safe_load((fake.tools / flag(run, "--cfg_file")).read_text())
    [file] = content["DATA_CONFIG"]["INFO_PATH"]["unlabelled"]
    frames = pickle.loads((fake.root / "data" / file).read_bytes())
    assert [info["point_cloud"]["lidar_idx"] for info in frames] == [f"0{index:05d}" for index in range(4, 8)]
    kd = content["KD"]
    assert kd["TEACHER"]["CFG"] == "cfgs/simulated_models/lab/pointpillar_student.yaml"
    assert (kd["INIT"], kd["LABELS"], kd["LOSSES"]) == ({"NAME": "slice"}, LABELS, [])


def test_a_gain_over_it_counts_both_of_its_trainings(done):
    """By hand: 3 M a step, 0.5 M for the teacher's forward pass, 1 M for the student's own: 3.5 / (3 + 3 + 1)."""
    _, results = done
    found = {
        (c.method, c.length): c for c in results.comparisons if c.control == "slices+self-training" and c.metric == "3d"
    }
    assert set(found) == {("slices+unlabelled", 1.0), ("slices+unlabelled", 2.0)}
    comparison = found["slices+unlabelled", 1.0]
    assert comparison.seeds == 2 and comparison.cost == pytest.approx(3.5 / 7)
    assert comparison.control_length == 1.0
