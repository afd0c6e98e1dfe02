"""Targets of the centre head: heat maps drawn at once and one by one, codes, groups, and what is left out."""

import math

import pytest
import torch
from models.centerpoints import FACTS, center_batch, center_cfg

from pcdet.models import build_network
from pcdet.models.dense_heads.center_boxes import decode_boxes
from pcdet.models.model_utils.centernet_utils import draw_gaussian_to_heatmap, draw_gaussians, gaussian_radius


def test_bells_drawn_at_once_are_those_drawn_one_by_one():
    generator = torch.Generator().manual_seed(0)
    n, planes, height, width = 40, 3, 17, 23
    plane, radius = (torch.randint(high, (n,), generator=generator) for high in (planes, 8))
    cell = torch.stack([torch.randint(high, (n,), generator=generator) for high in (width, height)], dim=1)
    drawn = torch.arange(n) % 5 > 0
    expected = torch.zeros(planes, height, width)
    for p, c, r in zip(plane[drawn], cell[drawn], radius[drawn], strict=True):
        draw_gaussian_to_heatmap(expected[p], c, int(r))
    own = draw_gaussians(planes, (height, width), plane, cell, radius, drawn)
    assert torch.equal(own, expected) and (own == 1).sum() > 20


def test_no_object_makes_empty_heat_maps():
    none = torch.zeros(0, dtype=torch.int64)
    own = draw_gaussians(2, (3, 4), none, none.view(0, 2), none, none.bool())
    assert own.shape == (2, 3, 4) and not own.any()


def _head(velocity=False, **changes):
    return build_network(center_cfg(velocity, **changes), 3, FACTS).dense_head


def _one_by_one(gt_boxes, groups, map_shape, rows=20):
    """Targets of one frame by the definition, object by object, for classes Car, Pedestrian, Cyclist."""
    (x0, y0), cell = FACTS.point_cloud_range[:2], 2 * FACTS.voxel_size[0]
    for group in groups:
        heatmap, boxes, cells = torch.zeros(len(group), *map_shape), [], []
        for box in gt_boxes:
            name = ["", "Car", "Pedestrian", "Cyclist"][int(box[-1])]
            if name not in group:
                continue
            x, y = float((box[0] - x0) / cell), float((box[1] - y0) / cell)
            radius = max(2, int(gaussian_radius(box[3] / cell, box[4] / cell, 0.1)))
            draw_gaussian_to_heatmap(heatmap[group.index(name)], (x, y), radius)
            heading = float(box[6])
            offset = [x - int(x), y - int(y), float(box[2])]
            boxes.append([*offset, *box[3:6].log().tolist(), math.cos(heading), math.sin(heading), *box[7:-1].tolist()])
            cells.append(int(y) * map_shape[1] + int(x))
        yield heatmap, torch.tensor(boxes), cells


@pytest.mark.parametrize("velocity", [False, True])
@pytest.mark.parametrize(
    "groups",
    [[["Car"], ["Pedestrian", "Cyclist"]], [["Cyclist", "Car"], ["Pedestrian"]], [["Car", "Pedestrian", "Cyclist"]]],
)
def test_targets_are_those_of_the_definition(groups, velocity):
    head, gt_boxes = _head(velocity, CLASS_NAMES_EACH_HEAD=groups), center_batch(velocity, seed=4)["gt_boxes"]
    before = gt_boxes.clone()
    targets = head.assign_targets(gt_boxes)
    assert torch.equal(gt_boxes, before), "the labels stay as they are"
    for frame, boxes in enumerate(gt_boxes):
        for i, (heatmap, codes, cells) in enumerate(_one_by_one(boxes, groups, head.place.shape)):
            n = len(cells)
            torch.testing.assert_close(targets["heatmaps"][i][frame], heatmap)
            torch.testing.assert_close(targets["target_boxes"][i][frame, :n], codes, rtol=1e-4, atol=1e-4)
            assert targets["inds"][i][frame].tolist() == cells + [0] * (20 - n)
            assert targets["masks"][i][frame].tolist() == [True] * n + [False] * (20 - n)
            assert not targets["target_boxes"][i][frame, n:].any()


@pytest.mark.parametrize("velocity", [False, True])
def test_target_codes_at_their_cells_are_the_boxes(velocity):
    head, gt_boxes = _head(velocity), center_batch(velocity, seed=5)["gt_boxes"]
    targets = head.assign_targets(gt_boxes)
    for codes, cells, mask, source in zip(
        *(targets[k] for k in ("target_boxes", "inds", "masks", "target_boxes_src")), strict=True
    ):
        boxes = decode_boxes(codes, cells, head.place)
        assert mask.sum() == 4
        torch.testing.assert_close(boxes[mask], source[mask][:, :-1], rtol=1e-4, atol=1e-4)


def test_padding_and_boxes_without_a_size_are_no_objects():
    head, gt_boxes = _head(), center_batch(seed=6)["gt_boxes"]
    alone = head.assign_targets(gt_boxes)
    flat = gt_boxes[:, :1].clone()
    flat[..., 4] = 0
    padded = head.assign_targets(torch.cat([gt_boxes, flat, torch.zeros_like(flat)], dim=1))
    for key in ("heatmaps", "target_boxes", "inds", "masks"):
        for one, other in zip(alone[key], padded[key], strict=True):
            assert torch.equal(one, other), key


def test_objects_outside_the_map_stand_at_its_border():
    head, gt_boxes = _head(), center_batch(seed=7)["gt_boxes"][:1, :1].clone()
    gt_boxes[..., 0], gt_boxes[..., 1] = 1e3, -1e3
    height, width = head.place.shape
    targets = head.assign_targets(gt_boxes)
    assert targets["inds"][0][0, 0] == width - 1 and targets["heatmaps"][0][0, 0, 0, width - 1] == 1


def test_no_more_objects_than_there_are_rows_become_targets():
    config = dict(FEATURE_MAP_STRIDE=2, NUM_MAX_OBJS=1, MIN_RADIUS=0, GAUSSIAN_OVERLAP=0.9)
    head, gt_boxes = _head(TARGET_ASSIGNER_CONFIG=config), center_batch(seed=8)["gt_boxes"]
    targets = head.assign_targets(gt_boxes)
    assert [mask.sum().item() for mask in targets["masks"]] == [2, 2]
    assert [(heat == 1).sum().item() for heat in targets["heatmaps"]] == [2, 2]


def test_boxes_without_the_velocities_that_are_predicted_are_refused():
    with pytest.raises(ValueError, match="gt_boxes must have 10 columns, 2 of them velocities.*PRED_VELOCITY"):
        _head(velocity=True).assign_targets(center_batch()["gt_boxes"])


def test_velocities_that_nobody_predicts_are_left():
    with_them, without = (center_batch(velocity, seed=9)["gt_boxes"] for velocity in (True, False))
    head = _head()
    for key in ("heatmaps", "target_boxes"):
        for one, other in zip(head.assign_targets(with_them)[key], head.assign_targets(without)[key], strict=True):
            assert torch.equal(one, other)
