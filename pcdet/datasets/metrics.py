"""What a data set's evaluation measures, told once: for comparisons, their pages, and the choice of a best checkpoint.

A data set names its own as ``METRICS``. Everything is found in the flat results that its ``evaluation`` returns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ONLY = "all"  # the level of a metric that has no levels


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number of an evaluation, in several levels such as difficulties.

    Attributes:
        name: under which files have it, such as ``3d``.
        label: for a picture, such as ``3D``; the name if it is empty.
        noun: what a sentence calls it, such as ``3D mAP``.
        levels: their names.
        main_level: the one by which detectors are compared.
        of_class: a class's key in the flat results, with ``{level}``, behind the class's name; None: classes have none.
        of_all: the key of all classes together, with ``{level}``; None: the mean over the classes.
        factor: from the flat results to what is shown: 100 where these are shares and percent are shown.
        digits: behind the point, in tables.
        brief: what a narrow column calls the number of all classes, such as ``mAP``; the noun if it is empty.
        brief_levels: what narrow columns call the levels, such as ``mod.``; their names if it is empty.
        caption: above a table of it by class, such as ``3D AP``; the noun if it is empty.
        taken: how it is taken, behind a caption, such as ``R40``.
    """

    name: str
    noun: str
    label: str = ""
    levels: Sequence[str] = (ONLY,)
    main_level: str = ONLY
    of_class: str | None = None
    of_all: str | None = None
    factor: float = 1.0
    digits: int = 1
    brief: str = ""
    brief_levels: Sequence[str] = ()
    caption: str = ""
    taken: str = ""

    @property
    def shown(self) -> str:
        """For a picture: ``3D``."""
        return self.label or self.name

    @property
    def said(self) -> str:
        """For a sentence: ``3D mAP (moderate)``."""
        return self.noun if len(self.levels) == 1 else f"{self.noun} ({self.main_level})"

    @property
    def named(self) -> str:
        """For a file of results: ``3d moderate R40 mAP``."""
        if len(self.levels) == 1:
            return self.noun
        return " ".join(filter(None, [self.name, self.main_level, self.taken, self.column]))

    @property
    def column(self) -> str:
        """Of a narrow column, without the level: ``mAP``."""
        return self.brief or self.noun

    @property
    def main_column(self) -> str:
        """Of a narrow column, with the level where there are several: ``mAP mod.``."""
        if len(self.levels) == 1:
            return self.column
        return f"{self.column} {self.level_columns[list(self.levels).index(self.main_level)]}"

    @property
    def level_columns(self) -> Sequence[str]:
        """The levels, as narrow columns call them."""
        return self.brief_levels or self.levels

    def above(self, of: str = "") -> str:
        """For a caption: ``3D AP of 4x (R40, %)``."""
        return f"{self.caption or self.noun}{of} ({', '.join(filter(None, [self.taken, '%']))})"

    @property
    def axis(self) -> str:
        """For an axis: ``3D mAP, moderate (%)``."""
        return f"{self.noun_with_level} (%)"

    @property
    def noun_with_level(self) -> str:
        """``3D mAP, moderate``."""
        return self.noun if len(self.levels) == 1 else f"{self.noun}, {self.main_level}"

    def title(self, level: str, name: str | None = None) -> str:
        """Of a column: the metric's name, or ``name``, with the level where there are several."""
        return (name or self.name) if len(self.levels) == 1 else f"{name or self.name} {level}"

    def value_of_class(self, result: Mapping[str, float], class_name: str, level: str) -> float | None:
        """A class's value in flat results; None where they have none."""
        key = None if self.of_class is None else class_name + self.of_class.format(level=level)
        return self.factor * float(result[key]) if key in result else None

    def value(self, result: Mapping[str, float], classes: Sequence[str], level: str) -> float | None:
        """The value of all classes in flat results; None where these, or one class, have none."""
        if self.of_all is not None:
            key = self.of_all.format(level=level)
            return self.factor * float(result[key]) if key in result else None
        values = [self.value_of_class(result, name, level) for name in classes]
        return None if not values or None in values else sum(values) / len(values)


