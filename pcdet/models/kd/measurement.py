"""What a distillation's training steps cost, and how strong its losses are against the student's own; nothing learns.

``measure_step`` looks at one batch, ``summarise`` at several.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pcdet.models.kd.distiller import Distiller
from pcdet.utils.model_stats import NO_MACS, MacCounter, Macs, count_parameters

PASSES = ("student_forward", "student_backward", "teacher_forward", "losses_forward", "losses_backward")


@dataclass(frozen=True, kw_only=True)
class StepMeasures:
    """One training step.

    Attributes:
        samples: frames of its batch.
        macs: pass, of ``PASSES``, -> its multiply-accumulates. The losses' backward pass is what the step's has beyond
            the plain student's.
        detection: the student's own loss.
        detection_norm: norm of its gradient on the student's parameters.
        values: label -> the loss before its weight.
        norms: label -> norm of that value's gradient.
        total: sum of the losses, each times its WEIGHT.
        total_norm: norm of the gradient of this sum.
    """

    samples: int
    macs: Mapping[str, Macs]
    detection: float
    detection_norm: float
    values: Mapping[str, float]
    norms: Mapping[str, float]
    total: float
    total_norm: float


def measure_step(distiller: Distiller, batch: dict[str, Any]) -> StepMeasures:
    """A batch on its device -> what a training step on it is made of; weights, gradients and buffers stay.

    Schedules count as far as a loss whose factor is 0 now is left out; the others have their WEIGHT alone.

    Args:
        distiller: in training mode; one without losses measures a plain student.
        batch: of the student's data set.
    """
    learned = [p for p in distiller.student.parameters() if p.requires_grad]
    with _buffers_put_back(distiller):
        with MacCounter(*_detectors(distiller)) as counter:
            begun: list[Macs] = []  # what the teacher did, before the student begins
            with distiller.student.register_forward_pre_hook(lambda *_: begun.append(counter.done)):
                returned, step, _ = distiller.run_models(batch)
            marks = [begun[0], counter.done]
            values = {term.label: term.value for term in distiller.terms(step)}
            marks.append(counter.done)
            detection = returned[0]["loss"].mean()
            own = _gradient(detection, learned)
            marks.append(counter.done)
            weights = {label: distiller.losses[label].weight for label in values}
            if values:
                whole = detection + sum(weights[label] * value for label, value in values.items())
                _gradient(whole, [*learned, *_trained_along(distiller)])
            marks.append(counter.done)
        gradients = {label: _gradient(value, learned) for label, value in values.items()}
    scaled = [[weights[label] * part for part in gradient] for label, gradient in gradients.items()]
    return StepMeasures(
        samples=int(batch["batch_size"]),
        macs=_passes(marks, with_losses=bool(values)),
        detection=float(detection.detach()),
        detection_norm=_norm(own),
        values={label: float(value.detach()) for label, value in values.items()},
        norms={label: _norm(gradient) for label, gradient in gradients.items()},
        total=sum(weights[label] * float(value.detach()) for label, value in values.items()),
        total_norm=_norm([sum(parts) for parts in zip(*scaled, strict=True)]),
    )


def parameters_of(distiller: Distiller) -> dict[str, int | None]:
    """Values of the student, of the teacher (None where none takes part), and of what is trained along with losses."""
    return {
        "student": count_parameters(distiller.student),
        "teacher": None if distiller.teacher is None else count_parameters(distiller.teacher),
        "trained_along": sum(p.numel() for p in _trained_along(distiller)),
    }


def summarise(steps: Sequence[StepMeasures], weights: Mapping[str, float], share: float) -> dict[str, Any]:
    """Several steps -> their means, as they go into a file.

    Shares are ratios of means over the steps, of loss and of norm. A loss without a value or a gradient, as at the
    start of a training, has no weight that would give it a share: None.

    Args:
        steps: at least one.
        weights: label -> WEIGHT.
        share: of the detection loss's gradient, that ``weight_for_share`` is to give.
    """

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    detection, norm = mean([s.detection for s in steps]), mean([s.detection_norm for s in steps])

    def shares(value: float, gradient: float, weight: float) -> dict[str, float | None]:
        reached = value != 0 and gradient != 0
        return {
            "share_of_loss": weight * value / detection,
            "share_of_gradient": weight * gradient / norm,
            "weight_for_share": share * norm / gradient if reached else None,
        }

    losses = {}
    for label, weight in weights.items():
        value, gradient = mean([s.values[label] for s in steps]), mean([s.norms[label] for s in steps])
        losses[label] = {"value": value, "weight": weight, **shares(value, gradient, weight)}
    value = mean([s.total for s in steps])
    total = {"value": value, **shares(value, mean([s.total_norm for s in steps]), 1.0)}
    total["factor_for_share"] = total.pop("weight_for_share")  # on all weights at once
    return {
        "detection": {"value": detection, "gradient_norm": norm},
        "losses": losses,
        "total": total,
        **_macs_per_sample(steps),
    }


def _macs_per_sample(steps: Sequence[StepMeasures]) -> dict[str, dict]:
    """By part, and by pass with sparse convolutions told apart."""
    samples = sum(s.samples for s in steps)
    passes = {
        name: {kind: sum(getattr(s.macs[name], kind) for s in steps) / samples for kind in Macs._fields}
        for name in PASSES
    }
    parts = {
        part: sum(sum(macs.values()) for name, macs in passes.items() if name.startswith(part))
        for part in ("student", "teacher", "losses")
    }
    return {"training_macs_per_sample": {**parts, "total": sum(parts.values())}, "macs_by_pass": passes}


def _passes(marks: Sequence[Macs], *, with_losses: bool) -> dict[str, Macs]:
    """Counts after the teacher, the student, the losses, the plain backward pass and the whole one -> by pass."""
    teacher, student, losses, plain, whole = (b.minus(a) for a, b in itertools.pairwise([NO_MACS, *marks]))
    beyond = whole.minus(plain) if with_losses else NO_MACS
    return dict(zip(PASSES, (student, plain, teacher, losses, beyond), strict=True))


def _detectors(distiller: Distiller) -> list[nn.Module]:
    return [model for model in (distiller.student, distiller.teacher) if model is not None]


def _trained_along(distiller: Distiller) -> list[nn.Parameter]:
    """What the losses own and train."""
    return [p for p in distiller.losses.parameters() if p.requires_grad]


def _gradient(value: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Of a number on each of the parameters, zeros on those that it does not depend on; its graph stays."""
    if not value.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    return list(torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True))


def _norm(gradient: Sequence[Tensor]) -> float:
    return float(torch.stack([g.norm() for g in gradient]).norm()) if gradient else 0.0


@contextlib.contextmanager
def _buffers_put_back(distiller: Distiller) -> Iterator[None]:
    """Leaves the buffers of student, losses and teacher after the block as they were: running statistics above all."""
    buffers = [buffer for module in distiller.all_modules() for buffer in module.buffers(recurse=False)]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
