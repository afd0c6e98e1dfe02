"""Suppression of a centre head's boxes: circles against the greedy loop, within classes, and configurations refused."""

import pytest
import torch
from models.centerpoints import FACTS, center_cfg

from pcdet.models import build_network
from pcdet.models.dense_heads.center_boxes import (
    CenterNMSConfig,
    CenterPostProcessingConfig,
    Peaks,
    suppressed_boxes,
)
from pcdet.models.description import DataFacts, describe
from pcdet.models.model_utils.model_nms_utils import NMSConfig, circle_nms, class_agnostic_nms
from pcdet.registry import ConfigError


def _boxes(n, seed, spread=10.0):
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(n, 7, generator=generator) * torch.tensor([spread, spread, 1, 3, 3, 3, 6.0])
    boxes[:, 3:6] += 0.5
    return torch.rand(n, generator=generator), boxes


def _greedy(scores, boxes, squared_radius):
    """The best box that is left stays, and takes those within the circle about its centre with it."""
    kept = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if all(float((boxes[i, :2] - boxes[k, :2]).square().sum()) > squared_radius for k in kept):
            kept.append(i)
    return kept


def test_circles_are_those_of_the_greedy_loop():
    sets = [_boxes(n, seed) for seed, n in enumerate((0, 1, 40, 150))]
    radii = [1.0, 1.0, 4.0, 0.3]
    found = circle_nms(sets, radii, None, 500)
    expected = [_greedy(scores, boxes, radius) for (scores, boxes), radius in zip(sets, radii, strict=True)]
    assert [rows.tolist() for rows in found] == expected
    assert 5 < len(expected[2]) < 40


def test_a_chain_of_boxes_loses_every_second():
    boxes = torch.zeros(30, 7)
    boxes[:, 0] = torch.arange(30)
    scores = torch.arange(30, 0, -1).float()
    (found,) = circle_nms([(scores, boxes)], [1.0], None, 500)
    assert found.tolist() == list(range(0, 30, 2))


def test_the_best_enter_and_the_best_leave():
    scores, boxes = _boxes(60, 7)
    (found,) = circle_nms([(scores, boxes)], [1.0], 20, 4)
    best = scores.argsort(descending=True)[:20]
    assert found.tolist() == [int(best[i]) for i in _greedy(scores[best], boxes[best], 1.0)][:4]


def test_centres_that_are_not_finite_are_refused():
    scores, boxes = _boxes(5, 0)
    boxes[2, 1] = torch.nan
    with pytest.raises(ValueError, match="must be finite"):
        circle_nms([(scores, boxes)], [1.0], None, 5)


def _peaks(frames, n, classes, seed):
    parts = [_boxes(n, seed + frame) for frame in range(frames)]
    scores, boxes = (torch.stack(values) for values in zip(*parts, strict=True))
    scores, order = scores.sort(dim=1, descending=True)
    boxes = boxes.gather(1, order[..., None].expand_as(boxes))
    labels = torch.tensor(classes)[torch.arange(n) % len(classes)].expand(frames, n)
    return Peaks(scores, boxes, labels)


def _config(**nms):
    return CenterPostProcessingConfig(
        score_thresh=0.3, post_center_limit_range=[0.0, 0.0, -5.0, 9.0, 9.0, 5.0], nms_config=CenterNMSConfig(**nms)
    )


CLASSES = [[1], [3, 2]]


def _eligible(peaks, frame, labels, least=0.3):
    """(scores, boxes) of the peaks of some classes that may stay."""
    scores, boxes = peaks.scores[frame], peaks.boxes[frame]
    inside = (boxes[:, :2] <= 9).all(dim=1) & (scores > least)
    rows = inside & torch.isin(peaks.labels[frame], torch.tensor(labels))
    return scores[rows], boxes[rows]


def test_boxes_compete_within_their_branch():
    branches = [_peaks(2, 40, ids, seed) for seed, ids in zip((1, 5), CLASSES, strict=True)]
    found = suppressed_boxes(branches, CLASSES, _config(nms_thresh=0.2, nms_pre_maxsize=30, nms_post_maxsize=9))
    rule = NMSConfig(nms_thresh=0.2, nms_pre_maxsize=30, nms_post_maxsize=9)
    for frame, own in enumerate(found):
        sets = [_eligible(branch, frame, ids) for branch, ids in zip(branches, CLASSES, strict=True)]
        kept = class_agnostic_nms(sets, rule)
        expected = torch.cat([boxes[rows] for (rows, _), (_, boxes) in zip(kept, sets, strict=True)])
        assert torch.equal(own["pred_boxes"], expected)
        assert set(own["pred_labels"].tolist()) == {1, 2, 3}


