"""Whole detectors against OpenPCDet's numbers (goldens/reference/models), from weights drawn by the README's rule."""

import json

import numpy as np
import pytest
import torch
from goldens.filling import assert_filled, fill
from models.pointpillars import SMALL_RANGE, collate, dataset_facts, model_cfg

from pcdet.models import build_network

FORWARD = 1e-4  # of the reference's largest value
GRADIENT_NORM = 1e-2  # float32: ReLUs and maxima flip
EXACT = 1e-5  # losses, and everything in float64


@pytest.fixture(scope="module")
def data(goldens):
    return np.load(goldens / "reference" / "models" / "pointpillar.npz")


@pytest.fixture(scope="module")
def batch(data):
    facts = dataset_facts(SMALL_RANGE)
    clouds, boxes = ([data[f"input.{kind}{i}"] for i in (0, 1)] for kind in ("points", "gt_boxes"))
    batch = collate(clouds, boxes, facts)
    assert np.array_equal(batch["voxel_coords"].numpy(), data["vox.voxel_coords"])
    return batch


def _build(data):
    model = build_network(model_cfg(), 3, dataset_facts(SMALL_RANGE))
    return fill(model, json.loads(str(data["meta"]))["salt"])


def test_the_filling_rule(data):
    assert_filled(_build(data).state_dict(), data)


SLICES = {
    "pillar_features": lambda x: x[:200],
    "spatial_features": lambda x: x[:, ::12, ::5, ::7],
    "spatial_features_2d": lambda x: x[:, ::12, ::5, ::7],
    "cls_preds": lambda x: x[:, ::3, ::4],
    "box_preds": lambda x: x[:, ::3, ::4],
    "dir_cls_preds": lambda x: x[:, ::3, ::4],
    "batch_cls_preds": lambda x: x[:, ::13],
    "batch_box_preds": lambda x: x[:, ::13],
}


def _check_tensor(data, prefix, name, value):
    assert list(value.shape) == data[f"{prefix}.{name}.shape"].tolist()
    value = value.detach().double().numpy()
    expected, own = data[f"{prefix}.{name}.slice"].astype(np.float64), SLICES[name](value)
    error = np.abs(own - expected)
    if name == "batch_box_preds":
        # near a decision of the direction classifier or of the period the heading may jump
        unsure = (np.abs(data[f"{prefix}.dir_margin"]) < 1e-3) | (data[f"{prefix}.heading_period_distance"] < 1e-4)
        error[..., 6][unsure] = 0
    assert error.max() <= FORWARD * np.abs(expected).max(), name
    total, absolute, squares = data[f"{prefix}.{name}.stats"][:3]
    if name != "batch_box_preds":
        assert abs(value.sum() - total) <= FORWARD * absolute, name
    assert abs(np.abs(value).sum() - absolute) <= FORWARD * absolute, name
    assert abs((value**2).sum() - squares) <= FORWARD * squares, name


def _check_maps(data, prefix, batch_dict, model, names):
    for name in names:
        value = batch_dict[name] if name in batch_dict else model.dense_head.forward_ret_dict[name]
        _check_tensor(data, prefix, name, value)


MAPS = ("pillar_features", "spatial_features", "spatial_features_2d", "cls_preds", "box_preds", "dir_cls_preds")


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pointpillar_evaluation(data, batch, memory_format):
    model = _build(data).eval().to(memory_format=memory_format)
    with torch.no_grad():
        batch_dict = model.forward_features(dict(batch))
        _check_maps(data, "test", batch_dict, model, (*MAPS, "batch_cls_preds", "batch_box_preds"))
        pred_dicts, recall = model(dict(batch))
    assert recall == json.loads(str(data["test.recall"]))
    for i, pred_dict in enumerate(pred_dicts):
        _check_detections(pred_dict, {k: data[f"test.post.{i}.pred_{k}"] for k in ("boxes", "scores", "labels")})


