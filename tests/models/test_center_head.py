"""The centre head: losses against a plain restatement, groups in another order, peaks, boxes, and refusals."""

import logging
import re

import pytest
import torch
from models.centerpoints import FACTS, GROUPS, center_batch, center_cfg
from models.pointpillars import dataset_facts, random_batch, tiny_model_cfg

from pcdet.models import build_network
from pcdet.models.description import DataFacts, describe
from pcdet.registry import ConfigError


def _model(seed=0, velocity=False, **head):
    torch.manual_seed(seed)
    return build_network(center_cfg(velocity, **head), 3, FACTS)


def _plain_losses(head):
    """CornerNet's focal loss and L1 at the centres, branch by branch and object by object."""
    out = head.forward_ret_dict
    for i, maps in enumerate(out["pred_dicts"]):
        heat, p = out["target_dicts"]["heatmaps"][i], maps["hm"].sigmoid().clamp(1e-4, 1 - 1e-4)
        centres = heat.eq(1)
        focal = -(p.log() * (1 - p) ** 2)[centres].sum() - ((1 - p).log() * p**2 * (1 - heat) ** 4)[~centres].sum()
        yield f"hm_loss_head_{i}", focal / max(1, int(centres.sum()))
        loc, objects = 0.0, 0
        for frame, row in out["target_dicts"]["masks"][i].nonzero().tolist():
            y, x = divmod(int(out["target_dicts"]["inds"][i][frame, row]), heat.shape[3])
            codes = torch.cat([maps[name][frame, :, y, x] for name in head.code_names])
            weights = torch.tensor(head.loss_weights.code_weights)
            loc = loc + ((codes - out["target_dicts"]["target_boxes"][i][frame, row]).abs() * weights).sum()
            objects += 1
        yield f"loc_loss_head_{i}", loc / max(1, objects) * 0.25


@pytest.mark.parametrize("velocity", [False, True])
def test_the_losses_and_their_gradients_are_those_of_the_definition(velocity):
    model = _model(velocity=velocity).train()
    model.forward_features(center_batch(velocity))
    loss, tb_dict = model.dense_head.get_loss()
    expected = dict(_plain_losses(model.dense_head))
    total = sum(expected.values())
    numbers = {key: value.item() for key, value in expected.items()}
    assert tb_dict == pytest.approx({"loss_rpn": total.item(), **numbers, "rpn_loss": total.item()}, rel=1e-5)
    weights = [p for p in model.dense_head.heads_list.parameters() if p.dim() > 1]
    for own, wanted in zip(*(torch.autograd.grad(x, weights, retain_graph=True) for x in (loss, total)), strict=True):
        torch.testing.assert_close(own, wanted, rtol=1e-4, atol=1e-6)


def test_frames_without_objects_cost_only_their_background():
    model, batch = _model().train(), center_batch()
    batch["gt_boxes"] = torch.zeros(2, 0, 8)
    model.forward_features(batch)
    loss, tb_dict = model.dense_head.get_loss()
    assert tb_dict["loc_loss_head_0"] == 0 and tb_dict["hm_loss_head_0"] > 0 and loss.isfinite()


