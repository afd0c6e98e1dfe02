"""PointRCNN against OpenPCDet's numbers (goldens/reference/models/pointrcnn.npz, state_dicts, targets)."""

import json

import numpy as np
import pytest
import torch
from models.pointrcnn import collate, dataset_facts, reduced_model_cfg
from support.golden_numbers import EXACT, FORWARD, GRADIENT_NORM, check_gradients, check_losses, check_tensor
from support.golden_weights import assert_filled, fill

from pcdet.models import build_network
from pcdet.utils.common_utils import mask_points_by_range

SECOND_STAGE = 5e-4  # in training, where batch statistics of both stages amplify the last digits
OVERLAP = 2e-2  # the reference widens boxes by 1 cm where it looks for corners inside; ours is exact

SLICES = {
    "point_features": lambda x: x[::37],
    "point_cls_scores": lambda x: x[::5],
    "point_cls_preds": lambda x: x[::5],
    "point_box_preds": lambda x: x[::5],
    "point_batch_box_preds": lambda x: x[::5],
    "point_batch_cls_preds": lambda x: x[::5],
    "pooled_features": lambda x: x[::4, ::9, ::12],
    **{f"roi_sa{k}.features": lambda x: x[::4, ::16] for k in range(3)},
    **{f"{kind}{k}.features": lambda x: x[:, ::16, ::7] for kind in ("sa", "fp") for k in range(4)},
}


@pytest.fixture(scope="module")
def data(goldens):
    return np.load(goldens / "reference" / "models" / "pointrcnn.npz")


@pytest.fixture(scope="module")
def batch(data):
    limits = data["input.point_cloud_range"]
    clouds = [data[f"input.points{i}"] for i in (0, 1)]
    clouds = [cloud[mask_points_by_range(cloud, limits)] for cloud in clouds]
    return collate(clouds, [data[f"input.gt_boxes{i}"] for i in (0, 1)])


def _build(data):
    model = build_network(reduced_model_cfg(), 3, dataset_facts())
    return fill(model, json.loads(str(data["meta"]))["salt"])


def _watch(model):
    """What the modules pass on, by the goldens' names, filled by the next forward."""
    seen = {}

    def keep(name, take):
        return lambda module, inputs, output: seen.__setitem__(name, take(output).detach())

    def append(name):
        def hook(module, inputs, output):
            seen[name] = torch.cat([*([seen[name]] if name in seen else []), output[1].detach()])

        return hook

    for k, module in enumerate(model.backbone_3d.SA_modules):
        module.register_forward_hook(keep(f"sa{k}.features", lambda out: out[1]))
    for k, module in enumerate(model.backbone_3d.FP_modules):
        module.register_forward_hook(keep(f"fp{k}.features", lambda out: out))
    for k, module in enumerate(model.roi_head.SA_modules):
        module.register_forward_hook(append(f"roi_sa{k}.features"))  # a few proposals at a time
    pool, head = model.roi_head.pool, model.point_head

    def pool_and_keep(batch_dict):
        seen["point_batch_box_preds"] = batch_dict["first_stage_boxes"]
        seen["point_batch_cls_preds"] = batch_dict["first_stage_logits"]
        seen["pooled_features"] = pool(batch_dict)
        return seen["pooled_features"]

    def keep_first_stage(module, inputs, batch_dict):
        seen["point_features"], seen["point_cls_scores"] = (
            batch_dict[key].detach() for key in ("point_features", "point_cls_scores")
        )
        for name in ("point_cls_preds", "point_box_preds"):
            seen[name] = head.forward_ret_dict[name].detach()
        batch_dict["first_stage_boxes"] = batch_dict["batch_box_preds"].detach()
        batch_dict["first_stage_logits"] = batch_dict["batch_cls_preds"].detach()

    model.roi_head.pool = pool_and_keep
    head.register_forward_hook(keep_first_stage)
    return seen


def _check_maps(data, prefix, seen):
    names = [name for name in SLICES if f"{prefix}.{name}.slice" in data.files]
    assert len(names) >= 16
    for name in names:
        check_tensor(data, f"{prefix}.{name}", seen[name], SLICES[name])


def _close(data, name, value, tolerance=FORWARD):
    expected = data[name].astype(np.float64)
    value = value.detach().double().numpy()
    assert value.shape == expected.shape, name
    assert np.abs(value - expected).max() <= tolerance * max(np.abs(expected).max(), 1), name


# ------------------------------------------------------------------------------------------------------------- weights


def test_the_filling_rule(data):
    assert_filled(_build(data).state_dict(), data)


# ---------------------------------------------------------------------------------------------------------- evaluation


