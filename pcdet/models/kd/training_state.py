"""What a distillation keeps in a checkpoint beside its student: what its losses own, and whose weights taught.

``kd_state`` is there, if empty, in every checkpoint of a distillation and in no other; ``teacher_fingerprint`` stands
beside it where a loss needs the teacher.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pcdet.utils.checkpoint_reader import CheckpointError
from pcdet.utils.weights import compare_weights, weights_fingerprint

STUDENT = "student."


class OtherLossesError(CheckpointError):
    """A distillation's checkpoint whose student fits, but not what its losses own, kept as ``kd_state``."""

    def __init__(self, message: str, kd_state: Mapping[str, Tensor]):
        super().__init__(message)
        self.kd_state = kd_state


class TrainingState:
    """What the engine asks of a model that is more than its detector, for one with a ``student`` and a ``teacher``."""

    student: nn.Module
    teacher: nn.Module | None

    @property
    def detector(self) -> nn.Module:
        """What is evaluated and stored as ``model_state``: the student."""
        return self.student

    def all_modules(self) -> Iterator[nn.Module]:
        """The modules, those of the teacher too, which is no submodule."""
        yield from self.modules()
        if self.teacher is not None:
            yield from self.teacher.modules()

    def extra_state(self) -> dict[str, Any]:
        """Further entries of a checkpoint: ``kd_state``, and ``teacher_fingerprint`` where there is a teacher."""
        own = {key: value for key, value in self.state_dict().items() if not key.startswith(STUDENT)}
        entries: dict[str, Any] = {"kd_state": own}
        if self.teacher is not None:
            entries["teacher_fingerprint"] = weights_fingerprint(self.teacher)
        return entries

    def load_extra_state(self, state: Mapping, name: object, logger: logging.Logger | None = None) -> None:
        """Takes these entries from a checkpoint; one of another teacher is warned of.

        Args:
            state: the checkpoint's dictionary.
            name: its file, for messages.
            logger: for the warning.

        Raises:
            CheckpointError: the checkpoint is of a training without a teacher, or its ``kd_state`` is something else.
            OtherLossesError: its losses own other tensors; nothing has been taken.
        """
        check_kind(state, name, distilled=True)
        kd_state = state["kd_state"] or {}
        if not (isinstance(kd_state, Mapping) and all(map(torch.is_tensor, kd_state.values()))):
            found = f"{type(kd_state).__name__} {str(kd_state)[:80]}"
            raise CheckpointError(
                f"{name}: kd_state must be tensors by name, got {found}; use another copy (the weights alone: "
                "--pretrained_model)"
            )
        students = {key: value for key, value in self.state_dict().items() if key.startswith(STUDENT)}
        report = compare_weights(self, {**students, **kd_state})
        if problems := report.problems():
            raise OtherLossesError(
                f"{name} was distilled with other losses, so training cannot go on from it (the student's weights "
                "alone: --pretrained_model)\n  " + "\n  ".join(problems),
                kd_state,
            )
        self.load_state_dict({key: report.fitting[key] for key in kd_state if key in report.fitting}, strict=False)
        before = state.get("teacher_fingerprint")
        if None in (logger, before, self.teacher) or before == weights_fingerprint(self.teacher):
            return
        logger.warning(f"{name} was distilled from a teacher with other weights; the student goes on with this one's")


def check_kind(state: Mapping, name: object, distilled: bool) -> None:
    """Raises CheckpointError where one of run and checkpoint is a distillation's and the other is not.

    Both trainings of one file write into one folder unless told otherwise, and a distiller whose losses have no weights
    has the tensors of a plain detector: nothing else tells a control from the distilled student.

    Args:
        state: the checkpoint's dictionary.
        name: its file, for the message.
        distilled: whether the run is a distillation.
    """
    if ("kd_state" in state) == distilled:
        return
    kinds = "a training without a teacher", "a distillation"
    theirs, ours = kinds["kd_state" in state], kinds[distilled]
    raise CheckpointError(
        f"{name} is of {theirs}, this is {ours}, which cannot go on from it; give this one a folder of its own with "
        "--extra_tag or --output_dir (the weights alone: --pretrained_model)"
    )
