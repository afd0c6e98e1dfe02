"""What brings the student's channels to the teacher's, where the two are not equally wide."""

from __future__ import annotations

from torch import nn


def align_rows(student_channels: int, teacher_channels: int) -> nn.Module:
    """(n, student_channels) -> (n, teacher_channels): a linear map that is trained, or nothing at equal widths."""
    if student_channels == teacher_channels:
        return nn.Identity()
    return nn.Linear(student_channels, teacher_channels)


def align_maps(student_channels: int, teacher_channels: int) -> nn.Module:
    """(B, student_channels, H, W) -> (B, teacher_channels, H, W), likewise, cell by cell."""
    if student_channels == teacher_channels:
        return nn.Identity()
    return nn.Conv2d(student_channels, teacher_channels, 1)
