"""The geometry of boxes on the ground as plain C++, under both ways of rounding that compilers choose."""

import ctypes
import math
from pathlib import Path

import pytest
import torch

from pcdet.ops.iou3d_nms import iou3d_nms_utils as ops

PROBE = """
#include "iou3d_nms/src/box_geometry.h"
template <typename T>
void overlaps(const T* a, const T* b, T* out, long count) {
  using Box = pcdet::cpu::GroundBox<T>;
  for (long i = 0; i < count; ++i) out[i] = pcdet::cpu::overlap_bev(Box::from(a + 7 * i), Box::from(b + 7 * i));
}
extern "C" void overlaps_float(const float* a, const float* b, float* out, long n) { overlaps(a, b, out, n); }
extern "C" void overlaps_double(const double* a, const double* b, double* out, long n) { overlaps(a, b, out, n); }
"""
SEPARATE, FUSED = ("-ffp-contract=off",), ("-ffp-contract=fast", "-mfma")


def cpu_fuses() -> bool:
    info = Path("/proc/cpuinfo")
    return info.is_file() and " fma " in info.read_text()


rounding = pytest.mark.parametrize(
    "flags",
    [
        pytest.param(SEPARATE, id="each operation rounded"),
        pytest.param(
            FUSED,
            id="multiply and add fused",
            marks=pytest.mark.skipif(not cpu_fuses(), reason="this processor has no fused multiply-add"),
        ),
    ],
)
both_precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def overlaps(library, a, b):
    out = torch.empty(len(a), dtype=a.dtype)
    function = library.overlaps_float if a.dtype == torch.float32 else library.overlaps_double
    function(*(ctypes.c_void_p(x.data_ptr()) for x in (a, b, out)), ctypes.c_long(len(a)))
    return out


def turned(xy, angle):
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * xy[:, 0] - sin * xy[:, 1], sin * xy[:, 0] + cos * xy[:, 1]], dim=1)


def pairs_with_a_gap(count, dtype, gap):
    """Pairs of boxes, at least `gap` metres apart along the first box's own x axis, in any common pose.

    The second box's rightmost corner is put `gap` left of the first one's left side.
    """
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape, low, high):
        return torch.rand(*shape, generator=generator, dtype=torch.float64) * (high - low) + low

    size_a, size_b = uniform(count, 3, low=0.3, high=6), uniform(count, 3, low=0.3, high=6)
    turn_b, turn, place = (uniform(count, low=-math.pi, high=math.pi) for _ in range(3))
    reach_b = (size_b[:, 0] * turn_b.cos().abs() + size_b[:, 1] * turn_b.sin().abs()) / 2
    centre_b = torch.stack([-size_a[:, 0] / 2 - gap - reach_b, place], dim=1)
    middle = uniform(count, 2, low=-40, high=40)

    def boxes(centre, size, heading):
        height = torch.zeros(count, 1, dtype=torch.float64)
        return torch.cat([turned(centre, turn) + middle, height, size, (heading + turn)[:, None]], dim=1).to(dtype)

    return boxes(torch.zeros_like(centre_b), size_a, torch.zeros(count, dtype=torch.float64)), boxes(
        centre_b, size_b, turn_b
    )


@rounding
@both_precisions
@pytest.mark.parametrize("order", ["along the first box's axis", "along the second box's axis"])
def test_boxes_with_a_gap_of_a_millimetre_between_them_share_nothing(compile_header, flags, dtype, order):
    library = compile_header(PROBE, *flags)
    a, b = pairs_with_a_gap(100_000, dtype, gap=1e-3)
    shared = overlaps(library, a, b) if order.startswith("along the first") else overlaps(library, b, a)
    assert int((shared != 0).sum()) == 0


def test_boxes_with_gaps_between_them_all_survive_suppression_at_threshold_zero(device):
    a, b = pairs_with_a_gap(2000, torch.float64, gap=1e-3)
    for boxes in (a, b):
        boxes[:, 0] += 100 * torch.arange(2000)  # pairs are far from each other
    for boxes in (torch.cat([a, b]), torch.cat([b, a])):
        scores = torch.linspace(1, 0, 4000, dtype=torch.float64, device=device)
        assert len(ops.nms_gpu(boxes.to(device), scores, 0.0)[0]) == 4000
