"""Claims of a plan's results in sentences: gain, interval, control and cost, or that no gain is shown."""

from __future__ import annotations

import re

from pcdet.experiments.results.groups import Reported
from pcdet.experiments.results.schema import PLAIN, SLICES, Comparison, TeacherChoice


def claims(reported: Reported) -> list[str]:
    """A paragraph a method, student and length: a sentence for each control, on the main score of the report split.

    What differs between the runs beside the plan comes first, then the teachers and the controls: a gain under a
    teacher that is not much better than the plain student says little, and so does one over a control cut short.
    """
    found = unlike_runs(reported)
    found += [teacher_sentence(reported, name, c) for name, c in reported.results.choices.teachers.items()]
    found += [s for student in reported.students() for s in control_sentences(reported, student)]
    paragraphs: dict[tuple, list[str]] = {}
    for comparison in reported.results.comparisons:
        if comparison.metric == reported.main.name:
            key = comparison.student, comparison.method, comparison.length
            paragraphs.setdefault(key, []).append(claim(reported, comparison))
    for (student, _, length), sentences in paragraphs.items():
        times = "" if length == 1 else f", {length:.3g} times the length"
        found.append(f"{reported.title(student)}{times}: {' '.join(sentences)}")
    return found


def unlike_runs(reported: Reported) -> list[str]:
    """A sentence for the code and one for the devices, where not all runs that count have the same."""
    runs = [run for run in reported.results.runs if run.report is not None or run.search is not None]
    code = dict.fromkeys(re.sub("(?<=^.{12})[0-9a-f]+", "", run.run.git_commit or "unknown") for run in runs)
    devices = dict.fromkeys(str(run.run.device.get("gpu") or run.run.device.get("cpu")) for run in runs)
    return [
        f"The runs were made {how} ({', '.join(found)}): a gain between them may come from that. Remove the folders of "
        "the older runs and call the plan again to repeat them."
        for how, found in (("by different versions of the code", code), ("on different devices", devices))
        if len(found) > 1
    ]


def control_sentences(reported: Reported, student: str) -> list[str]:
    """A sentence for each control whose best length is the longest that was tried."""
    chosen = reported.results.choices
    choices = {PLAIN: chosen.best_length.get(student), SLICES: chosen.slices_best_length.get(student)}
    return [
        f"{reported.title(student)}: {reported.title(method)} is best at the longest training that was tried, "
        f"{choice.chosen:.3g} times the length; longer ones may be better still."
        for method, choice in choices.items()
        if choice is not None and len(choice.lengths) > 1 and choice.chosen == max(t.length for t in choice.lengths)
    ]


def claim(reported: Reported, comparison: Comparison) -> str:
    """One comparison as a sentence."""
    name, control = reported.title(comparison.method), comparison.control
    points = f"{abs(comparison.mean):.1f} points of {reported.metrics.score(comparison.metric).noun}"
    if comparison.shown:
        verb = "gains" if comparison.mean > 0 else "loses"
        text = f"Over {control}, {name} {verb} {points}"
    else:
        text = f"Over {control}, a gain of {name} is not shown: {'-' if comparison.mean < 0 else '+'}{points}"
    return f"{text} ({_intervals(comparison)}), at {comparison.cost:.2f} times that control's training cost."


def _intervals(comparison: Comparison) -> str:
    if comparison.interval is None:
        return "one seed, so no interval" if comparison.seeds == 1 else f"{comparison.seeds} seeds, no interval"
    low, high = comparison.interval
    text = f"95 % interval {low:+.1f} to {high:+.1f} over {comparison.seeds} seeds"
    if comparison.bootstrap is not None:
        text += ", {:+.1f} to {:+.1f} over seeds and frames".format(*comparison.bootstrap)
    return text


def teacher_sentence(reported: Reported, name: str, choice: TeacherChoice) -> str:
    """How long a teacher was trained, whether that was enough, and how far it stands above its student."""
    text = f"The teacher {reported.title(name)} "
    if choice.lengths:
        end = "it had stopped improving" if choice.stopped_improving else "it had not stopped improving"
        end = "no other length was tried" if len(choice.lengths) == 1 else end
        text += f"was trained for {choice.chosen} epochs; {end}"
    else:
        text += "was given"
    if choice.above_student is None:
        return f"{text}. How far it stands above the plain student is not known."
    side = "above" if choice.above_student >= 0 else "below"
    text += f". It stands {abs(choice.above_student):.1f} points {side} the plain student at its best length"
    if choice.enough is None:
        return f"{text}."
    return f"{text}, {'as far as' if choice.enough else 'not as far as'} the plan asks for."
