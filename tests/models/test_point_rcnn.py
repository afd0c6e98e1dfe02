"""PointRCNN as a whole: both stages learn, precision, seeds, and the smallest and emptiest batches."""

import copy
import pickle

import pytest
import torch
from models.pointrcnn import dataset_facts, model_cfg, random_batch, tiny_model_cfg
from torch import nn

from pcdet.models import build_network
from pcdet.models.roi_heads import pointrcnn_head
from pcdet.registry import ConfigError

RCNN_LOSSES = ["rcnn_loss_cls", "rcnn_loss_reg", "rcnn_loss_corner", "rcnn_loss"]


def _model(seed=0, **facts):
    torch.manual_seed(seed)
    return build_network(tiny_model_cfg(), 3, dataset_facts(**facts))


def _with_proposals_near_objects(batch, count=16):
    """The batch with ``count`` proposals a frame, jittered objects, as a trained first stage would give."""
    generator = torch.Generator().manual_seed(0)
    gt = batch["gt_boxes"]
    rows = torch.arange(count) % gt.shape[1]
    rois = gt[:, rows, :7] + 0.05 * torch.randn(len(gt), count, 7, generator=generator)
    labels = gt[:, rows, 7].long()
    return {**batch, "rois": rois, "roi_labels": labels, "roi_scores": rois[..., 0], "has_class_labels": True}


# ------------------------------------------------------------------------------------------------------------ training


def test_training_returns_both_stages_losses():
    ret_dict, tb_dict, disp_dict = _model().train()(_with_proposals_near_objects(random_batch()))
    assert list(tb_dict) == ["point_loss_cls", "point_pos_num", "point_loss_box", *RCNN_LOSSES] and disp_dict == {}
    assert all(isinstance(v, float) for v in tb_dict.values())
    parts = sum(v for k, v in tb_dict.items() if k not in ("point_pos_num", "rcnn_loss"))
    assert ret_dict["loss"].item() == pytest.approx(parts, rel=1e-5)


def test_each_stage_sends_its_gradient_to_itself_alone():
    """The second stage pools without a gradient, so that its loss does not reach the backbone."""
    model = _model().train()
    model(_with_proposals_near_objects(random_batch()))
    for head, reached in (("roi_head", ("roi_head.",)), ("point_head", ("backbone_3d.", "point_head."))):
        model.zero_grad()
        getattr(model, head).get_loss()[0].backward(retain_graph=True)
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == name.startswith(reached), name


def test_both_stages_learn():
    model, batch = _model().train(), _with_proposals_near_objects(random_batch())
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    history = []
    for _ in range(15):
        ret_dict, tb_dict, _ = model(dict(batch))
        optimizer.zero_grad()
        ret_dict["loss"].backward()
        optimizer.step()
        history.append(tb_dict)
    for name in ("point_loss_cls", "point_loss_box", "rcnn_loss"):
        assert history[-1][name] < 0.7 * history[0][name], name


def test_the_seed_decides_which_proposals_are_drawn():
    def drawn(seed):
        model = _model().train()
        torch.manual_seed(seed)
        model(random_batch())
        return model.roi_head.forward_ret_dict["rois"]

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("padding", [0, 3])
def test_frames_without_objects_train_as_background(frames, padding):
    batch = random_batch(frames)
    batch["gt_boxes"] = torch.zeros(frames, padding, 8)
    ret_dict, tb_dict, _ = (model := _model().train())(batch)
    ret_dict["loss"].backward()
    assert tb_dict["point_pos_num"] == tb_dict["point_loss_box"] == tb_dict["rcnn_loss_reg"] == 0
    assert "rcnn_loss_corner" not in tb_dict
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert (model.roi_head.forward_ret_dict["rcnn_cls_labels"] == 0).all()


def test_one_of_two_frames_may_lack_objects():
    batch = random_batch(2)
    alone = dict(batch, gt_boxes=batch["gt_boxes"].clone())
    alone["gt_boxes"][1] = 0
    both, one = _model().train(), _model().train()
    both(batch)
    one(alone)
    half = len(batch["points"]) // 2
    labels = one.point_head.forward_ret_dict["point_cls_labels"]
    assert torch.equal(labels[:half], both.point_head.forward_ret_dict["point_cls_labels"][:half])
    assert (labels[half:] == 0).all()


def test_velocities_behind_the_boxes_are_left_out():
    batch = random_batch()
    gt = batch["gt_boxes"]
    faster = dict(batch, gt_boxes=torch.cat([gt[..., :7], torch.full_like(gt[..., :2], 9.0), gt[..., 7:]], dim=-1))
    losses = []
    for given in (batch, faster):
        model = _model().train()
        torch.manual_seed(3)
        losses.append(model(dict(given))[0]["loss"].item())
    assert losses[0] == losses[1]


