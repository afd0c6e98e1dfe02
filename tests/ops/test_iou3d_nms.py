import math

import pytest
import torch
from support.opcheck import opcheck

from pcdet.ops.iou3d_nms import iou3d_nms_utils as ops
from pcdet.ops.iou3d_nms import reference
from pcdet.testing import random_boxes

PAIRWISE = ["boxes_overlap_bev", "boxes_iou_bev", "boxes_iou3d"]


@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (17, 9)])
def test_pairs_match_the_reference(device, name, shape):
    a = random_boxes(shape[0], device, seed=1, extent=3)
    b = random_boxes(shape[1], device, seed=2, extent=3)
    expected = getattr(reference, name)(a.cpu().double(), b.cpu().double())
    torch.testing.assert_close(getattr(ops, name)(a, b).cpu(), expected.float(), rtol=1e-5, atol=1e-5)
    found = getattr(ops, name)(a.double(), b.double()).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [0, 1, 23])
def test_rows_match_the_reference(device, n):
    a = random_boxes(n, device, seed=1, objects=3)
    b = random_boxes(n, device, seed=2, objects=3)
    expected = reference.paired_boxes_iou3d(a.cpu().double(), b.cpu().double()).float()
    torch.testing.assert_close(ops.paired_boxes_iou3d(a, b).cpu(), expected, rtol=1e-5, atol=1e-5)
    assert ops.boxes_aligned_iou3d_gpu(a, b).shape == (n, 1)


def test_many_pairs_over_several_threads_and_blocks_match_pairs_by_themselves(device):
    a, b = random_boxes(300, device, seed=1), random_boxes(400, device, seed=2)
    i, j = torch.randint(300, (500,), device=device), torch.randint(400, (500,), device=device)
    torch.testing.assert_close(ops.boxes_iou3d(a, b)[i, j], ops.paired_boxes_iou3d(a[i], b[j]), rtol=0, atol=0)


def test_a_box_overlaps_itself_by_its_area_however_it_is_turned(device):
    a = random_boxes(50, device)
    area = a[:, 3] * a[:, 4]
    for turn in (0, math.pi, -2 * math.pi):
        b = a.clone()
        b[:, 6] += turn
        torch.testing.assert_close(ops.boxes_overlap_bev(a, b).diagonal(), area, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ops.boxes_iou3d(a, a).diagonal(), torch.ones_like(area), rtol=1e-5, atol=0)


def test_iou_is_symmetric_and_does_not_change_when_the_scene_turns(device):
    a, b = random_boxes(40, device, seed=1, extent=4), random_boxes(30, device, seed=2, extent=4)
    iou = ops.boxes_iou3d(a, b)
    assert (iou > 0.1).sum() > 20
    torch.testing.assert_close(ops.boxes_iou3d(b, a).T, iou, rtol=1e-5, atol=1e-6)
    angle = 0.7
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]], device=device)
    for boxes in (a, b):
        boxes[:, :2] = boxes[:, :2] @ turn
        boxes[:, 6] += angle
    torch.testing.assert_close(ops.boxes_iou3d(a, b), iou, rtol=1e-4, atol=1e-5)


def test_boxes_that_touch_or_have_no_area_share_nothing(device):
    a = torch.tensor([[0, 0, 0, 4, 2, 1, 0.0]], device=device)
    others = torch.tensor([[4, 0, 0, 4, 2, 1, 0], [0, 2, 0, 4, 2, 1, 0], [0, 0, 0, 0, 0, 0, 0.3]], device=device)
    assert ops.boxes_overlap_bev(a, others.float()).abs().max() < 1e-6
    nothing = torch.zeros(2, 7, device=device)
    assert ops.boxes_iou_bev(nothing, nothing).eq(0).all() and ops.boxes_iou3d(nothing, nothing).eq(0).all()