def test_evaluation(data, batch):
    model = _build(data).eval()
    seen = _watch(model)
    with torch.no_grad():
        batch_dict = model.forward_features(dict(batch))
        pred_dicts, recall = model.post_processing(batch_dict)
    _check_maps(data, "test", seen)
    for name in ("rois", "roi_scores"):
        _close(data, f"test.{name}", batch_dict[name])
    assert np.array_equal(batch_dict["roi_labels"].numpy(), data["test.roi_labels"])
    per_roi = seen["pooled_features"].double().sum(dim=(1, 2))
    _close(data, "test.pooled_features.per_roi_sum", per_roi)
    _close(data, "test.rcnn.batch_cls_preds", batch_dict["batch_cls_preds"])
    _close(data, "test.rcnn.batch_box_preds", batch_dict["batch_box_preds"])
    assert recall == json.loads(str(data["test.recall"]))
    for i, pred_dict in enumerate(pred_dicts):
        for key in ("boxes", "scores"):
            _close(data, f"test.post.{i}.pred_{key}", pred_dict[f"pred_{key}"])
        assert np.array_equal(pred_dict["pred_labels"].numpy(), data[f"test.post.{i}.pred_labels"])


# ------------------------------------------------------------------------------------------------------------ training


def _train(data, batch, prefix):
    model = _build(data).train()
    seen = _watch(model)
    picks, overlaps = iter(torch.from_numpy(data[f"{prefix}.sampled_inds"])), []
    model.roi_head.proposal_target_layer.subsample_rois = lambda overlap, groups: (
        overlaps.append(overlap) or next(picks)
    )
    batch_dict = dict(batch)
    if f"{prefix}.input.rois" in data.files:
        given = {
            name: torch.from_numpy(data[f"{prefix}.input.{name}"]) for name in ("rois", "roi_labels", "roi_scores")
        }
        batch_dict.update(given, has_class_labels=True)
    ret_dict, tb_dict, _ = model(batch_dict)
    ret_dict["loss"].backward()
    _close(data, f"{prefix}.max_overlaps_before_sampling", torch.stack(overlaps), OVERLAP)
    return model, seen, ret_dict, tb_dict


def _check_training(data, prefix, model, seen, ret_dict, tb_dict):
    check_losses(data, prefix, ret_dict, tb_dict)
    check_gradients(data, prefix, model, GRADIENT_NORM)
    _check_maps(data, prefix, seen)

    point = model.point_head.forward_ret_dict
    assert np.array_equal(point["point_cls_labels"].numpy(), data[f"{prefix}.point_cls_labels"])
    _close(data, f"{prefix}.pos_point_box_labels", point["point_box_labels"], EXACT)


def _check_roi_targets(data, prefix, targets):
    _close(data, f"{prefix}.roi_target.gt_iou_of_rois", targets["gt_iou_of_rois"], OVERLAP)
    for name in ("rois", "gt_of_rois", "gt_of_rois_src", "roi_scores"):
        _close(data, f"{prefix}.roi_target.{name}", targets[name])
    for name in ("roi_labels", "reg_valid_mask", "rcnn_cls_labels"):
        assert np.array_equal(targets[name].numpy(), data[f"{prefix}.roi_target.{name}"]), name
    for name in ("rcnn_cls", "rcnn_reg"):
        _close(data, f"{prefix}.roi_target.{name}", targets[name], SECOND_STAGE)


@pytest.mark.parametrize("prefix", ["train", "train_injected"])
def test_training(data, batch, prefix):
    """``train_injected`` has proposals near objects, so that there are boxes to learn."""
    model, seen, ret_dict, tb_dict = _train(data, batch, prefix)
    _check_training(data, prefix, model, seen, ret_dict, tb_dict)
    _check_roi_targets(data, prefix, model.roi_head.forward_ret_dict)


def test_without_foreground_the_same_proposals_are_drawn(data, batch):
    """There OpenPCDet too draws with torch's generator alone."""
    model, drawn = _build(data).train(), []
    layer = model.roi_head.proposal_target_layer
    draw = layer.subsample_rois
    layer.subsample_rois = lambda overlap, groups: drawn.append(draw(overlap, groups)) or drawn[-1]
    torch.manual_seed(7)  # of the goldens, by their meta
    model(dict(batch))
    assert np.array_equal(torch.stack(drawn).numpy(), data["train.sampled_inds"])


# ------------------------------------------------------------------------------------------------------------- targets


def test_point_targets(goldens):
    """Equal, but for padding: its zero rows, made larger, ignore points about the origin there."""
    data = np.load(goldens / "reference" / "targets" / "assigner_edge.npz")
    head = build_network(reduced_model_cfg(), 3, dataset_facts()).point_head
    points, gt = (torch.from_numpy(data[f"pointhead.{key}"]) for key in ("points_bxyz", "gt"))
    out = head.assign_targets(points, gt)
    own, expected = out["point_cls_labels"].numpy(), data["pointhead.labels"]
    padded = (gt[..., 7] == 0).any(dim=1)[points[:, 0].long()]
    near_origin = (padded & (points[:, 1:].abs() < 0.1 + 1e-4).all(dim=1)).numpy()
    assert near_origin.any() and (own[near_origin] == 0).all()
    assert np.array_equal(own[~near_origin], expected[~near_origin])
    np.testing.assert_allclose(out["point_box_labels"], data["pointhead.pos_box_labels"], rtol=EXACT, atol=EXACT)
