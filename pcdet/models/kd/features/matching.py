"""Which row of the teacher each row of the student meets."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from pcdet.models.kd.features.feature import Feature, rows_of
from pcdet.ops.knn import knn


class Meeting(NamedTuple):
    """Both sides on the rows that they have in common, row by row.

    Attributes:
        student: its rows.
        teacher: as many rows, standing where the student's do.
        teacher_rows: (n,) which of the teacher's rows these are, or lie in on a map; None for all, in order.
        share: how many of the student's rows met one, as a fraction; None where the sets are the same.
    """

    student: Feature
    teacher: Feature
    teacher_rows: Tensor | None = None
    share: Tensor | None = None

    @property
    def logs(self) -> dict[str, Tensor]:
        """What to log of it."""
        return {} if self.share is None else {"matched": self.share}


def check_kinds(student: str, teacher: str) -> None:
    """ValueError if rows of these kinds (``FeatureSpec.kind``) cannot meet, or only by chance."""
    maps = ("map", "stage")
    if student in maps and teacher not in maps:
        raise ValueError(
            f"the student's tap is a map and the teacher's a set of {teacher}s, which has no row for most cells; give "
            "TEACHER_FEATURE a map too (spatial_features, spatial_features_2d)"
        )
    if student == "pillar" and teacher == "voxel":
        raise ValueError(
            "the student's tap is a set of pillars and the teacher's of voxels; of their column, a pillar would meet "
            "the one at half its height; give TEACHER_FEATURE a map, which holds the column (spatial_features, "
            "spatial_features_2d)"
        )


@torch.no_grad()
def meet(student: Feature, teacher: Feature) -> Meeting:
    """Pairs of rows at the same place.

    The same cells or points meet in order. Otherwise each of the student's rows meets the teacher's voxel that its
    centre lies in, the nearest of the teacher's points, or the teacher's map interpolated there; rows outside the
    teacher's range, and those in voxels that the teacher does not have, are left out.

    Raises:
        ValueError: the frames differ in number, or the rows are of kinds that cannot meet.
    """
    if student.num_frames != teacher.num_frames:
        raise ValueError(f"the student has {student.num_frames} frames and the teacher {teacher.num_frames}")
    if _same(student, teacher):
        return Meeting(student, teacher)
    check_kinds(student.kind, teacher.kind)
    rows = _rows_at(teacher, student)
    met = rows >= 0
    chosen, rows = met.nonzero().squeeze(1), rows[met]
    given = student.select(chosen)
    # The student's positions, which are all different: several of its rows may meet the same one.
    wanted = replace(teacher.select(rows), xyz=given.xyz)
    if teacher.dense is not None:
        wanted = replace(wanted, around=teacher.grid.cells_around(given.frame, given.xyz))
    return Meeting(given, wanted, rows, met.float().mean() if len(met) else met.new_ones((), dtype=torch.float32))


def _same(student: Feature, teacher: Feature) -> bool:
    if len(student) != len(teacher) or student.grid != teacher.grid:
        return False
    if student.grid is None:
        return torch.equal(student.xyz, teacher.xyz) and torch.equal(student.frame, teacher.frame)
    both_maps = student.dense is not None and teacher.dense is not None
    return both_maps or torch.equal(student.cells, teacher.cells)


def _rows_at(teacher: Feature, student: Feature) -> Tensor:
    """(M,) the teacher's row where each of the student's stands, -1 where there is none."""
    if teacher.grid is None:
        return knn(student.xyz, teacher.xyz, 1, student.frame, teacher.frame)[1][:, 0]
    cells, inside = teacher.grid.cells_at(student.xyz)
    rows = rows_of(teacher.cells, teacher.grid.flat(student.frame, cells))
    return rows.masked_fill(~inside, -1)
