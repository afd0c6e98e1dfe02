"""Edge adapters: layers that turn the edges of each side into vectors that can be compared.

The paper's is a dynamic graph convolution. "none" compares the edges themselves. Without a graph (``EDGE: none``) a
centre's own row stands in for its edges, in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from pcdet.ops.edge_conv import EdgeGraph, EdgeTerms, linear_terms, normed, plain_terms
from pcdet.ops.edge_conv.terms import full_precision


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

    def out_channels(self, student_channels: int, teacher_channels: int, edge: str) -> int:
        """Channels of the rows of both sides -> channels in which their edges are compared."""
        if self.teacher == "none":
            return edge_channels(teacher_channels, edge)
        return self.dim or (edge_channels(student_channels, edge) if self.student == "none" else student_channels)

    def free_target(self) -> str | None:
        """The keys by which the loss trains a target whose scale nothing fixes, so that it can vanish; None if not."""
        if self.teacher == "linear":
            return "ADAPTER.TEACHER linear"
        return (
            "ADAPTER.TEACHER linear_bn_relu with AFFINE True"
            if self.teacher == "linear_bn_relu" and self.affine
            else None
        )


ONTO_TEACHER = AdapterConfig()


def edge_channels(channels: int, edge: str) -> int:
    """Channels of an edge between rows of so many; ``edge`` as in ``GraphConfig``."""
    return channels if edge == "none" else 2 * channels


class EdgeAdapter(nn.Module):
    """Edges (x_j, x_i) -> a vector for each.

    Args:
        kind: "none", "frozen", "linear" or "linear_bn_relu".
        in_channels: C of the rows.
        out_channels: C' of the vectors; those of an edge for "none".
        affine: of the batch norm, unless frozen.
        edge: what an edge holds, see ``GraphConfig``.
    """

    def __init__(self, kind: str, in_channels: int, out_channels: int, *, affine: bool, edge: str = "concat"):
        super().__init__()
        self.kind = kind
        self.out_channels = out_channels
        self.edge = edge
        width = edge_channels(in_channels, edge)
        if kind == "none":
            if out_channels != width:
                raise ValueError(
                    f"ADAPTER: none gives {width} channels, but {out_channels} are to be compared; use linear"
                )
            return
        has_norm = kind != "linear"
        self.conv = nn.Linear(width, out_channels, bias=not has_norm)
        # Batch statistics only: no running ones are used, but they are kept for comparison with the released code.
        self.bn = nn.BatchNorm1d(out_channels, affine=affine and kind != "frozen") if has_norm else None
        if kind == "frozen":
            self.requires_grad_(False)

    def forward(self, x_base: Tensor, x_query: Tensor, graph: EdgeGraph) -> EdgeTerms:
        """(M, C) rows and (G, C) centres -> a vector for every edge, as the two tables whose rows it sums."""
        terms = self._row_terms(x_base, x_query) if self.edge == "none" else self._edge_terms(x_base, x_query)
        return terms if self.kind in ("none", "linear") else normed(terms, graph, self.bn)._replace(relu=True)

    def _edge_terms(self, x_base: Tensor, x_query: Tensor) -> EdgeTerms:
        if self.kind == "none":
            return plain_terms(x_base, x_query, edge=self.edge)
        weight = self.conv.weight.to(x_base.dtype)
        return linear_terms(x_base, x_query, weight, self.conv.bias, edge=self.edge)

    def _row_terms(self, x_base: Tensor, x_query: Tensor) -> EdgeTerms:
        """Those of graphs whose only edge leads from the centre to itself: the row, and nothing beside it."""
        rows = full_precision(x_base)
        if self.kind != "none":
            bias = None if self.conv.bias is None else self.conv.bias.to(rows.dtype)
            rows = nn.functional.linear(rows, self.conv.weight.to(rows.dtype), bias)
        return EdgeTerms(rows, rows.new_zeros(len(x_query), self.out_channels))
