"""The second stage of PointRCNN: proposals, which of them are learned from, their targets, and refined boxes."""

import math

import pytest
import torch
from models.pointrcnn import dataset_facts, tiny_model_cfg

from pcdet.models import build_network
from pcdet.models.roi_heads.target_assigner.proposal_target_layer import ProposalTargetConfig, ProposalTargetLayer
from pcdet.testing import random_boxes
from pcdet.utils.box_utils import boxes_to_corners_3d


def _head():
    torch.manual_seed(0)
    return build_network(tiny_model_cfg(), 3, dataset_facts()).roi_head


def _layer(**keys):
    config = dict(
        roi_per_image=40,
        fg_ratio=0.5,
        sample_roi_by_each_class=True,
        cls_fg_thresh=0.6,
        cls_bg_thresh=0.45,
        cls_bg_thresh_lo=0.1,
        hard_bg_ratio=0.8,
        reg_fg_thresh=0.55,
    )
    return ProposalTargetLayer(ProposalTargetConfig(**{**config, **keys}))


# ----------------------------------------------------------------------------------------------------------- proposals


def test_proposals_are_the_best_boxes_that_do_not_cover_each_other():
    head = _head().eval()
    boxes = torch.tensor([[0.0, 0, 0, 4, 2, 2, 0], [0.05, 0, 0, 4, 2, 2, 0], [9, 0, 0, 4, 2, 2, 0]]).repeat(2, 1)
    logits = torch.tensor([[1.0, 2, 0], [4, 0, 0], [0, 0, 3]]).repeat(2, 1)
    logits[3:] -= 5
    batch = {"batch_size": 2, "batch_index": torch.tensor([0.0, 0, 0, 1, 1, 1])}
    batch.update(batch_cls_preds=logits, batch_box_preds=boxes)
    out = head.proposal_layer(batch)
    assert out["rois"].shape == (2, 40, 7) and out["has_class_labels"] and "batch_index" not in out
    for frame, shift in ((0, 0), (1, -5)):
        assert torch.equal(out["rois"][frame, :2], boxes[[1, 2]])
        assert out["roi_scores"][frame, :3].tolist() == [4 + shift, 3 + shift, 0]
        assert out["roi_labels"][frame, :3].tolist() == [1, 3, 1]
        assert not out["rois"][frame, 2:].any()


def test_proposals_that_are_there_stay():
    rois = torch.ones(1, 3, 7)
    assert _head().proposal_layer({"rois": rois, "batch_size": 1})["rois"] is rois


def test_boxes_that_are_not_finite_are_no_proposals():
    boxes = random_boxes(20)
    boxes[3, 5], boxes[7, 0] = math.inf, math.nan
    logits = torch.arange(60).view(20, 3).float()
    logits[9] = math.nan
    batch = {"batch_size": 1, "batch_cls_preds": logits[None], "batch_box_preds": boxes[None]}
    out = _head().eval().proposal_layer(batch)
    assert out["rois"].isfinite().all() and out["roi_scores"].isfinite().all()
    for row in (3, 7, 9):
        assert not (out["rois"][0] == boxes[row]).all(dim=1).any()


# ------------------------------------------------------------------------------------------------------------ sampling


def test_foreground_fills_its_share_and_hard_background_its_own():
    overlap = torch.cat([torch.full((30,), 0.7), torch.full((30,), 0.3), torch.full((30,), 0.05)])
    rows = _layer().subsample_rois(overlap)
    assert len(rows) == 40 and (rows[:20] < 30).all() and len(rows[:20].unique()) == 20  # none twice
    assert ((rows[20:36] >= 30) & (rows[20:36] < 60)).all() and (rows[36:] >= 60).all()  # 80 % of 20


@pytest.mark.parametrize(
    ("overlaps", "counts"),
    [
        ([0.7] * 3, (40, 0, 0)),
        ([0.3] * 3, (0, 40, 0)),
        ([0.0] * 3, (0, 0, 40)),
        ([0.7] * 3 + [0.3] * 2, (3, 37, 0)),
        ([0.7] * 3 + [0.3] * 2 + [0.0], (3, 2, 35)),  # hard rows are drawn as often as there are of them
        ([0.7], (40, 0, 0)),
    ],
)
def test_what_there_is_fills_the_frame(overlaps, counts):
    overlap = torch.tensor(overlaps)
    drawn = overlap[_layer().subsample_rois(overlap)]
    assert ((drawn > 0.5).sum(), ((drawn > 0.1) & (drawn < 0.5)).sum(), (drawn < 0.1).sum()) == counts


def _batch(rois, labels, gt):
    rois = torch.tensor(rois)[None]
    scores = torch.zeros(rois.shape[:2])
    gt = torch.tensor(gt).view(1, -1, 8)
    return {"batch_size": 1, "rois": rois, "roi_labels": torch.tensor([labels]), "roi_scores": scores, "gt_boxes": gt}


BOX = [5.0, 0, 0, 4, 2, 2, 0]


def _shifted(part):
    """BOX moved along its length so that a ``part`` of both boxes together is shared."""
    return [BOX[0] + 4 * (1 - part) / (1 + part), *BOX[1:]]


