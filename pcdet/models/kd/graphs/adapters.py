"""Edge adapters: layers that turn the edges of each side into vectors that can be compared.

The paper's is a dynamic graph convolution. "none" compares the edges themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from pcdet.ops.edge_conv import EdgeGraph, EdgeTerms, linear_terms, normed, plain_terms


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """The adapters of both sides.

    Attributes:
        teacher: "none", the edges themselves; "frozen", a random linear_bn_relu that is never trained; "linear" and
            "linear_bn_relu" are trained with the student, and the target can then shrink to nothing.
        student: "linear" and "linear_bn_relu" are trained; "none" needs edges as wide as the target.
        dim: output channels; None: the student's channels. Without a teacher adapter it is the width of the teacher's
            edges, whatever this says.
        affine: whether batch norms learn a scale and a shift; without, the target keeps unit scale.
    """

    teacher: Literal["none", "frozen", "linear", "linear_bn_relu"] = "none"
    student: Literal["none", "linear", "linear_bn_relu"] = "linear"
    dim: int | None = None
    affine: bool = False

    def __post_init__(self):
        if self.dim is not None and self.dim < 1:
            raise ValueError(f"DIM: must be at least 1 or null, got {self.dim}")

    def out_channels(self, student_channels: int, teacher_channels: int) -> int:
        """Channels of the rows of both sides -> channels in which their edges are compared."""
        if self.teacher == "none":
            return 2 * teacher_channels
        return self.dim or (2 * student_channels if self.student == "none" else student_channels)


ONTO_TEACHER = AdapterConfig()


class EdgeAdapter(nn.Module):
    """Edges (x_j, x_i) -> a vector for each.

    Args:
        kind: "none", "frozen", "linear" or "linear_bn_relu".
        in_channels: C of the rows.
        out_channels: C' of the vectors; 2 C for "none".
        affine: of the batch norm, unless frozen.
    """

    def __init__(self, kind: str, in_channels: int, out_channels: int, *, affine: bool):
        super().__init__()
        self.kind = kind
        self.out_channels = out_channels
        if kind == "none":
            if out_channels != 2 * in_channels:
                raise ValueError(
                    f"ADAPTER: none gives {2 * in_channels} channels, but {out_channels} are to be compared; use linear"
                )
            return
        has_norm = kind != "linear"
        self.conv = nn.Linear(2 * in_channels, out_channels, bias=not has_norm)
        # Batch statistics only: no running ones are used, but they are kept for comparison with the released code.
        self.bn = nn.BatchNorm1d(out_channels, affine=affine and kind != "frozen") if has_norm else None
        if kind == "frozen":
            self.requires_grad_(False)

    def forward(self, x_base: Tensor, x_query: Tensor, graph: EdgeGraph, *, edge: str) -> EdgeTerms:
        """(M, C) rows and (G, C) centres -> a vector for every edge, as the two tables whose rows it sums."""
        if self.kind == "none":
            return plain_terms(x_base, x_query, edge=edge)
        weight = self.conv.weight.to(x_base.dtype)
        terms = linear_terms(x_base, x_query, weight, self.conv.bias, edge=edge)
        return terms if self.bn is None else normed(terms, graph, self.bn)._replace(relu=True)