def test_a_velocity_that_is_not_known_costs_nothing():
    model, batch = _model(velocity=True).train(), center_batch(velocity=True)
    model.forward_features(dict(batch))
    known = model.dense_head.get_loss()[1]["loc_loss_head_0"]
    batch["gt_boxes"][..., 7:9] = torch.nan
    model.forward_features(dict(batch))
    loss, tb_dict = model.dense_head.get_loss()
    loss.backward()
    assert 0 < tb_dict["loc_loss_head_0"] < known
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_the_order_of_the_groups_changes_neither_losses_nor_boxes():
    model, other = _model(), _model(CLASS_NAMES_EACH_HEAD=GROUPS[::-1])
    swapped = {"0": "1", "1": "0"}
    state = {
        re.sub(r"(?<=heads_list\.)\d", lambda found: swapped[found[0]], name): value
        for name, value in model.state_dict().items()
    }
    other.load_state_dict(state)
    batch, losses, boxes = center_batch(), [], []
    for network in (model, other):
        losses.append(network.train()(dict(batch))[1])
        boxes.append(network.eval()(dict(batch))[0])
    assert losses[0]["hm_loss_head_0"] == pytest.approx(losses[1]["hm_loss_head_1"], rel=1e-5)
    assert losses[0]["loss_rpn"] == pytest.approx(losses[1]["loss_rpn"], rel=1e-5)
    for one, two in zip(*boxes, strict=True):
        assert one["pred_labels"].bincount().tolist() == two["pred_labels"].bincount().tolist()
        torch.testing.assert_close(one["pred_scores"].sort().values, two["pred_scores"].sort().values)


def _saying(head, gt_boxes, logit=6.0):
    """The head's last predictions replaced by its own targets, which say ``gt_boxes``."""
    targets, predictions = head.assign_targets(gt_boxes), []
    for i, ids in enumerate(head.class_ids):
        shape = (len(gt_boxes), *head.place.shape)
        codes = torch.zeros(len(gt_boxes), targets["target_boxes"][i].shape[2], shape[1] * shape[2])
        for frame, row in targets["masks"][i].nonzero().tolist():
            codes[frame, :, targets["inds"][i][frame, row]] = targets["target_boxes"][i][frame, row]
        heat = torch.where(targets["heatmaps"][i] == 1, logit, -logit)
        sizes = [2, 1, 3, 2, 2][: len(head.code_names)]
        maps = codes.unflatten(2, shape[1:]).split(sizes, dim=1)
        predictions.append({**dict(zip(head.code_names, maps, strict=True)), "hm": heat})
        assert heat.shape[1] == len(ids)
    head.forward_ret_dict = {"pred_dicts": predictions}
    return head


@pytest.mark.parametrize("groups", [GROUPS, [["Cyclist", "Car", "Pedestrian"]]])
@pytest.mark.parametrize("velocity", [False, True])
def test_a_head_that_says_its_targets_finds_every_object(velocity, groups):
    gt_boxes = center_batch(velocity, seed=3)["gt_boxes"]
    head = _saying(_model(velocity=velocity, CLASS_NAMES_EACH_HEAD=groups).dense_head, gt_boxes)
    for frame, found in enumerate(head.final_boxes()):
        own = torch.cat([found["pred_boxes"], found["pred_labels"][:, None]], dim=1)
        distance = torch.cdist(own, gt_boxes[frame])
        assert len(own) == 4 and distance.min(dim=0).values.max() < 1e-3
        assert found["pred_scores"].min() > 0.99 and found["pred_labels"].dtype == torch.int64


def test_centres_outside_of_the_limits_are_no_final_boxes():
    gt_boxes = center_batch(seed=3)["gt_boxes"]
    limits = [-5.0, -15.0, -10.0, float(gt_boxes[0, :, 0].median()) + 0.01, 15.0, 10.0]
    post = {**center_cfg().DENSE_HEAD.POST_PROCESSING, "POST_CENTER_LIMIT_RANGE": limits}
    found = _saying(_model(POST_PROCESSING=post).dense_head, gt_boxes).final_boxes()[0]
    assert len(found["pred_boxes"]) == 2 and found["pred_boxes"][:, 0].max() < limits[3]


def test_the_detector_leaves_final_boxes_and_counts_recall():
    model, batch = _model().eval(), center_batch()
    with torch.no_grad():
        whole = model.forward_features(dict(batch))
        assert "final_box_dicts" in whole
        assert "final_box_dicts" not in model.forward_features(dict(batch), decode_boxes=False)
        found, recall = model(dict(batch))
    assert recall["gt"] == 8 and set(recall) == {"gt", *(f"{s}_{t}" for s in ("roi", "rcnn") for t in (0.3, 0.5, 0.7))}
    for one, other in zip(found, whole["final_box_dicts"], strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("pred_boxes", "pred_scores", "pred_labels"))


