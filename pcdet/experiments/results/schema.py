"""What a plan of experiments found: the schema of its ``results.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from pcdet.datasets.kitti.metrics import KITTI_METRICS
from pcdet.datasets.metrics import EvaluationMetrics
from pcdet.experiments.running.freshness import digest
from pcdet.registry import AtLeast, Count, CountOrZero, Positive

SCHEMA = 1
TEACHER, PLAIN, SLICES = "teacher", "plain", "slices"  # rows that every plan has; methods have other names
CONTROLS = ("plain", "plain at equal compute", "plain at its best length")
CONTROLS += ("slices", "slices at equal compute", "slices at its best length")
# Rows beside methods that train on unlabelled frames -> the row whose student labels those frames itself.
SELF_TRAINED = {"self-training": PLAIN, "slices+self-training": SLICES}
CONTROLS += tuple(SELF_TRAINED)
Seconds = Annotated[float, AtLeast(0)]


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Frames in each split."""

    train: Count
    search: Count
    report: Count


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What of a run's ``run.json`` its result depends on; no time is among it.

    Attributes:
        command: the command line.
        config_digest: of the resolved configuration.
        seed: of the run.
        git_commit: of the source tree; None outside a repository.
        versions: of what computes.
        device: its kind, name and threads.
        dataset: name, size and fingerprint.
    """

    command: list[str]
    config_digest: str
    seed: int | None
    git_commit: str | None
    versions: dict[str, str]
    device: dict[str, Any]
    dataset: dict[str, Any] | None

    @classmethod
    def of(cls, run_json: Mapping[str, Any]) -> RunFacts:
        """Those of a ``run.json``; a key that is missing there is a ``KeyError``."""
        same = ("command", "seed", "git_commit", "versions", "device", "dataset")
        return cls(config_digest=digest(run_json["config"]), **{name: run_json[name] for name in same})


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training and what it scored.

    Attributes:
        id: unlike any other run's, such as ``4x/fitnet/x1/seed0``.
        teacher: the teacher that this run is, or that of its student; a self-trained student learns from itself.
        student: None for a teacher.
        method: a method of the plan, ``plain``, ``slices``, a row of ``SELF_TRAINED`` or ``teacher``.
        length: of the training, as a multiple of the student's epochs in the plan.
        epochs: of the training.
        seed: of the training.
        factor: of the method's weight in a trial of the weight search, and the chosen one later; None without weight.
        stage: of the plan in which the run was first needed.
        folder: from the plan's output folder.
        run: what of its ``run.json`` the result depends on.
        training_macs: multiply-accumulates of the whole training, with the teacher's forward passes and the losses; of
            a self-trained student with those of the training that it begins with.
        train_cpu_s: CPU seconds of the training; None where nothing tells.
        train_wall_s: seconds of the training; None where nothing tells.
        params: learnable values of the trained detector.
        macs: multiply-accumulates of its forward pass on one frame.
        search: scores on the search split, the main one among them by its brief name, such as ``mAP``; None where it
            was not measured.
        report: on the report split, by the keys of the data set's evaluation (``EvaluationMetrics.kept_keys``); None
            where it was not measured.
    """

    id: str
    teacher: str
    student: str | None
    method: str
    length: Positive
    epochs: Count
    seed: CountOrZero
    factor: Positive | None
    stage: Literal["teacher", "search", "screening", "finals", "curves"]
    folder: str
    run: RunFacts
    training_macs: Count
    train_cpu_s: Seconds | None
    train_wall_s: Seconds | None
    params: Count
    macs: Count
    search: dict[str, float] | None
    report: dict[str, float] | None


@dataclass(frozen=True, kw_only=True)
class EpochsTried:
    """A length of a teacher's training and its main score on the search split."""

    epochs: Count
    search: float


@dataclass(frozen=True, kw_only=True)
class LengthTried:
    """A length of the plain student's training and its mean main score on the search split."""

    length: Positive
    search: float


@dataclass(frozen=True, kw_only=True)
class FactorTried:
    """A factor of a method's weight and its main score on the search split."""

    factor: Positive
    search: float


