"""Box coders: boxes as residuals to the anchors they are assigned to, and back.

The formulas are those of SECOND (Yan et al., 2018, section 3.3). Unlike OpenPCDet's, these coders never write into
their arguments.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pcdet.utils.transfer import upload

MIN_DIM = 1e-5  # metres; a box may be flat, its logarithm may not


class ResidualCoder:
    """Boxes as residuals to anchors: offsets over the anchor's size, log ratios of sizes, difference of headings.

    Args:
        code_size: columns of a box: 7, plus further ones (velocities), which are coded as plain differences.
        encode_angle_by_sincos: code the heading as differences of cosine and sine, which takes one more column.

    Attributes:
        code_size: columns of a code.
    """

    def __init__(self, *, code_size: int = 7, encode_angle_by_sincos: bool = False):
        if code_size < 7:
            raise ValueError(f"CODE_SIZE must be at least 7 [x, y, z, dx, dy, dz, heading], got {code_size}")
        self.box_size = code_size
        self.code_size = code_size + 1 if encode_angle_by_sincos else code_size
        self.encode_angle_by_sincos = encode_angle_by_sincos

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Codes of boxes relative to anchors, row by row.

        Args:
            boxes: (N, 7 + C) LiDAR boxes; sizes below 1e-5 m count as 1e-5 m.
            anchors: (N, 7 + C), the same for sizes.

        Returns:
            (N, code_size).
        """
        dims, anchor_dims = boxes[..., 3:6].clamp(min=MIN_DIM), anchors[..., 3:6].clamp(min=MIN_DIM)
        diagonal = _ground_diagonal(anchor_dims)
        offset = boxes[..., :3] - anchors[..., :3]
        heading, anchor_heading = boxes[..., 6:7], anchors[..., 6:7]
        if self.encode_angle_by_sincos:
            turn = (heading.cos() - anchor_heading.cos(), heading.sin() - anchor_heading.sin())
        else:
            turn = (heading - anchor_heading,)
        return torch.cat(
            (
                offset[..., :2] / diagonal,
                offset[..., 2:3] / anchor_dims[..., 2:3],
                torch.log(dims / anchor_dims),
                *turn,
                boxes[..., 7:] - anchors[..., 7:],
            ),
            dim=-1,
        )

    def decode(self, codes: Tensor, anchors: Tensor) -> Tensor:
        """Boxes that the codes stand for: the inverse of ``encode``.

        Args:
            codes: (..., code_size).
            anchors: (..., 7 + C), broadcast against ``codes``.

        Returns:
            (..., 7 + C), the heading not wrapped (with sine and cosine: in [-pi, pi]).
        """
        anchor_dims = anchors[..., 3:6]
        ground = codes[..., :2] * _ground_diagonal(anchor_dims) + anchors[..., :2]
        height = codes[..., 2:3] * anchor_dims[..., 2:3] + anchors[..., 2:3]
        dims = torch.exp(codes[..., 3:6]) * anchor_dims
        if self.encode_angle_by_sincos:
            cos = codes[..., 6:7] + anchors[..., 6:7].cos()
            sin = codes[..., 7:8] + anchors[..., 6:7].sin()
            heading = torch.atan2(sin, cos)
        else:
            heading = codes[..., 6:7] + anchors[..., 6:7]
        extra = codes[..., self.code_size - self.box_size + 7 :] + anchors[..., 7:]
        return torch.cat((ground, height, dims, heading, extra), dim=-1)

    def decode_torch(self, codes: Tensor, anchors: Tensor) -> Tensor:
        """OpenPCDet's name for ``decode``."""
        return self.decode(codes, anchors)

    def encode_torch(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """OpenPCDet's name for ``encode``."""
        return self.encode(boxes, anchors)


def _ground_diagonal(dims: Tensor) -> Tensor:
    return torch.sqrt(dims[..., 0:1] ** 2 + dims[..., 1:2] ** 2)


class PointResidualCoder:
    """Boxes as residuals to points: offsets, logarithms of sizes, cosine and sine of the heading.

    Args:
        code_size: columns of a code: 8, plus further ones, which are copied.
        use_mean_size: measure offsets and sizes by the mean size of the class.
        mean_size: metres, [dx, dy, dz] of each class; needed with ``use_mean_size``.
    """

    def __init__(
        self, *, code_size: int = 8, use_mean_size: bool = True, mean_size: Sequence[Sequence[float]] | None = None
    ):
        if use_mean_size and not mean_size:
            raise ValueError("MEAN_SIZE must give [dx, dy, dz] of each class where USE_MEAN_SIZE is True, got nothing")
        self.code_size = code_size
        self.use_mean_size = use_mean_size
        self.mean_size = torch.tensor(mean_size, dtype=torch.float32) if use_mean_size else None

    def encode(self, boxes: Tensor, points: Tensor, classes: Tensor | None = None) -> Tensor:
        """Codes of boxes relative to points, row by row.

        Args:
            boxes: (N, 7 + C) LiDAR boxes; sizes below 1e-5 m count as 1e-5 m.
            points: (N, 3).
            classes: (N,) class ids, counted from 1; needed with ``use_mean_size``.

        Returns:
            (N, code_size).
        """
        scale, size = self._scale(points, classes)
        dims = boxes[..., 3:6].clamp(min=MIN_DIM)
        heading = boxes[..., 6:7]
        offset = (boxes[..., :3] - points) / scale
        return torch.cat((offset, torch.log(dims / size), heading.cos(), heading.sin(), boxes[..., 7:]), dim=-1)

    def decode(self, codes: Tensor, points: Tensor, classes: Tensor | None = None) -> Tensor:
        """Boxes (N, 7 + C) that the codes stand for, headings in [-pi, pi]; arguments as in ``encode``."""
        scale, size = self._scale(points, classes)
        heading = torch.atan2(codes[..., 7:8], codes[..., 6:7])
        offset, dims = codes[..., :3] * scale, torch.exp(codes[..., 3:6]) * size
        return torch.cat((offset + points, dims, heading, codes[..., 8:]), dim=-1)

    def decode_torch(self, codes: Tensor, points: Tensor, classes: Tensor | None = None) -> Tensor:
        """OpenPCDet's name for ``decode``."""
        return self.decode(codes, points, classes)

    def encode_torch(self, boxes: Tensor, points: Tensor, classes: Tensor | None = None) -> Tensor:
        """OpenPCDet's name for ``encode``."""
        return self.encode(boxes, points, classes)

    def _scale(self, points: Tensor, classes: Tensor | None) -> tuple[Tensor, Tensor]:
        """(N, 3) units of the offsets and of the sizes; ones without mean sizes."""
        if not self.use_mean_size:
            ones = torch.ones_like(points)
            return ones, ones
        size = upload(self.mean_size, points.device).to(points.dtype)[classes.long() - 1]
        diagonal = _ground_diagonal(size)
        return torch.cat((diagonal, diagonal, size[..., 2:3]), dim=-1), size


class PreviousResidualDecoder(ResidualCoder):
    """The coder of OpenPCDet's first releases, whose codes hold width before length; it only decodes."""

    turn = 1  # sign of the coded heading

    def __init__(self, *, code_size: int = 7):
        super().__init__(code_size=code_size)

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Not available: these codes come from old checkpoints alone."""
        raise NotImplementedError("codes with width before length are only read, never written; use ResidualCoder")

    def decode(self, codes: Tensor, anchors: Tensor) -> Tensor:
        """Boxes (..., 7 + C); arguments as in ``ResidualCoder``."""
        swapped = torch.cat((codes[..., :3], codes[..., [4, 3, 5]], self.turn * codes[..., 6:7], codes[..., 7:]), -1)
        return super().decode(swapped, anchors)


class PreviousResidualRoIDecoder(PreviousResidualDecoder):
    """The same of its second stages, which also count the heading the other way round."""

    turn = -1
