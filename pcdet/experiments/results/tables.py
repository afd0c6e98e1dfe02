"""Tables of a plan's results, in the form that the plan asks for: as aligned text and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from pcdet.datasets.metrics import Metric
from pcdet.experiments.results.choice_tables import choice_tables
from pcdet.experiments.results.groups import Group, Reported
from pcdet.experiments.results.schema import PLAIN, SLICES, TEACHER, Comparison
from pcdet.utils.tables import Table, human_count, mean_and_spread

NOT_THERE = "-"


@dataclass(frozen=True)
class Line:
    """A line of a table: what stands in its leading columns, and whose numbers follow."""

    leading: Sequence[str]
    student: str | None
    method: str
    group: Group | None
    length: float = 1.0


def tables(reported: Reported) -> list[Table]:
    """All tables of the results: those of the plan's ``TABLE``, then lengths, choices and every comparison.

    Args:
        reported: the results.

    Raises:
        ValueError: ``TABLE`` is none of the forms, or the plan lacks what its form needs.
    """
    form = reported.setting("TABLE", "overview")
    if form not in FORMS:
        raise ValueError(f"TABLE: must be one of {', '.join(FORMS)}, got {form!r}; correct it in the plan")
    found = [*FORMS[form](reported), *_length_tables(reported), *choice_tables(reported)]
    return [*found, *_comparison_tables(reported)]


def note(reported: Reported) -> str:
    """What gains, intervals and costs are."""
    return (
        f"Gains are points of {reported.metrics.columns} over the control of the same seeds: the mean and its 95 % "
        "interval over seeds. A gain is 'not shown' where an interval, over seeds or over seeds and frames, holds "
        "zero, and where there is one seed. Where nothing is gained, chance alone shows one comparison in twenty; "
        "p (Holm) corrects for that among finalists. Cost is that of the training, in MACs, over the plain student's "
        "of length 1."
    )


def gain_cell(comparison: Comparison | None) -> str:
    """``+1.2 [+0.3, +2.1]``, followed by ``not shown`` where it is not; a dash for no comparison."""
    if comparison is None:
        return NOT_THERE
    interval = "(one seed)" if comparison.interval is None else interval_text(comparison.interval)
    return f"{comparison.mean:+.1f} {interval}{'' if comparison.shown else ' not shown'}"


def interval_text(interval: Sequence[float] | None) -> str:
    """``[+0.3, +2.1]``; a dash for none."""
    return NOT_THERE if interval is None else f"[{interval[0]:+.1f}, {interval[1]:+.1f}]"


# -------------------------------------------------------------------------------------------------------------- forms


def _overview(reported: Reported) -> list[Table]:
    """A row a method, without classes."""
    return [
        _table(reported, heading(reported, student, score), ["method"], _lines_of(reported, student), score, False)
        for student in reported.students()
        for score in reported.metrics.scores
    ]


def _methods(reported: Reported) -> list[Table]:
    """The paper's table 3: methods side by side, AP by class and difficulty."""
    return [
        _table(reported, heading(reported, student, score), ["method"], _lines_of(reported, student), score)
        for score in reversed(reported.metrics.scores)
        for student in reported.students()
    ]


def _detectors(reported: Reported) -> list[Table]:
    """The paper's tables 1, 2 and 4: detectors and their students, with and without distillation."""
    lines = []
    for teacher in reported.teachers():
        group = reported.group_of_teacher(teacher)
        lines.append(Line([reported.title(teacher), *_size(group), "(teacher)"], None, TEACHER, group))
        for student in reported.students():
            if reported.teacher_of(student) != teacher:
                continue
            for method in _ordered(reported, student):
                group = reported.group(student, method)
                distilled = NOT_THERE if method == PLAIN else reported.title(method)
                lines.append(Line([reported.title(student), *_size(group), distilled], student, method, group))
    leading = ["detector", "params", "MACs", "distilled with"]
    scores = reversed(reported.metrics.scores)
    return [_table(reported, heading(reported, None, score), leading, lines, score) for score in scores]


def _ablation(reported: Reported) -> list[Table]:
    """The paper's table 5: which part of a method is on, and what it brings."""
    example = "PARTS: {my_method: [local distillation, reweighting], my_method_without: [reweighting]}"
    parts = {PLAIN: [], **reported.of_plan("PARTS", example)}
    names = list(dict.fromkeys(name for on in parts.values() for name in on))
    return _by_setting(reported, parts, names, lambda on: ["yes" if name in on else "no" for name in names])


def _sensitivity(reported: Reported) -> list[Table]:
    """The paper's figure 5 as a table: each setting and what it brings."""
    settings = reported.settings()
    names = list(dict.fromkeys(name for values in settings.values() for name in values))
    rows = {PLAIN: {}, **settings}
    return _by_setting(reported, rows, names, lambda values: [str(values.get(name, NOT_THERE)) for name in names])


def _by_setting(reported: Reported, rows: dict, names: list[str], cells: Callable) -> list[Table]:
    found = []
    for student in reported.students():
        lines = [
            Line([reported.title(method), *cells(value)], student, method, reported.group(student, method))
            for method, value in rows.items()
        ]
        for score in reversed(reported.metrics.scores):
            found.append(_table(reported, heading(reported, student, score), ["method", *names], lines, score))
    return found


