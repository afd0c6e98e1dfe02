"""What the model files of a plan must have in common, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pcdet.experiments.plans.plan import Plan
from pcdet.experiments.plans.runs import Run, Runs
from pcdet.experiments.results.schema import PLAIN, TEACHER
from pcdet.registry import ConfigError

PASTES = "gt_sampling"


def check_models(plan: Plan, runs: Runs) -> None:
    """Checks the files of all teachers and students against each other and the plan's data.

    Args:
        plan: that names them.
        runs: of the plan.

    Raises:
        ConfigError: they have other classes than the first student, so that their scores would be of other things; or a
            student pastes objects, whose labels come from a database of labelled frames, while the plan holds frames
            to be without labels; or a file has frames and labels of its own, which the plan neither counts nor keeps
            apart from those that are reported. Every such file is named.
    """
    students = {f"STUDENTS.{name}.CFG": _config(runs, name, PLAIN) for name in plan.students}
    teachers = {f"TEACHERS.{name}.CFG": _config(runs, name, TEACHER) for name in plan.teachers}
    problems = list(_other_classes({**students, **teachers}))
    problems += [
        f"{path}: DATA_CONFIG has PSEUDO_LABELS, labels of frames that the plan does not know; take it out, and name "
        "the frames under DATA.UNLABELLED, and the methods that train on them under UNLABELLED and LABELLED_ONCE"
        for path, config in {**students, **teachers}.items()
        if config["DATA_CONFIG"].get("PSEUDO_LABELS") is not None
    ]
    if plan.data.unlabelled is not None:
        problems += [
            f"{path}: DATA_AUGMENTOR has {PASTES}, whose database may hold objects of DATA.UNLABELLED with their labels"
            f"; take it out (DISABLE_AUG_LIST: [{PASTES}])"
            for path, config in students.items()
            if _pastes(config)
        ]
    if problems:
        raise ConfigError(problems)


def _config(runs: Runs, name: str, method: str) -> Mapping[str, Any]:
    return runs.config(runs.model_file(Run(name, method, 1.0, 1, 0)))


def _other_classes(configs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    first, *others = configs
    wanted = list(configs[first]["CLASS_NAMES"])
    for path in others:
        found = list(configs[path]["CLASS_NAMES"])
        if {*found} != {*wanted}:
            rule = f"CLASS_NAMES must be those of {first} ({', '.join(wanted)}), since mAP is the mean over them"
            yield f"{path}: {rule}, got {', '.join(found)}; take another file, or make a plan of its own for it"


def _pastes(config: Mapping[str, Any]) -> bool:
    augmentor = config["DATA_CONFIG"].get("DATA_AUGMENTOR") or {}
    if PASTES in augmentor.get("DISABLE_AUG_LIST", ()):
        return False
    return any(step.get("NAME") == PASTES for step in augmentor.get("AUG_CONFIG_LIST", ()))