@dataclass(frozen=True, kw_only=True)
class TeacherChoice:
    """How long a teacher was trained.

    Attributes:
        lengths: that were tried.
        chosen: epochs of the one that teaches.
        stopped_improving: whether the longest was no longer better than the one before.
        above_student: points of the main score on the search split above the plain student at its best length; None:
            not known.
        enough: whether that is as much as the plan asks for; None: not known.
    """

    lengths: list[EpochsTried]
    chosen: Count
    stopped_improving: bool
    above_student: float | None
    enough: bool | None


@dataclass(frozen=True, kw_only=True)
class WeightChoice:
    """The weight of a method's losses.

    Attributes:
        base: the weight, or the weights of several losses, at factor 1.
        trials: that were made.
        chosen: the factor.
    """

    base: Any
    trials: list[FactorTried]
    chosen: Positive


@dataclass(frozen=True, kw_only=True)
class LengthChoice:
    """The best length of a control: those that were tried, and the one chosen."""

    lengths: list[LengthTried]
    chosen: Positive


@dataclass(frozen=True, kw_only=True)
class Choices:
    """All that was chosen on the search split.

    Attributes:
        teachers: teacher -> its length.
        weights: student -> method -> its weight.
        finalists: student -> methods that went on after the screening.
        best_length: student -> the length after which the plain student gains no more.
        slices_best_length: the same of slices alone.
        equal_length: student -> finalist -> control -> the length at which the control costs as much.
    """

    teachers: dict[str, TeacherChoice]
    weights: dict[str, dict[str, WeightChoice]]
    finalists: dict[str, list[str]]
    best_length: dict[str, LengthChoice]
    slices_best_length: dict[str, LengthChoice]
    equal_length: dict[str, dict[str, dict[str, Positive]]]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A method against a control, seed by seed, on the report split, in points of a score.

    Attributes:
        student: of both.
        method: that is compared.
        length: of its training.
        control: what it is compared with: one of ``CONTROLS``, or another method of the same length.
        control_length: of the control's training.
        metric: name of the score, such as ``3d`` or ``bev`` of KITTI, ``NDS`` or ``mAP`` of nuScenes.
        seeds: how many pairs.
        gains: one a pair, by rising seed.
        mean: of the gains.
        interval: 95 %, over seeds; None for one seed.
        bootstrap: 95 %, over seeds and frames together; None where it was not computed.
        p: of the two-sided permutation test.
        p_holm: the same after Holm's correction for many comparisons; None where there was none.
        p_least: the smallest that so many seeds can reach.
        shown: whether there is an interval over seeds, and all that exist leave zero out on the same side.
        cost: the method's training MACs over the control's.
    """

    student: str
    method: str
    length: Positive
    control: str
    control_length: Positive
    metric: str
    seeds: Count
    gains: list[float]
    mean: float
    interval: tuple[float, float] | None
    bootstrap: tuple[float, float] | None
    p: float
    p_holm: float | None
    p_least: float
    shown: bool
    cost: Positive


@dataclass(frozen=True, kw_only=True)
class Results:
    """The content of ``results.json``.

    Attributes:
        schema: version of this form.
        name: of the plan.
        title: one line for tables and pictures.
        plan: the plan's file, resolved.
        facts: what holds of all runs: versions and, on cores, processor, precision and threads.
        classes: that mAP is the mean of.
        metric: what choices and claims are about: the main score of the evaluation.
        metrics: what the data set's evaluation measures, where it is not KITTI's: ``EvaluationMetrics.to_json``.
        frames: in each split.
        runs: all, in the plan's order.
        choices: all that was chosen on the search split.
        comparisons: of methods with controls, on the report split.
    """

    schema: Literal[1]
    name: str
    title: str
    plan: dict
    facts: dict
    classes: list[str]
    metric: str
    metrics: dict[str, Any] | None = None
    frames: Frames
    runs: list[Run]
    choices: Choices
    comparisons: list[Comparison]

    @cached_property
    def evaluation(self) -> EvaluationMetrics:
        """What the scores are.

        Raises:
            ValueError: ``metrics`` tells of none.
        """
        return KITTI_METRICS if self.metrics is None else EvaluationMetrics.from_json(self.metrics)
