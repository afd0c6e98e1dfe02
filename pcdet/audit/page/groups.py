"""Groups of objects in words: their names, gains of students on them, and losses beside the teacher."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pcdet.audit.report import ALL, Audit, Group, GroupGain

EVERY_CLASS = "all classes"


def class_text(class_name: str) -> str:
    """The class for a reader."""
    return EVERY_CLASS if class_name == ALL else class_name


def group_name(group: Group) -> str:
    """``Car, distance 20-40 m``; a group by class has the class alone."""
    if group.by == "class":
        return class_text(group.class_name or group.value)
    return f"{class_text(group.class_name)}, {group.by} {group.value}"


def overall(groups: Iterable[Group]) -> list[Group]:
    """The groups by class, which hold all objects of it."""
    return [group for group in groups if group.by == "class"]


def pairs_of(audit: Audit) -> list[tuple[str, str]]:
    """(student, control): every student with every control, or with the teacher where there is no control."""
    names = {role: [m.name for m in audit.models if m.role == role] for role in ("student", "control", "teacher")}
    return [(student, other) for student in names["student"] for other in names["control"] or names["teacher"]]


def interval_text(gain: GroupGain) -> str:
    """The interval in points of recall: ``[+0.3, +2.1]``."""
    return "[{:+.1f}, {:+.1f}]".format(*(100 * end for end in gain.interval))


def group_sentence(audit: Audit, gain: GroupGain) -> str:
    """A gain by group in words: how many objects more or fewer, with interval and control."""
    group = audit.groups[gain.group]
    what = f"{100 * abs(gain.gain):.1f} points {'more' if gain.gain >= 0 else 'fewer'} of {group_name(group)}"
    where = f"{interval_text(gain)}, {group.objects} objects"
    if gain.verdict == "not shown":
        return f"{gain.student} finds {what} than {gain.control} ({where}): not shown."
    return f"{gain.student} finds {what} than {gain.control} ({where})."


def negative_transfer(audit: Audit) -> list[str]:
    """A sentence for every group where distillation lost, and for every pair where it did not.

    A student beside its teacher is no such pair: the teacher is larger, and a loss says nothing of distillation.
    """
    teachers = {model.name for model in audit.models if model.role == "teacher"}
    found = []
    for student, control in dict.fromkeys((gain.student, gain.control) for gain in audit.gains):
        if control in teachers:
            continue
        gains = [gain for gain in audit.gains if (gain.student, gain.control) == (student, control)]
        losses = [gain for gain in gains if gain.verdict == "loss"]
        if losses:
            found += [f"{group_sentence(audit, gain)} {_teacher_text(gain.teacher_worse)}" for gain in losses]
        else:
            found.append(f"{student} beside {control}: no loss is shown in any of {len(gains)} groups.")
    return found


def _teacher_text(worse: bool | None) -> str:
    if worse is None:
        return "There is no teacher to compare with."
    if worse:
        return "The teacher, too, finds fewer of them than the control: its weakness may have been handed on."
    return "The teacher finds as many of them as the control or more: the loss does not come from its weakness."


def pair_text(student: str, control: str) -> str:
    """The pair in a selector."""
    return f"{student} over {control}"


def classes_of(names: Iterable[str]) -> Sequence[str]:
    """Classes in the order in which they come, ``ALL`` first."""
    found = list(dict.fromkeys(names))
    return sorted(found, key=lambda name: name != ALL)
