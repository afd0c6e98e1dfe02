"""PivotalLogit and other losses on the predictions of centre heads, against their formulas with loops over cells."""

import logging

import numpy as np
import pytest
import torch
from kd_centers import (
    CELLS,
    LOGITS,
    batch_of,
    bells_of,
    center_point,
    codes_of,
    distil,
    heat_of,
    objects_of,
)
from kd_pairs import detector

from pcdet.registry import ConfigError

ONE_GROUP = {"CLASS_NAMES_EACH_HEAD": [["Cyclist", "Car", "Pedestrian"]]}
THREE_GROUPS = {"CLASS_NAMES_EACH_HEAD": [["Pedestrian"], ["Car"], ["Cyclist"]]}


def run(node, batch, **pair):
    """(distiller, logs of one step); the teacher has then run on the same batch."""
    distiller = distil(node, **pair)
    logs = distiller(batch)[1]
    with torch.no_grad():
        distiller.teacher.forward_features(dict(batch), decode_boxes=False)
    return distiller, logs


def class_part(distiller, weigh, wanted=None):
    """Mean over the student's groups of the weighted mean of the squared differences, cell by cell.

    Args:
        distiller: after a step.
        weigh: (teacher's best score, height of the bell) -> weight of a cell.
        wanted: (B, classes, cells) the teacher's scores; those of its own cells.
    """
    student, parts = distiller.student, []
    given, wanted = heat_of(student), heat_of(distiller.teacher) if wanted is None else wanted
    for ids, bells in zip(student.dense_head.class_ids, bells_of(student), strict=True):
        total = weights = 0.0
        for frame, cell in np.ndindex(bells.shape):
            ours, theirs = ([scores[frame, i - 1, cell] for i in ids] for scores in (given, wanted))
            weight = weigh(max(theirs), bells[frame, cell])
            total += weight * sum((a - b) ** 2 for a, b in zip(ours, theirs, strict=True))
            weights += weight
        parts.append(total / weights)
    return np.mean(parts)


def box_part(distiller):
    """Mean over the student's groups of the absolute differences at the centres of objects, over their number."""
    student, parts = distiller.student, []
    weights = np.array(student.dense_head.loss_weights.code_weights)
    for branch, ids in enumerate(student.dense_head.class_ids):
        ours, theirs = (codes_of(model, ids[0]) for model in (student, distiller.teacher))
        found = objects_of(student, branch)
        far = [weights @ np.abs(ours[frame, :, cell] - theirs[frame, :, cell]) for frame, cell in found]
        parts.append(sum(far) / max(1, len(far)))
    return np.mean(parts)


@pytest.mark.parametrize("velocity", [False, True])
@pytest.mark.parametrize("groups", [{}, THREE_GROUPS, ONE_GROUP], ids=["two groups", "three groups", "one group"])
def test_the_loss_is_sparsekds_cell_by_cell(velocity, groups):
    pair = {
        "student": center_point(0, velocity=velocity, **groups),
        "teacher": center_point(1, 1, velocity=velocity, **groups),
    }
    distiller, logs = run(LOGITS, batch_of(velocity=velocity), **pair)
    cls, reg = 15 * class_part(distiller, lambda score, bell: score * bell), 0.2 * box_part(distiller)
    assert min(cls, reg) > 0.1
    assert logs["kd/PivotalLogit/cls"] == pytest.approx(cls, rel=1e-4)
    assert logs["kd/PivotalLogit/reg"] == pytest.approx(reg, rel=1e-4)
    assert logs["kd/PivotalLogit"] == pytest.approx(cls + reg, rel=1e-4)


@pytest.mark.parametrize(
    ("keys", "weigh"),
    [
        ({"BY_SCORE": False}, lambda score, bell: bell > 0),
        ({"PIVOT": "score", "THRESHOLD": 0.3, "NUM": 5000}, lambda score, bell: score * (score >= 0.3)),
        (
            {"PIVOT": "both", "THRESHOLD": 0.3, "NUM": 5000, "BY_SCORE": False},
            lambda score, bell: (score >= 0.3) | (bell > 0),
        ),
        (
            {"PIVOT": "confirmed", "THRESHOLD": 0.3, "NUM": 5000},
            lambda score, bell: score * bell * (score >= 0.3),
        ),
    ],
    ids=["positive", "score", "both", "confirmed"],
)
def test_other_pivots_and_weights_follow_the_same_formula(keys, weigh):
    distiller, logs = run(LOGITS | keys, batch_of())
    assert 20 < logs["kd/PivotalLogit/pivots"] < 2000, "of 2048 places"
    assert logs["kd/PivotalLogit/cls"] == pytest.approx(15 * class_part(distiller, weigh), rel=1e-4)
    assert logs["kd/PivotalLogit/reg"] == pytest.approx(0.2 * box_part(distiller), rel=1e-4)


