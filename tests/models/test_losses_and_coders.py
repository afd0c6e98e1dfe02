"""Losses and box coders: round trips, invariances, gradients, precision."""

import pytest
import torch
from torch.autograd import gradcheck

from pcdet.utils import box_coder_utils, loss_utils
from pcdet.utils.box_coder_utils import PointResidualCoder, ResidualCoder


def _boxes(n, seed=0, columns=7):
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.randn(n, columns, generator=generator) * 3
    boxes[:, 3:6] = boxes[:, 3:6].abs() + 0.3
    return boxes


@pytest.mark.parametrize("sincos", [False, True])
@pytest.mark.parametrize("size", [7, 9])
def test_decoding_undoes_encoding(size, sincos):
    coder = ResidualCoder(code_size=size, encode_angle_by_sincos=sincos)
    boxes, anchors = _boxes(50, 1, size), _boxes(50, 2, size)
    boxes[:, 6] = boxes[:, 6].clamp(-3, 3)
    codes = coder.encode(boxes, anchors)
    assert codes.shape == (50, coder.code_size) and coder.code_size == size + sincos
    torch.testing.assert_close(coder.decode(codes, anchors), boxes, rtol=1e-4, atol=1e-4)
    zero = coder.encode(anchors, anchors)
    torch.testing.assert_close(zero, torch.zeros_like(zero))


def test_flat_boxes_are_coded_without_touching_them():
    boxes = torch.zeros(2, 7)
    before = boxes.clone()
    codes = ResidualCoder().encode(boxes, _boxes(2))
    assert codes.isfinite().all() and torch.equal(boxes, before)


@pytest.mark.parametrize("mean_size", [None, [[4.0, 2.0, 1.5], [1.0, 0.5, 1.7]]])
def test_points_codes_round_trip(mean_size):
    coder = PointResidualCoder(use_mean_size=mean_size is not None, mean_size=mean_size)
    boxes, points, classes = _boxes(20), torch.randn(20, 3), torch.arange(20) % 2 + 1
    boxes[:, 6] = boxes[:, 6].clamp(-3, 3)
    decoded = coder.decode(coder.encode(boxes, points, classes), points, classes)
    torch.testing.assert_close(decoded, boxes, rtol=1e-4, atol=1e-4)


def test_coder_errors():
    with pytest.raises(ValueError, match="CODE_SIZE must be at least 7"):
        ResidualCoder(code_size=6)
    with pytest.raises(ValueError, match="MEAN_SIZE must give"):
        PointResidualCoder()
    with pytest.raises(NotImplementedError, match="use ResidualCoder"):
        box_coder_utils.PreviousResidualDecoder().encode(_boxes(1), _boxes(1))


# --------------------------------------------------------------------------------------------------------------- focal


def _focal_case(dtype=torch.float64, frames=2, anchors=40, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(frames, anchors, classes, generator=generator, dtype=torch.float64) * 4).to(dtype)
    labels = torch.randint(-1, classes + 1, (frames, anchors), generator=generator, dtype=torch.int32)
    weights = torch.rand(frames, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), labels, weights


def _plain_focal(logits, labels, weights):
    target = torch.nn.functional.one_hot(labels.clamp(min=0).long(), logits.shape[-1] + 1)[..., 1:].to(logits.dtype)
    anchor_weights = (labels >= 0) * weights[:, None]
    return loss_utils.SigmoidFocalClassificationLoss()(logits, target, anchor_weights).sum()


@pytest.mark.parametrize("classes", [1, 3])
def test_the_fast_focal_sum_equals_the_plain_loss(classes):
    logits, labels, weights = _focal_case(classes=classes)
    other = logits.detach().clone().requires_grad_()
    loss, expected = loss_utils.sigmoid_focal_sum(logits, labels, weights), _plain_focal(other, labels, weights)
    torch.testing.assert_close(loss, expected)
    (3 * loss).backward()
    (3 * expected).backward()
    torch.testing.assert_close(logits.grad, other.grad)


