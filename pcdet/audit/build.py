"""Builds the audit of some models on the frames of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import get_args

from tqdm import tqdm

from pcdet.audit.counts import error_counts
from pcdet.audit.curves import score_curves
from pcdet.audit.gains import Pair, group_gains
from pcdet.audit.groups import find_members, to_groups
from pcdet.audit.judging import AuditedModel, judge_models
from pcdet.audit.objects import object_rows
from pcdet.audit.report import Audit, Model, Role
from pcdet.audit.scenes import build_scenes, choose_frames
from pcdet.audit.tables import Objects
from pcdet.datasets.dataset import DatasetTemplate
from pcdet.datasets.errors import DataError
from pcdet.datasets.frame_labels import FrameLabels
from pcdet.datasets.results import repeated_frames

ROLES = get_args(Role)  # teacher, controls, students: the order of the report


def build_audit(
    dataset: DatasetTemplate,
    models: Sequence[AuditedModel],
    pairs: Sequence[Pair],
    *,
    max_scenes: int = 200,
    points_per_scene: int = 20000,
    progress: bool = False,
) -> Audit:
    """What distillation won and lost on the frames of a data set, without importance in its scenes.

    Args:
        dataset: in test mode, with labels.
        models: with at least one seed each, and at most one teacher.
        pairs: names of a student and its control, or the teacher where there is no control.
        max_scenes: most frames to look at.
        points_per_scene: most points of each.
        progress: whether to show bars.

    Raises:
        DataError: the data set has no frames, frames without labels or that are there twice; results are missing,
            repeated, of other frames or cannot be judged.
        ValueError: models or pairs do not fit together, or a number is below 1 (0 for ``max_scenes``).
    """
    check_models(models, pairs)
    if max_scenes < 0 or points_per_scene < 1:
        raise ValueError(
            f"max_scenes must be at least 0 and points_per_scene at least 1, got {max_scenes} and {points_per_scene}"
        )
    labels = _read_labels(dataset, progress)
    rules = dataset.matching_rules()
    objects = Objects.of_labels(labels, list(rules), list(dataset.LABEL_ATTRIBUTES))
    models = sorted(models, key=lambda model: ROLES.index(model.role))
    judged = judge_models(models, objects, list(rules.values()), progress)
    members = find_members(objects, dataset.LABEL_ATTRIBUTES)
    groups = to_groups(members, judged)
    frames = choose_frames(judged, pairs, objects, max_scenes)
    return Audit(
        frames=len(labels),
        rules={name: str(rule) for name, rule in rules.items()},
        models=[
            Model(
                name=model.name,
                role=model.role,
                seeds=len(model.runs),
                thresholds=dict(zip(objects.classes, model.thresholds.tolist(), strict=True)),
                first_thresholds=dict(zip(objects.classes, model.runs[0].thresholds.tolist(), strict=True)),
            )
            for model in judged
        ],
        groups=groups,
        gains=group_gains(members, groups, judged, pairs, objects),
        errors=error_counts(judged, objects),
        curves=score_curves(judged, objects),
        objects=object_rows(judged, pairs, objects),
        scenes=build_scenes(dataset, frames, judged, objects, points_per_scene, progress),
    )


def check_models(models: Sequence[AuditedModel], pairs: Sequence[Pair]) -> None:
    """ValueError where models and pairs do not fit together; the model is named."""
    names = [model.name for model in models]
    if not names:
        raise ValueError("an audit needs at least one model, got none; name the results of one")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f"models must have different names, but several are called {', '.join(repeated)}; rename them")
    for model in models:
        if model.role not in ROLES:
            raise ValueError(f"the role of {model.name} must be one of {', '.join(ROLES)}, got {model.role!r}")
        if not len(model.detections):
            raise ValueError(f"{model.name} has no detections; give those of at least one seed, or leave it out")
    teachers = [model.name for model in models if model.role == "teacher"]
    if len(teachers) > 1:
        raise ValueError(
            f"an audit has one teacher, got {', '.join(teachers)}; audit the students of each by themselves"
        )
    roles = {model.name: model.role for model in models}
    for pair in pairs:
        for name, allowed in zip(pair, (("student",), ("control", "teacher")), strict=True):
            if name not in roles:
                raise ValueError(f"pair {pair[0]}, {pair[1]}: there is no model {name}, only {', '.join(names)}")
            if roles[name] not in allowed:
                raise ValueError(
                    f"pair {pair[0]}, {pair[1]}: a pair names a student and then its control or teacher, but {name} is "
                    f"a {roles[name]}"
                )


def _read_labels(dataset: DatasetTemplate, progress: bool) -> list[FrameLabels]:
    """The labels of all frames, each read once.

    Raises:
        DataError: there are no frames, some have no labels or are there twice, or an attribute has a value of its own.
    """
    frames = range(dataset.num_frames())
    if not frames:
        raise DataError(
            f"{type(dataset).__name__} has no frames to audit; name a split that holds some (INFO_PATH.test)"
        )
    shown = tqdm(frames, desc="labels", leave=False, dynamic_ncols=True, disable=None if progress else True)
    labels = [dataset.frame_labels(index) for index in shown]
    unlabelled = [index for index in frames if labels[index] is None]
    if unlabelled:
        raise DataError(
            f"{len(unlabelled)} of {len(labels)} frames have no labels, such as number {unlabelled[0]}; audit a split "
            "whose frames are all labelled"
        )
    repeated = repeated_frames(frame.frame for frame in labels)
    if repeated:
        raise DataError(f"frames must be there once, but these are repeated: {repeated}; correct the split")
    for name, values in dataset.LABEL_ATTRIBUTES.items():
        for frame in labels:
            other = set(frame.attributes.get(name, [None])) - set(values)
            if other:
                raise DataError(
                    f"frame {frame.frame}: the attribute {name} must be one of {', '.join(values)}, got "
                    f"{sorted(map(repr, other))[0]}; add it to {type(dataset).__name__}.LABEL_ATTRIBUTES, or correct it"
                )
    return labels