def test_class_specific_suppression_has_thresholds_and_counts_for_each_class():
    branches = [_peaks(2, 60, ids, seed) for seed, ids in zip((1, 5), CLASSES, strict=True)]
    lists = dict(nms_thresh=[0.2, 0.1, 0.4], nms_pre_maxsize=[30, 20, 30], nms_post_maxsize=[9, 3, 20])
    least = [0.3, 0.5, 0.3]
    found = suppressed_boxes(branches, CLASSES, _config(nms_type="class_specific_nms", score_thresh=least, **lists))
    for frame, own in enumerate(found):
        for label, branch in ((1, branches[0]), (2, branches[1]), (3, branches[1])):
            rule = NMSConfig(**{key: values[label - 1] for key, values in lists.items()})
            scores, boxes = _eligible(branch, frame, [label], least[label - 1])
            ((rows, kept),) = class_agnostic_nms([(scores, boxes)], rule)
            mine = own["pred_labels"] == label
            assert torch.equal(own["pred_boxes"][mine], boxes[rows]) and torch.equal(own["pred_scores"][mine], kept)


def test_every_branch_has_its_circle():
    branches = [_peaks(2, 40, ids, seed) for seed, ids in zip((1, 5), CLASSES, strict=True)]
    found = suppressed_boxes(
        branches, CLASSES, _config(nms_type="circle_nms", min_radius=[4.0, 0.2], nms_post_maxsize=100)
    )
    for frame, own in enumerate(found):
        expected = []
        for branch, ids, radius in zip(branches, CLASSES, (4.0, 0.2), strict=True):
            scores, boxes = _eligible(branch, frame, ids)
            expected += boxes[_greedy(scores, boxes, radius)].tolist()
        assert own["pred_boxes"].tolist() == expected


def test_frames_without_peaks_have_no_boxes():
    peaks = _peaks(2, 20, [1], 0)
    peaks = Peaks(peaks.scores * 0, peaks.boxes, peaks.labels)
    for nms in ({"nms_thresh": 0.2, "nms_pre_maxsize": 9}, {"nms_type": "circle_nms", "min_radius": [1.0]}):
        for found in suppressed_boxes([peaks], [[1]], _config(nms_post_maxsize=9, **nms)):
            assert found["pred_boxes"].shape == (0, 7) and not len(found["pred_labels"])


PLAIN = {"NMS_THRESH": 0.2, "NMS_PRE_MAXSIZE": 10, "NMS_POST_MAXSIZE": 5}


@pytest.mark.parametrize(
    ("nms", "message"),
    [
        ({**PLAIN, "NMS_TYPE": "nms_cpu"}, "NMS_TYPE: must be one of nms_gpu"),
        ({**PLAIN, "NMS_THRESH": [0.2, 0.2, 0.2]}, "NMS_THRESH: must be one number for nms_gpu"),
        ({**PLAIN, "NMS_TYPE": "class_specific_nms"}, "NMS_THRESH: must be a list with an item for each class"),
        ({**PLAIN, "SCORE_THRESH": 0.3}, "SCORE_THRESH: only class_specific_nms reads it"),
        ({**PLAIN, "NMS_TYPE": "circle_nms"}, "MIN_RADIUS: missing; circle_nms needs it"),
        ({**PLAIN, "MULTI_CLASSES_NMS": True}, "MULTI_CLASSES_NMS: must be False"),
        ({"NMS_POST_MAXSIZE": 5}, "NMS_THRESH: missing; nms_gpu needs it"),
    ],
)
def test_an_nms_config_that_cannot_be_meant_is_refused(nms, message):
    post = {**center_cfg().DENSE_HEAD.POST_PROCESSING, "NMS_CONFIG": nms}
    with pytest.raises(ConfigError, match=message):
        build_network(center_cfg(POST_PROCESSING=post), 3, FACTS)


@pytest.mark.parametrize(
    ("nms", "problem"),
    [
        (
            {"NMS_TYPE": "circle_nms", "MIN_RADIUS": [4, 12, 10], "NMS_POST_MAXSIZE": 5},
            "MIN_RADIUS: there are 2 branches",
        ),
        (
            {
                "NMS_TYPE": "class_specific_nms",
                "NMS_THRESH": [0.2],
                "NMS_PRE_MAXSIZE": [9] * 3,
                "NMS_POST_MAXSIZE": [9] * 3,
            },
            "NMS_THRESH: there are 3 classes",
        ),
    ],
)
def test_lists_of_another_length_are_problems_of_the_configuration(nms, problem):
    post = {**center_cfg().DENSE_HEAD.POST_PROCESSING, "NMS_CONFIG": nms}
    found = describe(center_cfg(POST_PROCESSING=post), DataFacts(class_names=FACTS.class_names)).problems
    assert [p for p in found if p.startswith(f"MODEL.DENSE_HEAD.POST_PROCESSING.NMS_CONFIG.{problem}")], found
    with pytest.raises(ConfigError, match=problem):
        build_network(center_cfg(POST_PROCESSING=post), 3, FACTS)
