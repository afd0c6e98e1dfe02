"""PointPillars of nuScenes with a branch for each group of classes, against OpenPCDet's numbers (goldens/reference)."""

import json

import numpy as np
import pytest
import torch
from easydict import EasyDict
from models.pointpillars import collate, dataset_facts
from support.golden_numbers import (
    EXACT,
    FORWARD,
    GRADIENT_NORM,
    check_detections,
    check_gradients,
    check_losses,
    check_tensor,
)
from support.golden_weights import assert_filled, fill

from pcdet.config import cfg_from_yaml_file
from pcdet.models import build_network

SLICES = {
    "pillar_features": lambda x: x[:200],
    "spatial_features": lambda x: x[:, ::12, ::5, ::7],
    "spatial_features_2d": lambda x: x[:, ::12, ::5, ::7],
}
BRANCHES = 6


@pytest.fixture(scope="module")
def data(goldens):
    return np.load(goldens / "reference/models/cbgs_pp_multihead.npz")


@pytest.fixture(scope="module")
def config(repo_root):
    return cfg_from_yaml_file(repo_root / "tools/cfgs/nuscenes_models/cbgs_pp_multihead.yaml", EasyDict())


@pytest.fixture(scope="module")
def facts(data, config):
    limits = data["input.point_cloud_range"]
    return dataset_facts(limits, (0.2, 0.2, 8.0), config.CLASS_NAMES, features=5)


@pytest.fixture
def model(data, config, facts):
    return fill(build_network(config.MODEL, 10, facts), json.loads(str(data["meta"]))["salt"])


@pytest.fixture(scope="module")
def batch(data, facts):
    clouds, boxes = ([data[f"input.{kind}{i}"] for i in (0, 1)] for kind in ("points", "gt_boxes"))
    batch = collate(clouds, boxes, facts, max_points=20)
    np.testing.assert_array_equal(batch["voxel_coords"].numpy(), data["test.voxel_coords"])
    return batch


def _check_maps(data, prefix, batch_dict, head):
    for name, take in SLICES.items():
        check_tensor(data, f"{prefix}.{name}", batch_dict[name], take)
    for name in ("cls_preds", "box_preds"):
        for i in range(BRANCHES):
            check_tensor(data, f"{prefix}.head.{name}.{i}", head.forward_ret_dict[name][i])


def _check_boxes(data, boxes):
    """Decoded boxes of nine columns; a heading near half a turn may come out on the other side of it."""
    assert list(boxes.shape) == data["test.batch_box_preds.shape"].tolist() and boxes.shape[-1] == 9
    expected = data["test.batch_box_preds.slice"]
    own = boxes[:, ::37].numpy()
    error = np.abs(own - expected)
    error[..., 6] = np.abs(np.angle(np.exp(1j * (own[..., 6] - expected[..., 6]))))
    assert error.max() <= FORWARD * np.abs(expected).max()


def test_evaluation(data, model, batch):
    assert_filled(model.state_dict(), data)
    model.eval()
    with torch.no_grad():
        batch_dict = model.forward_features(dict(batch))
        _check_maps(data, "test", batch_dict, model.dense_head)
        _check_boxes(data, batch_dict["batch_box_preds"])
        pred_dicts, recall = model(dict(batch))
    assert recall == json.loads(str(data["test.recall"]))
    for i, pred_dict in enumerate(pred_dicts):
        check_detections(pred_dict, data, f"test.post.{i}", swaps=4, rtol=EXACT)


def test_training(data, model, batch):
    batch_dict = dict(batch)
    ret_dict, tb_dict, _ = model.train()(batch_dict)
    ret_dict["loss"].backward()
    check_losses(data, "train", ret_dict, tb_dict)
    _check_maps(data, "train", batch_dict, model.dense_head)
    check_gradients(data, "train", model, GRADIENT_NORM)
    out = model.dense_head.forward_ret_dict
    np.testing.assert_array_equal(out["box_cls_labels"].numpy(), data["train.head.box_cls_labels"])
    targets, index = out["box_reg_targets"].numpy().ravel(), data["train.head.box_reg_targets.nonzero_index"]
    np.testing.assert_array_equal(np.flatnonzero(targets), index)
    expected = data["train.head.box_reg_targets.nonzero_value"]
    np.testing.assert_allclose(targets[index], expected, rtol=EXACT, atol=EXACT)
