"""PivotalLogit against its formula, written out anchor by anchor and cell by cell."""

from pathlib import Path

import numpy as np
import pytest
import torch
from easydict import EasyDict
from kd_pairs import LOGITS, detector, distil, pp

from pcdet.config import cfg_from_yaml_file
from pcdet.models.kd.model_outputs import ModelOutputs
from pcdet.models.kd.step import Step

BETA = 1 / 9
CFGS = Path(__file__).resolve().parents[3] / "tools" / "cfgs"
MEASURED = [  # files whose figures were measured with means over classes and codes, and those files' weights then
    "kitti_models/kd/pointpillar_small_4x",
    "kitti_models/kd/second_small_4x",
]
OLD_CLS_WEIGHT, OLD_REG_WEIGHT = 5.0, 2.0


def with_head(seed, *, classifier=True, sincos=False):
    """A detector with such a head: its headings are far from its anchors', and it is sure of many of them."""
    head = pp.tiny_model_cfg().DENSE_HEAD
    head.USE_DIRECTION_CLASSIFIER = classifier
    if sincos:
        head.TARGET_ASSIGNER_CONFIG.BOX_CODER_CONFIG = {"encode_angle_by_sincos": True}
        head.LOSS_CONFIG.LOSS_WEIGHTS.code_weights = [1.0] * 8
    model = detector(seed, DENSE_HEAD=head)
    model.dense_head.conv_box.bias.data[6 :: model.dense_head.box_coder.code_size] += 2.0 if seed else -1.0
    torch.nn.init.normal_(model.dense_head.conv_cls.weight, std=5.0)
    return model


def predictions(distiller, batch):
    """Of the last step: scores and codes (B, cells, A, .) of student and teacher, and labels (B, cells, A)."""
    distiller.teacher.forward_features(dict(batch))
    heads = [d.dense_head.forward_ret_dict for d in (distiller.student, distiller.teacher)]
    frames, height, width, _ = heads[0]["cls_preds"].shape
    shape = frames, height * width, distiller.student.dense_head.num_anchors_per_location, -1
    arrays = [
        head[key].detach().double().numpy().reshape(shape) for key in ("cls_preds", "box_preds") for head in heads
    ]
    given, wanted = (1 / (1 + np.exp(-logits)) for logits in arrays[:2])
    return given, wanted, *arrays[2:], heads[0]["box_cls_labels"].numpy().reshape(shape[:3])


def smooth_l1(codes, wanted, by_sine):
    """Of every code of one anchor."""
    delta = codes - wanted
    if by_sine:
        delta[6] = np.sin(delta[6])
    size = np.abs(delta)
    return np.where(size < BETA, size**2 / (2 * BETA), size - BETA / 2)


def pivots_of(wanted, labels, *, pivot, by_score, threshold=0.1):
    """(frame, cell, anchor) -> weight."""
    found = {}
    for where in np.ndindex(labels.shape):
        score = wanted[where].max()
        chosen = (pivot != "score" and labels[where] > 0) or (pivot != "positive" and score >= threshold)
        if chosen:
            found[where] = score if by_score else 1.0
    return found


def recipe(distiller, batch, *, pivot="positive", by_score=False, threshold=0.1, by_sine=True, weights=(15.0, 0.2)):
    """The number of the released recipe, in loops."""
    given, wanted, codes, wanted_codes, labels = predictions(distiller, batch)
    found = pivots_of(wanted, labels, pivot=pivot, by_score=by_score, threshold=threshold)
    cells = {}
    for (frame, cell, _), weight in found.items():
        cells[frame, cell] = max(weight, cells.get((frame, cell), 0.0))
    cls = sum(w * ((given[cell] - wanted[cell]) ** 2).sum() for cell, w in cells.items()) / sum(cells.values())
    reg = 0.0
    for frame in range(len(labels)):
        own = {where: w for where, w in found.items() if where[0] == frame}
        far = [w * smooth_l1(codes[where], wanted_codes[where], by_sine).sum() for where, w in own.items()]
        reg += sum(far) / sum(own.values()) if own else 0.0
    return weights[0] * cls + weights[1] * reg / len(labels)


def means_over_pivots(distiller, batch, *, pivot, by_score, threshold=0.1, weights=(15.0, 0.2)):
    """The formula before: weighted mean over the batch's pivots of means over their own classes and codes."""
    given, wanted, codes, wanted_codes, labels = predictions(distiller, batch)
    found = pivots_of(wanted, labels, pivot=pivot, by_score=by_score, threshold=threshold)
    cls = sum(w * ((given[where] - wanted[where]) ** 2).mean() for where, w in found.items())
    reg = sum(w * smooth_l1(codes[where], wanted_codes[where], True).mean() for where, w in found.items())
    return (weights[0] * cls + weights[1] * reg) / sum(found.values())


def uneven(batch):
    """The batch with half of the second frame's objects: frames that differ in their number of pivots."""
    boxes = batch["gt_boxes"].clone()
    boxes[1, 2:] = 0
    return {**batch, "gt_boxes": boxes}


