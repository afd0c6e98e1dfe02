"""KD.LABELS: which of the teacher's boxes become labels of the student, and that nothing else changes."""

import copy

import numpy as np
import pytest
import torch
from easydict import EasyDict
from kd_detectors import POINTS, VOXELS, point_rcnn, pointrcnn, second, voxel_batch
from kd_pairs import FACTS, ON_MAP, detector, distil, step
from test_kd_pivotal_logit import with_head

from pcdet.models.kd import build_distiller
from pcdet.models.kd.teacher_labels import LabelsConfig, with_teacher_boxes
from pcdet.registry import ConfigError

CAR, PEDESTRIAN = [3.9, 1.6, 1.56, 0.0], [0.8, 0.6, 1.73, 0.0]


def box(x, y, shape, *rest):
    return [x, y, -0.8, *shape, *rest]


def predictions(*rows):
    """Of one frame: (x, y, shape, score, class) each."""
    boxes = [box(x, y, shape) for x, y, shape, _, _ in rows]
    return {
        "pred_boxes": torch.tensor(boxes).reshape(-1, 7),
        "pred_scores": torch.tensor([row[3] for row in rows]),
        "pred_labels": torch.tensor([row[4] for row in rows], dtype=torch.int64),
    }


TRUE = torch.tensor([[box(5, 0, CAR, 1), [0.0] * 8], [[0.0] * 8, [0.0] * 8]])
FOUND = [
    predictions((5.3, 0.1, CAR, 0.9, 1), (9, 3, CAR, 0.7, 1), (2, 2, PEDESTRIAN, 0.5, 2), (5.5, 0, PEDESTRIAN, 0.9, 2)),
    predictions(),
]


@pytest.mark.parametrize(
    "config, added, doubled",
    [
        ({}, [box(5.5, 0, PEDESTRIAN, 2), box(9, 3, CAR, 1)], 1),  # the pedestrian covers a thirteenth of the car
        ({"score": [0.8, 0.4, 0.6]}, [box(2, 2, PEDESTRIAN, 2), box(5.5, 0, PEDESTRIAN, 2)], 1),
        ({"max_iou": 0.05}, [box(9, 3, CAR, 1)], 2),
        (
            {"max_iou": 1.0},
            [box(5.3, 0.1, CAR, 1), box(5.5, 0, PEDESTRIAN, 2), box(9, 3, CAR, 1)],
            0,
        ),
        ({"score": 1.0}, [], 0),
    ],
)
def test_sure_boxes_join_unless_a_true_one_is_there(config, added, doubled):
    joined, logs = with_teacher_boxes(TRUE, FOUND, LabelsConfig(**config))
    assert torch.equal(joined[0, 0], TRUE[0, 0])
    found = np.array(sorted(joined[0, 1 : 1 + len(added)].tolist())).reshape(-1, 8)
    assert found == pytest.approx(np.array(added).reshape(-1, 8))
    assert not joined[0, 1 + len(added) :].any() and not joined[1].any()
    assert (logs["added"], logs["doubled"]) == (len(added) / 2, doubled / 2)


def labelled(student, teacher, losses=(), facts=FACTS, **labels):
    cfg = EasyDict(KD={"TEACHER": {"CFG": "unused"}, "LABELS": labels, "LOSSES": list(losses)})
    torch.manual_seed(7)
    return build_distiller(cfg, student, facts, teacher=teacher).train()


def sure_teacher():
    """One whose random head is sure of many boxes."""
    teacher = with_head(1).eval()
    torch.manual_seed(0)
    torch.nn.init.normal_(teacher.dense_head.conv_cls.weight, std=50)
    return teacher


def test_the_student_gets_the_final_boxes_of_its_teacher(batch):
    teacher = sure_teacher()
    with torch.no_grad():
        final = copy.deepcopy(teacher)(dict(batch))[0]
    distiller = labelled(detector(), teacher, score=0.9, max_iou=1.0)
    logs = step(distiller, batch)
    wanted = [frame["pred_boxes"][frame["pred_scores"] > 0.9] for frame in final]
    assert min(map(len, wanted)) > 3
    assert logs["kd/labels/added"] == np.mean([len(boxes) for boxes in wanted]) and logs["kd/labels/doubled"] == 0


