"""The files of a plan's runs."""

from types import SimpleNamespace

from pcdet.experiments.plans.plan import DataConfig, Plan, SplitConfig, StudentConfig, TeacherConfig
from pcdet.experiments.plans.runs import Run, Runs

SPLIT = SplitConfig(infos=["some.pkl"])
STUDENT = StudentConfig(cfg="cfgs/simulated_models/lab/pointpillar_student.yaml", teacher="full", epochs=1)


def test_runs_of_other_names_have_other_model_files(tmp_path):
    """Student ``4x`` with ``a_b`` and student ``4x_a`` with ``b``; a weight, and a name that ends in one."""
    plan = Plan(
        name="small",
        data=DataConfig(path="../data", train=SPLIT, search=SPLIT, report=SPLIT),
        teachers={"full": TeacherConfig(cfg="cfgs/simulated_models/lab/pointpillar.yaml", epochs=[1])},
        students={"4x": STUDENT, "4x_a": STUDENT, "full": STUDENT},
        methods={name: {"LOSSES": [{"NAME": "PivotalLogit"}]} for name in ("a_b", "b", "b_0.5")},
    )
    splits = SimpleNamespace(files=dict.fromkeys(("train", "teacher_train", "search", "report"), ["some.pkl"]))
    runs = Runs(plan, splits, tmp_path / "tools", tmp_path / "output")
    wanted = [("4x", "a_b", 0.5), ("4x_a", "b", 0.5), ("4x", "b", 0.5), ("4x", "b_0.5", None), ("4x", "plain", None)]
    wanted += [("full", "plain", None), ("full", "teacher", None)]
    files = {runs.model_file(Run(name, method, 1.0, 1, 0, weight)) for name, method, weight in wanted}
    assert len(files) == len(wanted)
