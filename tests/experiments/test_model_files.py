"""Model files of a plan's runs: what a student's own KD block may not change, and what all files have in common."""

import pickle

import pytest
import yaml

from pcdet.experiments.plans.model_checks import check_models
from pcdet.experiments.plans.plan import load_plan
from pcdet.experiments.plans.runs import Run, Runs
from pcdet.experiments.plans.splits import Splits
from pcdet.registry import ConfigError
from pcdet.utils.places import ROOT

TOOLS = ROOT / "tools"
LOGITS = {"NAME": "PivotalLogit"}
PLAN = {
    "NAME": "small",
    "DATA": {
        "PATH": "unused",
        "TRAIN": {"INFOS": ["train.pkl"]},
        "SEARCH": {"INFOS": ["search.pkl"]},
        "REPORT": {"INFOS": ["report.pkl"]},
    },
    "TEACHERS": {"full": {"CFG": "cfgs/kitti_models/pointpillar.yaml", "EPOCHS": [4]}},
    "STUDENTS": {"4x": {"CFG": "cfgs/kitti_models/kd/pointpillar_4x.yaml", "TEACHER": "full", "EPOCHS": 4}},
    "METHODS": {"labels": {"LABELS": {}, "LOSSES": []}, "logits": {"LOSSES": [LOGITS]}},
}


@pytest.fixture
def runs_of(tmp_path):
    """Plan -> its runs, on info files of three frames."""
    data = tmp_path / "data"
    data.mkdir()
    for number, name in enumerate(("train", "search", "report", "more")):
        infos = [{"point_cloud": {"lidar_idx": f"{number}{i}"}} for i in range(3)]
        (data / f"{name}.pkl").write_bytes(pickle.dumps(infos))

    def make(content):
        file = tmp_path / "plan.yaml"
        file.write_text(yaml.safe_dump({**PLAN, **content}))
        plan = load_plan(file)[0]
        return Runs(plan, Splits(plan.data, data, tmp_path / "splits"), TOOLS, tmp_path / "output")

    return make


def config_of(runs, method, **changes):
    """The configuration that a run of the 4x student reads."""
    return runs.config(runs.model_file(Run("4x", method, 1.0, 4, 0, **changes)))


@pytest.fixture
def own_block(tmp_path):
    """A student's model file whose KD block has keys that a plan's methods do not name."""
    file = tmp_path / "own.yaml"
    block = {
        "TEACHER": {"CFG": "cfgs/kitti_models/pointpillar.yaml", "CKPT": "another.pth"},
        "LABELS": {"SCORE": 0.77}, "LOG_EVERY": 7, "LOSSES": [LOGITS],
    }  # fmt: skip
    file.write_text(yaml.safe_dump({"_BASE_CONFIG_": str(TOOLS / "cfgs/kitti_models/pointpillar.yaml"), "KD": block}))
    return {"4x": {"CFG": str(file), "TEACHER": "full", "EPOCHS": 4}}


def test_the_plain_student_has_no_kd_block_though_its_file_has_one(runs_of):
    assert not config_of(runs_of({}), "plain").get("KD"), "its cost would be measured with a teacher"


def test_nothing_of_the_kd_block_of_a_students_file_is_left_in_a_method(runs_of, own_block):
    block = config_of(runs_of({"STUDENTS": own_block}), "labels")["KD"]
    assert (block["LABELS"], block["LOSSES"]) == ({}, [])
    assert "LOG_EVERY" not in block


def test_a_teacher_of_other_classes_than_the_students_is_refused_with_both_lists(runs_of, tmp_path):
    """The mean over classes that one of them does not know would be no mAP of it."""
    content = yaml.safe_load((TOOLS / PLAN["TEACHERS"]["full"]["CFG"]).read_text())
    content["CLASS_NAMES"].remove("Cyclist")
    content["MODEL"]["DENSE_HEAD"]["ANCHOR_GENERATOR_CONFIG"].pop()
    file = tmp_path / "two_classes.yaml"
    file.write_text(yaml.safe_dump(content))
    runs = runs_of({"TEACHERS": {"full": {"CFG": str(file), "EPOCHS": [4]}}})
    message = (
        r"TEACHERS.full.CFG: CLASS_NAMES must be those of STUDENTS.4x.CFG \(Car, Pedestrian, Cyclist\).*"
        "got Car, Pedestrian;"
    )
    with pytest.raises(ConfigError, match=message):
        check_models(runs.plan, runs)


