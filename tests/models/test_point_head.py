"""The first stage of PointRCNN: targets of points, boxes from codes, losses."""

import math

import pytest
import torch
from models.pointrcnn import SIZES, dataset_facts, tiny_model_cfg

from pcdet.models import build_network


def _head(**keys):
    cfg = tiny_model_cfg()
    cfg.POINT_HEAD.update(keys)
    torch.manual_seed(0)
    return build_network(cfg, 3, dataset_facts()).point_head


def _points(*xyz, frame=0):
    return torch.tensor([[frame, *p] for p in xyz], dtype=torch.float32)


CAR = [10.0, 0, 0, *SIZES[1], 0, 1]
PEDESTRIAN = [10.5, 0, 0, *SIZES[2], 0, 2]


def test_a_point_has_the_class_of_the_first_box_that_holds_it():
    gt = torch.tensor([[CAR, PEDESTRIAN]])
    out = _head().assign_targets(_points((10, 0, 0), (10.5, 0, 0), (10.5, 0, 0.82), (30, 0, 0)), gt)
    assert out["point_cls_labels"].tolist() == [1, 1, 2, 0]  # the car is lower than 0.82 m
    assert len(out["point_box_labels"]) == 3


def test_points_that_only_the_larger_box_holds_are_ignored():
    half = SIZES[1][0] / 2
    inside, rim, outside = (10 + half + d for d in (-0.01, 0.09, 0.11))  # 0.2 m more length, half at either end
    out = _head().assign_targets(_points((inside, 0, 0), (rim, 0, 0), (outside, 0, 0)), torch.tensor([[CAR]]))
    assert out["point_cls_labels"].tolist() == [1, -1, 0]


def test_padding_holds_no_points():
    gt = torch.tensor([[CAR, [0.0] * 8]])
    out = _head().assign_targets(_points((0, 0, 0), (0.05, 0, 0), (10, 0, 0)), gt)
    assert out["point_cls_labels"].tolist() == [0, 0, 1]


def test_frames_keep_to_their_own_objects_whatever_their_sizes():
    gt = torch.tensor([[CAR], [PEDESTRIAN]])
    points = torch.cat([_points((10, 0, 0)), _points((10.5, 0, 0), (12, 0, 0), (10, 0, 0.2), frame=1)])
    assert _head().assign_targets(points, gt)["point_cls_labels"].tolist() == [1, 2, 0, -1]


def test_codes_lead_back_to_the_boxes():
    head, generator = _head(), torch.Generator().manual_seed(1)
    gt = torch.tensor([[[10.0, 1, 0, 4.2, 1.7, 1.5, 2.5, 1], [20.0, -3, 0.2, 0.7, 0.5, 1.8, -3.0, 2]]])
    owner = torch.arange(40) % 2
    offset = (torch.rand(40, 3, generator=generator) - 0.5) * 0.3
    points = torch.cat([torch.zeros(40, 1), gt[0, owner, :3] + offset], dim=1)
    out = head.assign_targets(points, gt)
    assert torch.equal(out["point_cls_labels"], owner + 1)
    logits = torch.nn.functional.one_hot(owner, 3).float()
    boxes = head.generate_predicted_boxes(points[:, 1:], logits, out["point_box_labels"])
    torch.testing.assert_close(boxes, gt[0, owner, :7], rtol=1e-5, atol=1e-5)


def test_a_class_agnostic_head_codes_and_decodes_by_one_size():
    """By the first row of ``mean_size``, whatever class the object has."""
    head = _head(CLASS_AGNOSTIC=True)
    assert head.num_class == 1
    out = head.assign_targets(_points((10.5, 0, 0)), torch.tensor([[PEDESTRIAN]]))
    assert out["point_cls_labels"].tolist() == [1]
    sizes = [math.log(a / b) for a, b in zip(SIZES[2], SIZES[1], strict=True)]
    assert out["point_box_labels"][0].tolist() == pytest.approx([0, 0, 0, *sizes, 1, 0], abs=1e-6)
    boxes = head.generate_predicted_boxes(torch.tensor([[10.5, 0, 0]]), torch.zeros(1, 1), out["point_box_labels"])
    assert boxes[0].tolist() == pytest.approx(PEDESTRIAN[:7], abs=1e-6)


def test_losses_by_hand():
    """Two positives, one negative, one ignored; all logits 0, all codes wrong by 1 in one column."""
    head = _head()
    head.forward_ret_dict = {
        "point_cls_preds": torch.zeros(4, 3),
        "point_box_preds": torch.zeros(4, 8),
        "point_cls_labels": torch.tensor([1, 0, -1, 3]),
        "point_box_labels": torch.eye(8)[:2],
    }
    loss, tb_dict = head.get_loss()
    hit, miss = 0.25 * 0.25 * math.log(2), 0.75 * 0.25 * math.log(2)  # alpha * (1 - p)^2 * cross entropy
    cls = (2 * hit + 7 * miss) / 2
    box = 2 * (1 - 0.5 / 9) / 2  # smooth L1 with beta 1/9
    assert tb_dict == pytest.approx({"point_loss_cls": cls, "point_pos_num": 2, "point_loss_box": box}, rel=1e-5)
    assert loss.item() == pytest.approx(cls + box, rel=1e-5)
