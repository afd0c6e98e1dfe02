"""Suppression across and within classes, thresholds, raw scores, and the record of recall."""

import pytest
import torch

from pcdet.models.model_utils.model_nms_utils import NMSConfig, class_agnostic_nms, multi_classes_nms
from pcdet.models.model_utils.post_processing import (
    FramePredictions,
    PostProcessingConfig,
    final_boxes,
    generate_recall_record,
)
from pcdet.registry import ConfigError, parse_node


def _nms(**changes):
    return NMSConfig(**{"nms_thresh": 0.1, "nms_pre_maxsize": 4096, "nms_post_maxsize": 500, **changes})


def _config(multi=False, **changes):
    options = dict(recall_thresh_list=[0.3, 0.5], score_thresh=0.1, nms_config=_nms(multi_classes_nms=multi))
    return PostProcessingConfig(**{**options, **changes})


def _boxes(*xs):
    return torch.tensor([[x, 0, 0, 4.0, 2, 1.5, 0] for x in xs]).float().view(-1, 7)


def _frame(boxes, *logits, label_maps=None, normalized=False, labels=None):
    maps = label_maps or [torch.arange(1, logits[0].shape[1] + 1)]
    return FramePredictions(boxes.__getitem__, list(logits), maps, normalized, labels)


def _final(frame, config):
    (out,) = final_boxes([frame], config)
    return out


def _logit(p):
    return torch.logit(torch.tensor(p))


# three boxes on one place, one far away; the second class likes the second box
BOXES = _boxes(0, 0.2, 0.4, 20)
LOGITS = _logit([[0.9, 0.2], [0.3, 0.8], [0.5, 0.05], [0.05, 0.6]])


def test_across_classes_boxes_of_any_class_compete():
    out = _final(_frame(BOXES, LOGITS), _config())
    assert torch.equal(out["pred_boxes"], BOXES[[0, 3]])
    assert out["pred_scores"].tolist() == pytest.approx([0.9, 0.6])
    assert out["pred_labels"].tolist() == [1, 2]


def test_within_classes_a_place_may_hold_one_of_each():
    out = _final(_frame(BOXES, LOGITS), _config(multi=True))
    assert torch.equal(out["pred_boxes"], BOXES[[0, 1, 3]])
    assert out["pred_scores"].tolist() == pytest.approx([0.9, 0.8, 0.6])
    assert out["pred_labels"].tolist() == [1, 2, 2]


def test_several_heads_have_their_own_rows_and_classes():
    first, second = LOGITS[:2], LOGITS[2:, :1]
    frame = _frame(BOXES, first, second, label_maps=[torch.tensor([3, 1]), torch.tensor([2])])
    out = _final(frame, _config(multi=True))
    assert out["pred_labels"].tolist() == [3, 1, 2]
    assert torch.equal(out["pred_boxes"], BOXES[[0, 1, 2]])
    with pytest.raises(ValueError, match="MULTI_CLASSES_NMS must be True for a detector with several heads"):
        _final(frame, _config())


def test_boxes_whose_classes_are_chosen_are_not_suppressed_by_columns():
    """A second stage's one column says how good a box is, not of which class."""
    frame = _frame(BOXES, LOGITS[:, :1], labels=torch.tensor([2, 3, 1, 2]))
    with pytest.raises(ValueError, match="MULTI_CLASSES_NMS must be False where proposals have their classes"):
        _final(frame, _config(multi=True))


def test_a_head_needs_a_label_for_each_column():
    with pytest.raises(ValueError, match="predicts 2 classes, but has labels for 1"):
        _final(_frame(BOXES, LOGITS, label_maps=[torch.tensor([1])]), _config(multi=True))


@pytest.mark.parametrize("multi", [False, True])
def test_raw_scores_are_the_logits(multi):
    frame = _frame(BOXES, LOGITS)
    raw = _final(frame, _config(multi=multi, output_raw_score=True))
    plain = _final(frame, _config(multi=multi))
    torch.testing.assert_close(torch.sigmoid(raw["pred_scores"]), plain["pred_scores"])
    assert raw["pred_labels"].tolist() == plain["pred_labels"].tolist()


@pytest.mark.parametrize("multi", [False, True])
def test_probabilities_are_taken_as_they_are(multi):
    out = _final(_frame(BOXES, torch.sigmoid(LOGITS), normalized=True), _config(multi=multi))
    expected = _final(_frame(BOXES, LOGITS), _config(multi=multi))
    torch.testing.assert_close(out["pred_scores"], expected["pred_scores"])
    assert torch.equal(out["pred_boxes"], expected["pred_boxes"])


