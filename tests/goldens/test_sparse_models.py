"""SECOND and its multi-head variant against OpenPCDet's numbers (goldens/reference), and spconv on the CPU."""

import json

import numpy as np
import pytest
import torch
from models.pointpillars import collate, dataset_facts
from support.golden_numbers import (
    EXACT,
    FORWARD,
    GRADIENT_NORM,
    check_anchor_targets,
    check_boxes,
    check_detections,
    check_gradients,
    check_losses,
    check_tensor,
)
from support.golden_weights import assert_filled, fill

from pcdet.config import cfg_from_yaml_file
from pcdet.models import build_network
from pcdet.utils.spconv_utils import load_spconv

pytest.importorskip("spconv", reason="spconv is not installed")

VOXEL_SIZE = (0.05, 0.05, 0.1)


def _config(repo_root, name):
    return cfg_from_yaml_file(repo_root / "tools/cfgs/kitti_models" / f"{name}.yaml", {})


class Case:
    """A file of the goldens with the model and the batch that belong to it."""

    def __init__(self, folder, repo_root, name):
        self.name = name
        self.data = np.load(folder / "models" / f"{name}.npz")
        self.reference = json.loads((folder / "state_dicts" / f"{name}.json").read_text())
        self.facts = dataset_facts(self.data["input.point_cloud_range"], VOXEL_SIZE)
        self.cfg = _config(repo_root, name)["MODEL"]

    def model(self):
        return fill(build_network(self.cfg, 3, self.facts), json.loads(str(self.data["meta"]))["salt"])

    def batch(self):
        clouds, boxes = ([self.data[f"input.{kind}{i}"] for i in (0, 1)] for kind in ("points", "gt_boxes"))
        return collate(clouds, boxes, self.facts, max_points=5)


@pytest.fixture(scope="module", params=["second", "second_multihead"])
def case(goldens, repo_root, request):
    return Case(goldens / "reference", repo_root, request.param)


@pytest.fixture(scope="module")
def multihead(goldens, repo_root):
    return Case(goldens / "reference", repo_root, "second_multihead")


# ------------------------------------------------------------------------------------------------------- state dicts


def test_state_dict_of_the_residual_backbone(goldens):
    from pcdet.models.backbones_3d import VoxelResBackBone8x

    path = goldens / "reference" / "state_dicts" / "cbgs_voxel01_res3d_centerpoint.json"
    reference = json.loads(path.read_text())
    own = VoxelResBackBone8x(input_channels=5, grid_size=reference["grid_size"]).state_dict()
    expected = {k: v for k, v in reference["state_dict"].items() if k.startswith("backbone_3d.")}
    assert [(f"backbone_3d.{k}", list(v.shape)) for k, v in own.items()] == list(expected.items())


# ----------------------------------------------------------------------------------------------------- whole networks

SLICES = {
    "voxel_features": lambda x: x[:400],
    "spatial_features": lambda x: x[:, ::12, ::5, ::7],
    "spatial_features_2d": lambda x: x[:, ::12, ::5, ::7],
    "cls_preds": lambda x: x[:, ::3, ::4],
    "box_preds": lambda x: x[:, ::3, ::4],
    "dir_cls_preds": lambda x: x[:, ::3, ::4],
    "batch_cls_preds": lambda x: x[:, ::13],
}
PREDICTIONS = ("cls_preds", "box_preds", "dir_cls_preds")


