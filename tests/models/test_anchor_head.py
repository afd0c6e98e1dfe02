"""The anchor head: losses against a plain restatement, directions, boxes, and what it keeps."""

import math

import pytest
import torch
from models.pointpillars import SMALL_RANGE, dataset_facts, random_batch, tiny_model_cfg

from pcdet.models import build_network
from pcdet.models.dense_heads.anchor_head_template import AnchorHeadTemplate, DirectionBins
from pcdet.registry import ConfigError
from pcdet.utils import loss_utils
from pcdet.utils.common_utils import limit_period

FACTS = dataset_facts(SMALL_RANGE)


def _model(seed=0, **changes):
    torch.manual_seed(seed)
    return build_network(tiny_model_cfg(**changes), 3, FACTS)


def _forward(model, batch, dtype=torch.float64):
    model.to(dtype)
    batch = {k: v.to(dtype) if torch.is_tensor(v) else v for k, v in batch.items()}
    return model.forward_features(batch)


def _plain_losses(head):
    """OpenPCDet's three losses over all anchors, background included."""
    out, table = head.forward_ret_dict, head.anchor_table
    labels = out["box_cls_labels"]
    frames, count = labels.shape
    positives = (labels > 0).to(table.dtype)
    normaliser = positives.sum(1, keepdim=True).clamp(min=1)
    target = torch.nn.functional.one_hot(labels.clamp(min=0).long(), 4)[..., 1:].to(table.dtype)
    logits = out["cls_preds"].view(frames, count, 3)
    focal = loss_utils.SigmoidFocalClassificationLoss()
    cls_loss = focal(logits, target, (labels >= 0) / normaliser).sum() / frames
    codes, goal = loss_utils.add_sin_difference(out["box_preds"].view(frames, count, 7), out["box_reg_targets"])
    loc_loss = head.reg_loss_func(codes, goal, positives / normaliser).sum() / frames
    turn = limit_period(out["box_reg_targets"][..., 6] + table[:, 6] - 0.78539, 0, 2 * math.pi)
    bins = torch.nn.functional.one_hot((turn / math.pi).long().clamp(0, 1), 2).to(table.dtype)
    directions = out["dir_cls_preds"].view(frames, count, 2)
    dir_loss = loss_utils.WeightedCrossEntropyLoss()(directions, bins, positives / normaliser).sum() / frames
    return 1.0 * cls_loss, 2.0 * loc_loss, 0.2 * dir_loss


def _gradients(model, loss):
    names, parameters = zip(*model.named_parameters(), strict=True)
    grads = torch.autograd.grad(loss, parameters, retain_graph=True)
    return dict(zip(names, grads, strict=True))


def test_losses_and_gradients_equal_those_over_all_anchors():
    model = _model().train()
    with torch.no_grad():  # so that the boxes' part is no side show
        model.dense_head.conv_box.weight.mul_(100)
    _forward(model, random_batch(FACTS))
    loss, tb_dict = model.dense_head.get_loss()
    parts = _plain_losses(model.dense_head)
    values = [part.item() for part in parts]
    expected = dict(zip(("rpn_loss_cls", "rpn_loss_loc", "rpn_loss_dir"), values, strict=True))
    assert tb_dict == pytest.approx({**expected, "rpn_loss": sum(values), "loss_rpn": sum(values)})
    own, other = _gradients(model, loss), _gradients(model, sum(parts))
    for name, gradient in own.items():
        torch.testing.assert_close(gradient, other[name], rtol=1e-9, atol=1e-12, msg=name)


def test_predictions_computed_again_equal_those_of_the_maps():
    model = _model().train()
    _forward(model, random_batch(FACTS))
    head, rows = model.dense_head, torch.tensor([0, 7, 18432, 36863, 7])
    own, other = head.predictions_at(rows), AnchorHeadTemplate.predictions_at(head, rows)
    for a, b in zip(own, other, strict=True):
        torch.testing.assert_close(a, b)


def test_the_maps_keep_their_graph_for_other_losses():
    model = _model().train()
    _forward(model, random_batch(FACTS))
    maps = model.dense_head.forward_ret_dict
    for key, conv in (("cls_preds", "conv_cls"), ("box_preds", "conv_box"), ("dir_cls_preds", "conv_dir_cls")):
        (gradient,) = torch.autograd.grad(maps[key].sum(), getattr(model.dense_head, conv).weight, retain_graph=True)
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("frames_with_objects", [0, 1])
def test_frames_without_objects_train_as_background(frames_with_objects):
    model, batch = _model().train(), random_batch(FACTS)
    batch["gt_boxes"][frames_with_objects:] = 0
    ret_dict, tb_dict, _ = model(batch)
    ret_dict["loss"].backward()
    assert ret_dict["loss"].isfinite()
    if not frames_with_objects:
        assert tb_dict["rpn_loss_loc"] == 0 and tb_dict["rpn_loss_dir"] == 0
    for name, parameter in model.named_parameters():  # all take part, as distributed training wants
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_one_class_for_all():
    model, batch = _model(DENSE_HEAD={"CLASS_AGNOSTIC": True}).train(), random_batch(FACTS)
    assert model.dense_head.conv_cls.out_channels == 6
    ret_dict, _, _ = model(batch)
    assert ret_dict["loss"].isfinite()
    assert model.dense_head.forward_ret_dict["box_cls_labels"].max() == 3


