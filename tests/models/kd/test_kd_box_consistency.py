"""BoxConsistency against its formula, box by box, with the reference of the rotated IoU."""

import copy
import math

import numpy as np
import pytest
import torch
from kd_pairs import detector, distil, pp, step

from pcdet.ops.iou3d_nms.reference import boxes_iou_bev
from pcdet.registry import ConfigError

NODE = {"NAME": "BoxConsistency", "NUM": 40}


def sure_detector(seed=0, *, classifier=True):
    """A detector with scores all over the range, and boxes that are not their anchors."""
    head = pp.tiny_model_cfg().DENSE_HEAD
    head.USE_DIRECTION_CLASSIFIER = classifier
    model = detector(seed, DENSE_HEAD=head)
    torch.nn.init.normal_(model.dense_head.conv_cls.weight, std=2.0)
    return model


def other_head(model, *, heading=0.0):
    """The same detector with other scores, and boxes that are a little off."""
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(4)
    with torch.no_grad():
        for layer, size in ((other.dense_head.conv_cls, 0.1), (other.dense_head.conv_box, 0.01)):
            layer.weight += size * torch.randn(layer.weight.shape, generator=generator)
        other.dense_head.conv_box.bias[6::7] += heading
    return other


def pair_of(*, classifier=True, heading=0.0, **node):
    """A distiller whose teacher sees the same features."""
    student = sure_detector(classifier=classifier)
    return distil(NODE | node, student=student, teacher=other_head(student, heading=heading), TEACHER={"MODE": "train"})


def decoded(codes, anchors):
    """Boxes of residual codes, (n, 7) each."""
    diagonal = np.hypot(anchors[:, 3], anchors[:, 4])[:, None]
    ground = codes[:, :2] * diagonal + anchors[:, :2]
    height = codes[:, 2:3] * anchors[:, 5:6] + anchors[:, 2:3]
    return np.hstack([ground, height, np.exp(codes[:, 3:6]) * anchors[:, 3:6], codes[:, 6:] + anchors[:, 6:7]])


def predictions(model, frame):
    """(anchors, 7) boxes and (anchors, 3) scores of a frame, from the head's last forward."""
    out = model.dense_head.forward_ret_dict
    codes = out["box_preds"][frame].detach().double().numpy().reshape(-1, 7)
    logits = out["cls_preds"][frame].detach().double().numpy().reshape(-1, 3)
    return decoded(codes, model.dense_head.anchor_table.double().numpy()), 1 / (1 + np.exp(-logits))


def kept(boxes, scores, num, threshold):
    """The best boxes that are good enough."""
    best = np.argsort(-scores.max(axis=1))[:num]
    best = best[scores[best].max(axis=1) >= threshold]
    return list(zip(boxes[best], scores[best], strict=True))


def overlap(a, b):
    if np.hypot(*(a[:2] - b[:2])) > (np.hypot(*a[3:5]) + np.hypot(*b[3:5])) / 2:
        return 0.0  # the reference takes its time
    return float(boxes_iou_bev(torch.tensor(a)[None], torch.tensor(b)[None]))


def smooth_l1(delta, beta=1 / 9):
    size = np.abs(delta)
    return np.where(size < beta, size**2 / (2 * beta), size - beta / 2).sum()


def pairs_of(distiller, batch, num=40, threshold=0.3, student_threshold=0.3, iou=0.7):
    """For each frame, the differences of the boxes and of the scores of every pair."""
    distiller.teacher.forward_features(dict(batch))
    found = []
    for frame in range(batch["batch_size"]):
        ours = kept(*predictions(distiller.student, frame), num, student_threshold)
        theirs = kept(*predictions(distiller.teacher, frame), num, threshold)
        found.append([])
        for box, score in ours:
            same = [(b, s) for b, s in theirs if s.argmax() == score.argmax()]
            shares = [overlap(box, b) for b, _ in same]
            if shares and max(shares) > iou:
                b, s = same[int(np.argmax(shares))]
                found[-1].append((box - b, score - s))
    return found


def formula(pairs, by_sine=True):
    total = 0.0
    for frame in pairs:
        for box, score in frame:
            turn = np.sin(box[6]) if by_sine else 2 * np.sin(box[6] / 2)
            total += (smooth_l1([*box[:6], turn]) / 7 + smooth_l1(score)) / len(frame)
    return total / len(pairs)