def _check_sparse(data, prefix, tensor):
    """A sparse tensor, rows in the order of their places [frame, z, y, x]."""
    indices = tensor.indices.numpy()
    order = np.lexsort(indices.T[::-1])
    np.testing.assert_array_equal(indices[order], data[f"{prefix}.indices_sorted"])
    assert list(tensor.spatial_shape) == data[f"{prefix}.spatial_shape"].tolist()
    step = max(1, len(order) // 150)
    check_tensor(data, f"{prefix}.features_sorted", tensor.features[torch.from_numpy(order)], lambda x: x[::step])


def _check_maps(case, prefix, batch_dict, model):
    data = case.data
    if f"{prefix}.encoded.spatial_shape" in data.files:
        for name, tensor in batch_dict["multi_scale_3d_features"].items():
            _check_sparse(data, f"{prefix}.{name}", tensor)
        _check_sparse(data, f"{prefix}.encoded", batch_dict["encoded_spconv_tensor"])
    for name, take in SLICES.items():
        if f"{prefix}.{name}.slice" in data.files and (name in batch_dict or name in PREDICTIONS):
            value = batch_dict[name] if name in batch_dict else model.dense_head.forward_ret_dict[name]
            check_tensor(data, f"{prefix}.{name}", value, take)
    for name in PREDICTIONS:
        for i in range(3):
            if f"{prefix}.head.{name}.{i}.sample" in data.files:
                check_tensor(data, f"{prefix}.head.{name}.{i}", model.dense_head.forward_ret_dict[name][i])


def test_the_filling_rule(case):
    assert_filled(case.model().state_dict(), case.data)


def test_the_batch_is_the_references(case):
    data, batch = case.data, case.batch()
    if case.name == "second":
        for name in ("voxels", "voxel_coords", "voxel_num_points"):
            np.testing.assert_array_equal(batch[name].numpy(), data[f"vox.{name}"])
    else:
        np.testing.assert_array_equal(batch["voxel_coords"].numpy(), data["test.voxel_coords"])


def _check_boxes_of_the_branches(data, boxes):
    """Decoded boxes, headings but for half turns, which a near tie of the direction classifier decides."""
    assert list(boxes.shape) == data["test.batch_box_preds.shape"].tolist()
    expected = data["test.batch_box_preds.slice"]
    own = boxes[:, ::37].numpy()
    error = np.abs(own - expected)
    error[..., 6] = np.abs(np.sin(own[..., 6] - expected[..., 6]))
    assert error.max() <= FORWARD * np.abs(expected).max()


def test_evaluation(case):
    model = case.model().eval()
    with torch.no_grad():
        batch_dict = model.forward_features(case.batch())
        _check_maps(case, "test", batch_dict, model)
        if case.name == "second":
            check_boxes(case.data, batch_dict["batch_box_preds"])
        else:
            _check_boxes_of_the_branches(case.data, batch_dict["batch_box_preds"])
        pred_dicts, recall = model(case.batch())
    assert recall == json.loads(str(case.data["test.recall"]))
    for i, pred_dict in enumerate(pred_dicts):
        check_detections(pred_dict, case.data, f"test.post.{i}", swaps=4)


def test_training(case):
    data, model, batch_dict = case.data, case.model().train(), case.batch()
    ret_dict, tb_dict, _ = model(batch_dict)
    ret_dict["loss"].backward()
    check_losses(data, "train", ret_dict, tb_dict)
    _check_maps(case, "train", batch_dict, model)
    check_gradients(data, "train", model, GRADIENT_NORM)
    targets = model.dense_head.forward_ret_dict
    if case.name == "second":
        check_anchor_targets(data, "train", targets)
    else:
        np.testing.assert_array_equal(targets["box_cls_labels"].numpy(), data["train.head.box_cls_labels"])


def test_targets_of_the_branches(multihead):
    model, data = multihead.model().train(), multihead.data
    model(multihead.batch())
    own = model.dense_head.forward_ret_dict["box_reg_targets"].numpy().ravel()
    index = data["train.head.box_reg_targets.nonzero_index"]
    np.testing.assert_array_equal(np.flatnonzero(own), index)
    np.testing.assert_allclose(own[index], data["train.head.box_reg_targets.nonzero_value"], rtol=EXACT, atol=EXACT)


# ------------------------------------------------------------------------------------------------------------- spconv

LAYERS = {
    "subm_k3": ("SubMConv3d", 3, 1, 1),
    "conv_k3_s2_p1": ("SparseConv3d", 3, 2, 1),
    "conv_k3_s2_p011": ("SparseConv3d", 3, 2, (0, 1, 1)),
    "conv_k311_s211_p0": ("SparseConv3d", (3, 1, 1), (2, 1, 1), 0),
    "conv_k3_s1_p1": ("SparseConv3d", 3, 1, 1),
}


def _sites(spconv, data):
    """The sparse tensor that all layers of the file read."""
    indices = torch.from_numpy(data["indices_bzyx"])
    frames = int(indices[:, 0].max()) + 1
    return spconv.SparseConvTensor(torch.from_numpy(data["features"]), indices, data["spatial_shape"].tolist(), frames)


@pytest.mark.parametrize("name", LAYERS)
def test_sparse_convolution_and_gradients(goldens, name):
    spconv, data = load_spconv(), np.load(goldens / "reference/models/sparse_conv.npz")
    kind, *arguments = LAYERS[name]
    layer = getattr(spconv, kind)(5, 7, *arguments, bias=False)
    layer.weight.data.copy_(torch.from_numpy(data[f"{name}.weight"]))
    sites = _sites(spconv, data)
    features = sites.features.requires_grad_()
    out = layer(sites)
    order = np.lexsort(out.indices.numpy().T[::-1])
    np.testing.assert_array_equal(out.indices.numpy()[order], data[f"{name}.out_indices_sorted"])
    assert list(out.spatial_shape) == data[f"{name}.out_spatial_shape"].tolist()
    order = torch.from_numpy(order)
    np.testing.assert_allclose(out.features[order].detach(), data[f"{name}.out_features_sorted"], atol=4e-6)
    out.features[order].backward(torch.from_numpy(data[f"{name}.grad_out_sorted"]))
    np.testing.assert_allclose(features.grad, data[f"{name}.grad_features_dense64"], atol=1e-5)
    np.testing.assert_allclose(layer.weight.grad, data[f"{name}.grad_weight_dense64"], atol=1e-4)


def test_a_convolution_of_a_single_cell_reads_its_weights_as_spconv_does(goldens):
    """(out, 1, 1, 1, in) is read as (in, out), as the numbers in memory stand: checkpoints depend on it."""
    spconv, data = load_spconv(), np.load(goldens / "reference/models/sparse_conv.npz")
    layer = spconv.SubMConv3d(5, 7, 1, bias=False)
    layer.weight.data.copy_(torch.from_numpy(data["subm_k1.weight"]))
    sites = _sites(spconv, data)
    features = sites.features.requires_grad_()
    order = torch.from_numpy(np.lexsort(sites.indices.numpy().T[::-1]))
    out = layer(sites).features[order]
    np.testing.assert_allclose(out.detach(), data["subm_k1.out_features_sorted"], atol=4e-6)
    out.backward(torch.from_numpy(data["subm_k1.grad_out_sorted"]))
    np.testing.assert_allclose(features.grad, data["subm_k1.spconv_grad_features"], atol=1e-5)
    np.testing.assert_allclose(layer.weight.grad, data["subm_k1.spconv_grad_weight"], atol=1e-4)


def test_an_inverse_convolution_returns_to_the_sites_it_came_from(goldens):
    spconv, data = load_spconv(), np.load(goldens / "reference/models/sparse_conv.npz")
    down = spconv.SparseConv3d(5, 7, 3, stride=2, padding=1, bias=False, indice_key="down")
    up = spconv.SparseInverseConv3d(7, 4, 3, bias=False, indice_key="down")
    down.weight.data.copy_(torch.from_numpy(data["inverse.conv_weight"]))
    up.weight.data.copy_(torch.from_numpy(data["inverse.inverse_weight"]))
    sites = _sites(spconv, data)
    out = up(down(sites))
    assert torch.equal(out.indices, sites.indices)
    np.testing.assert_allclose(out.features.detach(), data["inverse.out_features_in_input_order"], atol=4e-6)