def test_without_a_direction_classifier():
    model = _model(DENSE_HEAD={"USE_DIRECTION_CLASSIFIER": False})
    assert not any("dir" in name for name in model.state_dict())
    _, tb_dict, _ = model.train()(random_batch(FACTS))
    assert "rpn_loss_dir" not in tb_dict
    with torch.no_grad():
        pred_dicts, _ = model.eval()(random_batch(FACTS))
    assert len(pred_dicts) == 2


def test_headings_coded_by_sine_and_cosine():
    cfg = tiny_model_cfg(DENSE_HEAD={"USE_DIRECTION_CLASSIFIER": False})
    cfg.DENSE_HEAD.TARGET_ASSIGNER_CONFIG.BOX_CODER_CONFIG = {"encode_angle_by_sincos": True}
    with pytest.raises(ConfigError, match="code_weights must have 8 items, one for each column of a box code, got 7"):
        build_network(cfg, 3, FACTS)
    cfg.DENSE_HEAD.LOSS_CONFIG.LOSS_WEIGHTS.code_weights = [1.0] * 8
    model = build_network(cfg, 3, FACTS)
    ret_dict, _, _ = model.train()(random_batch(FACTS))
    assert ret_dict["loss"].isfinite() and model.dense_head.conv_box.out_channels == 48
    boxes = model.eval().forward_features(random_batch(FACTS))["batch_box_preds"]
    assert boxes.shape[-1] == 7 and boxes[..., 6].abs().max() <= math.pi


def test_an_untrained_head_starts_with_rare_objects_on_their_anchors():
    head = _model().dense_head
    assert torch.sigmoid(head.conv_cls.bias).detach().tolist() == pytest.approx([0.01] * 18)
    assert head.conv_box.weight.std() < 2e-3


# ------------------------------------------------------------------------------------------------------------- anchors


def test_anchors_are_views_by_class_and_not_saved():
    head = _model().dense_head
    assert [tuple(a.shape) for a in head.anchors] == [(1, 48, 64, 1, 2, 7)] * 3
    assert head.anchors[1][0, 5, 6, 0, 1].tolist() == head.anchor_grid[5, 6, 3].tolist()
    assert head.anchor_table.view(48, 64, 6, 7)[5, 6, 3].tolist() == head.anchor_grid[5, 6, 3].tolist()
    assert not any("anchor" in name for name in head.state_dict())
    assert head.to(memory_format=torch.channels_last).anchor_table.is_contiguous()
    assert head.double().anchors[0].dtype == torch.float64


def test_all_classes_must_share_a_stride():
    cfg = tiny_model_cfg()
    cfg.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[1].feature_map_stride = 4
    with pytest.raises(ConfigError, match=r"MODEL.DENSE_HEAD: FEATURE_MAP_STRIDE must be the same .* got \[2, 4, 2\]"):
        build_network(cfg, 3, FACTS)


def test_a_map_of_another_size_than_the_anchors_is_an_error():
    cfg = tiny_model_cfg()
    for entry in cfg.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG:
        entry.feature_map_stride = 4
    with pytest.raises(ValueError, match=r"\(48, 64\) cells .* anchors \(24, 32\); FEATURE_MAP_STRIDE must equal"):
        build_network(cfg, 3, FACTS).eval()(random_batch(FACTS))


# ------------------------------------------------------------------------------------------------------------ decoding


@pytest.mark.parametrize("num_bins", [2, 3])
def test_the_direction_moves_a_heading_into_its_bin(num_bins):
    directions = DirectionBins(num_bins=num_bins, offset=0.78539, limit_offset=0.0)
    heading = torch.linspace(-7, 7, 141, dtype=torch.float64)
    for offset in range(-num_bins, num_bins):  # a head may be wrong by whole bins; the classifier mends that
        decoded = directions.decode(heading + offset * directions.period, directions.bin_of(heading))
        wrapped = limit_period(decoded - heading, 0.5, 2 * math.pi)
        torch.testing.assert_close(wrapped, torch.zeros_like(wrapped), atol=1e-9, rtol=0)


def test_rows_decoded_singly_equal_all_boxes():
    for bins in (2, 3):
        model = _model(DENSE_HEAD={"NUM_DIR_BINS": bins}).eval()
        with torch.no_grad():
            boxes = model.forward_features(random_batch(FACTS))["batch_box_preds"]
            rows = torch.tensor([5, 18431, 77])
            assert torch.equal(model.dense_head.decode_rows(1, rows), boxes[1, rows])


def test_boxes_are_decoded_where_a_second_stage_wants_them():
    model = _model().train()
    batch = model.forward_features(random_batch(FACTS))
    assert "batch_box_preds" not in batch
    model.dense_head.predict_boxes_when_training = True
    batch = model.forward_features(random_batch(FACTS))
    assert batch["batch_box_preds"].shape == (2, 18432, 7) and batch["batch_cls_preds"].shape == (2, 18432, 3)
    assert batch["cls_preds_normalized"] is False
    assert "batch_box_preds" not in model.eval().forward_features(random_batch(FACTS), decode_boxes=False)