def test_a_rank_keeps_the_cells_of_the_teachers_best_scores_in_each_frame():
    distiller, logs = run(LOGITS | {"PIVOT": "confirmed", "THRESHOLD": 0.0, "NUM": 400}, batch_of())
    heat, pivots = heat_of(distiller.teacher), 0
    best = np.stack([heat[:, [i - 1 for i in ids]].max(axis=1) for ids in distiller.student.dense_head.class_ids], 1)
    bells = np.stack(bells_of(distiller.student), axis=1)
    for frame in range(2):
        least = np.sort(best[frame].ravel())[-400]
        pivots += ((best[frame] >= least) & (bells[frame] > 0)).sum()
    assert 0 < pivots < (bells > 0).sum() and logs["kd/PivotalLogit/pivots"] == pivots / 2


def test_without_a_pivot_the_boxes_of_objects_are_still_compared():
    distiller, logs = run(LOGITS | {"PIVOT": "confirmed", "THRESHOLD": 1.0}, batch_of())
    assert logs["kd/PivotalLogit/pivots"] == logs["kd/PivotalLogit/cls"] == 0
    assert logs["kd/PivotalLogit"] == pytest.approx(0.2 * box_part(distiller), rel=1e-4)


def test_boxes_may_be_averaged_in_each_frame():
    """A frame with one object of a group, and one with two: the means differ."""
    distiller, logs = run(LOGITS | {"REG_OVER": "frame"}, batch_of())
    student, parts = distiller.student, []
    for branch, ids in enumerate(student.dense_head.class_ids):
        ours, theirs = (codes_of(model, ids[0]) for model in (student, distiller.teacher))
        for frame in range(2):
            far = [
                np.abs(ours[frame, :, cell] - theirs[frame, :, cell]).sum()
                for f, cell in objects_of(student, branch)
                if f == frame
            ]
            parts.append(np.mean(far) if far else 0.0)
    assert logs["kd/PivotalLogit/reg"] == pytest.approx(0.2 * np.mean(parts), rel=1e-4)


def test_heat_maps_are_matched_class_by_class_whatever_the_groups():
    """The teacher's one branch has all classes, in another order; boxes are those of its one branch."""
    distiller, logs = run(LOGITS, batch_of(), teacher=center_point(1, 1, **ONE_GROUP))
    assert logs["kd/PivotalLogit/cls"] == pytest.approx(15 * class_part(distiller, lambda s, bell: s * bell), rel=1e-4)
    assert logs["kd/PivotalLogit/reg"] == pytest.approx(0.2 * box_part(distiller), rel=1e-4)


def test_where_the_teacher_splits_a_group_its_boxes_are_refused_and_its_scores_are_not():
    teacher = center_point(1, 1, **THREE_GROUPS)
    message = r"KD.LOSSES\[0\]: PivotalLogit .* none of the teacher's branches \[\[2\], \[1\], \[3\]\] has all classes"
    with pytest.raises(ConfigError, match=message):
        distil(LOGITS, teacher=teacher)
    distiller, logs = run(LOGITS | {"REG_WEIGHT": 0.0}, batch_of(), teacher=teacher)
    assert logs["kd/PivotalLogit"] == pytest.approx(15 * class_part(distiller, lambda s, bell: s * bell), rel=1e-4)


def test_on_a_coarser_map_scores_are_interpolated_and_boxes_left_out_with_a_warning(caplog):
    """The wanted scores are those of torch's bilinear interpolation between the centres of cells."""
    target = {"FEATURE_MAP_STRIDE": 4, "NUM_MAX_OBJS": 20, "GAUSSIAN_OVERLAP": 0.1, "MIN_RADIUS": 2}
    teacher = center_point(1, 1, strides=(4, 2, 2), TARGET_ASSIGNER_CONFIG=target)
    with caplog.at_level(logging.WARNING):
        distiller, logs = run(LOGITS, batch_of(), teacher=teacher, logger=logging.getLogger("test"))
    assert [r.message for r in caplog.records] == [
        "KD loss PivotalLogit leaves out the box part, since the teacher's head has other cells, to which its codes "
        "are relative"
    ]
    heat = torch.from_numpy(heat_of(teacher)).unflatten(2, (16, 16))
    wanted = torch.nn.functional.interpolate(heat, size=CELLS, mode="bilinear", align_corners=False).flatten(2).numpy()
    cls = 15 * class_part(distiller, lambda score, bell: score * bell, wanted)
    assert logs["kd/PivotalLogit"] == pytest.approx(cls, rel=1e-4) and logs["kd/PivotalLogit/reg"] == 0