def test_labels_of_an_earlier_stage_are_kept():
    out = _final(_frame(BOXES, LOGITS, labels=torch.tensor([7, 8, 9, 5])), _config())
    assert out["pred_labels"].tolist() == [7, 5]


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("score_thresh", [None, 0.0, 0.5, 1.0])
def test_thresholds(multi, score_thresh):
    out = _final(_frame(BOXES, LOGITS), _config(multi=multi, score_thresh=score_thresh))
    assert (out["pred_scores"] >= (score_thresh or 0)).all()
    assert len(out["pred_scores"]) == {None: (2, 4), 0.0: (2, 4), 0.5: (2, 3), 1.0: (0, 0)}[score_thresh][multi]


def test_a_score_on_the_threshold_stays():
    scores = torch.tensor([[0.5], [0.49]])
    out = _final(_frame(_boxes(0, 20), scores, normalized=True), _config(score_thresh=0.5))
    assert out["pred_scores"].tolist() == [0.5]


@pytest.mark.parametrize("multi", [False, True])
def test_no_boxes_in_none_out(multi):
    for frame in (_frame(BOXES[:0], LOGITS[:0]), _frame(BOXES, torch.full((4, 2), -20.0))):
        out = _final(frame, _config(multi=multi))
        assert [tuple(out[k].shape) for k in ("pred_boxes", "pred_scores", "pred_labels")] == [(0, 7), (0,), (0,)]


def test_limits_before_and_after_suppression():
    boxes, scores = _boxes(*range(0, 100, 10)), torch.linspace(0.9, 0.2, 10)
    ((selected, kept),) = class_agnostic_nms([(scores, boxes)], _nms(nms_pre_maxsize=6, nms_post_maxsize=4))
    assert selected.tolist() == [0, 1, 2, 3] and torch.equal(kept, scores[:4])
    ((selected, _),) = class_agnostic_nms([(scores, boxes)], _nms(nms_pre_maxsize=2))
    assert selected.tolist() == [0, 1]


def test_indices_point_into_the_input_whatever_its_order():
    boxes = _boxes(0, 30, 0.1, 60)
    scores = torch.tensor([0.2, 0.05, 0.9, 0.6])
    ((selected, kept),) = class_agnostic_nms([(scores, boxes)], _nms(), score_thresh=0.1)
    assert selected.tolist() == [2, 3] and kept.tolist() == pytest.approx([0.9, 0.6])


def test_a_turned_box_overlaps_by_its_outline_only_without_headings():
    boxes = _boxes(0, 0)
    boxes[:, 1] = torch.tensor([0, 2.0])
    boxes[1, 6] = torch.pi / 2  # as long across as the other is along
    scores = torch.tensor([0.9, 0.8])
    for nms_type, count in (("nms_gpu", 1), ("nms_normal_gpu", 2)):
        ((selected, _),) = class_agnostic_nms([(scores, boxes)], _nms(nms_type=nms_type))
        assert len(selected) == count


def test_each_class_may_have_its_threshold():
    scores = torch.sigmoid(LOGITS)
    ((selected, _, labels),) = multi_classes_nms([(scores, BOXES)], _nms(), score_thresh=[0.95, 0.7])
    assert selected.tolist() == [1] and labels.tolist() == [1]
    sets = [(torch.rand(4, classes), BOXES) for classes in (1, 3)]
    with pytest.raises(ValueError, match="one number, or one for each of 1 classes, got 2"):
        multi_classes_nms(sets, _nms(), score_thresh=[0.95, 0.7])


def test_sets_do_not_touch_each_other():
    scores = torch.sigmoid(LOGITS)
    sets = [(scores[rows, 0], BOXES[rows]) for rows in ([0, 1, 2, 3], [3, 2], [], [1])]
    found = class_agnostic_nms(sets, _nms(), score_thresh=0.2)
    # of the first set the fourth box is below the threshold; the second set has it too, and a better one
    assert [selected.tolist() for selected, _ in found] == [[0], [1], [], [0]]
    assert [kept.tolist() for _, kept in found] == [pytest.approx(k) for k in ([0.9], [0.5], [], [0.3])]
    within = multi_classes_nms([(scores[rows], BOXES[rows]) for rows in ([3, 1], [0, 2])], _nms(), score_thresh=0.2)
    assert [(s.tolist(), k.tolist()) for s, _, k in within] == [([1, 1, 0], [0, 1, 1]), ([0, 0], [0, 1])]
    assert class_agnostic_nms([], _nms(), score_thresh=0.2) == []


