"""Every plan in tools/cfgs/experiments: all that it would train has a sound configuration."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.distillers import distiller_of

from pcdet.experiments.plans.plan import load_plan, rehearsal
from pcdet.experiments.plans.runs import Run, Runs
from pcdet.experiments.results.schema import PLAIN, SLICES, TEACHER

TOOLS = Path(__file__).resolve().parents[2] / "tools"
PLANS = sorted((TOOLS / "cfgs" / "experiments").glob("*.yaml"))
SPLITS = ("train", "teacher_train", "unlabelled", "search", "report")


def config_of(path, subject, method, folder):
    """The configuration that is checked as it is loaded."""
    plan, _ = load_plan(path)
    runs = Runs(
        plan, SimpleNamespace(files=dict.fromkeys(SPLITS, ["some.pkl"]), digests={"unlabelled": ""}), TOOLS, folder
    )
    for name in plan.teachers if method in plan.labelled_once else ():
        runs.labels_job(name, SimpleNamespace(facts={"epochs": 1}, folder=folder / name))
    weight = 2.0 if method not in (TEACHER, PLAIN) and plan.has_losses(subject, method) else None
    return runs.config(runs.model_file(Run(subject, method, 1.0, 1, 0, weight)))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_shipped_plan_has_sound_teachers_and_plain_students(path, tmp_path):
    plan, _ = load_plan(path)
    assert plan.name == path.stem and rehearsal(plan).name == f"{path.stem}_rehearsal"
    for name in plan.teachers:
        assert not config_of(path, name, TEACHER, tmp_path).get("KD")
    for name in plan.students:
        assert not config_of(path, name, PLAIN, tmp_path).get("KD")


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_method_of_a_shipped_plan_builds_a_distiller_for_its_students(path, tmp_path):
    plan, _ = load_plan(path)
    for student, method in itertools.product(plan.students, (SLICES, *plan.methods)):
        cfg = config_of(path, student, method, tmp_path)
        assert cfg.KD.TEACHER.CFG == plan.teachers[plan.students[student].teacher].cfg
        has_losses = bool(distiller_of(cfg)[0].losses)
        assert (has_losses, cfg.KD.WEIGHT) == (plan.has_losses(student, method), 2.0 if has_losses else 1.0), method