# ---------------------------------------------------------------------------------------------------------- evaluation


def test_evaluation_returns_boxes_and_recall():
    with torch.no_grad():
        pred_dicts, recall = _model().eval()(random_batch())
    assert len(pred_dicts) == 2 and recall["gt"] == 8 and "roi_0.7" in recall and "rcnn_0.7" in recall
    for pred in pred_dicts:
        count = len(pred["pred_scores"])
        assert 0 < count <= 40 and pred["pred_boxes"].shape == (count, 7)
        assert pred["pred_labels"].min() >= 1 and pred["pred_labels"].max() <= 3


def test_proposals_refined_in_parts_equal_those_refined_at_once(monkeypatch):
    model, results = _model().eval(), []
    for at_once in (3, 1000):
        monkeypatch.setattr(pointrcnn_head, "ROIS_AT_ONCE", at_once)
        with torch.no_grad():
            results.append(model.forward_features(random_batch()))
    for key in ("batch_box_preds", "batch_cls_preds"):
        torch.testing.assert_close(results[0][key], results[1][key], rtol=1e-4, atol=1e-5)


def test_proposals_that_are_given_are_refined():
    batch = _with_proposals_near_objects(random_batch())
    with torch.no_grad():
        pred_dicts, recall = _model().eval()(dict(batch))
    assert recall["roi_0.5"] == recall["gt"] == 8
    for pred, labels in zip(pred_dicts, batch["roi_labels"], strict=True):
        assert 0 < len(pred["pred_scores"]) <= 16
        assert set(pred["pred_labels"].tolist()) <= set(labels.tolist())


def test_frames_do_not_touch_each_other_in_evaluation():
    model, batch = _model().eval(), random_batch()
    half = len(batch["points"]) // 2
    alone = {"points": batch["points"][:half], "gt_boxes": batch["gt_boxes"][:1], "batch_size": 1}
    with torch.no_grad():
        (first, _), _ = model(dict(batch))
        (only,), _ = model(alone)
    for key, value in only.items():
        torch.testing.assert_close(first[key], value, rtol=1e-4, atol=1e-4)


def test_a_cloud_of_zeros_gives_no_boxes_of_padding():
    """What an empty cloud is sampled to: one proposal survives, and the rows behind it are none."""
    batch = {"points": torch.zeros(512, 5), "batch_size": 1}
    with torch.no_grad():
        batch_dict = (model := _model().eval()).forward_features(dict(batch))
        (pred,), _ = model.post_processing(batch_dict)
    proposals = (batch_dict["rois"][0, :, 3:6] > 0).all(dim=1)
    assert proposals.sum() == 1 and len(pred["pred_scores"]) <= 1
    assert all(value.isfinite().all() for value in pred.values())


def test_points_without_features_and_with_more():
    for columns in (3, 5):
        batch = random_batch()
        points = batch["points"]
        batch["points"] = points[:, :4] if columns == 3 else torch.cat([points, points[:, 4:]], dim=1)
        ret_dict, _, _ = _model(num_point_features=columns).train()(batch)
        assert ret_dict["loss"].isfinite()


def test_frames_of_different_sizes_are_refused_with_the_remedy():
    batch = random_batch()
    batch["points"] = batch["points"][:-1]
    with pytest.raises(ValueError, match=r"same number of points in every frame, got \[512, 511\]; add sample_points"):
        _model().eval()(batch)


# ------------------------------------------------------------------------------------------------ precision and copies


def test_bfloat16_autocast_trains_and_predicts_alike():
    batch = _with_proposals_near_objects(random_batch())
    exact, model = _model().train(), _model().train()
    torch.manual_seed(0)
    with torch.no_grad():
        expected, _, _ = exact(dict(batch))
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ret_dict, _, _ = model(dict(batch))
    ret_dict["loss"].backward()
    assert ret_dict["loss"].dtype == torch.float32
    assert ret_dict["loss"].item() == pytest.approx(expected["loss"].item(), rel=0.03)
    assert model.point_head.forward_ret_dict["point_cls_preds"].dtype == torch.bfloat16
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        pred_dicts, _ = model.eval()(random_batch())
    assert all(p["pred_boxes"].dtype == torch.float32 for p in pred_dicts)


def test_a_model_can_be_copied_and_pickled_after_a_training_step():
    model = _model().train()
    model(random_batch())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.roi_head.forward_ret_dict == {} and twin.point_head.forward_ret_dict == {}