@dataclass(frozen=True, kw_only=True)
class MetricTable:
    """Metrics that stand in one table.

    Attributes:
        title: above it.
        metrics: its columns, a column a level.
        unit: of all columns, or of each.
    """

    title: str
    metrics: Sequence[Metric]
    unit: str = "%"

    @property
    def heading(self) -> str:
        """With the unit."""
        return f"{self.title}, {self.unit}"

    def column_of_class(self, class_name: str, metric_name: str) -> str:
        """Title of a class's column: with the metric's name where there are several metrics."""
        return class_name if len(self.metrics) == 1 else f"{class_name} {metric_name}"


@dataclass(frozen=True, kw_only=True)
class EvaluationMetrics:
    """All metrics of a data set's evaluation.

    Attributes:
        evaluation: whose, for messages.
        scores: by which detectors are compared, the larger the better; the first is the main one.
        noun: what these have in common, for the title of gains.
        summary: the first table of a comparison.
        tables: the further ones.
        by_class: a table of each class's main levels.
        best: name under which a training notes the main score of its best checkpoint.

    Raises:
        ValueError: there is no score.
    """

    evaluation: str
    scores: Sequence[Metric]
    noun: str
    summary: MetricTable
    by_class: MetricTable
    tables: Sequence[MetricTable] = ()
    best: str

    def __post_init__(self):
        if not self.scores:
            raise ValueError(
                f"metrics: scores of {self.evaluation} evaluation must hold one or more, by the first of which "
                "detectors are compared, got none; add it"
            )

    @property
    def main(self) -> Metric:
        """The score by which a best checkpoint is chosen."""
        return self.scores[0]

    @property
    def columns(self) -> str:
        """What the scores are, in brief: ``mAP``; ``NDS and mAP``."""
        return " and ".join(dict.fromkeys(score.column for score in self.scores))

    def beside(self, score: Metric) -> list[Metric]:
        """What stands in a score's table where it has no classes: the other numbers of all classes without levels."""
        if score.of_class is not None:
            return []
        tables = (self.summary, *self.tables)
        every = [metric for table in tables for metric in table.metrics if metric.of_all and len(metric.levels) == 1]
        return [metric for metric in every if metric.name != score.name]

    def kept_keys(self, classes: Sequence[str]) -> list[str]:
        """The keys of flat results that tables of the scores need: of each class, then of all."""
        keys = [
            name + score.of_class.format(level=level)
            for name in classes
            for score in self.scores
            if score.of_class is not None
            for level in score.levels
        ]
        of_all = [*self.scores, *(metric for score in self.scores for metric in self.beside(score))]
        keys += [m.of_all.format(level=level) for m in of_all if m.of_all is not None for level in m.levels]
        return list(dict.fromkeys(keys))

    def score(self, name: str) -> Metric:
        """The score of this name."""
        return next(score for score in self.scores if score.name == name)

    def classes(self, result: Mapping[str, float]) -> list[str]:
        """The classes that flat results tell of, in their order; empty where nothing was evaluated."""
        metric = self.by_class.metrics[0]
        ending = metric.of_class.format(level=metric.main_level)
        return [key.removesuffix(ending) for key in result if key.endswith(ending)]

    def headline(self, result: Mapping[str, float]) -> tuple[str, float] | None:
        """(``best``, main score) as the evaluation counts it; None where nothing was evaluated."""
        value = self.main.value(result, self.classes(result), self.main.main_level)
        return None if value is None else (self.best, value / self.main.factor)

    def to_json(self) -> dict[str, Any]:
        """For a file that is read without the data set."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> EvaluationMetrics:
        """What ``to_json`` has written.

        Raises:
            ValueError: it is something else.
        """

        def table(node: Mapping) -> MetricTable:
            return MetricTable(**{**node, "metrics": [Metric(**metric) for metric in node["metrics"]]})

        try:
            parts = {
                "scores": [Metric(**metric) for metric in content["scores"]],
                "summary": table(content["summary"]),
                "by_class": table(content["by_class"]),
                "tables": [table(node) for node in content["tables"]],
            }
            return cls(**{**content, **parts})
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"metrics: not those of an evaluation ({error}); make the file anew with the command that wrote it"
            ) from error
