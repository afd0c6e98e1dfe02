"""How many more objects of each group students find than their controls, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from pcdet.audit.groups import Members
from pcdet.audit.report import Group, GroupGain, Verdict
from pcdet.audit.tables import JudgedModel, Objects
from pcdet.experiments.plans.statistics import draws, percentile_interval

MIN_FRAMES = 10  # that hold objects of a group; fewer do not tell how other frames would differ
WHOLE = (-1.0, 1.0)  # all that a difference of recalls can be
ROUNDING = 1e-9
Pair = tuple[str, str]  # names of a student and its control


def group_gains(
    members: Sequence[Members],
    groups: Sequence[Group],
    models: Sequence[JudgedModel],
    pairs: Sequence[Pair],
    objects: Objects,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> list[GroupGain]:
    """The gain of every pair in every group.

    Args:
        members: objects of the groups.
        groups: the same groups with their recalls.
        models: judged, with at most one teacher.
        pairs: names of students and their controls.
        objects: of all frames.
        resamples: of the bootstrap.
        seed: of its draws.
    """
    bootstrap = RecallBootstrap(objects, models, resamples, seed)
    teacher = next((model.name for model in models if model.role == "teacher"), None)
    gains = []
    for number, (mine, group) in enumerate(zip(members, groups, strict=True)):
        recall = group.recall
        for (student, control), interval in zip(pairs, bootstrap.intervals(mine.rows, pairs), strict=True):
            gains.append(
                GroupGain(
                    student=student,
                    control=control,
                    group=number,
                    gain=recall[student] - recall[control],
                    interval=interval,
                    verdict=verdict(interval),
                    teacher_worse=None if teacher is None else recall[teacher] < recall[control],
                )
            )
    return gains


def verdict(interval: tuple[float, float]) -> Verdict:
    """``gain`` or ``loss`` where the interval leaves zero out."""
    low, high = interval
    return "gain" if low > ROUNDING else "loss" if high < -ROUNDING else "not shown"


class RecallBootstrap:
    """Gains in recall where test frames and seeds are drawn anew, both with replacement.

    A resample draws as many frames as there are, the same for all models, and as many seeds of each model as it has:
    the same ones for a student and its control where both have the same number, since those are trained with the same
    seeds. Thresholds stay as they are. `pcdet.experiments.plans.statistics.Bootstrap` does the same for a plan's
    average precision, which is made of sums over score thresholds; its draws and its percentiles are used here.

    Args:
        objects: of all frames.
        models: judged.
        resamples: R, how many to draw.
        seed: of the draws; the same seed gives the same numbers.
    """

    def __init__(self, objects: Objects, models: Sequence[JudgedModel], resamples: int = 1000, seed: int = 0):
        self._frame, self._resamples, self._seed = objects.frame, resamples, seed
        self._seeds: dict[tuple[int, int], np.ndarray] = {}  # by number and stream
        self._finds = {model.name: model.finds.astype(np.float64) for model in models}
        self._copies = draws(np.random.default_rng([seed, 0]), len(objects.frames), resamples).astype(np.float64)

    def intervals(self, rows: np.ndarray, pairs: Sequence[Pair]) -> list[tuple[float, float]]:
        """95 % intervals of the gains among some of the objects.

        Args:
            rows: (K,) the objects.
            pairs: names of students and their controls.

        Returns:
            For each pair the percentiles of the resamples that hold one of the objects; from -1 to 1 where they lie in
            fewer than ``MIN_FRAMES`` frames.
        """
        frames, place = np.unique(self._frame[rows], return_inverse=True)
        if len(frames) < MIN_FRAMES:
            return [WHOLE] * len(pairs)
        of_frame = sparse.csr_array((np.ones(len(rows)), (np.arange(len(rows)), place)))  # (K, frames)
        copies = self._copies[:, frames]
        drawn = copies @ np.bincount(place)  # (R,) objects in each resample
        holds = drawn > 0
        recalls = {
            name: (copies[holds] @ (self._finds[name][:, rows] @ of_frame).T) / drawn[holds, None]  # (R', S)
            for name in dict.fromkeys(name for pair in pairs for name in pair)
        }
        intervals = []
        for student, control in pairs:
            own, other = recalls[student], recalls[control]
            same = own.shape[1] == other.shape[1]
            gains = self._over_seeds(own, 1, holds) - self._over_seeds(other, 1 if same else 2, holds)
            intervals.append(percentile_interval(gains))
        return intervals

    def _over_seeds(self, recalls: np.ndarray, stream: int, holds: np.ndarray) -> np.ndarray:
        """(R',) mean over the drawn seeds; a stream of draws is the same in every call."""
        num = recalls.shape[1]
        if (num, stream) not in self._seeds:
            self._seeds[num, stream] = draws(np.random.default_rng([self._seed, stream]), num, self._resamples)
        return np.sum(recalls * self._seeds[num, stream][holds], axis=1) / num