@pytest.mark.parametrize(
    ("student", "teacher", "by_sine"),
    [
        ({}, {}, True),
        ({"classifier": False}, {"classifier": False}, False),
        ({"classifier": False}, {}, True),  # what the teacher codes is but for half a turn then
        ({"sincos": True}, {"sincos": True}, False),
    ],
)
def test_the_loss_is_the_recipes_whatever_the_head_codes(batch, student, teacher, by_sine):
    """The heading goes through a sine where a classifier tells half turns apart; cosine and sine stay as they are."""
    distiller = distil(LOGITS, student=with_head(0, **student), teacher=with_head(1, **teacher))
    batch = uneven(batch)
    value = distiller(batch)[1]["kd/PivotalLogit"]
    _, _, codes, wanted_codes, labels = predictions(distiller, batch)
    assert np.abs((codes - wanted_codes)[labels > 0][:, 6]).max() > 1, "or the sine would hardly tell"
    assert len({(frame > 0).sum() for frame in labels}) == 2, "or a mean over frames is one over the batch"
    assert value == pytest.approx(recipe(distiller, batch, by_sine=by_sine), rel=1e-4)


@pytest.mark.parametrize("pivot", ["positive", "score", "both"])
@pytest.mark.parametrize("by_score", [False, True])
def test_other_pivots_and_weights_follow_the_same_formula(batch, pivot, by_score):
    keys = {"PIVOT": pivot, "BY_SCORE": by_score}
    distiller = distil(LOGITS | keys, student=with_head(0), teacher=with_head(1))
    logs = distiller(uneven(batch))[1]
    value = logs["kd/PivotalLogit"]
    assert 5 < logs["kd/PivotalLogit/pivots"] < 1000 or pivot == "positive", "or NUM would cut some"
    wanted = recipe(distiller, uneven(batch), pivot=pivot, by_score=by_score)
    assert value == pytest.approx(wanted, rel=1e-4)


def parts_of(distiller, batch):
    """(class part, box part) of a step whose norms use running statistics, so that only the loss couples frames."""
    distiller.student.eval().dense_head.train()  # a head in training assigns its targets
    outputs = []
    with torch.no_grad():
        for model in (distiller.student, distiller.teacher):
            outputs.append(ModelOutputs(model, model.forward_features(dict(batch)), {}, distiller.geometry))
        logs = distiller.losses["PivotalLogit"](Step(*outputs, batch))[1]
    return float(logs["cls"]), float(logs["reg"])


def test_boxes_are_averaged_in_each_frame_and_classes_over_the_cells_of_the_batch(batch):
    batch = uneven(batch)
    distiller = distil(LOGITS, student=with_head(0), teacher=with_head(1))
    rows = [batch["voxel_coords"][:, 0] == i for i in (0, 1)]
    frames = [{k: v[own].clone() for k, v in batch.items() if k.startswith("voxel")} for own in rows]
    frames[1]["voxel_coords"][:, 0] = 0
    frames = [f | {"gt_boxes": batch["gt_boxes"][i : i + 1], "batch_size": 1} for i, f in enumerate(frames)]
    alone, cells = [], []
    for frame in frames:
        alone.append(parts_of(distiller, frame))
        labels = distiller.student.dense_head.forward_ret_dict["box_cls_labels"].reshape(-1, 6)
        cells.append(int((labels > 0).any(dim=1).sum()))
    assert cells[0] != cells[1]
    cls, reg = parts_of(distiller, batch)
    assert reg == pytest.approx((alone[0][1] + alone[1][1]) / 2, rel=1e-4)
    assert cls == pytest.approx(np.average([a[0] for a in alone], weights=cells), rel=1e-4)


def test_a_frame_without_objects_halves_the_box_part_and_leaves_the_class_part(batch):
    """The recipe divides by all frames, as the head's own box loss does."""
    distiller = distil(LOGITS, student=with_head(0), teacher=with_head(1))
    emptied = {**batch, "gt_boxes": batch["gt_boxes"].clone()}
    emptied["gt_boxes"][1] = 0
    alone = {k: v[batch["voxel_coords"][:, 0] == 0] for k, v in batch.items() if k.startswith("voxel")}
    alone |= {"gt_boxes": batch["gt_boxes"][:1], "batch_size": 1}
    (cls, reg), (cls_alone, reg_alone) = parts_of(distiller, emptied), parts_of(distiller, alone)
    assert (cls, reg) == pytest.approx((cls_alone, reg_alone / 2), rel=1e-4)


@pytest.mark.parametrize("name", MEASURED)
def test_the_rescaled_files_give_the_number_that_the_means_gave(batch, name):
    losses = cfg_from_yaml_file(CFGS / f"{name}.yaml", EasyDict()).KD.LOSSES
    (node,) = (loss for loss in losses if loss.NAME == "PivotalLogit")
    distiller = distil(dict(node), student=with_head(0), teacher=with_head(1))
    value = distiller(uneven(batch))[1]["kd/PivotalLogit"]
    old = means_over_pivots(
        distiller, uneven(batch), pivot="both", by_score=True, weights=(OLD_CLS_WEIGHT, OLD_REG_WEIGHT)
    )
    assert value == pytest.approx(old, rel=1e-4)
