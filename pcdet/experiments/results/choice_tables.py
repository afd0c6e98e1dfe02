"""Tables of what a plan chose on its search split: teachers, weights, finalists and best lengths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pcdet.experiments.results.groups import Reported
from pcdet.experiments.results.schema import PLAIN, SLICES
from pcdet.utils.tables import Table, mean_and_spread


def choice_tables(reported: Reported) -> list[Table]:
    """A table of each kind of choice that the results hold."""
    chosen, found, score = reported.results.choices, [], reported.main.column
    lengths = []
    for name, choice in chosen.teachers.items():
        tried = _tried((f"{t.epochs} epochs", t.search) for t in choice.lengths)
        lengths.append([f"{reported.title(name)} (teacher)", tried, f"{choice.chosen} epochs"])
    for method, by_student in ((PLAIN, chosen.best_length), (SLICES, chosen.slices_best_length)):
        for name, choice in by_student.items():
            tried = _tried((f"x{t.length:.3g}", t.search) for t in choice.lengths)
            lengths.append([f"{reported.title(name)} ({reported.title(method)})", tried, f"x{choice.chosen:.3g}"])
    weights = [
        [
            reported.title(student), reported.title(method), str(choice.base),
            _tried((f"x{t.factor:.3g}", t.search) for t in choice.trials), f"x{choice.chosen:.3g}",
        ]
        for student, methods in chosen.weights.items()
        for method, choice in methods.items()
    ]  # fmt: skip
    if lengths:
        header = ["model", f"{score} by length", "chosen"]
        found.append(Table("Lengths, chosen on the search split", header, lengths, 2))
    if weights:
        header = ["student", "method", "weight", f"{score} by factor", "chosen"]
        found.append(Table("Weights, chosen on the search split", header, weights, 4))
    return found + _screening(reported)


def _tried(pairs: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{what}: {score:.1f}" for what, score in pairs) or "given"


def _screening(reported: Reported) -> list[Table]:
    """Every method's score on the search split, with the seeds that the screening had, and whether it went on."""
    rows = []
    for student, names in reported.results.choices.finalists.items():
        for method, scores in _search_scores(reported, student).items():
            goes_on = "yes" if method in names else "no"
            cells = [str(len(scores)), mean_and_spread(scores), goes_on]
            rows.append([reported.title(student), reported.title(method), *cells])
    header = ["student", "method", "seeds", f"search {reported.main.column}", "finalist"]
    return [Table("Screening on the search split", header, rows, 2)] if rows else []


def _search_scores(reported: Reported, student: str) -> dict[str, Sequence[float]]:
    found: dict[str, list[float]] = {}
    for run in reported.results.runs:
        if run.student == student and run.stage == "screening" and run.search is not None:
            found.setdefault(run.method, []).append(run.search[reported.main.column])
    return found
