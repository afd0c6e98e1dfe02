"""Losses of the detection heads, with OpenPCDet's names and formulas.

Every loss works in float32 at least, whatever precision its inputs have, so that autocast does not reach it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from pcdet.utils import box_utils


def at_least_float32(x: Tensor) -> Tensor:
    """``x``, or its float32 copy if it has less precision than that."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class SigmoidFocalClassificationLoss(nn.Module):
    """Focal loss on independent sigmoids (Lin et al., 2017, equation 5).

    Args:
        gamma: exponent of the modulating factor.
        alpha: weight of the positives; the negatives get 1 - alpha.
    """

    def __init__(self, gamma: float = 2.0, alpha: float = 0.25):
        super().__init__()
        self.gamma = gamma
        self.alpha = alpha

    def forward(self, input: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        """Loss of every logit, unreduced.

        Args:
            input: (B, N, C) logits.
            target: (B, N, C) in [0, 1].
            weights: (B, N), or (B, N, C).

        Returns:
            (B, N, C).
        """
        logits = at_least_float32(input)
        probability = torch.sigmoid(logits)
        alpha = target * self.alpha + (1 - target) * (1 - self.alpha)
        miss = target * (1 - probability) + (1 - target) * probability
        cross_entropy = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
        loss = alpha * miss**self.gamma * cross_entropy
        return loss * (weights.unsqueeze(-1) if weights.dim() == target.dim() - 1 else weights)


class _FocalSum(torch.autograd.Function):
    """See ``sigmoid_focal_sum``; the gradient is ready after the forward."""

    @staticmethod
    def forward(ctx, logits: Tensor, positive: Tensor, ignored: Tensor, weights: Tensor, alpha: float) -> Tensor:
        # Everything is first treated as background, in as few passes as possible over a large array; then the few
        # entries that are not are mended. A positive with logit x costs what a negative with -x does, but for alpha.
        frames, classes = logits.shape[0], logits.shape[-1]
        loss, grad = _negative_focal(logits)
        scale = (1 - alpha) * weights
        total = torch.dot(loss.view(frames, -1).sum(1), scale)
        grad.view(frames, -1).mul_(scale[:, None])

        entries, per_frame = logits.view(-1), logits[0].numel()
        gone = (ignored[:, None] * classes + torch.arange(classes, device=logits.device)).view(-1)
        total = total - torch.dot(loss.view(-1)[gone], scale[_divide(gone, per_frame)])
        grad.view(-1)[gone] = 0

        weight = weights[_divide(positive, per_frame)]
        as_positive, slope = _negative_focal(-entries[positive])
        total = total + torch.dot(alpha * as_positive - (1 - alpha) * loss.view(-1)[positive], weight)
        grad.view(-1)[positive] = -alpha * slope * weight
        ctx.save_for_backward(grad)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream: Tensor):
        (grad,) = ctx.saved_tensors
        return grad * upstream, None, None, None, None


def _negative_focal(x: Tensor) -> tuple[Tensor, Tensor]:
    """p^2 softplus(x) with p = sigmoid(x), and its derivative p^2 (p + 2 (1 - p) softplus(x)); new tensors."""
    p = torch.sigmoid(x)
    cross_entropy = F.softplus(x)
    square = p * p
    loss = square * cross_entropy
    grad = torch.addcmul(p, 1 - p, cross_entropy, value=2).mul_(square)
    return loss, grad


def _divide(index: Tensor, by: int) -> Tensor:
    return torch.div(index, max(by, 1), rounding_mode="floor")


def sigmoid_focal_sum(
    logits: Tensor, labels: Tensor, frame_weights: Tensor, *, alpha: float = 0.25, rows: Tensor | None = None
) -> Tensor:
    """Sum of the focal losses (gamma 2) of hard labels: ``SigmoidFocalClassificationLoss`` summed, but much faster.

    Args:
        logits: (B, N, C).
        labels: (B, N) integers: -1 ignored, 0 background, 1..C the class.
        frame_weights: (B,) weight of all anchors of a frame.
        alpha: weight of the positives; the negatives get 1 - alpha.
        rows: (K,) ascending, where ``labels``, flattened, are above 0, for a caller who knows.

    Returns:
        Scalar, differentiable once in ``logits``.
    """
    logits = at_least_float32(logits).contiguous()
    flat = labels.reshape(-1)
    if rows is None:
        rows = (flat > 0).nonzero().squeeze(1)
    positive = rows * logits.shape[-1] + flat[rows].long() - 1
    ignored = (flat < 0).nonzero().squeeze(1)
    return _FocalSum.apply(logits, positive, ignored, frame_weights.to(logits.dtype), alpha)


