"""What the results of a plan must keep to beyond the types of their keys: rules between runs, choices and gains."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pcdet.experiments.results.groups import Key, groups_of_runs
from pcdet.experiments.results.schema import CONTROLS, PLAIN, SELF_TRAINED, SLICES, TEACHER, Comparison, Results, Run
from pcdet.registry import nearest_name

ROUNDING = 1e-6  # points of a score by which two ways to add up the same numbers may differ
COST_TOLERANCE = 0.01  # share by which a stated cost may differ from that of the runs


def what_json_cannot_hold(value: Any, path: str = "") -> list[str]:
    """A sentence for each key that is no text and each value that JSON has no form for, infinities and NaN included."""
    if isinstance(value, Mapping):
        where = path or "results"
        wrong = [f"{where}: keys must be text, got {key!r}; quote it" for key in value if type(key) is not str]
        for key, item in value.items():
            wrong += what_json_cannot_hold(item, f"{path}.{key}" if path else str(key))
        return wrong
    if isinstance(value, (list, tuple)):
        return [p for i, item in enumerate(value) for p in what_json_cannot_hold(item, f"{path}[{i}]")]
    if type(value) is float and not math.isfinite(value):
        return [f"{path}: must be finite, got {value}; give null for a number that was not measured"]
    if value is None or type(value) in (bool, int, float, str):
        return []
    return [f"{path}: must be null, a number, a text, a list or a mapping, got {type(value).__name__}; convert it"]


def broken_rules(results: Results) -> list[str]:
    """A sentence for each rule that the results break, with the key, the value and the fix."""
    try:
        results.evaluation  # noqa: B018 - is made once, and asked for by all that follow
    except ValueError as error:
        return [str(error)]
    problems = [*_metric(results), *_names(results), *_runs(results), *_choices(results)]
    if not problems:
        groups = groups_of_runs(results.runs)
        for index, comparison in enumerate(results.comparisons):
            path = f"comparisons[{index}]"
            problems += [f"{path}.{sentence}" for sentence in _comparison(comparison, results, groups)]
    return problems


def _metric(results: Results) -> Iterator[str]:
    if results.metric != (named := results.evaluation.main.named):
        whose = results.evaluation.evaluation
        yield f"metric: must be the main score of {whose} evaluation, {named!r}, got {results.metric!r}; correct it"


def _names(results: Results) -> Iterator[str]:
    """Names that ``without_times`` would take for times."""
    chosen = results.choices
    names = {run.teacher for run in results.runs} | {run.student for run in results.runs if run.student}
    names |= {run.method for run in results.runs} | {*chosen.teachers, *chosen.weights, *chosen.finalists}
    names |= {*chosen.best_length, *(method for methods in chosen.weights.values() for method in methods)}
    for name in sorted(names):
        if name.endswith("_s"):
            yield f"{name}: a name must not end in _s, which marks times; rename it in the plan"


def _runs(results: Results) -> Iterator[str]:
    for text, times in Counter(run.id for run in results.runs).items():
        if times > 1:
            yield f"runs: an id must be of one run, got {text!r} {times} times; keep one of them"
    reported = Counter((_key(run), run.seed) for run in results.runs if run.report is not None)
    for (key, seed), times in reported.items():
        if times > 1:
            yield f"runs: one run a seed may have a report, got {times} of {key}, seed {seed}; set the others' to null"
    wanted, main = set(results.evaluation.kept_keys(results.classes)), results.evaluation.main.column
    for index, run in enumerate(results.runs):
        path = f"runs[{index}]"
        if (run.student is None) != (run.method == TEACHER):
            yield (
                f"{path}.student: must be null for method {TEACHER!r} and for no other, got {run.student!r} with "
                f"method {run.method!r}; correct one of them"
            )
        if run.search is not None and main not in run.search:
            yield f"{path}.search: must hold {main}, got {sorted(run.search)}; add it, or give null"
        missing = sorted(wanted - run.report.keys()) if run.report is not None else []
        if missing:
            yield f"{path}.report: must hold every class, metric and difficulty, misses {missing[0]}; evaluate it anew"


def _choices(results: Results) -> Iterator[str]:
    chosen, runs = results.choices, results.runs
    methods, students = {run.method for run in runs}, {run.student for run in runs if run.student}
    for kind in ("weights", "finalists", "best_length", "slices_best_length", "equal_length"):
        for student in getattr(chosen, kind):
            if student not in students:
                yield f"choices.{kind}.{student}: no run has this student; {nearest_name(student, students)}"
    for name, choice in chosen.teachers.items():
        yield from _tried(f"choices.teachers.{name}", choice.chosen, [tried.epochs for tried in choice.lengths])
    for kind in ("best_length", "slices_best_length"):
        for student, choice in getattr(chosen, kind).items():
            yield from _tried(f"choices.{kind}.{student}", choice.chosen, [tried.length for tried in choice.lengths])
    for student, weights in chosen.weights.items():
        for method, choice in weights.items():
            path = f"choices.weights.{student}.{method}"
            yield from _tried(path, choice.chosen, [tried.factor for tried in choice.trials])
    for student, names in chosen.finalists.items():
        for name in names:
            if name not in methods:
                yield f"choices.finalists.{student}: no run has the method {name!r}; {nearest_name(name, methods)}"


def _tried(path: str, chosen: float, tried: Sequence[float]) -> Iterator[str]:
    if tried and chosen not in tried:
        yield f"{path}.chosen: must be one that was tried ({', '.join(map(str, tried))}), got {chosen}; choose again"


def _comparison(own: Comparison, results: Results, groups: Mapping[Key, Sequence[Run]]) -> Iterator[str]:
    """What is wrong with one comparison, after its path."""
    scores = [score.name for score in results.evaluation.scores]
    if own.metric not in scores:
        yield f"metric: must be one of {', '.join(scores)}, got {own.metric!r}; {nearest_name(own.metric, scores)}"
        return
    if len(own.gains) != own.seeds:
        yield f"gains: must hold one number a seed ({own.seeds}), got {len(own.gains)}; compare again"
    elif abs(own.mean - sum(own.gains) / own.seeds) > ROUNDING:
        yield f"mean: must be that of the gains ({sum(own.gains) / own.seeds}), got {own.mean}; compare again"
    else:
        yield from _agrees_with_runs(own, results, groups)
    for name in ("p", "p_holm", "p_least"):
        value = getattr(own, name)
        if value is not None and not 0 <= value <= 1:
            yield f"{name}: must lie in 0 to 1, got {value}; compare again"
    if own.interval is None and own.seeds > 1:
        yield f"interval: must be there for {own.seeds} seeds, got null; compare again"
    bounds = [pair for pair in (own.interval, own.bootstrap) if pair is not None]
    for name, pair in (("interval", own.interval), ("bootstrap", own.bootstrap)):
        if pair is not None and not pair[0] <= pair[1]:
            yield f"{name}: must rise, got {list(pair)}; compare again"
    same_side = all(low > 0 for low, _ in bounds) or all(high < 0 for _, high in bounds)
    shown = own.interval is not None and same_side
    if own.shown != shown:
        intervals = " and ".join(str(list(pair)) for pair in bounds) or "no interval"
        yield f"shown: must be {shown} with {intervals}, got {own.shown}; correct it"


def _agrees_with_runs(own: Comparison, results: Results, groups: Mapping[Key, Sequence[Run]]) -> Iterator[str]:
    """Whether gains and cost are those of the runs that were reported, all seeds that both sides have."""
    methods = {key.method for key in groups}
    if own.control not in CONTROLS and own.control not in methods:
        near = nearest_name(own.control, {*CONTROLS, *methods})
        yield f"control: must be a control or a method with runs, got {own.control!r}; {near}"
        return
    has_a_row = own.control in methods or own.control in SELF_TRAINED
    method = own.control if has_a_row else SLICES if own.control.startswith(SLICES) else PLAIN
    sides = []
    for name, length in ((own.method, own.length), (method, own.control_length)):
        runs = next((g for key, g in groups.items() if key[1:] == (own.student, name, length)), None)
        if runs is None:
            yield f"method: no run of {name!r} at length {length} has a report for student {own.student!r}; report it"
            return
        sides.append({run.seed: run for run in runs})
    seeds = sorted(sides[0].keys() & sides[1].keys())
    gains = [_score(sides[0][s], own.metric, results) - _score(sides[1][s], own.metric, results) for s in seeds]
    if len(gains) != own.seeds or any(abs(a - b) > ROUNDING for a, b in zip(gains, own.gains, strict=True)):
        wanted = f"those of the reported runs of seeds {seeds} ({_short(gains)})"
        yield f"gains: must be {wanted}, got {own.gains}; compare again"
        return
    macs = [sum(side[seed].training_macs for seed in seeds) for side in sides]
    if abs(own.cost * macs[1] / macs[0] - 1) > COST_TOLERANCE:
        yield f"cost: must be the training MACs over the control's ({macs[0] / macs[1]}), got {own.cost}; compare again"


def _short(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:.10g}' for value in values)}]"


def _score(run: Run, metric: str, results: Results) -> float:
    score = results.evaluation.score(metric)
    return score.value(run.report, results.classes, score.main_level)


def _key(run: Run) -> Key:
    return Key(run.teacher, run.student, run.method, run.length)