def test_the_head_describes_its_maps():
    facts = DataFacts(
        class_names=FACTS.class_names,
        point_cloud_range=FACTS.point_cloud_range,
        voxel_size=FACTS.voxel_size,
        grid_size=FACTS.grid_size,
    )
    described = describe(center_cfg(), facts)
    assert described.problems == []
    channels = {
        "shared_conv": 8,
        "heads_list.1.hm": 2,
        "heads_list.1.hm.0": 8,
        "heads_list.1.hm.0.1": 8,
        "heads_list.1.hm.1": 2,
        "heads_list.0.dim": 3,
    }
    for path, expected in channels.items():
        spec = described.find(f"dense_head.{path}")
        assert (spec.channels, spec.kind, spec.stride[1:]) == (expected, "map", (2, 2)), path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"CLASS_NAMES_EACH_HEAD": [["Car"], ["Pedestrian"]]}, "CLASS_NAMES_EACH_HEAD"),
        ({"CLASS_NAMES_EACH_HEAD": [["Car", "Pedestrian", "Cyclist"], []]}, "no group be empty"),
        ({"LOSS_CONFIG": {"LOSS_WEIGHTS": {"code_weights": [1.0] * 10}}}, "must have 8 items"),
        ({"CLASS_NAMES_EACH_HEAD": [["car"], ["Pedestrian", "Cyclist"]]}, "each of CLASS_NAMES .*'Car'"),
        ({"IOU_REG_LOSS": True}, "IOU_REG_LOSS must be False"),
        ({"SEPARATE_HEAD_CFG": {"HEAD_ORDER": ["center", "dim"], "HEAD_DICT": {}}}, "HEAD_ORDER: must be"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        _model(**changes)


def test_the_map_must_have_the_heads_stride():
    config = {**center_cfg().DENSE_HEAD.TARGET_ASSIGNER_CONFIG, "FEATURE_MAP_STRIDE": 4}
    with pytest.raises(ValueError, match="FEATURE_MAP_STRIDE must equal"):
        _model(TARGET_ASSIGNER_CONFIG=config).train()(center_batch())


def test_a_grid_need_not_be_a_multiple_of_the_stride():
    facts = dataset_facts((0.0, -7.68, -3.0, 20.64, 7.68, 1.0))
    cfg = center_cfg()
    one_stage = {"LAYER_NUMS": [1], "LAYER_STRIDES": [2], "NUM_FILTERS": [8], "UPSAMPLE_STRIDES": [1]}
    cfg.BACKBONE_2D.update(one_stage, NUM_UPSAMPLE_FILTERS=[8])
    model, batch = build_network(cfg, 3, facts).train(), random_batch(facts)
    assert facts.grid_size.tolist() == [129, 96, 1]
    batch["gt_boxes"][0, 0, :2] = torch.tensor([20.6, 0.0])  # in the last voxel, which has a cell of its own
    loss = model(batch)[0]["loss"]
    heat = torch.cat(model.dense_head.forward_ret_dict["target_dicts"]["heatmaps"], dim=1)
    assert loss.isfinite() and heat.shape[2:] == (48, 65) and heat[0, :, :, 64].max() == 1


NMS = {"NMS_THRESH": 0.1, "NMS_PRE_MAXSIZE": 9, "NMS_POST_MAXSIZE": 9}


@pytest.mark.parametrize(("key", "value"), [("SCORE_THRESH", 0.99), ("OUTPUT_RAW_SCORE", True), ("NMS_CONFIG", NMS)])
def test_what_the_detector_does_not_read_of_its_post_processing_is_told_and_changes_nothing(key, value, caplog):
    torch.manual_seed(0)
    cfg = center_cfg()
    cfg.POST_PROCESSING[key] = value
    with caplog.at_level(logging.WARNING, "pcdet"):
        model = build_network(cfg, 3, FACTS).eval()
    assert f"MODEL.POST_PROCESSING: CenterPoint does not read {key};" in caplog.text
    assert "by MODEL.DENSE_HEAD.POST_PROCESSING" in caplog.text
    for found, expected in zip(model(center_batch())[0], _model().eval()(center_batch())[0], strict=True):
        assert len(found["pred_scores"]) > 0
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)