class _WeightedRegressionLoss(nn.Module):
    """Regression loss with a weight for each code and each anchor; a NaN target costs nothing."""

    def __init__(self, code_weights: Sequence[float] | None = None):
        super().__init__()
        weights = None if code_weights is None else torch.as_tensor(code_weights, dtype=torch.float32)
        self.register_buffer("code_weights", weights, persistent=False)

    def forward(self, input: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        """Loss of every code, unreduced.

        Args:
            input: (..., N, D) predicted codes.
            target: (..., N, D).
            weights: (..., N), or None.

        Returns:
            (..., N, D).
        """
        input = at_least_float32(input)
        target = torch.where(torch.isnan(target), input, target)
        difference = input - target
        if self.code_weights is not None:
            difference = difference * self.code_weights.to(difference.dtype)
        loss = self.penalty(difference)
        return loss if weights is None else loss * weights.unsqueeze(-1)

    def penalty(self, difference: Tensor) -> Tensor:
        """Cost of a weighted difference, element by element."""
        raise NotImplementedError


class WeightedSmoothL1Loss(_WeightedRegressionLoss):
    """Smooth L1: 0.5 d^2 / beta below beta, |d| - 0.5 beta above; beta below 1e-5 is plain L1."""

    def __init__(self, beta: float = 1.0 / 9.0, code_weights: Sequence[float] | None = None):
        super().__init__(code_weights)
        self.beta = beta

    def penalty(self, difference: Tensor) -> Tensor:
        """Smooth L1 of a weighted difference."""
        distance = difference.abs()
        if self.beta < 1e-5:
            return distance
        return torch.where(distance < self.beta, 0.5 * distance**2 / self.beta, distance - 0.5 * self.beta)


class WeightedL1Loss(_WeightedRegressionLoss):
    """|d|."""

    def penalty(self, difference: Tensor) -> Tensor:
        """Magnitude of a weighted difference."""
        return difference.abs()


class WeightedCrossEntropyLoss(nn.Module):
    """Softmax cross entropy with a weight for each anchor."""

    def forward(self, input: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        """Loss of every anchor, unreduced.

        Args:
            input: (..., N, C) logits.
            target: (..., N, C) one-hot.
            weights: (..., N).

        Returns:
            (..., N).
        """
        log_probability = F.log_softmax(at_least_float32(input), dim=-1)
        labels = target.argmax(dim=-1, keepdim=True)
        return -log_probability.gather(-1, labels).squeeze(-1) * weights


def add_sin_difference(boxes1: Tensor, boxes2: Tensor, dim: int = 6) -> tuple[Tensor, Tensor]:
    """Both arguments with column ``dim`` replaced so that their difference there is sin(angle1 - angle2)."""
    if dim == -1:
        raise ValueError("dim must be a column counted from the front, got -1")
    angle1, angle2 = boxes1[..., dim : dim + 1], boxes2[..., dim : dim + 1]
    first, second = angle1.sin() * angle2.cos(), angle1.cos() * angle2.sin()
    return (
        torch.cat((boxes1[..., :dim], first, boxes1[..., dim + 1 :]), dim=-1),
        torch.cat((boxes2[..., :dim], second, boxes2[..., dim + 1 :]), dim=-1),
    )


def get_corner_loss_lidar(pred_bbox3d: Tensor, gt_bbox3d: Tensor) -> Tensor:
    """Mean distance of the eight corners to those of the target or of the target turned round, whichever is nearer.

    Args:
        pred_bbox3d: (N, 7) LiDAR boxes.
        gt_bbox3d: (N, 7).

    Returns:
        (N,) smooth L1 (beta 1) of the distances in metres, averaged over the corners.
    """
    turned = gt_bbox3d.clone()
    turned[:, 6] += torch.pi
    corners = box_utils.boxes_to_corners_3d(pred_bbox3d)
    distance = torch.min(
        torch.norm(corners - box_utils.boxes_to_corners_3d(gt_bbox3d), dim=2),
        torch.norm(corners - box_utils.boxes_to_corners_3d(turned), dim=2),
    )
    return F.smooth_l1_loss(distance, torch.zeros_like(distance), beta=1.0, reduction="none").mean(dim=1)


def center_focal_losses(logits: Tensor, heatmap: Tensor) -> tuple[Tensor, Tensor]:
    """CornerNet's focal loss of heat maps (Law and Deng, 2018, equation 1; alpha 2, beta 4), class by class.

    Probabilities are clamped to [1e-4, 1 - 1e-4], outside of which a logit has no gradient, as in OpenPCDet.

    Args:
        logits: (B, C, H, W).
        heatmap: (B, C, H, W) in [0, 1]; 1 is a centre.

    Returns:
        (C,) sums of the losses, not yet divided by the number of centres; (C,) that number.
    """
    p = torch.sigmoid(at_least_float32(logits)).clamp(1e-4, 1 - 1e-4)
    centre = heatmap == 1
    at_centre = torch.log(p) * (1 - p) ** 2
    elsewhere = torch.log(1 - p) * p**2 * (1 - heatmap) ** 4
    return -torch.where(centre, at_centre, elsewhere).sum(dim=(0, 2, 3)), centre.sum(dim=(0, 2, 3))
