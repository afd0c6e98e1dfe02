"""The KITTI evaluation against shapely and a plain loop over the devkit's rules."""

import math

import numpy as np
import pytest
from shapely import affinity
from shapely.geometry import box as shapely_box
from support.kitti_annos import random_frames, run

from pcdet.datasets.kitti.kitti_object_eval_python import rules
from pcdet.datasets.kitti.kitti_object_eval_python.matching import score_thresholds, threshold_places
from pcdet.datasets.kitti.kitti_object_eval_python.overlaps import shared_area

# ---- overlaps


def as_polygon(box):
    x, z, length, width, turn = box
    # x right, z ahead: KITTI's rotation turns x towards -z
    return affinity.translate(
        affinity.rotate(shapely_box(-length / 2, -width / 2, length / 2, width / 2), -turn, (0, 0), True), x, z
    )


def shapely_area(a, b):
    return as_polygon(a).intersection(as_polygon(b)).area


def random_rectangles(rng, num, spread=2.0):
    return np.column_stack([rng.normal(40, spread, (num, 2)), rng.uniform(0.3, 5, (num, 2)), rng.uniform(-7, 7, num)])


def test_shared_area_equals_shapely():
    rng = np.random.default_rng(0)
    a, b = random_rectangles(rng, 3000), random_rectangles(rng, 3000)
    expected = [shapely_area(*pair) for pair in zip(a, b, strict=True)]
    assert np.mean(np.array(expected) > 0) > 0.4
    np.testing.assert_allclose(shared_area(a, b), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("turn", [0.0, 1e-17, 1e-9, -1e-4, math.pi / 2, math.pi, -math.pi / 2, 2 * math.pi])
@pytest.mark.parametrize("shift", [0.0, 1e-12, 1e-3])
def test_shared_area_of_nearly_coinciding_rectangles(turn, shift):
    rng = np.random.default_rng(1)
    a = random_rectangles(rng, 200)
    a[:100, 4] = np.round(a[:100, 4] / (math.pi / 2)) * (math.pi / 2)
    b = a + [shift, -shift, 0, 0, turn]
    expected = [shapely_area(*pair) for pair in zip(a, b, strict=True)]
    np.testing.assert_allclose(shared_area(a, b), expected, rtol=0, atol=1e-10)


def test_touching_rectangles_share_nothing_and_inner_ones_their_area():
    a = np.array([[0, 0, 2, 1, 0.0], [0, 0, 2, 1, 0.4], [5, 5, 4, 4, 0.1]])
    b = np.array([[2, 0, 2, 1, 0.0], [2 * math.cos(0.4), -2 * math.sin(0.4), 2, 1, 0.4], [5, 5, 1, 2, 2.0]])
    np.testing.assert_allclose(shared_area(a, b), [0, 0, 2], atol=1e-15)
    np.testing.assert_allclose(shared_area(b, a), [0, 0, 2], atol=1e-15)


def test_a_rectangle_with_one_negative_side_has_no_inside():
    a = np.array([[0, 0, 2, 1, 0.0], [0, 0, -2, -1, 0.0]])
    b = np.array([[0, 0, -2, 1, 0.0], [0, 0, 2, 1, 0.0]])
    np.testing.assert_allclose(shared_area(a, b), [0, 2])


# ---- the devkit's rules as plain loops


def slow_thresholds(scores, num_gt):
    scores, chosen, recall = sorted(scores, reverse=True), [], 0.0
    for i, score in enumerate(scores):
        last = i == len(scores) - 1
        left = (i + 1) / num_gt
        right = left if last else (i + 2) / num_gt
        if right - recall < recall - left and not last:
            continue
        chosen.append(score)
        recall += 1 / 40
    return chosen


@pytest.mark.parametrize("seed", range(20))
def test_thresholds_equal_those_of_a_walk_over_all_scores(seed):
    rng = np.random.default_rng(seed)
    num = int(rng.integers(1, 3000))
    scores = np.round(rng.random(int(rng.integers(0, num + 1))), int(rng.integers(1, 6)))
    assert score_thresholds(scores, num).tolist() == slow_thresholds(scores.tolist(), num)


def test_threshold_places_of_many_sizes_at_once_equal_those_of_walks():
    sizes = [(hits, objects) for objects in range(1, 90) for hits in range(objects + 1)]
    found = threshold_places(*np.array(sizes).T)
    for (hits, objects), places in zip(sizes, found, strict=True):
        walk = slow_thresholds(range(hits), objects)  # the i-th highest score is hits - 1 - i
        assert places.tolist() == [hits - 1 - score for score in walk] + [-1] * (41 - len(walk))


def slow_overlap(metric, d, g, of_det=False):
    if metric == "bbox":
        w = min(d["bbox"][2], g["bbox"][2]) - max(d["bbox"][0], g["bbox"][0])
        h = min(d["bbox"][3], g["bbox"][3]) - max(d["bbox"][1], g["bbox"][1])
        if w <= 0 or h <= 0:
            return 0.0
        size = [(o["bbox"][2] - o["bbox"][0]) * (o["bbox"][3] - o["bbox"][1]) for o in (d, g)]
        return w * h / (size[0] if of_det else sum(size) - w * h)
    boxes = [
        (o["location"][0], o["location"][2], o["dimensions"][0], o["dimensions"][2], o["rotation_y"]) for o in (d, g)
    ]
    if metric == "bev":
        size = [o["dimensions"][0] * o["dimensions"][2] for o in (d, g)]
        height = 1.0
    else:
        size = [float(np.prod(o["dimensions"])) for o in (d, g)]
        height = min(o["location"][1] for o in (d, g)) - max(o["location"][1] - o["dimensions"][1] for o in (d, g))
    shared = shapely_area(*boxes) * max(0.0, height)
    return shared / (size[0] if of_det else sum(size) - shared)


def slow_match(gts, dets, gt_state, det_state, overlap, limit, threshold):
    """One frame: (true positives as (gt, det) index pairs, assigned detections)."""
    hits, assigned = [], set()
    for g in range(len(gts)):
        if gt_state[g] == -1:
            continue
        best, best_overlap, best_score, best_ignored = None, 0.0, -1e7, False
        for d in range(len(dets)):
            if det_state[d] == -1 or d in assigned or (threshold is not None and dets[d]["score"] < threshold):
                continue
            value = overlap(d, g)
            if not value > limit:
                continue
            if threshold is None:
                if dets[d]["score"] > best_score:
                    best, best_score = d, dets[d]["score"]
            elif det_state[d] == 0 and (best is None or best_ignored or value > best_overlap):
                best, best_overlap, best_ignored = d, value, False
            elif det_state[d] == 1 and best is None:
                best, best_ignored = d, True
        if best is not None:
            assigned.add(best)
            if gt_state[g] == 0 and det_state[best] == 0:
                hits.append((g, best))
    return hits, assigned


def slow_curve(gt, dt, class_name, metric, limit, level, cache):
    """Precision and orientation similarity (41 points each) of one class; ``cache`` holds overlaps of these frames."""
    same = [name.lower() for name in (class_name, rules.NEIGHBOURS.get(class_name, "nothing"))]
    frames, num_gt = [], 0
    for index, (gts, dets) in enumerate(zip(gt, dt, strict=True)):
        gt_state = []
        for g in gts:
            hard = (
                g["occluded"] > (0, 1, 2)[level]
                or g["truncated"] > (0.15, 0.3, 0.5)[level]
                or g["bbox"][3] - g["bbox"][1] <= (40, 25, 25)[level]
            )
            name = g["name"].lower()
            gt_state.append(-1 if name not in same else 1 if hard or name != same[0] else 0)
        det_state = []
        for d in dets:
            small = int(abs(d["bbox"][1] - d["bbox"][3])) < (40, 25, 25)[level]
            det_state.append(1 if small else 0 if d["name"].lower() == same[0] else -1)

        def overlap(d, g, index=index, gts=gts, dets=dets):
            if (metric, index, d, g) not in cache:
                cache[metric, index, d, g] = slow_overlap(metric, dets[d], gts[g])
            return cache[metric, index, d, g]

        areas = [g for g in gts if g["name"].lower() == "dontcare"]
        excused = {
            d
            for d in range(len(dets))
            if det_state[d] == 0 and any(slow_overlap(metric, dets[d], area, True) > limit for area in areas)
        }
        frames.append((gts, dets, gt_state, det_state, overlap, excused))
        num_gt += gt_state.count(0)
    scores = [f[1][d]["score"] for f in frames for _, d in slow_match(*f[:5], limit, None)[0]]
    precision, similarity = np.zeros(41), np.zeros(41)
    for point, threshold in enumerate(slow_thresholds(scores, num_gt)):
        tp = fp = angles = 0
        for gts, dets, gt_state, det_state, overlap, excused in frames:
            hits, assigned = slow_match(gts, dets, gt_state, det_state, overlap, limit, threshold)
            tp += len(hits)
            angles += sum((1 + math.cos(gts[g]["alpha"] - dets[d]["alpha"])) / 2 for g, d in hits)
            fp += sum(
                det_state[d] == 0 and d not in assigned and d not in excused and not dets[d]["score"] < threshold
                for d in range(len(dets))
            )
        precision[point], similarity[point] = (tp / (tp + fp), angles / (tp + fp)) if tp + fp else (0, 0)
    return [np.maximum.accumulate(curve[::-1])[::-1] for curve in (precision, similarity)]


def as_objects(annos):
    return [[{key: value[i] for key, value in frame.items()} for i in range(len(frame["name"]))] for frame in annos]


@pytest.mark.parametrize("seed", range(3))
def test_curves_equal_a_plain_loop_over_the_rules(seed):
    gt, dt = random_frames(seed)
    results = run(gt, dt, rules.CLASS_NAMES)
    slow_gt, slow_dt = as_objects(gt), as_objects(dt)
    seen, cache = 0, {}
    for set_name, overlaps in rules.OVERLAPS.items():
        for class_name in rules.CLASS_NAMES:
            curves = results[set_name]["curves"][class_name]
            for metric, limit in zip(rules.METRICS, overlaps[class_name], strict=True):
                for level, name in enumerate(rules.DIFFICULTIES):
                    precision, similarity = slow_curve(slow_gt, slow_dt, class_name, metric, limit, level, cache)
                    np.testing.assert_allclose(curves[metric][name], precision, rtol=0, atol=1e-12)
                    if metric == "bbox":
                        np.testing.assert_allclose(curves["aos"][name], similarity, rtol=0, atol=1e-12)
                    seen += precision.any()
    assert seen > 50


def test_crowded_frames_are_measured_in_chunks(monkeypatch):
    gt, dt = random_frames(9, frames=30)
    whole = run(gt, dt)
    monkeypatch.setattr("pcdet.datasets.kitti.kitti_object_eval_python.overlaps.CHUNK", 7)
    assert run(gt, dt) == whole