def test_frames_held_to_be_unlabelled_may_not_be_pasted_from_with_their_labels(runs_of, tmp_path):
    without = tmp_path / "without.yaml"
    base, augmentor = str(TOOLS / PLAN["STUDENTS"]["4x"]["CFG"]), {"DISABLE_AUG_LIST": ["gt_sampling"]}
    without.write_text(yaml.safe_dump({"_BASE_CONFIG_": base, "DATA_CONFIG": {"DATA_AUGMENTOR": augmentor}}))
    more = {"DATA": {**PLAN["DATA"], "UNLABELLED": {"INFOS": ["more.pkl"]}}}
    fewer = {"STUDENTS": {"4x": {**PLAN["STUDENTS"]["4x"], "CFG": str(without)}}}
    for allowed in (runs_of({}), runs_of({**more, **fewer})):
        check_models(allowed.plan, allowed)
    with pytest.raises(ConfigError, match="STUDENTS.4x.CFG: DATA_AUGMENTOR has gt_sampling, whose database may hold"):
        refused = runs_of(more)
        check_models(refused.plan, refused)


def test_frames_that_a_students_file_labels_by_itself_are_refused(runs_of, tmp_path):
    """The plain student would train on them, and nothing would keep them apart from the reported ones."""
    file = tmp_path / "labelled.yaml"
    data = {"INFO_PATH": {"unlabelled": ["report.pkl"]}, "PSEUDO_LABELS": {"FILE": "result.pkl"}}
    base = str(TOOLS / PLAN["STUDENTS"]["4x"]["CFG"])
    file.write_text(yaml.safe_dump({"_BASE_CONFIG_": base, "DATA_CONFIG": data}))
    runs = runs_of({"STUDENTS": {"4x": {**PLAN["STUDENTS"]["4x"], "CFG": str(file)}}})
    with pytest.raises(ConfigError, match="STUDENTS.4x.CFG: DATA_CONFIG has PSEUDO_LABELS, .* under DATA.UNLABELLED"):
        check_models(runs.plan, runs)


@pytest.fixture
def given(tmp_path):
    """Score threshold of its boxes -> a teacher with weights that are given."""
    (tmp_path / "given.pth").write_bytes(b"weights")

    def make(threshold):
        file = tmp_path / "given.yaml"
        model = {"POST_PROCESSING": {"SCORE_THRESH": threshold}}
        file.write_text(yaml.safe_dump({"_BASE_CONFIG_": str(TOOLS / PLAN["TEACHERS"]["full"]["CFG"]), "MODEL": model}))
        return {"full": {"CFG": str(file), "CKPT": str(tmp_path / "given.pth")}}

    return make


def test_given_weights_with_another_model_file_are_another_teacher(runs_of, given):
    """What it labels and what it teaches is other, so that what its students have learnt is stale."""
    first, again, other = (runs_of({"TEACHERS": given(x)}).teacher_digest("4x", None) for x in (0.1, 0.1, 0.3))
    assert first == again != other


@pytest.mark.parametrize("key", ["SCORE", "score"])
def test_labels_made_once_have_the_score_that_the_method_names(runs_of, given, key):
    method = {"INIT": {"NAME": "slice"}, "LABELS": {key: 0.3, "MAX_IOU": 0.2}, "LOSSES": []}
    content = {"DATA": {**PLAN["DATA"], "UNLABELLED": {"INFOS": ["more.pkl"]}}, "TEACHERS": given(0.1)}
    runs = runs_of({**content, "METHODS": {"once": method}, "UNLABELLED": ["once"], "LABELLED_ONCE": ["once"]})
    product = runs.labels_job("full", None).product
    labels = config_of(runs, "once").DATA_CONFIG.PSEUDO_LABELS
    assert labels == {"FILE": runs.relative(product), "SCORE": 0.3}


@pytest.mark.parametrize("flags, taken", [
    ([], []),
    (["--batch_size", "16", "--workers=8", "--find_unused_parameters"], ["--batch_size=16", "--workers=8"]),
    (["--batch", "16"], ["--batch_size=16"]),
])  # fmt: skip
def test_labelling_takes_as_much_of_the_machine_as_the_plans_flags_say(runs_of, given, flags, taken):
    """A teacher that needs a smaller batch in its training needs it when it labels; flags of a training stay there."""
    content = {"DATA": {**PLAN["DATA"], "UNLABELLED": {"INFOS": ["more.pkl"]}}, "TEACHERS": given(0.1)}
    method = {"INIT": {"NAME": "slice"}, "LABELS": {}, "LOSSES": []}
    content |= {"METHODS": {"once": method}, "UNLABELLED": ["once"], "LABELLED_ONCE": ["once"], "FLAGS": flags}
    job = runs_of(content).labels_job("full", None)
    without = ["--workers", "0", "--threads", "1"]
    start = job.command.index("--workers")
    assert job.command[start:] == [*without, *taken, "--use_amp"] and job.facts["flags"] == [*without, *taken]