def test_a_head_without_a_branch_of_overlaps_takes_openpcdets_keys_for_one_if_they_are_off():
    post = center_cfg().DENSE_HEAD.POST_PROCESSING
    _model(POST_PROCESSING={**post, "USE_IOU_TO_RECTIFY_SCORE": False, "IOU_RECTIFIER": [0.5, 0.5, 0.5]})
    with pytest.raises(ConfigError, match="USE_IOU_TO_RECTIFY_SCORE: must be False"):
        _model(POST_PROCESSING={**post, "USE_IOU_TO_RECTIFY_SCORE": True})


# ------------------------------------------------------------------------------------------------------- fewer classes


LARGER = [["Bus", "Car"], ["Truck"], ["Pedestrian", "Cyclist", "Barrier"], ["Cone"]]


def test_names_that_are_no_classes_and_branches_without_a_class_are_left_out_and_named(caplog):
    with caplog.at_level(logging.WARNING, "pcdet"):
        larger = _model(CLASS_NAMES_EACH_HEAD=LARGER)
    (warning,) = caplog.messages
    assert "left out Bus, Truck, Barrier, Cone, which CLASS_NAMES lacks; 2 of 4 branches are left" in warning
    assert larger.dense_head.class_ids == [[1], [2, 3]]
    caplog.clear()
    plain = _model(CLASS_NAMES_EACH_HEAD=[["Car"], ["Pedestrian", "Cyclist"]])
    assert not caplog.messages
    assert {k: v.shape for k, v in larger.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    larger.load_state_dict(plain.state_dict())
    assert larger.train()(center_batch())[1] == plain.train()(center_batch())[1]


def test_the_walk_over_the_file_leaves_the_same_names_and_branches_out():
    described = describe(center_cfg(CLASS_NAMES_EACH_HEAD=LARGER), DataFacts(class_names=FACTS.class_names))
    assert not described.problems
    assert described.find("dense_head.heads_list.1.hm").channels == 2
    assert not [path for path in described.layers if path.startswith("dense_head.heads_list.2")]


def test_lists_of_branches_and_classes_must_have_the_lengths_of_what_is_left():
    nms = {"NMS_TYPE": "circle_nms", "MIN_RADIUS": [4.0] * 4, "NMS_PRE_MAXSIZE": 9, "NMS_POST_MAXSIZE": 9}
    post = {**center_cfg().DENSE_HEAD.POST_PROCESSING, "NMS_CONFIG": nms}
    with pytest.raises(ConfigError, match=r"MIN_RADIUS: there are 2 branches, got 4 items"):
        _model(CLASS_NAMES_EACH_HEAD=LARGER, POST_PROCESSING=post)


# ------------------------------------------------------------------------------------------- detectors of another kind


def test_heads_and_detectors_that_do_not_fit_each_other_say_so():
    cfg = center_cfg()
    cfg.NAME = "PointPillar"
    with pytest.raises(ValueError, match="CenterHead writes no batch_cls_preds.*MODEL.NAME: CenterPoint"):
        build_network(cfg, 3, FACTS).eval()(center_batch())
    cfg = tiny_model_cfg()
    cfg.NAME, cfg.POST_PROCESSING = "CenterPoint", center_cfg().POST_PROCESSING
    with pytest.raises(ValueError, match="CenterPoint needs a head that leaves final_box_dicts.*AnchorHeadSingle"):
        build_network(cfg, 3, FACTS).eval()(center_batch())
