"""The files of a plan's runs."""

from types import SimpleNamespace

import pytest

from pcdet.experiments.plans.measures import Measures
from pcdet.experiments.plans.plan import DataConfig, Plan, SplitConfig, StudentConfig, TeacherConfig
from pcdet.experiments.plans.runs import Run, Runs

SPLIT = SplitConfig(infos=["some.pkl"])
STUDENT = StudentConfig(cfg="cfgs/simulated_models/lab/pointpillar_student.yaml", teacher="full", epochs=1)


def plan_with(**settings):
    """A plan of one teacher and one student."""
    content = {
        "name": "small",
        "data": DataConfig(path="../data", train=SPLIT, search=SPLIT, report=SPLIT),
        "teachers": {"full": TeacherConfig(cfg="cfgs/simulated_models/lab/pointpillar.yaml", epochs=[2, 4])},
        "students": {"4x": STUDENT},
        "methods": {"logits": {"LOSSES": [{"NAME": "PivotalLogit"}]}},
    }
    return Plan(**(content | settings))


def runs_of(plan, folder):
    files = dict.fromkeys(("train", "teacher_train", "search", "report"), ["some.pkl"])
    return Runs(plan, SimpleNamespace(files=files, digests={}), folder / "tools", folder / "output")


@pytest.mark.parametrize("flags", [["--batch_size", "16"], ["--workers", "2", "--batch=16"]])
def test_costs_are_measured_with_the_epochs_and_the_batch_of_the_trainings(tmp_path, flags):
    measures = Measures(runs_of(plan_with(flags=flags), tmp_path))
    for job, epochs in ((measures.job("4x", "plain", None), "1"), (measures.teacher_job("full"), "4")):
        assert "--batch_size=16" in job.command and job.command[job.command.index("--epochs") + 1] == epochs


def test_runs_of_other_names_have_other_model_files(tmp_path):
    """Student ``4x`` with ``a_b`` and student ``4x_a`` with ``b``; a weight, and a name that ends in one."""
    plan = plan_with(
        students={"4x": STUDENT, "4x_a": STUDENT, "full": STUDENT},
        methods={name: {"LOSSES": [{"NAME": "PivotalLogit"}]} for name in ("a_b", "b", "b_0.5")},
    )
    runs = runs_of(plan, tmp_path)
    wanted = [("4x", "a_b", 0.5), ("4x_a", "b", 0.5), ("4x", "b", 0.5), ("4x", "b_0.5", None), ("4x", "plain", None)]
    wanted += [("full", "plain", None), ("full", "teacher", None)]
    files = {runs.model_file(Run(name, method, 1.0, 1, 0, weight)) for name, method, weight in wanted}
    assert len(files) == len(wanted)