def test_a_small_box_inside_a_large_one_far_from_the_origin_keeps_its_area(device):
    large = torch.tensor([[1e4, -1e4, 0, 200, 100, 1, 0.4]], device=device)
    small = torch.tensor([[1e4 + 20, -1e4 + 10, 0, 0.5, 0.25, 1, 1.1]], device=device)
    expected = torch.tensor([[0.125]], device=device)
    torch.testing.assert_close(ops.boxes_overlap_bev(large, small), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(ops.boxes_overlap_bev(small, large), expected, rtol=1e-4, atol=0)


def test_views_are_read_by_their_strides(device):
    wide = random_boxes(20, device).repeat(1, 2)
    a, b = wide[::2, 2:9], wide[1::2, :7]
    torch.testing.assert_close(ops.boxes_iou3d(a, b), ops.boxes_iou3d(a.contiguous(), b.contiguous()), rtol=0, atol=0)
    scores = torch.rand(40, device=device)[::4]
    assert torch.equal(ops.nms_gpu(b, scores, 0.1)[0], ops.nms_gpu(b.contiguous(), scores.contiguous(), 0.1)[0])


@pytest.mark.parametrize("rotated", [True, False])
@pytest.mark.parametrize("thresh", [0.0, 0.1, 0.5, 0.7, 1.0])
@pytest.mark.parametrize(("n", "objects"), [(0, None), (1, None), (30, 4), (40, None)])
def test_nms_keeps_what_the_reference_keeps(device, n, objects, thresh, rotated):
    boxes = random_boxes(n, device, objects=objects, dtype=torch.float64)
    scores = torch.rand(n, generator=torch.Generator().manual_seed(1)).to(device)
    nms = ops.nms_gpu if rotated else ops.nms_normal_gpu
    keep, nothing = nms(boxes, scores, thresh)
    assert nothing is None and keep.dtype == torch.int64 and keep.device.type == device.type
    assert keep.tolist() == reference.nms(boxes.cpu(), scores.cpu(), thresh, rotated).tolist()


@pytest.mark.parametrize("rotated", [True, False])
@pytest.mark.parametrize(("n", "objects"), [(0, None), (1, None), (30, 4)])
def test_counted_nms_puts_what_the_reference_keeps_before_minus_ones(device, n, objects, rotated):
    boxes = random_boxes(n, device, objects=objects, dtype=torch.float64)
    scores = torch.rand(n, generator=torch.Generator().manual_seed(1)).to(device)
    keep, count = ops.nms_counted(boxes, scores, 0.1, rotated)
    expected_keep, expected_count = reference.nms_counted(boxes.cpu(), scores.cpu(), 0.1, rotated)
    assert count.shape == () and keep.dtype == count.dtype == torch.int64
    assert keep.device.type == count.device.type == device.type
    assert keep.tolist() == expected_keep.tolist() and ops.kept_counts([count]) == [expected_count.item()]
    assert ((keep >= 0).cumsum(0)[keep >= 0] == torch.arange(1, int(count) + 1, device=device)).all()


def test_the_counts_of_several_suppressions_are_read_together(device):
    counts = [
        ops.nms_counted(random_boxes(n, device, extent=1000), torch.rand(n, device=device), 0.1)[1] for n in (3, 0, 7)
    ]
    assert ops.kept_counts(counts) == [3, 0, 7]
    assert ops.kept_counts([]) == []


@pytest.mark.gpu
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_counted_nms_tells_numbers_that_are_not_finite_where_the_counts_are_read(gpu, bad):
    boxes, broken, scores = random_boxes(3, gpu), random_boxes(3, gpu), torch.ones(3, device=gpu)
    broken[1, 4] = bad
    bad_scores = torch.ones(3, device=gpu).index_fill(0, torch.tensor([1], device=gpu), bad)
    good = ops.nms_counted(boxes, scores, 0.5)[1]
    for values in ((broken, scores), (boxes, bad_scores)):
        count = ops.nms_counted(*values, 0.5)[1]
        assert count.item() == -1
        with pytest.raises(ValueError, match="boxes and scores must be finite, but hold NaN or infinity"):
            ops.kept_counts([good, count])


def test_nms_of_many_boxes_keeps_a_maximal_set_that_does_not_overlap(device):
    boxes = random_boxes(3000, device, extent=60, objects=400)
    scores = torch.rand(3000, generator=torch.Generator().manual_seed(1)).to(device)
    keep = ops.nms_gpu(boxes, scores, 0.3)[0]
    assert (scores[keep].diff() <= 0).all()
    iou = ops.boxes_iou_bev(boxes[keep], boxes)
    assert (iou[:, keep] - torch.eye(len(keep), device=device)).max() <= 0.3
    better = scores[keep][:, None] >= scores[None]
    dropped = torch.ones(3000, dtype=torch.bool, device=device)
    dropped[keep] = False
    assert ((iou > 0.3) & better).any(dim=0)[dropped].all()


def test_nms_takes_the_smaller_index_among_equal_scores(device):
    boxes = random_boxes(1, device).repeat(5, 1)
    assert ops.nms_gpu(boxes, torch.ones(5, device=device), 0.5)[0].tolist() == [0]
    keep, count = ops.nms_counted(boxes, torch.ones(5, device=device), 0.5)
    assert keep.tolist() == [0, -1, -1, -1, -1] and count.item() == 1


def test_pre_maxsize_leaves_the_worse_boxes_out(device):
    boxes = random_boxes(50, device, extent=1000)
    scores = torch.rand(50, generator=torch.Generator().manual_seed(1)).to(device)
    keep = ops.nms_gpu(boxes, scores, 0.1, pre_maxsize=7, post_maxsize=3)[0]
    assert keep.tolist() == scores.argsort(descending=True)[:7].tolist()


def test_boxes_spread_over_many_kilometres_do_not_exhaust_the_memory(device):
    boxes = random_boxes(100, device, extent=1e6)
    assert len(ops.nms_gpu(boxes, torch.rand(100, device=device), 0.1)[0]) == 100


def test_arrays_in_arrays_out():
    a = random_boxes(4).numpy()
    iou = ops.boxes_bev_iou_cpu(a, a.astype("float64"))
    assert iou.shape == (4, 4) and iou.dtype == "float32"
    assert isinstance(ops.boxes_bev_iou_cpu(torch.from_numpy(a), a), torch.Tensor)


@pytest.mark.parametrize("name", [*PAIRWISE, "paired_boxes_iou3d"])
def test_bad_boxes_are_named(device, name):
    op, good = getattr(ops, name), random_boxes(3, device)
    with pytest.raises(ValueError, match=r"boxes_a must have shape \(N, 7\) \[x, y, z.*got \[3, 6\]"):
        op(good[:, :6], good)
    with pytest.raises(ValueError, match=r"boxes_b must have shape \(N, 7\).*got \[7\]"):
        op(good, good[0])
    with pytest.raises(ValueError, match=r"boxes_b must match boxes_a \(Float on .*\), got Double"):
        op(good, good.double())
    with pytest.raises(ValueError, match=r"boxes_a must be float32 or float64, got Half; convert it with .float\(\)"):
        op(good.half(), good.half())


def test_rows_must_pair_up(device):
    with pytest.raises(ValueError, match=r"as many rows, got \[3, 7\] and \[2, 7\]"):
        ops.paired_boxes_iou3d(random_boxes(3, device), random_boxes(2, device))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_box_that_is_not_finite_is_refused_on_the_cpu(bad):
    a, b = random_boxes(3), random_boxes(3)
    a[1, 4] = bad
    with pytest.raises(ValueError, match="boxes_a must be finite"):
        ops.boxes_iou3d(a, b)


@pytest.mark.gpu
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_box_that_is_not_finite_spreads_on_the_gpu(gpu, bad):
    a, b = random_boxes(3, gpu), random_boxes(3, gpu)
    a[1, 4] = bad
    assert ops.boxes_iou3d(a, b).isnan().any(dim=1).tolist() == [False, True, False]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_boxes_and_scores_of_nms_must_be_finite(device, bad):
    a, b = random_boxes(3, device), random_boxes(3, device)
    a[1, 4] = bad
    with pytest.raises(ValueError, match="boxes.* must be finite"):
        ops.nms_gpu(a, torch.ones(3, device=device), 0.5)
    with pytest.raises(ValueError, match="scores must be finite"):
        ops.nms_gpu(b, torch.tensor([1, bad, 1.0], device=device), 0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_counted_nms_refuses_numbers_that_are_not_finite_at_once_on_the_cpu(bad):
    boxes = random_boxes(3)
    with pytest.raises(ValueError, match="scores must be finite"):
        ops.nms_counted(boxes, torch.tensor([1, bad, 1.0]), 0.5)
    boxes[1, 4] = bad
    with pytest.raises(ValueError, match="boxes must be finite"):
        ops.nms_counted(boxes, torch.ones(3), 0.5)


def test_bad_nms_arguments_are_named(device):
    boxes = random_boxes(3, device)
    with pytest.raises(ValueError, match=r"scores must have shape \(N,\) = \(3,\).*got \[2\]"):
        ops.nms_gpu(boxes, torch.ones(2, device=device), 0.5)
    with pytest.raises(ValueError, match="scores must be float32 or float64, got Long"):
        ops.nms_gpu(boxes, torch.ones(3, device=device, dtype=torch.long), 0.5)
    with pytest.raises(ValueError, match=r"thresh must be an IoU in \[0, 1\], got 1.5"):
        ops.nms_gpu(boxes, torch.ones(3, device=device), 1.5)
    with pytest.raises(ValueError, match=r"thresh must be an IoU in \[0, 1\], got -1"):
        ops.nms_counted(boxes, torch.ones(3, device=device), -1.0)


@pytest.mark.parametrize("pre_maxsize", [None, 2, 5])
def test_scores_that_do_not_belong_to_the_boxes_are_named_however_many_take_part(device, pre_maxsize):
    boxes = random_boxes(3, device)
    for n in (2, 4):
        with pytest.raises(ValueError, match=rf"scores must have shape \(N,\) = \(3,\).*got \[{n}\]"):
            ops.nms_gpu(boxes, torch.ones(n, device=device), 0.5, pre_maxsize)
    with pytest.raises(ValueError, match=r"scores must have shape \(N,\) = \(3,\).*got \[3, 1\]"):
        ops.nms_gpu(boxes, torch.ones(3, 1, device=device), 0.5, pre_maxsize)
    with pytest.raises(ValueError, match=r"boxes must have shape \(N, 7\)"):
        ops.nms_gpu(boxes[0], torch.ones(3, device=device), 0.5, pre_maxsize)


def test_a_negative_pre_maxsize_is_refused_and_zero_keeps_nothing(device):
    boxes, scores = random_boxes(3, device), torch.ones(3, device=device)
    with pytest.raises(ValueError, match="pre_maxsize must be at least 0, or None for all boxes, got -1"):
        ops.nms_normal_gpu(boxes, scores, 0.5, -1)
    assert ops.nms_gpu(boxes, scores, 0.5, 0)[0].tolist() == []


@pytest.mark.gpu
@pytest.mark.parametrize("pre_maxsize", [None, 2])
def test_scores_must_be_on_the_boxes_device(gpu, pre_maxsize):
    with pytest.raises(ValueError, match=f"scores must .*{gpu}.* got .*cpu"):
        ops.nms_gpu(random_boxes(3, gpu), torch.ones(3), 0.5, pre_maxsize)


def test_opcheck(device):
    a, b = random_boxes(4, device), random_boxes(6, device)
    for name in PAIRWISE:
        opcheck(getattr(torch.ops.pcdet, name).default, (a, b))
    opcheck(torch.ops.pcdet.paired_boxes_iou3d.default, (a, b[:4]))
    for op in (torch.ops.pcdet.nms.default, torch.ops.pcdet.nms_counted.default):
        opcheck(op, (b, torch.rand(6, device=device), 0.1, True))


class Detections(torch.nn.Module):
    def forward(self, boxes, scores):
        kept = boxes[ops.nms_gpu(boxes, scores, 0.1)[0]]
        return ops.boxes_iou3d(kept, boxes)


def test_compiles_into_one_graph_and_exports(device):
    inputs = random_boxes(20, device), torch.rand(20, device=device)
    expected = Detections()(*inputs)
    compiled = torch.compile(Detections(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), expected)
    torch.testing.assert_close(torch.export.export(Detections(), inputs).module()(*inputs), expected)


def test_gradients_stop(device):
    a = random_boxes(3, device).requires_grad_()
    assert not ops.boxes_iou3d(a, a).requires_grad
    assert not ops.nms_gpu(a, a[:, 0], 0.1)[0].requires_grad
    assert not ops.nms_counted(a, a[:, 0], 0.1)[0].requires_grad
