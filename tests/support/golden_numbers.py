"""How a detector's numbers are compared with those of a file of the goldens."""

import numpy as np
import pytest
import torch

FORWARD = 1e-4  # of the reference's largest value
GRADIENT_NORM = 1e-2  # float32: ReLUs and maxima flip
EXACT = 1e-5  # losses, and everything in float64


def check_tensor(data, prefix, value, take=None):
    """``value`` has the shape, the sums and, at what ``take`` picks, the values of ``prefix``."""
    assert list(value.shape) == data[f"{prefix}.shape"].tolist()
    value = value.detach().double().numpy()
    if take is None:
        own, expected = value.ravel()[_spread(value.size, 400)], data[f"{prefix}.sample"]
    else:
        own, expected = take(value), data[f"{prefix}.slice"]
    assert np.abs(own - expected).max() <= FORWARD * np.abs(expected).max(), prefix
    total, absolute, squares = data[f"{prefix}.stats"][:3]
    assert abs(value.sum() - total) <= FORWARD * absolute, prefix
    assert abs(np.abs(value).sum() - absolute) <= FORWARD * absolute, prefix
    assert abs((value**2).sum() - squares) <= FORWARD * squares, prefix


def _spread(size, count):
    return torch.linspace(0, size - 1, min(count, size)).long().numpy()


def check_boxes(data, boxes):
    """Decoded boxes; where a heading is near a decision of the classifier or of the period, it may jump."""
    assert list(boxes.shape) == data["test.batch_box_preds.shape"].tolist()
    stride = int(data["test.batch.row_stride"])
    expected = data["test.batch_box_preds.slice"]
    error = np.abs(boxes[:, ::stride].numpy() - expected)
    unsure = (np.abs(data["test.dir_margin"]) < 1e-3) | (data["test.heading_period_distance"] < 1e-4)
    error[..., 6][unsure] = 0
    assert error.max() <= FORWARD * np.abs(expected).max()


def check_detections(pred_dict, data, prefix, swaps=2, rtol=0.0):
    """The same set of boxes, but for a few that near ties swap; ``rtol`` is for random boxes of hundreds of metres."""
    expected = {key: data[f"{prefix}.pred_{key}"] for key in ("boxes", "scores", "labels")}
    boxes, labels = pred_dict["pred_boxes"].numpy(), pred_dict["pred_labels"].numpy()
    distance = np.abs(boxes[:, None] - expected["boxes"][None]) - rtol * np.abs(expected["boxes"])
    distance = distance.max(-1)
    distance[labels[:, None] != expected["labels"][None]] = np.inf
    assert (distance.min(1) > 1e-3).sum() <= swaps and (distance.min(0) > 1e-3).sum() <= swaps
    nearest = distance.argmin(1)
    matched = distance.min(1) <= 1e-3
    scores = pred_dict["pred_scores"].numpy()
    np.testing.assert_allclose(scores[matched], expected["scores"][nearest[matched]], rtol=1e-4)


def check_losses(data, prefix, ret_dict, tb_dict):
    """The loss and all its parts."""
    expected = {k.split(".loss.")[1]: float(data[k]) for k in data.files if k.startswith(f"{prefix}.loss.")}
    assert ret_dict["loss"].item() == pytest.approx(expected.pop("total"), rel=EXACT)
    assert tb_dict == pytest.approx(expected, rel=EXACT)


def check_anchor_targets(data, prefix, targets):
    """Labels exactly, codes of the positive anchors, and the weights; ``targets``: a head's ``forward_ret_dict``."""
    labels = targets["box_cls_labels"].numpy()
    np.testing.assert_array_equal(labels, data[f"{prefix}.box_cls_labels"])
    index = data[f"{prefix}.pos_index"]
    np.testing.assert_array_equal(np.argwhere(labels > 0), index)
    own = targets["box_reg_targets"].numpy()[index[:, 0], index[:, 1]]
    np.testing.assert_allclose(own, data[f"{prefix}.pos_reg_targets"], rtol=EXACT, atol=EXACT)
    np.testing.assert_array_equal(targets["reg_weights"].sum(1).numpy(), data[f"{prefix}.reg_weights_sum"])


def check_gradients(data, prefix, model, norm_tolerance):
    """Norms of all gradients, and of the batch norms' statistics after the step; the gradients by name."""
    gradients = {name: p.grad.double() for name, p in model.named_parameters()}
    assert list(gradients) == data[f"{prefix}.grad.names"].tolist()
    norms = np.array([float(g.norm()) for g in gradients.values()])
    np.testing.assert_allclose(norms, data[f"{prefix}.grad.norms"], rtol=norm_tolerance)
    buffers = dict(model.named_buffers())
    own = [float(buffers[name].double().norm()) for name in data[f"{prefix}.after.bn_names"]]
    np.testing.assert_allclose(own, data[f"{prefix}.after.bn_norms"], rtol=EXACT)
    return gradients
