"""CenterPoint on dynamic pillars against OpenPCDet's numbers."""

import json

import numpy as np
import pytest
import torch
from easydict import EasyDict
from models.pointpillars import dataset_facts
from support.golden_numbers import EXACT, GRADIENT_NORM, check_detections, check_losses, check_tensor
from support.golden_weights import assert_filled, fill

from pcdet.config import cfg_from_yaml_file
from pcdet.models import build_network

OPENPCDETS_WEIGHTS = [1.0] * 6 + [0.2, 0.2, 1.0, 1.0]  # of a box code's columns: on the heading, not on the velocity
BRANCHES = 6


def shipped(repo_root, name):
    return cfg_from_yaml_file(repo_root / f"tools/cfgs/nuscenes_models/{name}.yaml", EasyDict())


@pytest.fixture(scope="module")
def data(goldens):
    return np.load(goldens / "reference" / "models" / "cbgs_dyn_pp_centerpoint.npz")


@pytest.fixture
def model(data, repo_root):
    cfg = shipped(repo_root, "cbgs_dyn_pp_centerpoint")
    cfg.MODEL.DENSE_HEAD.LOSS_CONFIG.LOSS_WEIGHTS.code_weights = OPENPCDETS_WEIGHTS
    facts = dataset_facts(data["input.point_cloud_range"], (0.2, 0.2, 8.0), cfg.CLASS_NAMES)
    facts.point_feature_encoder.num_point_features = 5
    return fill(build_network(cfg.MODEL, 10, facts), json.loads(str(data["meta"]))["salt"])


@pytest.fixture
def batch(data):
    clouds = [np.pad(data[f"input.points{i}"], ((0, 0), (1, 0)), constant_values=i) for i in (0, 1)]
    points, limits = torch.from_numpy(np.concatenate(clouds)), data["input.point_cloud_range"]
    inside = [(points[:, k] >= limits[k - 1]) & (points[:, k] <= limits[k + 2]) for k in (1, 2)]
    boxes = [torch.from_numpy(data[f"input.gt_boxes{i}"]) for i in (0, 1)]
    gt_boxes = torch.nn.utils.rnn.pad_sequence(boxes, batch_first=True)
    return {"points": points[inside[0] & inside[1]], "gt_boxes": gt_boxes, "batch_size": 2}


def _check_predictions(data, prefix, head, names=("center", "center_z", "dim", "rot", "vel", "hm")):
    for i, out in enumerate(head.forward_ret_dict["pred_dicts"]):
        assert list(out) == ["center", "center_z", "dim", "rot", "vel", "hm"]
        for name in names:
            check_tensor(data, f"{prefix}.head.pred_dicts.{i}.{name}", out[name])


def test_evaluation(data, model, batch):
    assert_filled(model.state_dict(), data)
    with torch.no_grad():
        pred_dicts, recall = model.eval()(batch)
    _check_predictions(data, "test", model.dense_head)
    assert recall == json.loads(str(data["test.recall"]))
    for i, pred_dict in enumerate(pred_dicts):
        check_detections(pred_dict, data, f"test.post.{i}", swaps=4)


def _check_targets(data, targets):
    for i in range(BRANCHES):
        for key in ("heatmaps", "target_boxes", "target_boxes_src"):
            own, prefix = targets[key][i].numpy(), f"train.head.target_dicts.{key}.{i}"
            assert list(own.shape) == data[f"{prefix}.shape"].tolist()
            expected = np.zeros(own.size)
            expected[data[f"{prefix}.nonzero_index"]] = data[f"{prefix}.nonzero_value"]
            if key == "target_boxes_src":  # OpenPCDet has the class within the branch there
                own, expected = own[..., :-1], expected.reshape(own.shape)[..., :-1]
            np.testing.assert_allclose(own.ravel(), expected.ravel(), rtol=EXACT, atol=EXACT, err_msg=prefix)
        for key in ("inds", "masks"):
            np.testing.assert_array_equal(targets[key][i].numpy(), data[f"train.head.target_dicts.{key}.{i}"])


def _has_zero_gradient(name):
    """A bias in front of a norm, which takes it away."""
    return name.startswith("dense_head") and name.endswith(".0.bias")


def test_training(data, model, batch):
    # in float64: the norm of the first layer's gradient is 426.9 there, 426.0 in float32 and 431.0 in the reference's
    batch = {key: value.double() if torch.is_tensor(value) else value for key, value in batch.items()}
    ret_dict, tb_dict, _ = model.double().train()(batch)
    ret_dict["loss"].backward()
    check_losses(data, "train", ret_dict, tb_dict)
    # OpenPCDet's loss replaces the logits of the heat maps
    _check_predictions(data, "train", model.dense_head, ("center", "center_z", "dim", "rot", "vel"))
    for i, out in enumerate(model.dense_head.forward_ret_dict["pred_dicts"]):
        check_tensor(data, f"train.head.pred_dicts.{i}.hm", out["hm"].sigmoid().clamp(1e-4, 1 - 1e-4))
    _check_targets(data, model.dense_head.forward_ret_dict["target_dicts"])
    parameters = dict(model.named_parameters())
    assert list(parameters) == data["train.grad.names"].tolist()
    norms = dict(zip(parameters, data["train.grad.norms"], strict=True))
    kept = [name for name in parameters if not _has_zero_gradient(name)]
    assert len(kept) == len(parameters) - 37  # the shared convolution and six of each branch
    own = [float(parameters[name].grad.double().norm()) for name in kept]
    np.testing.assert_allclose(own, [norms[name] for name in kept], rtol=GRADIENT_NORM)


def _waymo(repo_root):
    """OpenPCDet's centerpoint_pillar_1x.yaml of Waymo, as far as weights depend on it."""
    cfg = shipped(repo_root, "cbgs_dyn_pp_centerpoint")
    cfg.MODEL.VFE.NAME = "PillarVFE"
    cfg.MODEL.BACKBONE_2D.update(LAYER_STRIDES=[1, 2, 2], UPSAMPLE_STRIDES=[1, 2, 4])
    head = cfg.MODEL.DENSE_HEAD
    head.CLASS_NAMES_EACH_HEAD = [["Vehicle", "Pedestrian", "Cyclist"]]
    head.SEPARATE_HEAD_CFG.HEAD_ORDER = ["center", "center_z", "dim", "rot"]
    del head.SEPARATE_HEAD_CFG.HEAD_DICT["vel"]
    head.TARGET_ASSIGNER_CONFIG.FEATURE_MAP_STRIDE = 1
    head.LOSS_CONFIG.LOSS_WEIGHTS.code_weights = [1.0] * 8
    return cfg


def test_the_weights_of_a_waymo_model_have_openpcdets_names_order_and_shapes(goldens, repo_root):
    """Those of the nuScenes files: test_nuscenes_checkpoints.py."""
    reference = json.loads((goldens / "reference/state_dicts/waymo_centerpoint_pillar_1x.json").read_text())
    facts = dataset_facts(reference["point_cloud_range"], reference["voxel_size"], reference["class_names"])
    facts.point_feature_encoder.num_point_features = reference["num_point_features"]
    with torch.device("meta"):
        state = build_network(_waymo(repo_root).MODEL, 3, facts).state_dict()
    assert [(name, list(value.shape)) for name, value in state.items()] == list(reference["state_dict"].items())
