"""Distiller: a student and a frozen teacher behind the contract of a plain detector."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pcdet.models.kd.features.grid import Geometry
from pcdet.models.kd.features.taps import Taps
from pcdet.models.kd.features.teacher_batch import TeacherInput
from pcdet.models.kd.losses.base import KDLoss
from pcdet.models.kd.model_outputs import ModelOutputs
from pcdet.models.kd.step import Step
from pcdet.models.kd.teacher_labels import LabelsConfig, final_boxes_of, with_teacher_boxes
from pcdet.models.kd.training_state import TrainingState

_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
_TELLS_OF_ROWS = ("_coords", "_num_points")  # endings of a batch's keys


class Term(NamedTuple):
    """One loss of a step.

    Attributes:
        label: of the loss.
        weight: its factor in the sum, that of its schedule in this epoch included.
        value: the loss before its weight, with its graph.
        details: what it logs beside.
    """

    label: str
    weight: float
    value: Tensor
    details: Mapping[str, Tensor]


class Distiller(TrainingState, nn.Module):
    """Trains like the student it holds: ``forward`` returns ``(ret_dict, tb_dict, disp_dict)`` with the summed loss.

    In eval mode it is the student. The teacher is no submodule: it has no part in ``parameters()`` and
    ``state_dict()``, but follows ``to()``. ``student.state_dict()`` is a plain detector's. A loss whose weight is 0, or
    whose schedule's factor is in this epoch, asks for no taps; the teacher does not run where none is asked for.

    Args:
        student: a detector.
        teacher: a detector; frozen here, and let go if no loss has a weight.
        losses: by the label under which they are logged.
        geometry: where the student's voxels lie.
        own_input: what the teacher gets in place of the student's batch, where its grid differs.
        labels: which of the teacher's boxes join the student's labels; None: none, and the student's batch is as given.
        teacher_mode: "eval", "train" or "bn_train".
        log_every: iterations between two computations of the diagnostics that cost time; 0: never.
        target_var_warn: warn below this share of a target's first variance.
        logger: for warnings.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        losses: Mapping[str, KDLoss],
        geometry: Geometry,
        *,
        own_input: TeacherInput | None = None,
        labels: LabelsConfig | None = None,
        teacher_mode: str = "eval",
        log_every: int = 50,
        target_var_warn: float = 0.1,
        logger: logging.Logger | None = None,
    ):
        super().__init__()
        self.student = student
        needed = labels is not None or any(loss.weight > 0 for loss in losses.values())
        # a tuple hides it from nn.Module
        self._unregistered_teacher = (teacher.requires_grad_(False) if needed else None,)
        self.losses = nn.ModuleDict(losses)
        self.geometry = geometry
        self._own_input = own_input
        self.labels = labels
        self._teacher_geometry = geometry if own_input is None else own_input.geometry
        self.teacher_mode = teacher_mode
        self.log_every = log_every
        self.target_var_warn = target_var_warn
        self._logger = logger or logging.getLogger("pcdet")
        self._epoch = (0, 1)
        self._iteration = 0
        self._warned: set[str] = set()
        self._explained: dict[str, float] = {}
        self.train(student.training)

    @property
    def teacher(self) -> nn.Module | None:
        """The frozen teacher; None where no loss has a weight."""
        return self._unregistered_teacher[0]

    # -------------------------------------------------------------------------------------------- a detector's manners

    @property
    def global_step(self) -> Tensor:
        """The student's."""
        return self.student.global_step

    def update_global_step(self) -> None:
        """Counts one iteration on the student."""
        self.student.update_global_step()

    def set_epoch(self, epoch: int, total_epochs: int) -> None:
        """Tells the schedules where the training is; ``epoch`` counts from 0."""
        self._epoch = (epoch, total_epochs)

    def train(self, mode: bool = True) -> Distiller:
        """Puts the student into train or eval mode, and the teacher into the mode that was chosen for it."""
        super().train(mode)
        if self.teacher is None:
            return self
        self.teacher.train(mode and self.teacher_mode == "train")
        if self.teacher_mode == "bn_train":
            for module in self.teacher.modules():
                if isinstance(module, _BATCH_NORMS):
                    module.train(mode)
        return self

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        if self.teacher is not None:
            self.teacher._apply(fn, recurse)
        return self

    # ------------------------------------------------------------------------------------------------------- one step

    def forward(self, batch_dict: dict[str, Any]) -> Any:
        """One training step's losses, or the student's predictions in eval mode.

        Reads what the student and the teacher read; ``batch_dict`` is left as it was.

        Returns:
            ret_dict with "loss" (the student's plus the weighted KD losses), tb_dict with the student's entries and
            ``kd/<label>`` for each loss with what it logs below that name, disp_dict.
        """
        if not self.training:
            return self.student(batch_dict)
        (ret_dict, tb_dict, disp_dict), step, label_logs = self.run_models(batch_dict)
        with torch.autocast(ret_dict["loss"].device.type, enabled=False):
            kd_loss, logs = self._kd_losses(self._active(), step)
        logs |= {**label_logs, "kd/total": kd_loss.detach()}
        logs = _to_floats(logs)
        self._watch(logs)
        ret_dict = {**ret_dict, "loss": ret_dict["loss"] + kd_loss}
        return ret_dict, {**tb_dict, **logs}, {**disp_dict, "kd": logs["kd/total"]}

    def run_models(self, batch_dict: dict[str, Any]) -> tuple[Any, Step, dict[str, Any]]:
        """Teacher, then student in training mode, on one batch: all of a step but the losses of the distillation.

        Returns:
            What the student returns (its own loss alone), what the losses read, and what to log of the labels.
        """
        active = self._active()
        teacher = self._run_teacher(batch_dict, active)
        student_batch, label_logs = self._student_batch(batch_dict, teacher)
        with Taps(self.student, self._taps("student", active)) as taps:
            returned = self.student(student_batch)
        student = ModelOutputs(self.student, student_batch, taps.complete(student_batch), self.geometry)
        return returned, Step(student, teacher, batch_dict), label_logs

    def terms(self, step: Step, labels: Sequence[str] | None = None, *, diagnose: bool = False) -> Iterator[Term]:
        """The losses of a step, one after the other: the next is computed when it is asked for.

        Args:
            step: of ``run_models``. Call this with autocast off.
            labels: which losses, of those that count in this epoch; None: all these.
            diagnose: also compute the diagnostics that cost time.
        """
        for label in self._active() if labels is None else labels:
            loss = self.losses[label]
            value, details = loss(step, diagnose=diagnose)
            yield Term(label, loss.weight * loss.schedule.at(*self._epoch), value, details)

    def _active(self) -> list[str]:
        """Labels of the losses that count in this epoch."""
        return [label for label, loss in self.losses.items() if loss.weight * loss.schedule.at(*self._epoch) != 0]

    def _taps(self, side: str, labels: Sequence[str]) -> tuple[str, ...]:
        """What these losses read of the student or the teacher, all names once, in order."""
        taps = [tap for label in labels for tap in getattr(self.losses[label], f"{side}_taps")]
        return tuple(dict.fromkeys(taps))

    def _student_batch(self, batch_dict: dict[str, Any], teacher: ModelOutputs) -> tuple[dict[str, Any], dict]:
        """A copy of the batch for the student, with the teacher's boxes among its labels, and what to log of these."""
        if self.labels is None:
            return dict(batch_dict), {}
        boxes, logs = with_teacher_boxes(batch_dict["gt_boxes"], teacher.boxes, self.labels)
        return {**batch_dict, "gt_boxes": boxes}, {f"kd/labels/{key}": value for key, value in logs.items()}

    @torch.no_grad()
    def _run_teacher(self, batch_dict: dict[str, Any], labels: Sequence[str]) -> ModelOutputs:
        """The student's batch -> the teacher's outputs, up to the last tap of these losses, or to its boxes.

        The teacher gets a dictionary of its own, since modules write into theirs.
        """
        names = self._taps("teacher", labels)
        if not names and self.labels is None:
            return ModelOutputs(self.teacher, dict(batch_dict), {}, self._teacher_geometry)
        teacher_batch = dict(batch_dict) if self._own_input is None else self._own_input(batch_dict)
        input_keys = set(teacher_batch)
        to_boxes = self.labels is not None
        with Taps(self.teacher, names, stop=not to_boxes) as taps:
            few = {"decode_boxes": False} if to_boxes else {}  # those that are left are decoded in the end
            teacher_batch = self.teacher.forward_features(teacher_batch, **few)
        seen = taps.complete(teacher_batch)
        boxes = final_boxes_of(self.teacher, teacher_batch) if to_boxes else ()
        # The maps in between are let go before the student needs the memory; what is kept says where rows stand and how
        # many points are behind each, which an encoder that makes its own voxels writes.
        kept = {key: v for key, v in teacher_batch.items() if key in input_keys or key.endswith(_TELLS_OF_ROWS)}
        return ModelOutputs(self.teacher, kept, seen, self._teacher_geometry, boxes)

    def _kd_losses(self, labels: Sequence[str], step: Step) -> tuple[Tensor, dict[str, Any]]:
        """The weighted sum of these losses, and everything to log."""
        diagnose = bool(self.log_every) and self._iteration % self.log_every == 0
        self._iteration += 1
        # Adapters of a loss that does not run still belong to the graph: DDP waits for every parameter's gradient.
        total = sum((p.sum() for p in self.losses.parameters() if p.requires_grad), torch.zeros(())) * 0
        logs: dict[str, Any] = {f"kd/{label}": 0.0 for label in self.losses}
        for label, weight, value, details in self.terms(step, labels, diagnose=diagnose):
            total = total + weight * value
            logs[f"kd/{label}"] = weight * value.detach()
            logs.update({f"kd/{label}/{key}": detail for key, detail in details.items()})
            schedule = self.losses[label].schedule
            if schedule.name != "constant":
                logs[f"kd/{label}/schedule"] = schedule.at(*self._epoch)
        return total, logs

    def _watch(self, logs: dict[str, float]) -> None:
        """Warns once of each target that has lost most of its variance; repeats what is not computed every time."""
        for label in self.losses:
            key = f"kd/{label}/explained"
            if key in logs:
                self._explained[key] = logs[key]
            elif key in self._explained:
                logs[key] = self._explained[key]
            ratio = logs.get(f"kd/{label}/target_var_ratio", 1.0)
            if ratio < self.target_var_warn and label not in self._warned:
                self._warned.add(label)
                self._logger.warning(
                    "KD loss %s: the variance of its target has fallen to %.3g of what it was at first. A target that "
                    "is trained can vanish; use ADAPTER.TEACHER frozen or none.",
                    label,
                    ratio,
                )


def _to_floats(values: dict[str, Any]) -> dict[str, float]:
    """Plain floats, with one wait for the device."""
    floats = dict(values)
    for on_cpu in (True, False):  # numbers that are on the host already stay there
        keys = [key for key, v in values.items() if isinstance(v, Tensor) and (v.device.type == "cpu") is on_cpu]
        if keys:
            numbers = torch.stack([values[key].detach().to(torch.float32).reshape(()) for key in keys]).tolist()
            floats.update(zip(keys, numbers, strict=True))
    return floats
