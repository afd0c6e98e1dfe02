"""Plans of experiments: what is accepted, what is named when it is wrong, and what a rehearsal leaves."""

import copy

import pytest
import yaml

from pcdet.experiments.plans.plan import load_plan, rehearsal
from pcdet.registry import ConfigError

SMALL = {
    "NAME": "small",
    "DATA": {
        "PATH": "../data/small",
        "TRAIN": {"INFOS": ["train.pkl"]},
        "SEARCH": {"INFOS": ["val.pkl"], "FRAMES": 10},
        "REPORT": {"INFOS": ["val.pkl"], "FIRST": 10},
    },
    "TEACHERS": {"full": {"CFG": "teacher.yaml", "EPOCHS": [4, 8]}},
    "STUDENTS": {"4x": {"CFG": "student.yaml", "TEACHER": "full", "EPOCHS": 4}},
    "METHODS": {
        "fitnet": {"LOSSES": [{"NAME": "FitNet", "FEATURE": "spatial_features_2d"}]},
        "slices+logits": {"INIT": {"NAME": "slice"}, "LOSSES": [{"NAME": "PivotalLogit"}]},
        "l1": {"INIT": {"NAME": "l1"}, "LOSSES": []},
    },
    "SEARCH": {"EPOCHS": 2, "WARM_STEPS": 50},
    "LENGTHS": [1, 2, 4],
}


def plan_of(tmp_path, *changes):
    """The small plan, each change a path of keys and a value."""
    content = copy.deepcopy(SMALL)
    for *keys, last, value in changes:
        node = content
        for key in keys:
            node = node[key]
        node[last] = value
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump(content))
    return load_plan(file)[0]