def test_the_focal_sums_gradient():
    logits, labels, weights = _focal_case(anchors=8)
    assert gradcheck(lambda x: loss_utils.sigmoid_focal_sum(x, labels, weights), logits)


@pytest.mark.parametrize("labels", [torch.zeros(2, 5), torch.full((2, 5), -1), torch.ones(2, 5)])
def test_the_focal_sum_of_one_kind_of_label(labels):
    logits = torch.randn(2, 5, 3, dtype=torch.float64)
    weights = torch.ones(2, dtype=torch.float64)
    loss = loss_utils.sigmoid_focal_sum(logits, labels.int(), weights)
    torch.testing.assert_close(loss, _plain_focal(logits, labels, weights))


@pytest.mark.parametrize("value", [-100.0, 100.0, 1e4])
def test_the_focal_sum_stays_finite(value):
    logits = torch.full((1, 4, 2), value, requires_grad=True)
    loss = loss_utils.sigmoid_focal_sum(logits, torch.tensor([[0, 1, 2, -1]]), torch.ones(1))
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_leave_half_precision(dtype):
    logits, labels, weights = _focal_case(dtype)
    loss = loss_utils.sigmoid_focal_sum(logits, labels, weights)
    assert loss.dtype == torch.float32
    exact = loss_utils.sigmoid_focal_sum(logits.detach().double(), labels, weights)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-6)
    loss.backward()
    assert logits.grad.dtype == dtype
    codes = torch.randn(3, 7).to(dtype)
    assert loss_utils.WeightedSmoothL1Loss()(codes, torch.zeros(3, 7)).dtype == torch.float32


# ---------------------------------------------------------------------------------------------------------- regression


def test_smooth_l1_is_quadratic_then_linear():
    loss = loss_utils.WeightedSmoothL1Loss(beta=1.0)
    codes = torch.tensor([[0.0, 0.5, 1.0, 3.0, -3.0]])
    assert loss(codes, torch.zeros(1, 5))[0].tolist() == pytest.approx([0, 0.125, 0.5, 2.5, 2.5])
    assert loss_utils.WeightedSmoothL1Loss(beta=0.0)(codes, torch.zeros(1, 5))[0].tolist() == [0, 0.5, 1, 3, 3]
    assert loss_utils.WeightedL1Loss()(codes, torch.zeros(1, 5))[0].tolist() == [0, 0.5, 1, 3, 3]


def test_code_weights_and_anchor_weights_multiply():
    loss = loss_utils.WeightedL1Loss(code_weights=[1.0, 0.5])
    out = loss(torch.ones(1, 2, 2), torch.zeros(1, 2, 2), torch.tensor([[2.0, 0.0]]))
    assert out.tolist() == [[[2.0, 1.0], [0.0, 0.0]]]


def test_an_unknown_target_costs_nothing():
    codes = torch.ones(1, 2, requires_grad=True)
    loss = loss_utils.WeightedL1Loss()(codes, torch.tensor([[float("nan"), 0.0]]))
    loss.sum().backward()
    assert loss.tolist() == [[0, 1]] and codes.grad.tolist() == [[0, 1]]


def test_the_sin_difference_ignores_whole_and_half_turns_sign():
    boxes, target = _boxes(5), _boxes(5, 1)
    first, second = loss_utils.add_sin_difference(boxes, target)
    torch.testing.assert_close(first[:, 6] - second[:, 6], torch.sin(boxes[:, 6] - target[:, 6]))
    assert torch.equal(first[:, :6], boxes[:, :6]) and torch.equal(second[:, :6], target[:, :6])
    with pytest.raises(ValueError, match="got -1"):
        loss_utils.add_sin_difference(boxes, target, dim=-1)


def test_the_corner_loss_does_not_mind_a_box_turned_round():
    boxes = _boxes(6)
    turned = boxes.clone()
    turned[:, 6] += torch.pi
    loss = loss_utils.get_corner_loss_lidar(turned, boxes)
    torch.testing.assert_close(loss, torch.zeros(6), atol=1e-6, rtol=0)
