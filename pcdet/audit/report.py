"""What an audit found: models, groups of objects, errors, curves, single objects and whole scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Role = Literal["teacher", "control", "student"]
Verdict = Literal["gain", "loss", "not shown"]
# How a detection ends: it finds an object, or it is one of the errors, in the order in which they are asked for. Of
# heading, size and localisation it is the one whose correction leaves the highest overlap, where several would do.
TRUE = "true"
ERRORS = ("duplicate", "heading", "size", "localisation", "several", "class", "background")
IGNORED = "ignored"  # it lies on an object that counts neither for nor against it
Kind = Literal["true", "duplicate", "heading", "size", "localisation", "several", "class", "background", "ignored"]
ALL = ""  # in place of a class: all of them together


@dataclass(frozen=True, kw_only=True)
class Model:
    """One detector of the audit, trained with one seed or several.

    Attributes:
        name: unlike the others'.
        role: ``student`` for a distilled one.
        seeds: how many were trained.
        thresholds: class -> the score from which a detection counts, a mean over the seeds; chosen for the best F1.
        first_thresholds: the same of the first seed, whose detections the scenes show.
    """

    name: str
    role: Role
    seeds: int
    thresholds: Mapping[str, float]
    first_thresholds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Objects that have something in common, and how many of them each model finds.

    Attributes:
        by: what they have in common: ``class``, ``distance``, ``points``, or an attribute of the data set's labels.
        value: of that, for a reader, such as ``20-40 m``; ``all`` for every object (``class``, ``ALL``).
        class_name: the class, or ``ALL``.
        objects: how many.
        recall: model -> fraction found, a mean over its seeds.
    """

    by: str
    value: str
    class_name: str
    objects: int
    recall: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class GroupGain:
    """How many more objects of a group a student finds than its control.

    Attributes:
        student: name of a model.
        control: name of a model.
        group: index into ``Audit.groups``.
        gain: difference of the recalls.
        interval: 95 %, bootstrap over frames, and over seeds where there are several; from -1 to 1, which is all that
            a difference can be, for a group in too few frames to draw from.
        verdict: by the interval; ``not shown`` where it holds zero.
        teacher_worse: whether the teacher finds fewer objects of the group than the control; None without a teacher.
    """

    student: str
    control: str
    group: int
    gain: float
    interval: tuple[float, float]
    verdict: Verdict
    teacher_worse: bool | None


@dataclass(frozen=True, kw_only=True)
class ErrorCount:
    """Detections from the threshold on, or objects, of one kind for each frame: a mean over frames and seeds.

    Attributes:
        model: its name.
        class_name: the class of the detections, or ``ALL``.
        kind: ``true``, one of ``ERRORS``, or ``missed`` for objects that no detection finds.
        per_frame: how many.
    """

    model: str
    class_name: str
    kind: str
    per_frame: float


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Lines over the score threshold, for one model and class; mean over seeds, of precision over those that detect.

    Thresholds from which no seed detects anything are left out: curves may differ in their length.

    Attributes:
        model: its name.
        class_name: the class, or ``ALL``.
        scores: (S,) thresholds, falling.
        precision: (S,) of the detections from each threshold on.
        recall: (S,) of the objects.
        false_positives: (S,) a frame.
    """

    model: str
    class_name: str
    scores: Sequence[float]
    precision: Sequence[float]
    recall: Sequence[float]
    false_positives: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class ObjectRow:
    """A labelled object that one model finds more often than another.

    Attributes:
        frame: name of its frame.
        index: of the object among the frame's labels.
        class_name: its class.
        distance: metres from the sensor, over the ground.
        points: that lie in its box; None where that is not known.
        attributes: of the data set's labels, such as ``occlusion`` -> ``largely occluded``.
        found: model -> fraction of its seeds that find it.
    """

    frame: str
    index: int
    class_name: str
    distance: float
    points: int | None
    attributes: Mapping[str, str]
    found: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class SceneDetections:
    """Detections of one model, first seed, in a scene; all of at least 0.1 or its threshold.

    Attributes:
        boxes: (K, 7) [x, y, z, dx, dy, dz, heading], LiDAR frame.
        scores: (K,).
        names: K classes.
        kinds: K of ``TRUE``, ``ERRORS``, ``IGNORED``, each judged as if its own score were the threshold.
    """

    boxes: np.ndarray
    scores: np.ndarray
    names: Sequence[str]
    kinds: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A frame to look at.

    Attributes:
        frame: its name.
        points: (N, 3) metres, LiDAR frame; may be thinned.
        points_in_file: how many the data set reads; KITTI's are those that its camera sees.
        boxes: (M, 7) labels.
        names: M classes.
        counted: (M,) bool; the others count neither for nor against a model.
        detections: model -> what it detects.
        importance: model -> (P, 4) [x, y, z, importance 0..1] of points or cells; models without are missing.
    """

    frame: str
    points: np.ndarray
    points_in_file: int
    boxes: np.ndarray
    names: Sequence[str]
    counted: np.ndarray
    detections: Mapping[str, SceneDetections]
    importance: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """All that was found.

    Attributes:
        frames: how many were looked at.
        rules: class -> when a detection finds an object, for a reader, such as ``3D overlap of at least 0.7``.
        models: teacher first, then controls, then students.
        groups: of objects.
        gains: of every student over every control.
        errors: by model, class and kind.
        curves: by model and class.
        objects: the most different first.
        scenes: frames to look at, those with most objects won or lost first.
    """

    frames: int
    rules: Mapping[str, str]
    models: Sequence[Model]
    groups: Sequence[Group]
    gains: Sequence[GroupGain]
    errors: Sequence[ErrorCount]
    curves: Sequence[Curve]
    objects: Sequence[ObjectRow]
    scenes: Sequence[Scene]