@pytest.mark.parametrize("score_thresh", [0.1, None])
@pytest.mark.parametrize("multi", [False, True])
def test_frames_of_a_batch_are_suppressed_as_if_alone(multi, score_thresh):
    """Another frame's boxes lie on the same places; one frame has none that is good enough, one none at all."""
    frames = [_frame(BOXES, LOGITS), _frame(BOXES, torch.full((4, 2), -20.0)), _frame(BOXES[:0], LOGITS[:0])]
    frames += [_frame(BOXES.flip(0), LOGITS.roll(1, 0)), _frame(BOXES, torch.sigmoid(LOGITS), normalized=True)]
    config = _config(multi=multi, score_thresh=score_thresh)
    together = final_boxes(frames, config)
    for out, frame in zip(together, frames, strict=True):
        alone = _final(frame, config)
        assert out.keys() == alone.keys() and all(torch.equal(out[key], alone[key]) for key in out)
    assert len(together[0]["pred_boxes"]) >= 2


def test_numbers_that_are_not_finite_are_refused_in_any_frame():
    broken = BOXES.clone()
    broken[3, 2] = torch.nan
    with pytest.raises(ValueError, match="boxes.* must be finite"):
        final_boxes([_frame(BOXES, LOGITS), _frame(broken, LOGITS)], _config())


def test_configuration_errors():
    with pytest.raises(ConfigError, match="NMS_TYPE: must be one of nms_gpu, nms_normal_gpu, got 'circle'"):
        parse_node(
            {"NMS_TYPE": "circle", "NMS_THRESH": 0.1, "NMS_PRE_MAXSIZE": 1, "NMS_POST_MAXSIZE": 1},
            NMSConfig,
            path="MODEL.POST_PROCESSING.NMS_CONFIG",
        )
    with pytest.raises(ValueError, match="POST_PROCESSING.NMS_CONFIG is missing"):
        _final(_frame(BOXES, LOGITS), _config(nms_config=None))


# -------------------------------------------------------------------------------------------------------------- recall

THRESHOLDS = [0.3, 0.7]


def _record(boxes, rois, objects):
    """Of a batch of one frame."""
    return generate_recall_record([boxes], None if rois is None else [rois], [objects], THRESHOLDS)


def _objects(*xs, padding=0):
    labelled = torch.cat((_boxes(*xs), torch.ones(len(xs), 1)), dim=1)
    return torch.cat((labelled, torch.zeros(padding, 8)))


def test_objects_count_as_found_above_each_threshold():
    # a shift of 1 m along 4 m leaves 3 of 5 m
    boxes, objects = [_boxes(0, 21), _boxes(50)], [_objects(0, 20, 50, padding=2), _objects(50)]
    record = _record(boxes[0], None, objects[0])
    assert record == {"gt": 3, "roi_0.3": 0, "rcnn_0.3": 2, "roi_0.7": 0, "rcnn_0.7": 1}
    record = generate_recall_record(boxes, None, objects, THRESHOLDS)
    assert record == {"gt": 4, "roi_0.3": 0, "rcnn_0.3": 3, "roi_0.7": 0, "rcnn_0.7": 2}
    assert all(type(count) is int for count in record.values())


def test_proposals_are_counted_beside_the_refined_boxes():
    record = _record(_boxes(0), _boxes(1), _objects(0))
    assert record == {"gt": 1, "roi_0.3": 1, "rcnn_0.3": 1, "roi_0.7": 0, "rcnn_0.7": 1}


def test_an_object_whose_velocity_is_not_known_counts_and_is_found():
    velocity = torch.full((1, 2), torch.nan)
    moving = torch.cat((_boxes(0), velocity, torch.ones(1, 1)), dim=1)
    record = _record(_boxes(0), None, torch.cat((moving, torch.zeros(2, 10))))
    assert record == {"gt": 1, "roi_0.3": 0, "rcnn_0.3": 1, "roi_0.7": 0, "rcnn_0.7": 1}


def test_nothing_found_and_nothing_to_find():
    nothing = {"roi_0.3": 0, "rcnn_0.3": 0, "roi_0.7": 0, "rcnn_0.7": 0}
    assert _record(_boxes(), None, _objects(0)) == {"gt": 1, **nothing}
    assert _record(_boxes(0), None, _objects(padding=3)) == {"gt": 0, **nothing}
    assert _record(_boxes(0), None, _objects()) == {"gt": 0, **nothing}
    assert generate_recall_record([_boxes(0)], None, None, THRESHOLDS) == {}


def test_boxes_at_the_origin_do_not_find_the_padding():
    assert _record(torch.zeros(2, 7), None, _objects(50, padding=3))["rcnn_0.3"] == 0
