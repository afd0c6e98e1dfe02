"""Teacher-guided initialisation (SparseKD, NeurIPS 2022): a narrower student begins with slices of its teacher.

Every tensor of the student takes the first channels of the teacher's tensor of the same name. Where a layer reads a
concatenation, the slices come from each of its parts: a BEV backbone's up-sampling branches, read by the dense head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pcdet.registry import ConfigError


@torch.no_grad()
def inherit_weights(student: nn.Module, teacher: nn.Module) -> int:
    """Copies what fits of the teacher's state into the student, and returns how many of its tensors were set.

    Args:
        student: changed in place.
        teacher: as deep as the student, and as wide or wider.

    Raises:
        ConfigError: a tensor of the student's is missing in the teacher, of another rank, or larger there.
    """
    given = teacher.state_dict()
    parts = _concatenated(teacher), _concatenated(student)
    copied = 0
    for name, own in student.state_dict().items():
        if not own.is_floating_point():
            continue
        source = given.get(name)
        if (
            source is None
            or source.dim() != own.dim()
            or any(a > b for a, b in zip(own.shape, source.shape, strict=True))
        ):
            found = "is missing" if source is None else f"has shape {list(source.shape)}"
            raise ConfigError(
                f"KD.INIT slice: {name} {list(own.shape)} of the student cannot be cut from the teacher's, which "
                f"{found}; use a teacher of the same depth, or INIT none"
            )
        own.copy_(_slice(source, own.shape, name, *parts))
        copied += 1
    return copied


def _concatenated(detector: nn.Module) -> list[int]:
    """Widths of the parts whose concatenation the dense head reads; empty without such a backbone."""
    branches = getattr(getattr(detector, "backbone_2d", None), "deblocks", ())
    return [next(m.out_channels for m in branch.modules() if hasattr(m, "out_channels")) for branch in branches]


def _slice(source: Tensor, shape: torch.Size, name: str, teacher_parts: list[int], student_parts: list[int]) -> Tensor:
    for axis, size in enumerate(shape):
        if axis == 1 and name.startswith("dense_head.") and source.shape[1] == sum(teacher_parts):
            starts = [sum(teacher_parts[:i]) for i in range(len(teacher_parts))]
            rows = [torch.arange(s, s + n) for s, n in zip(starts, student_parts, strict=True)]
            source = source.index_select(axis, torch.cat(rows).to(source.device))
        else:
            source = source.narrow(axis, 0, size)
    return source
