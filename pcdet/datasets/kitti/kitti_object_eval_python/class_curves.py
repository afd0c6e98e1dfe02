"""What counts, what may be matched without counting, and what is left out, for each class, metric and difficulty."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from pcdet.datasets.kitti.kitti_object_eval_python import rules
from pcdet.datasets.kitti.kitti_object_eval_python.matching import Curve, Problem, recall_curve
from pcdet.datasets.kitti.kitti_object_eval_python.objects import Objects
from pcdet.datasets.kitti.kitti_object_eval_python.overlaps import Pairs, pairs_above


class Measurements:
    """Overlaps of one data set, measured once for each metric, whatever the classes and thresholds.

    Args:
        gt: ground truth.
        dt: detections in the same frames.
        classes: names out of ``rules.CLASS_NAMES`` that will be asked for.
    """

    def __init__(self, gt: Objects, dt: Objects, classes: Sequence[str]):
        self.gt, self.dt = gt, dt
        names = [*classes, *(rules.NEIGHBOURS[name] for name in classes if name in rules.NEIGHBOURS)]
        self._rows = np.flatnonzero(np.isin(gt.label, rules.label_codes(names)))
        self._dont_care_rows = np.flatnonzero(gt.label == rules.LABELS.index(rules.DONT_CARE))
        lowest = np.min([overlaps[name] for overlaps in rules.OVERLAPS.values() for name in classes], axis=0)
        self._lowest = dict(zip(rules.METRICS, lowest.tolist(), strict=True))
        self.has_alpha = not np.any(dt.alpha == rules.NO_ALPHA)
        self.pairs = cache(self._pairs)
        self.dont_care_share = cache(self._dont_care_share)

    def _pairs(self, metric: str) -> Pairs:
        """All candidates of any class."""
        return pairs_above(metric, self.gt, self._rows, self.dt, over=self._lowest[metric])

    def _dont_care_share(self, metric: str) -> np.ndarray:
        """(D,) largest part of each detection that lies in one DontCare area."""
        found = pairs_above(
            metric, self.gt, self._dont_care_rows, self.dt, over=self._lowest[metric], of_detection=True
        )
        share = np.zeros(len(self.dt.label))
        np.maximum.at(share, found.det, found.overlap)
        return share


class ClassTask:
    """The curves of one class."""

    def __init__(self, measured: Measurements, class_name: str):
        self._measured, self._gt, self._dt = measured, measured.gt, measured.dt
        own = rules.label_codes([class_name])[0]
        self._is_class_gt, self._is_class_dt = self._gt.label == own, self._dt.label == own
        self._gt_codes = rules.label_codes([class_name, rules.NEIGHBOURS.get(class_name, class_name)])
        self.curves = cache(self._curves)

    def is_evaluated(self, metric: str) -> bool:
        """Whether one detection of the class has what the metric needs."""
        if metric == "aos":
            return self._measured.has_alpha and self.is_evaluated("bbox")
        return bool(np.any(self.complete(metric)))

    def complete(self, metric: str) -> np.ndarray:
        """Which detections (D,) of the class have what ``bbox``, ``bev`` or ``3d`` needs."""
        dt = self._dt
        if metric == "bbox":
            return self._is_class_dt & (dt.bbox[:, 0] >= 0)
        needed = [0, 2] if metric == "bev" else [0, 1, 2]  # both of x, y, z and of length, height, width
        located = np.all(dt.location[:, needed] != rules.NO_LOCATION, axis=1)
        return self._is_class_dt & located & np.all(dt.dimensions[:, needed] > 0, axis=1)

    def problem(self, metric: str, overlap: float, difficulty: str) -> Problem:
        """What is matched at a minimum overlap and a difficulty out of ``rules.DIFFICULTIES``."""
        pairs, excused = self._candidates(metric, overlap)
        return self._problem(pairs, excused, rules.DIFFICULTIES.index(difficulty))

    def _curves(self, metric: str, overlap: float) -> dict[str, Curve]:
        """The curve of each difficulty at a minimum overlap; those of ``bbox`` carry the orientation similarity."""
        pairs, excused = self._candidates(metric, overlap)
        with_similarity = metric == "bbox" and self._measured.has_alpha
        curves = {}
        for index, level in enumerate(rules.DIFFICULTIES):
            problem = self._problem(pairs, excused, index)
            curves[level] = recall_curve(problem, self._similarity(problem.pairs) if with_similarity else None)
        return curves

    def _candidates(self, metric: str, overlap: float) -> tuple[Pairs, np.ndarray]:
        """Pairs that overlap enough, for every difficulty, and which detections (D,) lie in a DontCare area."""
        pairs = self._measured.pairs(metric)
        keep = (pairs.overlap > overlap) & np.isin(self._gt.label[pairs.row], self._gt_codes)
        return Pairs(*(part[keep] for part in pairs)), self._measured.dont_care_share(metric) > overlap

    def _similarity(self, pairs: Pairs) -> np.ndarray:
        # an angle that is no number is as wrong as the opposite one, and spoils no other pair's sum
        return np.nan_to_num((1 + np.cos(self._gt.alpha[pairs.row] - self._dt.alpha[pairs.det])) / 2)

    def _problem(self, pairs: Pairs, excused: np.ndarray, level: int) -> Problem:
        gt, dt = self._gt, self._dt
        height = gt.bbox[:, 3] - gt.bbox[:, 1]
        gt_counts = self._is_class_gt & ~(
            (gt.occluded > rules.MAX_OCCLUSION[level])
            | (gt.truncated > rules.MAX_TRUNCATION[level])
            | (height <= rules.MIN_HEIGHT[level])
        )
        # not >=, so that a height that is no number is small. Small detections of any class can be matched.
        small = ~(np.abs(dt.bbox[:, 1] - dt.bbox[:, 3]) >= rules.MIN_HEIGHT[level])
        dt_counts = self._is_class_dt & ~small

        keep = (small | dt_counts)[pairs.det]
        pairs = Pairs(*(part[keep] for part in pairs))
        rivals = np.flatnonzero(dt_counts & ~excused)
        rivals = rivals[np.argsort(dt.score[rivals])]
        return Problem(
            pairs=pairs,
            frame=gt.frame[pairs.row],
            scores=dt.score[pairs.det],
            gt_counts=gt_counts[pairs.row],
            det_counts=dt_counts[pairs.det],
            det_excused=excused[pairs.det],
            objects=np.bincount(gt.frame[gt_counts], minlength=gt.num_frames),
            rival_scores=dt.score[rivals],
            rival_frame=dt.frame[rivals],
        )