FORMS = {
    "overview": _overview,
    "detectors": _detectors,
    "methods": _methods,
    "ablation": _ablation,
    "sensitivity": _sensitivity,
}


# ----------------------------------------------------------------------------------------------------- parts of tables


def heading(reported: Reported, student: str | None, score: Metric) -> str:
    """``3D AP of 4x (R40, %), 200 frames of the report split``."""
    of = f" of {reported.title(student)}" if student else ""
    return f"{score.above(of)}, {reported.results.frames.report} frames of the report split"


def _lines_of(reported: Reported, student: str) -> list[Line]:
    teacher = reported.teacher_of(student)
    lines = [Line([f"teacher ({reported.title(teacher)})"], None, TEACHER, reported.group_of_teacher(teacher))]
    for method in _ordered(reported, student):
        lines.append(Line([reported.title(method)], student, method, reported.group(student, method)))
    return lines


def _ordered(reported: Reported, student: str) -> list[str]:
    """Methods with a report at length 1."""
    return [m for m in reported.methods(student) if reported.group(student, m) is not None]


def _table(
    reported: Reported,
    text: str,
    leading: Sequence[str],
    lines: Sequence[Line],
    score: Metric,
    whole: bool = True,
) -> Table:
    """Leading columns, seeds, cost, AP of each class or what else stands beside, the score, gain over each control.

    Without the numbers of classes and those beside where it is not ``whole``.
    """
    controls = reported.controls({line.student for line in lines if line.student})
    parts = _parts(reported, score) if whole else []
    header = [*leading, "seeds", "cost", *(title for title, _ in parts), score.main_column]
    rows = []
    for line in lines:
        cost = reported.cost(line.student, line.method, line.length) if line.student else None
        gains = [reported.comparison(line.student, line.method, line.length, score, c) for c in controls]
        rows.append([*line.leading, *_scores(line.group, score, parts, cost), *map(gain_cell, gains)])
    return Table(text, [*header, *(f"over {c}" for c in controls)], rows, len(leading))


def _parts(reported: Reported, score: Metric) -> list[tuple[str, Callable[[Group], str]]]:
    """Columns before a score: its title, and a group's cell. Classes with all levels, or the numbers beside it."""
    if score.of_class is None:
        return [(metric.column, partial(_number_beside, metric)) for metric in reported.metrics.beside(score)]
    levels = f" {'/'.join(score.level_columns)}" if len(score.levels) > 1 else ""
    return [(f"{name}{levels}", partial(_number_of_class, score, name)) for name in reported.results.classes]


def _number_beside(metric: Metric, group: Group) -> str:
    return f"{_mean(group.row.values(metric, metric.main_level)):.{metric.digits}f}"


def _number_of_class(score: Metric, name: str, group: Group) -> str:
    values = group.row.per_class[name][score.name]
    return "/".join(f"{_mean(values[level]):.{score.digits}f}" for level in score.levels)


def _scores(group: Group | None, score: Metric, parts: Sequence[tuple], cost: float | None) -> list[str]:
    """Seeds, cost, a cell a part, and the score."""
    if group is None:
        return [NOT_THERE] * (3 + len(parts))
    cost_cell = NOT_THERE if cost is None else f"{cost:.2f}"
    return [str(len(group.runs)), cost_cell, *(cell(group) for _, cell in parts), mean_and_spread(group.scores(score))]


def _size(group: Group | None) -> list[str]:
    if group is None:
        return [NOT_THERE, NOT_THERE]
    return [human_count(group.row.params), human_count(group.row.macs)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _length_tables(reported: Reported) -> list[Table]:
    """Every training of another length than 1, and those of length 1 beside it; a table a student."""
    found = []
    for student in reported.students():
        lines = []
        for method in reported.methods(student):
            wanted = reported.compared_lengths(student, method)
            lengths = reported.lengths(student, method) if method in (PLAIN, SLICES) else wanted
            if lengths not in ([], [1.0]):
                for length in lengths:
                    group = reported.group(student, method, length)
                    lines.append(Line([reported.title(method), f"x{length:.3g}"], student, method, group, length))
        if lines:
            text = f"Lengths of training: {heading(reported, student, reported.main)}"
            found.append(_table(reported, text, ["method", "length"], lines, reported.main, whole=False))
    return found


def _comparison_tables(reported: Reported) -> list[Table]:
    """Every comparison with both its intervals and its p-values."""
    rows = [
        [
            reported.title(c.student), reported.title(c.method), f"x{c.length:.3g}",
            f"{c.control} x{c.control_length:.3g}", reported.metrics.score(c.metric).shown, str(c.seeds),
            f"{c.mean:+.1f}", interval_text(c.interval), interval_text(c.bootstrap), f"{c.p:.3f}",
            NOT_THERE if c.p_holm is None else f"{c.p_holm:.3f}",
            f"{c.p_least:.3f}", f"{c.cost:.2f}", "yes" if c.shown else "no",
        ]
        for c in reported.results.comparisons
    ]  # fmt: skip
    header = ["student", "method", "length", "control", "metric", "seeds", "gain", "over seeds"]
    header += ["over seeds and frames", "p", "p (Holm)", "least p", "cost", "shown"]
    below = "Cost: training MACs over the control's. Least p: what so many seeds can reach at best."
    title = f"Every comparison, points of {reported.metrics.noun}"
    return [Table(title, header, rows, 5, below)] if rows else []