def test_a_plan_knows_which_methods_have_a_weight_and_which_begin_with_weights(tmp_path):
    plan = plan_of(tmp_path)
    assert [plan.has_losses("4x", m) for m in ("plain", "slices", "fitnet", "slices+logits", "l1")] == [
        False, False, True, True, False,
    ]  # fmt: skip
    assert [plan.begins_with_weights("4x", m) for m in ("plain", "slices", "fitnet", "slices+logits", "l1")] == [
        False, True, False, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change, message",
    [
        (("NAME", "a/b"), r"plan.yaml: NAME: becomes part of a folder's name.*'a/b'"),
        (("STUDENTS", "4x", "TEACHER", "ful"), r"STUDENTS.4x.TEACHER: TEACHERS has no 'ful'; did you mean full\?"),
        (
            ("STUDENTS", "labels", SMALL["STUDENTS"]["4x"]),
            "STUDENTS.labels: the plan has a folder of this name; use another one",
        ),
        (("METHODS", "plain", {}), "METHODS.plain: the plan makes this row itself; use another name"),
        (("METHODS", "self-training", {}), "METHODS.self-training: the plan makes this row itself; use another name"),
        (("METHODS", "fitnet", "WEIGHT", 2), "METHODS.fitnet.WEIGHT: the plan writes this itself; remove it"),
        (("LENGTHS", [2, 4]), r"LENGTHS: must rise and have 1 among them, got \[2.0, 4.0\]"),
        (("LENGTHS", [2, 1]), r"LENGTHS: must rise"),
        (("TEACHERS", "full", {"CFG": "t.yaml"}), "TEACHERS.full.EPOCHS: give lengths to train it, or CKPT"),
        (("TEACHERS", "full", "EPOCHS", [8, 4]), r"TEACHERS.full.EPOCHS: must rise, got \[8, 4\]"),
        (("FINALISTS", {"ALWAYS": ["fitnets"]}), r"FINALISTS.ALWAYS: METHODS has no 'fitnets'; did you mean fitnet\?"),
        (("TITLES", {"pkd": "PKD"}), "TITLES: METHODS has no 'pkd'"),
        (("SEARCH", {"EPOCHS": 2, "FACTORS": [1, 1]}), "SEARCH.FACTORS: must be different numbers"),
        (("DATA", "TRAIN", {"INFOS": []}), "DATA.TRAIN.INFOS: must name at least one info file"),
        (("SEEDS", {"FINALS": 0}), "SEEDS.FINALS: must be at least 1, got 0"),
        (
            ("FLAGS", ["--batch_size", "16", "--seed", "3"]),
            "FLAGS: --seed is not for plans: the plan writes this itself",
        ),
        (("FLAGS", ["--epo=3"]), "FLAGS: --epo=3 is not for plans: the plan writes this itself; remove it"),
        (("FLAGS", ["--set", "OPTIMIZATION.LR", "1"]), "FLAGS: --set is not for plans: .* set it in the model files"),
        (("METHODS", "kd_s", {}), "METHODS.kd_s: a name must not end in _s, which marks times in results.json"),
        (("PAIRS", [["l1", "fitnet"], ["l1", "l1"]]), "PAIRS: l1 is compared with itself; name two methods"),
        (("TABLE", "ablation"), "PARTS: TABLE: ablation needs it"),
        (("TABLE", "sensitivity"), "SETTINGS: TABLE: sensitivity needs it"),
        (("SEEDZ", {}), "SEEDZ: Plan has no such key; did you mean SEEDS?"),
    ],
)
def test_what_is_wrong_is_named_with_its_key_rule_and_value(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        plan_of(tmp_path, change)


def test_flags_that_a_plan_does_not_write_are_taken(tmp_path):
    flags = ["--batch_size", "16", "--workers", "8", "--ckpt_save_time_interval", "600", "--fix_random_seed"]
    assert plan_of(tmp_path, ("FLAGS", flags)).flags == flags


def test_a_student_may_have_its_own_block_of_a_method(tmp_path):
    own = {"LOSSES": [], "LABELS": {}}
    plan = plan_of(tmp_path, ("STUDENTS", "4x", "METHODS", {"fitnet": own}))
    assert plan.block("4x", "fitnet") == own
    with pytest.raises(ConfigError, match=r"STUDENTS.4x.METHODS: METHODS has no 'fitnets'; did you mean fitnet\?"):
        plan_of(tmp_path, ("STUDENTS", "4x", "METHODS", {"fitnets": own}))


def test_all_problems_of_names_are_told_at_once(tmp_path):
    with pytest.raises(ConfigError) as error:
        plan_of(tmp_path, ("METHODS", "teacher", {}), ("LENGTHS", [2]), ("STUDENTS", "4x", "TEACHER", "x"))
    assert len(error.value.problems) == 3


def test_a_rehearsal_keeps_every_row_and_stage_at_the_least_length(tmp_path):
    plan = plan_of(tmp_path)
    short = rehearsal(plan)
    assert short.name == "small_rehearsal"
    assert list(short.methods) == list(plan.methods)
    assert (short.teachers["full"].epochs, short.students["4x"].epochs, short.lengths) == ([1, 2], 1, [1.0, 2.0])
    assert (short.search.epochs, short.search.factors, short.search.batches) == (1, plan.search.factors[:2], 1)
    assert [short.data.train.frames, short.data.search.frames, short.data.report.frames] == [2, 2, 2]
    assert short.data.report.first == 10, "the splits stay apart"


def test_a_rehearsals_teacher_need_not_be_sure_of_its_labels(tmp_path):
    labels = {"labels": {"score": [0.3, 0.4, 0.5], "MAX_IOU": 0.2}, "LOSSES": []}
    content = plan_of(tmp_path, ("METHODS", "labels", labels), ("STUDENTS", "4x", "METHODS", {"labels": labels}))
    short = rehearsal(content)
    for methods in (short.methods, short.students["4x"].methods):
        assert methods["labels"] == {"labels": {"MAX_IOU": 0.2, "SCORE": 0.0}, "LOSSES": []}


def test_a_rehearsal_takes_a_teacher_that_is_given(tmp_path):
    short = rehearsal(plan_of(tmp_path, ("TEACHERS", "full", {"CFG": "t.yaml", "CKPT": "t.pth"})))
    assert (short.teachers["full"].ckpt, short.teachers["full"].epochs) == ("t.pth", [])
