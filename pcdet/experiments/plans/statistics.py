"""Gains of runs over controls of the same seeds: intervals, p-values, and their correction for many comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pcdet.datasets.frame_scores import FrameScores

CONFIDENCE = 0.95
NO_SPREAD = 1e-9  # of the largest difference: below it, differences are one number but for rounding
LEAST_BLOCKS = 10  # with fewer, resamples of whole scenes would hardly differ
MOST_FLIPS = 9999  # beyond 13 seeds, the permutation test draws this many of all flips of signs

Interval = tuple[float, float]


@dataclass(frozen=True)
class Gain:
    """The mean gain of paired runs, and how sure it is.

    Attributes:
        mean: mean of the differences.
        interval: 95 % paired t interval over seeds; None for one seed.
        bootstrap: 95 % percentile interval over seeds and test frames drawn together; None where none was asked for,
            and for one seed, whose resamples would not differ in their seeds. With few seeds it is too narrow, since
            it knows no other seeds than these; the t interval makes up for that, but sees one set of test frames.
        p: two-sided p-value of the mean, from all flips of the differences' signs.
        p_least: the smallest p-value that so many seeds can give, 2 ** (1 - seeds).
        seeds: number of pairs.
        differences: one a pair, own minus control.
    """

    mean: float
    interval: Interval | None
    bootstrap: Interval | None
    p: float
    p_least: float
    seeds: int
    differences: tuple[float, ...]

    @property
    def shown(self) -> bool:
        """Whether there is an interval and every one that there is leaves zero out, on the same side."""
        if self.interval is None:
            return False
        intervals = [interval for interval in (self.interval, self.bootstrap) if interval is not None]
        return all(low > 0 for low, _ in intervals) or all(high < 0 for _, high in intervals)


def paired_gain(own: Sequence[float], control: Sequence[float], bootstrap: Sequence[float] | None = None) -> Gain:
    """Compares runs with controls, pair by pair.

    Args:
        own: one number a seed, such as mAP.
        control: the same of the control, in the same order of seeds.
        bootstrap: mean gains of resamples, from `Bootstrap.gains`.

    Returns:
        The gain. Differences that are one number have an interval of no width, as the formula says.

    Raises:
        ValueError: no numbers, different numbers of them, or one that is not finite; it is named.
    """
    own, control = _numbers("own", own), _numbers("control", control)
    if len(own) != len(control):
        raise ValueError(
            f"own and control must hold one number for each of the same seeds, got {len(own)} and {len(control)}"
        )
    differences = own - control
    between = None if bootstrap is None else percentile_interval(_numbers("bootstrap", bootstrap))
    num = len(differences)
    return Gain(
        mean=float(differences.mean()),
        interval=_t_interval(own, control) if num > 1 else None,
        bootstrap=between if num > 1 else None,
        p=_sign_flip_p(differences),
        p_least=2.0 ** (1 - num),
        seeds=num,
        differences=tuple(differences.tolist()),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts the p-values of a family of comparisons by Holm's step-down method.

    S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979). The
    i-th smallest of m p-values is multiplied by m - i + 1, and none is below the one before it, nor above 1.

    Args:
        p_values: one a comparison, in any order.

    Returns:
        Adjusted p-values in the same order. Those below a level are significant at it, with that chance of one or more
        false ones in the whole family.

    Raises:
        ValueError: no p-values, or one outside of 0 to 1.
    """
    p = _numbers("p_values", p_values)
    if (p < 0).any() or (p > 1).any():
        wrong = np.flatnonzero((p < 0) | (p > 1))[0]
        raise ValueError(f"p_values must lie between 0 and 1, number {wrong} is {p[wrong]}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


class Bootstrap:
    """Mean gains in a score where seeds and test frames are drawn anew, both with replacement.

    A resample draws as many pairs of runs as there are, and as many frames as there are; its frames are the same for
    all of its runs, since a test set with harder frames is harder for all of them. All calls draw the same frames, so
    that a run that is compared with many others is scored once.

    Frames that are much alike, those of one block, are drawn together: a scene's key frames, half a second apart, say
    little more than one of them about other scenes. With fewer blocks than ``LEAST_BLOCKS`` frames are drawn singly.

    Args:
        resamples: R, how many to draw.
        seed: of the draws. The same seed gives the same numbers.

    Raises:
        ValueError: no resamples.
    """

    def __init__(self, resamples: int = 1000, seed: int = 0):
        if resamples < 1:
            raise ValueError(f"resamples must be at least 1, got {resamples}")
        self.resamples, self.seed = resamples, seed
        self._scores: dict[int, tuple[FrameScores, np.ndarray]] = {}  # by identity of the run, which is kept with it

    def gains(self, own: Sequence[FrameScores], control: Sequence[FrameScores]) -> np.ndarray:
        """Compares runs with controls.

        Args:
            own: counts of one run a seed, from the data set's ``frame_scores``.
            control: those of the control, in the same order of seeds.

        Returns:
            (R,) gains in points, each the mean over the drawn pairs of own score less the control's.

        Raises:
            ValueError: no runs, different numbers of them, or runs of different test frames, classes or metrics.
        """
        _check_comparable(own, control)
        rng = np.random.default_rng(self.seed)
        frames = draws_of_blocks(rng, own[0].blocks, self.resamples)
        pairs = draws(rng, len(own), self.resamples)
        gains = [self._score_of(a, frames) - self._score_of(b, frames) for a, b in zip(own, control, strict=True)]
        return np.sum(pairs * np.transpose(gains), axis=1) / len(own)

    def _score_of(self, run: FrameScores, frames: np.ndarray) -> np.ndarray:
        if id(run) not in self._scores:
            self._scores[id(run)] = run, run.resampled(frames)
        return self._scores[id(run)][1]


def draws(rng: np.random.Generator, num: int, resamples: int) -> np.ndarray:
    """(R, num) how often each of ``num`` things is among ``num`` draws with replacement."""
    return rng.multinomial(num, np.full(num, 1 / num), size=resamples)


def draws_of_blocks(rng: np.random.Generator, blocks: np.ndarray, resamples: int) -> np.ndarray:
    """(R, F) how often each of F frames is drawn, with all others of its block (F,), if there are enough blocks."""
    names, block_of = np.unique(blocks, return_inverse=True)
    if len(names) < LEAST_BLOCKS:
        return draws(rng, len(blocks), resamples)
    return draws(rng, len(names), resamples)[:, block_of]


def _numbers(name: str, values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name} must be a list of at least one number, got shape {array.shape}")
    if not np.isfinite(array).all():
        wrong = np.flatnonzero(~np.isfinite(array))[0]
        raise ValueError(f"{name} must be finite, number {wrong} is {array[wrong]}")
    return array


def _t_interval(own: np.ndarray, control: np.ndarray) -> Interval:
    differences = own - control
    if np.ptp(differences) <= NO_SPREAD * np.abs(differences).max():
        mean = float(differences.mean())
        return mean, mean  # SciPy gives the same, with a warning that a variance near 0 is inexact
    interval = stats.ttest_rel(own, control).confidence_interval(CONFIDENCE)
    return float(interval.low), float(interval.high)


def percentile_interval(values: np.ndarray) -> Interval:
    """The 95 % interval between the percentiles of (R,) numbers of resamples."""
    outside = (1 - CONFIDENCE) / 2 * 100
    low, high = np.percentile(values, [outside, 100 - outside])
    return float(low), float(high)


def _sign_flip_p(differences: np.ndarray) -> float:
    """The two-sided p-value of the sum, hence of the mean, where each sign could as well be the other one."""
    largest = np.abs(differences).max()
    if len(differences) == 1 or largest == 0:
        return 1.0  # every flip is as extreme; SciPy refuses a single number

    def rounded_sum(flipped: np.ndarray, axis: int) -> np.ndarray:
        return np.round(np.sum(flipped, axis=axis) / largest, 9)  # sums that are equal but for rounding are as extreme

    test = stats.permutation_test(
        (differences,), rounded_sum, permutation_type="samples", vectorized=True, n_resamples=MOST_FLIPS, rng=0
    )
    return float(test.pvalue)


def _check_comparable(own: Sequence[FrameScores], control: Sequence[FrameScores]) -> None:
    if not len(own) or len(own) != len(control):
        raise ValueError(
            f"own and control must hold one run for each of the same seeds, at least one, got {len(own)} and "
            f"{len(control)}"
        )
    for side, runs in (("own", own), ("control", control)):
        for index, run in enumerate(runs):
            _check_same_test(own[0], run, f"{side}[{index}]")


def _check_same_test(first: FrameScores, run: FrameScores, name: str) -> None:
    if run.description != first.description:
        raise ValueError(
            f"all runs must have one metric and list of classes, own[0] has {', '.join(first.description)} and {name} "
            f"has {', '.join(run.description)}"
        )
    for class_name, objects in run.objects.items():
        if not np.array_equal(objects, first.objects[class_name]):
            raise ValueError(
                f"all runs must be tested on the same frames in the same order, but the frames of {name} do not hold "
                f"as many objects of {class_name} as those of own[0]"
            )
    if not np.array_equal(run.blocks, first.blocks):
        raise ValueError(f"all runs must have their frames in the same blocks, {name} has others than own[0]")