def _check_detections(pred_dict, expected):
    """The same set of boxes, but for a few that near ties swap."""
    boxes, labels = pred_dict["pred_boxes"].numpy(), pred_dict["pred_labels"].numpy()
    distance = np.abs(boxes[:, None] - expected["boxes"][None]).max(-1)
    distance[labels[:, None] != expected["labels"][None]] = np.inf
    assert (distance.min(1) > 1e-3).sum() <= 2 and (distance.min(0) > 1e-3).sum() <= 2
    nearest = distance.argmin(1)
    matched = distance.min(1) <= 1e-3
    scores = pred_dict["pred_scores"].numpy()
    np.testing.assert_allclose(scores[matched], expected["scores"][nearest[matched]], rtol=1e-4)
    assert np.all(np.diff(scores) <= 0)


def _train(data, batch, dtype):
    model = _build(data).train().to(dtype)
    batch_dict = {k: v.to(dtype) if torch.is_tensor(v) else v for k, v in batch.items()}
    ret_dict, tb_dict, _ = model(batch_dict)
    ret_dict["loss"].backward()
    return model, batch_dict, ret_dict, tb_dict


def _check_losses(data, prefix, ret_dict, tb_dict):
    expected = {k.split(".loss.")[1]: float(data[k]) for k in data.files if k.startswith(f"{prefix}.loss.")}
    assert ret_dict["loss"].item() == pytest.approx(expected.pop("total"), rel=EXACT)
    assert tb_dict == pytest.approx(expected, rel=EXACT)


def _check_gradients(data, prefix, model, norm_tolerance):
    gradients = {name: p.grad.double() for name, p in model.named_parameters()}
    assert list(gradients) == data[f"{prefix}.grad.names"].tolist()
    norms = np.array([float(g.norm()) for g in gradients.values()])
    np.testing.assert_allclose(norms, data[f"{prefix}.grad.norms"], rtol=norm_tolerance)
    buffers = dict(model.named_buffers())
    own = [float(buffers[name].double().norm()) for name in data[f"{prefix}.after.bn_names"]]
    np.testing.assert_allclose(own, data[f"{prefix}.after.bn_norms"], rtol=EXACT)
    return gradients


def test_pointpillar_training(data, batch):
    model, batch_dict, ret_dict, tb_dict = _train(data, batch, torch.float32)
    _check_losses(data, "train", ret_dict, tb_dict)
    _check_maps(data, "train", batch_dict, model, MAPS)
    _check_gradients(data, "train", model, GRADIENT_NORM)

    targets = model.dense_head.forward_ret_dict
    labels = targets["box_cls_labels"].numpy()
    np.testing.assert_array_equal(labels, data["train.box_cls_labels"])
    index = data["train.pos_index"]
    np.testing.assert_array_equal(np.argwhere(labels > 0), index)
    own = targets["box_reg_targets"].numpy()[index[:, 0], index[:, 1]]
    np.testing.assert_allclose(own, data["train.pos_reg_targets"], rtol=EXACT, atol=EXACT)
    np.testing.assert_array_equal(targets["reg_weights"].sum(1).numpy(), data["train.reg_weights_sum"])


def test_pointpillar_training_in_float64(data, batch):
    model, _, ret_dict, tb_dict = _train(data, batch, torch.float64)
    _check_losses(data, "f64.train", ret_dict, tb_dict)
    gradients = _check_gradients(data, "f64.train", model, EXACT)
    for name, gradient in gradients.items():
        flat, expected = gradient.flatten(), data[f"f64.train.grad.sample.{name}"]
        own = flat[torch.linspace(0, len(flat) - 1, min(24, len(flat))).long()].numpy()
        assert np.abs(own - expected).max() <= EXACT * np.abs(expected).max(), name
    for name in ("cls_preds", "box_preds", "dir_cls_preds"):
        value = model.dense_head.forward_ret_dict[name].detach()
        own = [value.sum(), value.abs().sum(), (value**2).sum(), value.min(), value.max()]
        np.testing.assert_allclose(np.array(own), data[f"f64.train.{name}.stats"], rtol=EXACT)