# -------------------------------------------------------------------------------------------------------------- widths


def _widths(layers):
    """Output channels of the convolutions and linear layers."""
    plain = [m for m in layers if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Linear))]
    return [m.weight.shape[0] for m in plain]


STUDENTS = {  # PointDistiller's: parameters in millions, set abstraction, propagation, first stage, second stage
    1 / 2.8: (
        "0.52",
        [[[5, 5, 11], [11, 11, 22]], [[22, 22, 45], [22, 34, 45]], [[45, 70, 91]] * 2, [[91, 91, 182], [91, 137, 182]]],
        [[92, 45, 45], [215, 91, 91], [272, 182, 182], [546, 182, 182]],
        [91, 91],
        ([45, 45], [[45, 45, 45], [45, 45, 91], [91, 91, 182]], [91, 91]),
    ),
    0.25: (
        "0.26",
        [[[4, 4, 8], [8, 8, 16]], [[16, 16, 32], [16, 24, 32]], [[32, 49, 64]] * 2, [[64, 64, 128], [64, 96, 128]]],
        [[65, 32, 32], [152, 64, 64], [192, 128, 128], [384, 128, 128]],
        [64, 64],
        ([32, 32], [[32, 32, 32], [32, 32, 64], [64, 64, 128]], [64, 64]),
    ),
}


@pytest.mark.parametrize("width", STUDENTS)
def test_students_have_the_papers_widths_and_parameters(width):
    cfg = model_cfg()
    cfg.WIDTH = width
    model = build_network(cfg, 3, dataset_facts())
    parameters, abstraction, propagation, first, (lift, own_levels, second) = STUDENTS[width]
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}" == parameters
    backbone, point, roi = model.backbone_3d, model.point_head, model.roi_head
    assert [[_widths(mlp) for mlp in sa.mlps] for sa in backbone.SA_modules] == abstraction
    assert [[fp.mlp[0].in_channels, *_widths(fp.mlp)] for fp in backbone.FP_modules] == propagation
    assert _widths(point.cls_layers) == [*first, 3] and _widths(point.box_layers) == [*first, 8]
    assert _widths(roi.xyz_up_layer) == lift and _widths(roi.merge_down_layer) == lift[-1:]
    assert [_widths(sa.mlps[0]) for sa in roi.SA_modules] == own_levels
    assert _widths(roi.cls_layers) == [*second, 1] and _widths(roi.reg_layers) == [*second, 7]


# ------------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.BACKBONE_3D.SA_CONFIG.RADIUS.pop(), "SA_CONFIG needs an entry for each level, got .*'RADIUS': 3"),
        (lambda c: c.BACKBONE_3D.FP_MLPS.pop(), "FP_MLPS needs an entry for each of 4 levels, got 3"),
        (lambda c: c.POINT_HEAD.TARGET_CONFIG.BOX_CODER_CONFIG.mean_size.pop(), "a row for each of 3 classes, got 2"),
        (lambda c: c.POINT_HEAD.LOSS_CONFIG.LOSS_WEIGHTS.code_weights.pop(), "code_weights must have 8 items.*got 7"),
        (lambda c: c.ROI_HEAD.LOSS_CONFIG.LOSS_WEIGHTS.code_weights.pop(), "code_weights must have 7 items.*got 6"),
        (lambda c: c.ROI_HEAD.SA_CONFIG.NPOINTS.__setitem__(2, 8), "NPOINTS must end with -1"),
        (lambda c: c.ROI_HEAD.NMS_CONFIG.TEST.update(MULTI_CLASSES_NMS=True), "TEST.MULTI_CLASSES_NMS: must be False"),
        (lambda c: c.ROI_HEAD.TARGET_CONFIG.update(FG_RATIO=2.0), r"FG_RATIO: must lie in \[0, 1\], got 2.0"),
        (lambda c: c.ROI_HEAD.update(CLASS_AGNOSTIC=False), "MODEL.ROI_HEAD: CLASS_AGNOSTIC: must be True, .* got 3"),
        (lambda c: c.ROI_HEAD.LOSS_CONFIG.update(CLS_LOSS="CrossEntropy"), "CLS_LOSS: must be one of 'BinaryCross"),
    ],
)
def test_what_is_wrong_with_the_block_is_said(change, message):
    cfg = tiny_model_cfg()
    del cfg["WIDTH"]
    change(cfg)
    with pytest.raises(ConfigError, match=message):
        build_network(cfg, 3, dataset_facts())
