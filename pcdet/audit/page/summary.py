"""The answer first: how far a student is from its teacher, and what distillation gained, a sentence a claim."""

from __future__ import annotations

from collections.abc import Sequence

from pcdet.audit.page.blocks import Section, sentences
from pcdet.audit.page.comparison_rows import Compared, interval_of
from pcdet.audit.page.groups import group_name, group_sentence, overall, pairs_of
from pcdet.audit.report import ALL, Audit, GroupGain
from pcdet.experiments.results.groups import Group, Reported
from pcdet.experiments.results.sentences import claims

MOST_GROUPS = 5  # sentences about single groups; the rest is in the section of gains
MOST_CLAIMS = 7  # paragraphs of a plan; a click shows the others
BACKGROUND = "background"  # errors that the summary names: boxes where nothing is


def summary_section(reported: Reported | None, compared: Compared | None, audit: Audit | None) -> Section:
    """The first section of a page, from whatever there is."""
    beside = _beside_results(reported) if reported else []
    beside += _beside_comparison(compared) if compared else []
    beside += _beside_audit(audit) if audit else []
    found = []
    if beside:
        found.append(sentences("The student beside its teacher", beside))
    if reported and (said := result_claims(reported)):
        found.append(sentences("What the plan of experiments shows", said, shown=MOST_CLAIMS))
    if compared and (said := comparison_claims(compared)):
        found.append(sentences("What the comparison shows", said))
    if audit and (said := audit_claims(audit)):
        found.append(sentences("What the audit shows, object by object", said))
    return Section("summary", "May the student replace the teacher?", "There is nothing to sum up.", found)


# ----------------------------------------------------------------------------------------------- beside the teacher


def _beside_results(reported: Reported) -> list[str]:
    """For each student its best training, beside the teacher."""
    found = []
    for student in reported.students():
        teacher = reported.group_of_teacher(reported.teacher_of(student))
        groups = [(key, group) for key, group in reported.groups.items() if key.student == student]
        if teacher is None or not groups:
            continue
        key, best = max(groups, key=lambda pair: _mean(reported, pair[1]))
        times = "" if key.length == 1 else f", {key.length:.3g} times the length"
        share = f"{_mean(reported, best):.1f} of its teacher's {_mean(reported, teacher):.1f}"
        found.append(
            f"{reported.title(student)} has {share} points of {reported.main.noun} "
            f"({reported.title(key.method)}{times}: the highest of {len(groups)} trainings, which chance favours), "
            f"{best.row.params / teacher.row.params:.2f} times its parameters and "
            f"{best.row.macs / teacher.row.macs:.2f} times its MACs a frame."
        )
    return found


def _mean(reported: Reported, group: Group) -> float:
    scores = group.scores(reported.main)
    return sum(scores) / len(scores)


def _beside_comparison(compared: Compared) -> list[str]:
    teacher = compared.rows[compared.teacher]
    found = []
    for name in compared.students or compared.controls:
        row = compared.rows[name]
        macs = [r["macs"] + r.get("sparse_macs", 0) for r in (row, teacher)]
        sizes = [(row["params"], teacher["params"], "parameters"), (*macs, "MACs")]
        sizes.append((row["ms_per_frame"], teacher["ms_per_frame"], "milliseconds a frame"))
        of_its = [f"{own / other:.2f} times its {what}" for own, other, what in sizes if other]
        share = f"{compared.mean(name):.1f} of {compared.teacher}'s {compared.mean(compared.teacher):.1f} points"
        found.append(f"{name} has {share} of {compared.metrics.main.said}{''.join(f', {size}' for size in of_its)}.")
    return found


def _beside_audit(audit: Audit) -> list[str]:
    """How much the student finds of what the teacher finds."""
    teachers = [model.name for model in audit.models if model.role == "teacher"]
    found = []
    for group in overall(audit.groups):
        for student in (model.name for model in audit.models if model.role == "student"):
            if teachers and {student, teachers[0]} <= set(group.recall):
                found.append(
                    f"Of {group_name(group)} ({group.objects} objects), {student} finds "
                    f"{group.recall[student]:.1%}, {teachers[0]} {group.recall[teachers[0]]:.1%}."
                )
    return found


