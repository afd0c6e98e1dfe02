"""Whole plans with commands in place of trainings: what is run, what is chosen, and what it is compared with."""

import pickle
from collections import Counter

import numpy as np
import pytest
import yaml
from support.fake_tools import PLAN, SHORT, SMALL, TEACHER, FakeTools, same

from pcdet.cli.experiment import output_of, parse_args, write_all
from pcdet.datasets.kitti.kitti_object_eval_python.eval import get_official_eval_result
from pcdet.experiments.plans.plan import load_plan, rehearsal
from pcdet.registry import ConfigError

CLASSES = ["Car", "Pedestrian", "Cyclist"]
CONTROLS = ("plain", "plain at equal compute", "plain at its best length")


def ids(subject, method, seeds_of_length):
    """{"x1": 2} -> the ids of length 1 with seeds 0 and 1."""
    return {f"{subject}/{method}/{x}/seed{seed}" for x, seeds in seeds_of_length.items() for seed in seeds}


# The plan of fake_tools.py by hand, each run in the stage that needs it first. A step costs 5.2 M with FitNet and 3 M
# without: its control at equal compute has length 1.75, in whole epochs 2. With logits it is 4.4 M and length 1.5.
EXPECTED = {
    "teacher": {"teachers/full/epochs2/seed0", "teachers/full/epochs4/seed0"},
    "search": {
        f"4x/{method}/search{factor}/seed1000"
        for method in ("fitnet", "logits", "slices+logits")
        for factor in ("0.333", "1", "3")
    },
    "screening": ids("4x", "fitnet", {"x1": [0, 1]})
    | ids("4x", "logits", {"x1": [0, 1]})
    | ids("4x", "slices+logits", {"x1": [0, 1]}),
    "curves": ids("4x", "plain", {"x1": [0, 1], "x2": [0, 1]})
    | ids("4x", "slices", {"x1": [0, 1], "x2": [0, 1]})
    | ids("4x", "fitnet", {"x2": [0, 1]})
    | ids("4x", "slices+logits", {"x2": [0, 1]}),
    "finals": ids("4x", "fitnet", {"x1": [2, 3, 4]})
    | ids("4x", "slices+logits", {"x1": [2, 3, 4]})
    | ids("4x", "plain", {"x1": [2, 3, 4], "x1.5": [2, 3, 4], "x2": [2, 3, 4]})
    | ids("4x", "slices", {"x1": [2, 3, 4], "x1.5": [2, 3, 4], "x2": [2, 3, 4]}),
}
MEASURES = {"teachers/full", "4x/plain", "4x/slices", "4x/fitnet", "4x/logits", "4x/slices+logits"}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(tools, results) of the plan."""
    fake = FakeTools(tmp_path_factory.mktemp("plan") / "fake")
    return fake, fake.carry_out()


@pytest.fixture(scope="module")
def small_plan(tmp_path_factory):
    """(tools, results) of the plan without a search."""
    fake = FakeTools(tmp_path_factory.mktemp("small") / "fake")
    return fake, fake.carry_out(SMALL)


@pytest.fixture
def fake(tmp_path):
    return FakeTools(tmp_path / "fake")


def weight_of(fake, run_id):
    """KD.WEIGHT in the configuration that a run was trained with."""
    command = yaml.safe_load((fake.output / run_id / "run.json").read_text())["command"]
    file = fake.tools / command[command.index("--cfg_file") + 1]
    return yaml.safe_load(file.read_text())["KD"]["WEIGHT"]


def test_every_stage_trains_what_the_plan_asks_for(done):
    _, results = done
    found = {}
    for run in results.runs:
        found.setdefault(run.stage, set()).add(run.id)
    assert found == EXPECTED
    epochs = {run.id.split("/")[-2]: run.epochs for run in results.runs}
    assert epochs == {
        "epochs2": 2, "epochs4": 4, "x1": 2, "x1.5": 3, "x2": 4, "search0.333": 1, "search1": 1, "search3": 1,
    }  # fmt: skip
    assert all(run.id.endswith(f"seed{run.seed}") for run in results.runs)


def test_no_run_is_trained_twice_and_another_call_trains_nothing(done):
    fake, results = done
    runs = set().union(*EXPECTED.values()) | {f"measures/{name}" for name in MEASURES}
    assert Counter(fake.starts()) == dict.fromkeys(runs, 1)
    again = fake.carry_out()
    assert len(fake.starts()) == len(runs) and same(again) == same(results)


def test_the_numbers_are_those_of_the_official_evaluation_on_either_split(done):
    fake, results = done
    run = next(run for run in results.runs if run.id == "4x/slices+logits/x1/seed2")
    frames = pickle.loads((fake.root / "data" / "val.pkl").read_bytes())
    file = fake.output / run.id / "eval/eval_with_train/epoch_2/val/result.pkl"
    detected = {frame["frame_id"]: frame for frame in pickle.loads(file.read_bytes())}

    def numbers(infos):
        pairs = [(info["annos"], detected[info["point_cloud"]["lidar_idx"]]) for info in infos]
        return get_official_eval_result(*map(list, zip(*pairs, strict=True)), CLASSES)[1]

    report = numbers(frames[16:])
    assert run.report == pytest.approx({key: report[key] for key in run.report})
    search = np.mean([numbers(frames[:16])[f"{name}_3d/moderate_R40"] for name in CLASSES])
    assert run.search["mAP"] == pytest.approx(search)


def test_what_finds_most_on_the_search_split_is_chosen(done):
    """The fake trainings find more with more epochs, at weights 0.5 (FitNet) and 9 (logits), and with slices."""
    fake, results = done
    choices = results.choices
    assert choices.teachers["full"].chosen == 4 and choices.best_length["4x"].chosen == 2.0
    weights = {method: (w.base, w.chosen) for method, w in choices.weights["4x"].items()}
    assert weights == {"fitnet": (0.5, 1.0), "logits": (3.0, 3.0), "slices+logits": (3.0, 3.0)}, "0.3 of the gradient"
    assert choices.finalists == {"4x": ["fitnet", "slices+logits"]}
    trials = [weight_of(fake, f"4x/logits/search{factor}/seed1000") for factor in ("0.333", "1", "3")]
    assert trials == [1.0, 3.0, 9.0]
    assert [weight_of(fake, f"4x/{m}/x1/seed0") for m in ("fitnet", "logits", "slices+logits")] == [0.5, 9.0, 9.0]


def test_students_learn_from_the_teacher_that_was_chosen(done):
    _, results = done
    distilled = [run for run in results.runs if run.method not in ("teacher", "plain")]
    checkpoints = {run.run.command[run.run.command.index("--teacher_ckpt") + 1] for run in distilled}
    assert checkpoints == {"../output/teachers/full/epochs4/seed0/ckpt/checkpoint_epoch_4.pth"}


def test_a_finalist_is_compared_with_every_control_and_one_without_weights_not_with_slices(done):
    _, results = done
    found = {}
    for entry in results.comparisons:
        if (entry.length, entry.metric) == (1.0, "3d"):
            found.setdefault(entry.method, {})[entry.control] = entry.control_length, entry.seeds
    plain = {"plain": (1.0, 3), "plain at its best length": (2.0, 3)}
    slices = {"slices": (1.0, 3), "slices at equal compute": (1.5, 3), "slices at its best length": (2.0, 3)}
    assert found["fitnet"] == plain | {"plain at equal compute": (2.0, 3)}
    asked_for = {"fitnet": (1.0, 3)}  # by PAIRS
    assert found["slices+logits"] == plain | slices | {"plain at equal compute": (1.5, 3)} | asked_for
    assert found["logits"] == {"plain": (1.0, 2), "plain at its best length": (2.0, 2)}, "two seeds of the screening"


def test_a_control_at_equal_compute_is_never_cheaper_than_the_method(done):
    _, results = done
    costs = {(c.method, c.control): c.cost for c in results.comparisons if "equal compute" in c.control}
    assert costs == {
        ("fitnet", "plain at equal compute"): pytest.approx(5.2 / 3 / 2),
        ("slices+logits", "plain at equal compute"): pytest.approx(4.4 / 3 / 1.5),
        ("slices+logits", "slices at equal compute"): pytest.approx(4.4 / 3 / 1.5),
    }


def test_choices_do_not_see_the_report_split(short_plan, tmp_path):
    """Each run gets the reported detections of another one: the gains change, and nothing is chosen differently."""
    usual, before = short_plan
    fake = usual.copy(tmp_path / "fake")
    files = fake.results("4x/*/*/*")
    contents = [pickle.loads(file.read_bytes()) for file in files]
    for file, own, other in zip(files, contents, contents[1:] + contents[:1], strict=True):
        other = {frame["frame_id"]: frame for frame in other}
        mixed = [other[f["frame_id"]] if f["frame_id"].startswith("2") else f for f in own]
        file.write_bytes(pickle.dumps(mixed))
    after = fake.carry_out(SHORT)
    assert fake.starts() == usual.starts() and after.choices == before.choices
    assert [run.search for run in after.runs] == [run.search for run in before.runs]
    assert [c.gains for c in after.comparisons] != [c.gains for c in before.comparisons]


def test_a_spent_budget_stops_before_the_next_stage_and_a_larger_one_goes_on(fake):
    """An epoch takes a CPU minute here: 4 for teacher and student, 8 before the finals, 15 after them."""
    message = (
        "BUDGET.CPU_MINUTES: the trainings have taken 4 CPU minutes, 3 are allowed, and costs of the methods would "
        "come next"
    )
    for _ in range(2):
        with pytest.raises(ConfigError, match=message):
            fake.carry_out(SMALL, {"BUDGET": {"CPU_MINUTES": 3}})
    assert set(fake.starts()) == {
        "measures/teachers/full", "measures/4x/plain", "teachers/full/epochs2/seed0", "4x/plain/x1/seed0",
    }  # fmt: skip
    results = fake.carry_out(SMALL, {"BUDGET": {"CPU_MINUTES": 9}})
    assert len(results.runs) == 7 and max(Counter(fake.starts()).values()) == 1
    again = fake.carry_out(SMALL, {"BUDGET": {"CPU_MINUTES": 9}})
    assert same(again) == same(results), "what began within the budget ends"


def test_a_teacher_that_is_given_teaches_untrained_and_another_in_its_file_is_learned_from_anew(fake):
    given = {"TEACHERS": {"full": {"CFG": TEACHER, "CKPT": "given.pth"}}}
    with pytest.raises(ConfigError, match=r"TEACHERS.full.CKPT: .*given.pth does not exist"):
        fake.carry_out(SMALL, given)
    (fake.tools / "given.pth").write_text('{"found": [0.9, 0.0]}')
    results = fake.carry_out(SMALL, given)
    assert results.choices.teachers == {} and "teacher" not in {run.stage for run in results.runs}
    distilled = [run.run.command for run in results.runs if run.method != "plain"]
    assert {command[command.index("--teacher_ckpt") + 1] for command in distilled} == {"given.pth"}
    assert all(path.is_file() for path in write_all(results, fake.output))
    (fake.tools / "given.pth").write_text('{"found": [0.2, 0.0]}')
    fake.carry_out(SMALL, given)
    counts = Counter(fake.starts())
    assert counts["4x/fitnet/x1/seed0"] == 2 and counts["4x/plain/x1/seed0"] == 1


def test_without_a_search_the_weights_are_those_of_the_blocks(small_plan):
    fake, results = small_plan
    assert results.choices.weights == {} and "search" not in {run.stage for run in results.runs}
    assert {run.factor for run in results.runs} == {None}
    assert [weight_of(fake, f"4x/{method}/x1/seed0") for method in ("fitnet", "logits")] == [1.0, 1.0]
    assert all(path.is_file() for path in write_all(results, fake.output))


def test_a_changed_block_trains_its_own_runs_anew_and_keeps_the_old_ones(small_plan, tmp_path):
    fake = small_plan[0].copy(tmp_path / "fake")
    before = fake.starts()
    fitnet = {"LOSSES": [{"NAME": "FitNet", "FEATURE": "spatial_features_2d", "WEIGHT": 2.0}]}
    fake.carry_out(SMALL, {"METHODS": SMALL["METHODS"] | {"fitnet": fitnet}})
    new = fake.starts()[len(before) :]
    assert sorted(new) == ["4x/fitnet/x1/seed0", "4x/fitnet/x1/seed1", "measures/4x/fitnet"]
    aside = [path.relative_to(fake.output) for path in fake.output.rglob("*-old*")]
    assert sorted(map(str, aside)) == [
        "4x/fitnet/x1/seed0-old1", "4x/fitnet/x1/seed1-old1", "measures/4x/fitnet-old1",
    ]  # fmt: skip


def test_two_students_have_their_own_controls(fake):
    student = PLAN["STUDENTS"]["4x"]
    methods = {"METHODS": {"logits": PLAN["METHODS"]["logits"]}}
    results = fake.carry_out(SMALL, methods, {"STUDENTS": {"4x": student, "16x": student}})
    assert results.choices.finalists == {"4x": ["logits"], "16x": ["logits"]}
    controls = {(c.student, c.control) for c in results.comparisons}
    assert controls == {(s, c) for s in ("4x", "16x") for c in CONTROLS}


def test_a_rehearsal_has_a_folder_of_its_own(fake, tmp_path):
    file = fake.write_plan(SMALL)
    plan, _ = load_plan(file)
    args = parse_args(["--plan", str(file)])
    assert output_of(args, rehearsal(plan)).name == "fake_rehearsal" and output_of(args, plan).name == "fake"
    given = ["--plan", str(file), "--output_dir", str(tmp_path / "mine")]
    assert output_of(parse_args(given), plan) == tmp_path / "mine"
    assert output_of(parse_args([*given, "--rehearse"]), rehearsal(plan)) == tmp_path / "mine_rehearsal"
