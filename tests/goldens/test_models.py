"""Whole detectors against OpenPCDet's numbers (goldens/reference/models), from weights drawn by the README's rule."""

import json

import numpy as np
import pytest
import torch
from models.pointpillars import SMALL_RANGE, collate, dataset_facts, model_cfg
from support.golden_numbers import (
    EXACT,
    GRADIENT_NORM,
    check_anchor_targets,
    check_boxes,
    check_detections,
    check_gradients,
    check_losses,
    check_tensor,
)
from support.golden_weights import assert_filled, fill

from pcdet.models import build_network


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
}


def _check_maps(data, prefix, batch_dict, model, names):
    for name in names:
        value = batch_dict[name] if name in batch_dict else model.dense_head.forward_ret_dict[name]
        check_tensor(data, f"{prefix}.{name}", value, SLICES[name])


MAPS = ("pillar_features", "spatial_features", "spatial_features_2d", "cls_preds", "box_preds", "dir_cls_preds")


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pointpillar_evaluation(data, batch, memory_format):
    model = _build(data).eval().to(memory_format=memory_format)
    with torch.no_grad():
        batch_dict = model.forward_features(dict(batch))
        _check_maps(data, "test", batch_dict, model, (*MAPS, "batch_cls_preds"))
        check_boxes(data, batch_dict["batch_box_preds"])
        pred_dicts, recall = model(dict(batch))
    assert recall == json.loads(str(data["test.recall"]))
    for i, pred_dict in enumerate(pred_dicts):
        check_detections(pred_dict, data, f"test.post.{i}")
        assert np.all(np.diff(pred_dict["pred_scores"].numpy()) <= 0)


def _train(data, batch, dtype):
    model = _build(data).train().to(dtype)
    batch_dict = {k: v.to(dtype) if torch.is_tensor(v) else v for k, v in batch.items()}
    ret_dict, tb_dict, _ = model(batch_dict)
    ret_dict["loss"].backward()
    return model, batch_dict, ret_dict, tb_dict


def test_pointpillar_training(data, batch):
    model, batch_dict, ret_dict, tb_dict = _train(data, batch, torch.float32)
    check_losses(data, "train", ret_dict, tb_dict)
    _check_maps(data, "train", batch_dict, model, MAPS)
    check_gradients(data, "train", model, GRADIENT_NORM)
    check_anchor_targets(data, "train", model.dense_head.forward_ret_dict)


def test_pointpillar_training_in_float64(data, batch):
    model, _, ret_dict, tb_dict = _train(data, batch, torch.float64)
    check_losses(data, "f64.train", ret_dict, tb_dict)
    gradients = check_gradients(data, "f64.train", model, EXACT)
    for name, gradient in gradients.items():
        flat, expected = gradient.flatten(), data[f"f64.train.grad.sample.{name}"]
        own = flat[torch.linspace(0, len(flat) - 1, min(24, len(flat))).long()].numpy()
        assert np.abs(own - expected).max() <= EXACT * np.abs(expected).max(), name
    for name in ("cls_preds", "box_preds", "dir_cls_preds"):
        value = model.dense_head.forward_ret_dict[name].detach()
        own = [value.sum(), value.abs().sum(), (value**2).sum(), value.min(), value.max()]
        np.testing.assert_allclose(np.array(own), data[f"f64.train.{name}.stats"], rtol=EXACT)