@pytest.mark.parametrize(
    ("classifier", "heading"), [(True, 0.0), (True, math.pi), (False, 0.0), (False, math.pi)], ids=str
)
def test_the_loss_is_the_formula_box_by_box(batch, classifier, heading):
    """Half a turn is a difference where no classifier tells the two ways round apart, and none where one does."""
    distiller = pair_of(classifier=classifier, heading=heading)
    logs = distiller(batch)[1]
    pairs = pairs_of(distiller, batch)
    counts = [len(frame) for frame in pairs]
    assert min(counts) > 3 and max(counts) < NODE["NUM"] and len(set(counts)) == 2, (
        "or a mean over frames is one over pairs"
    )
    assert logs["kd/BoxConsistency"] == pytest.approx(formula(pairs, by_sine=classifier), rel=1e-3)
    assert logs["kd/BoxConsistency/pairs"] == np.mean(counts)
    parts = logs["kd/BoxConsistency/box"], logs["kd/BoxConsistency/cls"]
    assert sum(parts) == pytest.approx(logs["kd/BoxConsistency"]) and logs["kd/BoxConsistency/iou"] > 0.7
    assert (parts[0] > 0.1) == (heading > 0 and not classifier)


def test_thresholds_overlap_and_number_decide_which_boxes_take_part(batch):
    keys = {"THRESHOLD": 0.9, "STUDENT_THRESHOLD": 0.6, "IOU": 0.5, "NUM": 25}
    distiller = pair_of(**keys)
    logs = distiller(batch)[1]
    pairs = pairs_of(distiller, batch, **{key.lower(): value for key, value in keys.items()})
    assert logs["kd/BoxConsistency"] == pytest.approx(formula(pairs), rel=1e-3)
    assert logs["kd/BoxConsistency/boxes"] <= 25 and logs["kd/BoxConsistency/pairs"] == np.mean([*map(len, pairs)])


def test_weights_are_of_the_two_parts(batch):
    logs = [pair_of(BOX_WEIGHT=b, CLS_WEIGHT=c)(batch)[1] for b, c in ((1.0, 1.0), (2.0, 3.0))]
    for part, factor in (("box", 2), ("cls", 3)):
        key = f"kd/BoxConsistency/{part}"
        assert logs[1][key] == pytest.approx(factor * logs[0][key], rel=1e-5) and logs[0][key] > 0


def test_a_teacher_that_is_its_own_student_has_nothing_to_teach(batch):
    student = sure_detector()
    logs = step(distil(NODE, student=student, teacher=copy.deepcopy(student), TEACHER={"MODE": "train"}), batch)
    assert logs["kd/BoxConsistency"] == pytest.approx(0, abs=1e-9) and logs["kd/BoxConsistency/pairs"] > 0


def test_without_a_pair_the_loss_is_zero_with_gradients(batch):
    distiller = distil(NODE)  # heads that begin with scores of a hundredth
    ret_dict, logs, _ = distiller(batch)
    assert logs["kd/BoxConsistency"] == logs["kd/BoxConsistency/pairs"] == 0
    (ret_dict["loss"] - distiller.student.get_training_loss()[0]).backward()
    assert bool(distiller.student.dense_head.conv_cls.weight.grad.isfinite().all())


@pytest.mark.parametrize("log_size", [1e4, 85.0, 30.0], ids=["infinite", "8e36", "1e13"])
@pytest.mark.parametrize("side", ["teacher", "student"])
def test_boxes_without_end_take_no_part(batch, log_size, side):
    """Sizes are exponentials of what the head says: a detector that diverges has such boxes before any is infinite."""
    distiller = pair_of()
    with torch.no_grad():
        getattr(distiller, side).dense_head.conv_box.bias[3::7] = log_size
    logs = distiller(batch)[1]
    if side == "student":
        assert logs["kd/BoxConsistency"] == 0 and logs["kd/BoxConsistency/student_boxes"] == 0
        return
    assert logs["kd/BoxConsistency"] == 0 and logs["kd/BoxConsistency/boxes"] == 0


def test_its_gradient_reaches_the_backbone_through_boxes_and_scores(batch):
    for keys in ({"BOX_WEIGHT": 0.0}, {"CLS_WEIGHT": 0.0}):
        distiller = pair_of(**keys)
        ret_dict, _, _ = distiller(batch)
        (ret_dict["loss"] - distiller.student.get_training_loss()[0]).backward()
        assert distiller.student.vfe.pfn_layers[0].linear.weight.grad.abs().sum() > 0
        assert all(p.grad is None for p in distiller.teacher.parameters())


@pytest.mark.parametrize("keys", [{"NUM": 0}, {"THRESHOLD": 1.5}, {"IOU": -0.1}, {"BETA": -1.0}])
def test_impossible_keys_are_refused(keys):
    with pytest.raises(ConfigError, match="NUM must be at least 1, THRESHOLD, STUDENT_THRESHOLD and IOU in"):
        distil(NODE | keys)