def test_labels_follow_the_thresholds():
    overlaps = [0.7, 0.58, 0.5, 0.3]
    batch = _batch([_shifted(o) for o in overlaps], [1] * 4, [*BOX, 1])
    layer = _layer(roi_per_image=4)
    layer.subsample_rois = lambda overlap, groups: torch.arange(4)
    targets = layer(batch)
    assert targets["gt_iou_of_rois"][0].tolist() == pytest.approx(overlaps, abs=1e-5)
    assert targets["rcnn_cls_labels"].tolist() == [[1, -1, -1, 0]]
    assert targets["reg_valid_mask"].tolist() == [[1, 1, 0, 0]]
    graded = _layer(roi_per_image=4, cls_score_type="roi_iou", cls_bg_thresh=0.4)
    graded.subsample_rois = layer.subsample_rois
    assert graded(batch)["rcnn_cls_labels"][0].tolist() == pytest.approx([1, 0.9, 0.5, 0], abs=1e-4)


@pytest.mark.parametrize(("by_class", "owner", "overlap"), [(True, 1, 0.6), (False, 0, 0.8)])
def test_a_proposal_belongs_to_the_nearest_object_of_its_class(by_class, owner, overlap):
    gt = [[*_shifted(0.8), 1], [*_shifted(0.6), 2], [0.0] * 8]
    layer = _layer(roi_per_image=3, sample_roi_by_each_class=by_class)
    targets = layer(_batch([BOX], [2], gt))
    assert targets["gt_of_rois"][0, 0].tolist() == pytest.approx(gt[owner])
    assert targets["gt_iou_of_rois"][0].tolist() == pytest.approx([overlap] * 3, abs=1e-5)


def test_without_objects_all_proposals_are_background():
    for gt in ([], [[0.0] * 8]):
        targets = _layer()(_batch([BOX], [1], gt))
        assert not targets["rcnn_cls_labels"].any() and not targets["gt_of_rois"].any()


# --------------------------------------------------------------------------------------------------- targets and boxes


def _targets(head, rois, gt):
    head.proposal_target_layer = lambda batch: {"rois": rois[None], "gt_of_rois": gt[None]}
    return head.assign_targets({})


def test_targets_lead_back_to_the_objects():
    head, rois, gt = _head(), random_boxes(50, seed=1), random_boxes(50, seed=2)
    local = _targets(head, rois, torch.cat([gt, torch.ones(50, 1)], dim=1))["gt_of_rois"][0, :, :7]
    assert local[:, 6].abs().max() <= math.pi / 2 + 1e-6
    anchors = torch.cat([torch.zeros(50, 3), rois[:, 3:6], torch.zeros(50, 1)], dim=1)
    boxes = head.decode(head.box_coder.encode(local, anchors), rois)
    # a heading and its reverse are one: the same eight corners, perhaps in another order
    distance = torch.cdist(boxes_to_corners_3d(boxes), boxes_to_corners_3d(gt)).amin(dim=2)
    assert distance.max() < 1e-4


def test_an_object_that_is_its_proposal_asks_for_nothing():
    head, rois = _head(), random_boxes(10)
    reverse = rois.clone()
    reverse[:, 6] += math.pi
    for gt in (rois, reverse):
        local = _targets(head, rois, torch.cat([gt, torch.ones(10, 1)], dim=1))["gt_of_rois"][0]
        expected = torch.cat([torch.zeros(10, 3), rois[:, 3:6], torch.zeros(10, 1), torch.ones(10, 1)], dim=1)
        torch.testing.assert_close(local, expected, rtol=0, atol=1e-5)


def test_pooled_points_are_seen_from_their_proposal():
    """The point ahead of a turned proposal's centre lies on its x axis."""
    head = _head()
    heading = 0.7
    ahead = [10 + math.cos(heading), 2 + math.sin(heading), 0.3]
    batch = {
        "batch_size": 1,
        "rois": torch.tensor([[[10, 2, 0, 4, 2, 2, heading], [50, 0, 0, 1, 1, 1, 0]]]),
        "point_coords": torch.tensor([[0, *ahead], [0, 30, 0, 0]]),
        "point_features": torch.tensor([[7.0], [8.0]]),
        "point_cls_scores": torch.tensor([0.25, 0.5]),
    }
    pooled = head.pool(batch)
    depth = math.hypot(*ahead) / 70 - 0.5
    assert pooled[0, 0].tolist() == pytest.approx([1, 0, 0.3, 0.25, depth, 7], abs=1e-5)
    assert torch.equal(pooled[0], pooled[0, :1].expand(32, -1)), "one point fills the proposal"
    assert not pooled[1].any(), "a proposal without points"


def test_an_ignored_proposal_costs_nothing():
    head = _head()
    logits = torch.tensor([[0.3], [5.0], [-1.0]], requires_grad=True)
    none = {key: torch.zeros(1, 3, 7) for key in ("rois", "gt_of_rois", "gt_of_rois_src")}  # no box is learned
    none |= {"rcnn_reg": torch.zeros(3, 7), "reg_valid_mask": torch.zeros(1, 3)}
    head.forward_ret_dict = {"rcnn_cls": logits, "rcnn_cls_labels": torch.tensor([[1, -1, 0]]), **none}
    loss, _ = head.get_loss()
    expected = (math.log1p(math.exp(-0.3)) + math.log1p(math.exp(-1.0))) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert logits.grad[1] == 0