def test_training_is_a_plain_students_on_the_joined_labels(batch):
    """The expected targets and loss are those of a student alone that is given the joined boxes."""
    teacher = sure_teacher()
    distiller = labelled(detector(), teacher, score=0.9, max_iou=0.1)
    before = {key: value.clone() for key, value in batch.items() if isinstance(value, torch.Tensor)}
    with torch.no_grad():
        final = copy.deepcopy(teacher)(dict(batch))[0]
    joined, _ = with_teacher_boxes(batch["gt_boxes"], final, LabelsConfig(score=0.9, max_iou=0.1))
    plain = detector().train()
    expected = plain({**batch, "gt_boxes": joined})[0]["loss"]
    expected.backward()
    step(distiller, batch)
    assert all(torch.equal(batch[key], value) for key, value in before.items())
    own, alone = distiller.student.dense_head.forward_ret_dict, plain.dense_head.forward_ret_dict
    assert torch.equal(own["box_cls_labels"], alone["box_cls_labels"])
    assert int((own["box_cls_labels"] > 0).sum()) > int((plain_labels(batch) > 0).sum())
    for (name, ours), theirs in zip(distiller.student.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name


def plain_labels(batch):
    student = detector().train()
    student(dict(batch))
    return student.dense_head.forward_ret_dict["box_cls_labels"]


def test_without_a_sure_box_the_student_trains_as_without_a_teacher(batch):
    distiller, plain = labelled(detector(), sure_teacher(), score=1.0), detector().train()
    ret_dict = distiller(batch)[0]
    assert torch.equal(ret_dict["loss"], plain(dict(batch))[0]["loss"])
    for key, value in plain.state_dict().items():
        assert torch.equal(distiller.student.state_dict()[key], value), key


def test_losses_beside_it_still_look_at_the_true_boxes(batch):
    """FGFI's cells are those of the objects, whatever the teacher adds."""
    node = {"NAME": "FGFI"} | ON_MAP
    cells = [
        step(distiller, batch)["kd/FGFI/cells"]
        for distiller in (
            distil(node, teacher=sure_teacher()),
            labelled(detector(), sure_teacher(), [node], score=0.9),
        )
    ]
    assert cells[0] == cells[1]


def test_a_teacher_that_gives_logits_is_read_as_probabilities(batch):
    teachers = sure_teacher(), sure_teacher()
    object.__setattr__(teachers[1].post_processing_cfg, "output_raw_score", True)
    added = [step(labelled(detector(), t, score=0.9), batch)["kd/labels/added"] for t in teachers]
    assert added[0] == added[1] > 0


@pytest.mark.parametrize(
    "block, message",
    [
        ({"LABELS": {"SCORE": 1.5}}, r"KD.LABELS.SCORE: must be a score in \[0, 1\], or one for each class, got 1.5"),
        ({"LABELS": {"SCORE": [0.5, 0.5]}}, "KD.LABELS.SCORE: must name a score for each of 3 classes"),
        ({"LABELS": {"MAX_IOU": -0.1}}, r"KD.LABELS.MAX_IOU: must be in \[0, 1\], got -0.1"),
        ({"LABELS": {}, "TEACHER": {"MODE": "train"}}, "LABELS: need a teacher that finds its boxes"),
    ],
)
def test_wrong_labels_are_named(block, message):
    with pytest.raises(ConfigError, match=message):
        distil(**block)


def test_a_teacher_that_predicts_fewer_columns_is_refused():
    wide = torch.zeros(2, 2, 10)
    with pytest.raises(ValueError, match="KD.LABELS: the teacher's boxes have 7 columns and the true ones 9"):
        with_teacher_boxes(wide, FOUND, LabelsConfig())


@pytest.mark.parametrize(
    "build, facts, given",
    [
        (second, VOXELS, voxel_batch),
        (point_rcnn, POINTS, lambda: pointrcnn.random_batch(points=256)),
    ],
    ids=["second", "pointrcnn"],
)
def test_students_of_other_detectors_train_on_their_teachers_boxes(build, facts, given):
    """A second stage's boxes too."""
    student, teacher, batch = build(0.125, seed=1), build(0.25, seed=2), given()
    if teacher.dense_head is not None:
        torch.nn.init.normal_(teacher.dense_head.conv_cls.weight, std=5)
    with torch.no_grad():
        final = copy.deepcopy(teacher).eval()(dict(batch))[0]
    distiller = labelled(student, teacher, facts=facts, score=0.0, max_iou=1.0)
    logs = step(distiller, batch)
    assert logs["kd/labels/added"] == np.mean([len(frame["pred_boxes"]) for frame in final]) > 3
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in student.parameters())