# ------------------------------------------------------------------------------------------------------------- claims


def result_claims(reported: Reported) -> list[str]:
    """How many trainings gain over every control, then all claims: those that gain over all, and most, come first."""
    found = claims(reported)
    by_training: dict[tuple, list[bool]] = {}
    for c in reported.results.comparisons:
        if c.metric == reported.main.name:
            by_training.setdefault((c.student, c.method, c.length), []).append(c.shown and c.mean > 0)
    if not by_training:
        return found
    ahead = [f"{reported.title(s)}: {reported.title(m)} x{x:.3g}" for (s, m, x), won in by_training.items() if all(won)]
    gain = f"gain {reported.main.noun} over every control that they were compared with"
    text = f"{len(ahead)} of {len(by_training)} trainings {gain}"
    # claims() ends with a paragraph for each of these trainings, in this order
    general, paragraphs = found[: -len(by_training)], found[-len(by_training) :]
    ranks = [(not all(won), -sum(won)) for won in by_training.values()]
    order = sorted(range(len(paragraphs)), key=lambda i: ranks[i])
    return [f"{text}{': ' + '; '.join(ahead) if ahead else ''}.", *general, *(paragraphs[i] for i in order)]


def comparison_claims(compared: Compared) -> list[str]:
    """A sentence for each row and control, by the main score: gain, interval and cost, or that none is shown."""
    found = []
    for name, control, score, gain in compared.gains():
        if score != compared.metrics.main or name in compared.controls:
            continue
        points = f"{abs(gain.mean):.1f} points of {score.noun}"
        if gain.shown:
            said = f"Over {control}, {name} {'gains' if gain.mean > 0 else 'loses'} {points}"
        else:
            said = f"Over {control}, a gain of {name} is not shown: {'-' if gain.mean < 0 else '+'}{points}"
        cost = compared.cost(name, control)
        at = "a cost that is not known" if cost is None else f"{cost:.2f} times that control's training cost"
        found.append(f"{said} {interval_of(gain)}, at {at}.")
    for name in compared.students:
        for control in compared.controls:
            seeds = [len(compared.scores(row)) for row in (name, control)]
            if seeds[0] != seeds[1]:
                found.append(
                    f"{name} and {control} have {seeds[0]} and {seeds[1]} seeds, so they are not compared here."
                )
    return found


def audit_claims(audit: Audit) -> list[str]:
    """The clearest gains and losses by group, at most a handful, and what became of boxes where nothing is."""
    shown = [gain for gain in audit.gains if gain.verdict != "not shown"]
    shown.sort(key=lambda gain: (gain.verdict != "loss", -abs(gain.gain)))
    losses = sum(gain.verdict == "loss" for gain in shown)
    found = [group_sentence(audit, gain) for gain in _mixed(shown, losses)]
    if audit.gains:
        found.insert(
            0,
            f"Of {len(audit.gains)} gains by group, {len(shown) - losses} are shown, {losses} are shown to be losses, "
            f"and {len(audit.gains) - len(shown)} are not shown; chance alone shows one in twenty.",
        )
    counts = {(e.model, e.class_name, e.kind): e.per_frame for e in audit.errors}
    for student, control in pairs_of(audit):
        own, other = (counts.get((name, ALL, BACKGROUND)) for name in (student, control))
        if own is not None and other is not None:
            found.append(f"{student} makes {own:.2f} boxes a frame where no object is, {control} {other:.2f}.")
    return found


def _mixed(shown: Sequence[GroupGain], losses: int) -> list[GroupGain]:
    """Losses first, and room for a gain or two beside many of them."""
    of_losses = min(losses, max(MOST_GROUPS - 2, MOST_GROUPS - (len(shown) - losses)))
    return [*shown[:of_losses], *shown[losses : losses + MOST_GROUPS - of_losses]]