@pytest.mark.parametrize(
    ("node", "pair", "message"),
    [
        (LOGITS, {"teacher": detector}, "heads of one kind, but the student has a CenterHead and the teacher a Anchor"),
        (
            LOGITS,
            {"student": detector},
            "heads of one kind, but the student has a AnchorHeadSingle and the",
        ),
        (
            LOGITS,
            {"student": lambda: center_point(0, velocity=True)},
            r"predicts \['center', 'center_z', 'dim', 'rot'\] and the student's .*'vel'\]; give both the same HEAD_ORD",
        ),
        (LOGITS | {"CLS_OVER": "anchor"}, {}, "CLS_OVER anchor: a centre head has no anchors; use cell"),
        ({"NAME": "DKD"}, {"teacher": "coarse"}, r"DKD compares cell by cell, .* \(16, 16\) cells of \(0.64, 0.64\) m"),
        ({"NAME": "BoxConsistency"}, {"teacher": "coarse"}, "BoxConsistency compares cell by cell"),
        (
            {"NAME": "FGFI", "FEATURE": "spatial_features_2d"},
            {},
            "FGFI looks at anchors near objects, which CenterHead does not tell",
        ),
    ],
    ids=["anchor teacher", "anchor student", "velocities", "anchors", "other cells", "other cells, boxes", "FGFI"],
)
def test_heads_that_cannot_be_compared_are_refused_before_the_first_step(node, pair, message):
    target = {"FEATURE_MAP_STRIDE": 4, "NUM_MAX_OBJS": 20, "GAUSSIAN_OVERLAP": 0.1, "MIN_RADIUS": 2}
    coarse = lambda: center_point(1, 1, strides=(4, 2, 2), TARGET_ASSIGNER_CONFIG=target)  # noqa: E731
    pair = {side: (coarse if make == "coarse" else make)() for side, make in pair.items()}
    with pytest.raises(ConfigError, match=message):
        distil(node, **pair)


# -------------------------------------------------------------------------------------------------- other predictions


def test_dkd_weighs_the_class_of_the_object_at_a_centre_and_its_groups_others_apart():
    distiller, logs = run({"NAME": "DKD", "ALPHA": 1.5, "WEIGHT": 2.0}, batch_of())
    given, wanted = heat_of(distiller.student), heat_of(distiller.teacher)
    bells = distiller.student.dense_head.forward_ret_dict["target_dicts"]["heatmaps"]
    target, others, counts = np.zeros(2), np.zeros(2), np.zeros(2)
    for branch, ids in enumerate(distiller.student.dense_head.class_ids):
        for frame, cell in objects_of(distiller.student, branch):
            own = bells[branch][frame].flatten(1)[:, cell].numpy()
            assert (own == 1).sum() == 1
            counts[frame] += 1
            for i, bell in zip(ids, own, strict=True):
                s, t = given[frame, i - 1, cell], wanted[frame, i - 1, cell]
                part = target if bell == 1 else others
                part[frame] += t * np.log(t / s) + (1 - t) * np.log((1 - t) / (1 - s))
    assert counts.tolist() == [4, 2]
    expected = [1.5 * np.mean(target / counts), 0.5 * np.mean(others / counts)]
    assert [logs["kd/DKD/target"], logs["kd/DKD/others"]] == pytest.approx(expected, rel=1e-3)
    assert logs["kd/DKD"] == pytest.approx(2 * sum(expected), rel=1e-3)


def test_boxes_a_metre_higher_differ_by_one_metre_and_pair_as_before():
    """Smooth-L1 of 1 m over the seven numbers of a box; from above the boxes are the same, and so are the scores."""
    student, teacher = center_point(3), center_point(3)
    for branch in teacher.dense_head.heads_list:
        branch["center_z"][-1].bias.data += 1.0
    node = {"NAME": "BoxConsistency", "NUM": 400}
    _, logs = run(node, batch_of(), student=student, teacher=teacher, TEACHER={"MODE": "train"})
    assert logs["kd/BoxConsistency/pairs"] == logs["kd/BoxConsistency/student_boxes"] > 5
    assert logs["kd/BoxConsistency"] == pytest.approx((1 - 1 / 18) / 7, rel=1e-4)
