"""Statistics of gains against enumeration, tables, published examples and simulations."""

import itertools

import numpy as np
import pytest
from scipy import stats
from support.kitti_annos import CLASSES, anno, detections, labelled_frames

from pcdet.datasets.kitti.kitti_object_eval_python.by_frame import FrameScores, counts_of_frames, frame_scores
from pcdet.datasets.kitti.kitti_object_eval_python.eval import get_official_eval_result
from pcdet.datasets.kitti.kitti_object_eval_python.matching import Problem
from pcdet.datasets.kitti.kitti_object_eval_python.overlaps import Pairs
from pcdet.experiments.plans.statistics import Bootstrap, draws_of_blocks, holm, paired_gain

# ---- gains over seeds


def bootstrap_gains(own, control, resamples=1000, seed=0):
    return Bootstrap(resamples, seed).gains(own, control)


def test_the_interval_is_that_of_a_t_table():
    gain = paired_gain([61, 64, 62, 66, 67], [60, 62, 59, 62, 62])
    assert gain.differences == (1, 2, 3, 4, 5) and gain.mean == 3 and gain.seeds == 5
    half = 2.776 * np.sqrt(2.5 / 5)  # t of 4 degrees of freedom at 97.5 %, and the variance of 1 to 5
    assert gain.interval == pytest.approx((3 - half, 3 + half), abs=1e-3)
    assert gain.shown and gain.bootstrap is None


def flipped_sums(differences):
    """Sums of whole numbers under all flips of signs."""
    return [sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in
            itertools.product((1, -1), repeat=len(differences))]  # fmt: skip


@pytest.mark.parametrize(
    "differences",
    [
        [3, 4, 1, 2, 6, 2, 5, 9],
        [3, -4, 1, 2, 6, -2, 5, 9],
        [1, 1, -1, 1, 2, 2, -2],
        [0, 0, 1, 0],
        [5, -5, 1],
        [2, 1],
        [0, 0, 0],
    ],
)
def test_p_counts_the_flips_of_signs_that_are_as_extreme(differences):
    sums = flipped_sums(differences)
    expected = np.mean([abs(value) >= abs(sum(differences)) for value in sums])
    base = np.linspace(50, 60, len(differences)) + 0.3  # so that tenths are differences with rounding errors
    for sign in (1, -1):
        gain = paired_gain(base + sign * np.array(differences) / 10, base)
        assert gain.p == pytest.approx(expected, abs=1e-12)


def test_p_of_many_seeds_is_near_that_of_all_flips():
    rng = np.random.default_rng(0)
    differences = rng.integers(-20, 30, 16)
    signs = 1 - 2 * ((np.arange(2**16)[:, None] >> np.arange(16)) & 1)
    expected = np.mean(np.abs(signs @ differences) >= abs(differences.sum()))
    gain = paired_gain(differences, np.zeros(16))
    assert 0.05 < expected < 0.9
    assert gain.p == pytest.approx(expected, abs=0.02)  # four standard errors of 9999 draws
    assert paired_gain(differences, np.zeros(16)).p == gain.p


@pytest.mark.parametrize("seeds", range(1, 11))
def test_p_least_is_reached_where_all_seeds_agree(seeds):
    gain = paired_gain(np.arange(seeds) + 1.5, np.zeros(seeds))
    assert gain.p == gain.p_least == 2 / 2**seeds


def test_one_seed_has_no_interval_and_shows_nothing():
    gain = paired_gain([70], [60], bootstrap=np.linspace(8, 12, 100))
    assert (gain.mean, gain.interval, gain.bootstrap, gain.p, gain.seeds) == (10, None, None, 1, 1)
    assert not gain.shown


@pytest.mark.parametrize(("difference", "shown"), [(0.0, False), (0.1, True), (-0.1, True)])
def test_equal_differences_have_an_interval_of_no_width(difference, shown):
    control = np.array([60.3, 61.7, 59.1])
    gain = paired_gain(control + difference, control)
    assert gain.interval == pytest.approx((difference, difference), abs=1e-12)
    assert gain.shown is shown


def test_the_bootstrap_interval_is_that_of_the_percentiles():
    gain = paired_gain([61, 64], [60, 62], bootstrap=np.random.default_rng(0).permutation(np.arange(1001)))
    assert gain.bootstrap == pytest.approx((25, 975))


@pytest.mark.parametrize(
    ("own", "bootstrap", "shown"),
    [
        ([1.0, 1.1, 1.2], [0.5, 1.5], True),
        ([1.0, 1.1, 1.2], [-0.5, 1.5], False),
        ([1.0, 1.1, 1.2], [0.0, 0.0, 1.5], False),  # both ends belong to an interval
        ([1.0, 0.0, 3.0], [0.5, 1.5], False),
        ([-1.0, -1.1, -1.2], [-1.5, -0.5], True),
        ([-1.0, -1.1, -1.2], [0.5, 1.5], False),  # the intervals contradict each other
    ],
)
def test_a_gain_is_shown_where_every_interval_leaves_zero_out(own, bootstrap, shown):
    assert paired_gain(own, [0, 0, 0], bootstrap).shown is shown


@pytest.mark.parametrize(
    ("own", "control", "bootstrap", "message"),
    [
        ([1, 2], [1], None, "own and control must hold one number for each of the same seeds, got 2 and 1"),
        ([], [], None, "own must be a list of at least one number, got shape (0,)"),
        ([[1]], [1], None, "own must be a list of at least one number, got shape (1, 1)"),
        ([1, 2], [1, float("nan")], None, "control must be finite, number 1 is nan"),
        ([float("inf"), 2], [1, 2], None, "own must be finite, number 0 is inf"),
        ([1, 2], [1, 2], [], "bootstrap must be a list of at least one number"),
        ([1, 2], [1, 2], [0, float("nan")], "bootstrap must be finite, number 1 is nan"),
    ],
)
def test_numbers_that_cannot_be_compared_are_named(own, control, bootstrap, message):
    with pytest.raises(ValueError) as error:
        paired_gain(own, control, bootstrap)
    assert message in str(error.value)


def test_the_t_interval_holds_the_true_gain_in_19_of_20_experiments():
    rng = np.random.default_rng(0)
    seeds = rng.normal(60, 5, (400, 6))  # what a seed does to both sides
    own, control = (seeds + gain + rng.normal(0, 1, seeds.shape) for gain in (1.5, 0))
    gains = [paired_gain(*pair) for pair in zip(own, control, strict=True)]
    held = np.mean([gain.interval[0] <= 1.5 <= gain.interval[1] for gain in gains])
    assert 0.92 < held < 0.98
    none = [paired_gain(a - 1.5, b) for a, b in zip(own, control, strict=True)]
    assert 0.02 < np.mean([gain.shown for gain in none]) < 0.08
    assert 0.01 < np.mean([gain.p <= 0.05 for gain in none]) < 0.06  # 2 of 64 flips, as 4 would be more than 0.05


# ---- many comparisons


def test_holm_of_a_published_example():
    # the example of Wikipedia, "Holm-Bonferroni method": the first and the last hypothesis are rejected at 0.05
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def rejected_step_by_step(p_values, level):
    """Holm's procedure as he wrote it: from the smallest p-value, until one is too large for those that are left."""
    rejected = set()
    for index in sorted(range(len(p_values)), key=p_values.__getitem__):
        if p_values[index] > level / (len(p_values) - len(rejected)):
            break
        rejected.add(index)
    return rejected


@pytest.mark.parametrize("seed", range(20))
def test_holm_rejects_what_the_procedure_rejects_at_every_level(seed):
    rng = np.random.default_rng(seed)
    p = (rng.random(int(rng.integers(1, 15))) ** 3).tolist()
    adjusted = holm(p)
    for level in rng.random(30):
        assert {i for i, value in enumerate(adjusted) if value <= level} == rejected_step_by_step(p, level)


@pytest.mark.parametrize("seed", range(10))
def test_holm_keeps_the_order_and_is_never_below_p_nor_above_1(seed):
    p = np.round(np.random.default_rng(seed).random(12), 1)  # with ties, 0 and 1
    adjusted = np.array(holm(p))
    assert (adjusted >= p).all() and adjusted.max() <= 1
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    assert all(len(set(adjusted[p == value])) == 1 for value in set(p))


@pytest.mark.parametrize(("p", "message"), [([], "at least one"), ([0.5, 1.2], "number 1 is 1.2"), ([-1], "between")])
def test_holm_names_what_is_no_p_value(p, message):
    with pytest.raises(ValueError, match=message):
        holm(p)


# ---- seeds and frames drawn anew


@pytest.fixture(scope="module")
def runs():
    """Three seeds of a better and of a worse detector: counts on the same 20 frames."""
    gt = labelled_frames(0, 20)
    better, worse = (
        [detections(gt, seed, found) for seed in seeds] for found, seeds in ((0.9, (1, 2, 3)), (0.6, (4, 5, 6)))
    )
    return [[frame_scores(gt, dt, CLASSES) for dt in side] for side in (better, worse)]


def test_the_spread_of_resamples_is_that_of_drawing_one_at_a_time(runs):
    own, control = runs
    rng = np.random.default_rng(7)
    frames = np.array([np.bincount(rng.integers(0, 20, 20), minlength=20) for _ in range(600)])
    gain_of_pair = [a.resampled(frames) - b.resampled(frames) for a, b in zip(own, control, strict=True)]
    expected = [np.mean([gain_of_pair[i][k] for i in rng.integers(0, 3, 3)]) for k in range(600)]
    gains = bootstrap_gains(own, control, resamples=3000, seed=1)
    assert gains.shape == (3000,)
    assert gains.mean() == pytest.approx(np.mean(expected), abs=4 * np.std(expected) / np.sqrt(600))
    assert gains.std() == pytest.approx(np.std(expected), rel=0.12)
    assert stats.ks_2samp(gains, expected).pvalue > 1e-3


def test_one_frame_and_one_pair_leave_nothing_to_draw():
    names = ["Car"] * 30
    gt = [anno(names)]
    dts = [[anno(names[:found], scores=np.linspace(0.9, 0.1, found))] for found in (25, 15)]
    own, control = ([frame_scores(gt, dt, ["Car"])] for dt in dts)
    wanted = [get_official_eval_result(gt, dt, ["Car"])[1]["Car_3d/moderate_R40"] for dt in dts]
    assert wanted[0] - wanted[1] > 20
    assert bootstrap_gains(own, control, resamples=5) == pytest.approx(np.full(5, wanted[0] - wanted[1]))


def test_runs_are_drawn_in_pairs():
    """One frame; the first pair alone gains: a resample gains as often as it holds that pair."""
    names = ["Car"] * 30
    gt = [anno(names)]
    good, bad = (
        frame_scores(gt, [anno(names[:found], scores=np.linspace(0.9, 0.1, found))], ["Car"]) for found in (25, 15)
    )
    one = bootstrap_gains([good], [bad], resamples=1)[0]
    gains = bootstrap_gains([good, bad, good, bad], [bad, bad, good, bad], resamples=4000) / one * 4
    times = np.rint(gains).astype(int)
    np.testing.assert_allclose(gains, times, atol=1e-9)
    expected = stats.binom.pmf(np.arange(5), 4, 1 / 4) * 4000
    assert stats.chisquare(np.bincount(times, minlength=5), expected).pvalue > 1e-3


def test_both_sides_have_the_same_frames(runs):
    assert bootstrap_gains(runs[0], runs[0], resamples=50).tolist() == [0] * 50


def test_a_run_that_is_compared_with_many_is_scored_once_and_gains_as_in_a_comparison_alone(runs, monkeypatch):
    alone = [bootstrap_gains(own, control, resamples=40).tolist() for own, control in itertools.permutations(runs, 2)]
    scored, score = [], FrameScores.resampled
    monkeypatch.setattr(FrameScores, "resampled", lambda run, copies: scored.append(id(run)) or score(run, copies))
    bootstrap = Bootstrap(resamples=40)
    together = [bootstrap.gains(own, control).tolist() for own, control in itertools.permutations(runs, 2)]
    assert together == alone
    assert sorted(scored) == sorted({id(run) for side in runs for run in side})


def test_a_seed_gives_the_same_resamples_and_another_seed_others(runs):
    first, again, other = (bootstrap_gains(*runs, resamples=40, seed=seed).tolist() for seed in (3, 3, 4))
    assert first == again
    assert len(set(first) & set(other)) < 5


def simulated_run(hardness, skill, rng):
    """Counts of a run on (F, K) objects, of which it finds those that are not too hard for it, without false alarms."""
    found = hardness + rng.normal(0, 0.3, hardness.shape) < skill
    num_frames, num_objects = hardness.shape
    frame, _ = np.nonzero(found)
    rows = np.flatnonzero(found)
    scores = rng.random(len(rows))
    order = np.argsort(scores)
    yes = np.ones(len(rows), dtype=bool)
    problem = Problem(
        Pairs(rows, np.arange(len(rows)), np.ones(len(rows))), frame, scores, yes, yes, ~yes,
        np.full(num_frames, num_objects), scores[order], frame[order],
    )  # fmt: skip
    return FrameScores("3d", "moderate", {"Car": counts_of_frames(problem, found.sum(axis=1))})


def test_the_bootstrap_interval_holds_the_true_gain_and_is_as_wide_as_the_gains_spread():
    """AP without false alarms is recall: that of a normal hardness below a normal skill is known."""
    rng = np.random.default_rng(0)
    spread = np.sqrt(1 + 0.3**2 + 0.2**2)  # of hardness, of luck, and of a seed's skill
    true_gain = 100 * (stats.norm.cdf(0.5 / spread) - stats.norm.cdf(0.2 / spread))
    means, intervals = [], []
    for _ in range(40):
        hardness = rng.normal(size=(40, 1)) * 0.6 + rng.normal(size=(40, 4)) * 0.8  # frames differ
        own, control = (
            [simulated_run(hardness, rng.normal(skill, 0.2), rng) for _ in range(6)] for skill in (0.5, 0.2)
        )
        gains = bootstrap_gains(own, control, resamples=150)
        once = np.ones((1, 40), dtype=int)
        gain = paired_gain([run.resampled(once)[0] for run in own], [run.resampled(once)[0] for run in control], gains)
        means.append(gain.mean)
        intervals.append(gain.bootstrap)
    low, high = np.transpose(intervals)
    assert np.mean(means) == pytest.approx(true_gain, abs=1)
    assert 0.8 <= np.mean((low <= true_gain) & (true_gain <= high)) <= 1
    assert 0.65 < np.mean(high - low) / (2 * 1.96 * np.std(means)) < 1.5


class InBlocks:
    """A run whose score is the mean of what is known of each frame."""

    description, objects = ("mean",), {}

    def __init__(self, values, blocks):
        self.values, self.blocks, self.num_frames = np.asarray(values, dtype=float), np.asarray(blocks), len(values)

    def resampled(self, copies):
        return copies @ self.values / copies.sum(axis=1)


def test_frames_of_one_block_are_drawn_together():
    """By theory: 40 scenes of 4 equal frames have the spread of 40 frames, which is twice that of 160."""
    rng = np.random.default_rng(0)
    values, nothing = np.repeat(rng.normal(size=40), 4), np.zeros(160)

    def spread(blocks):
        return bootstrap_gains([InBlocks(values, blocks)], [InBlocks(nothing, blocks)], resamples=4000).std()

    assert spread(np.repeat(np.arange(40), 4)) == pytest.approx(values.std() / np.sqrt(40), rel=0.05)
    assert spread(np.arange(160)) == pytest.approx(values.std() / np.sqrt(160), rel=0.05)


def test_blocks_of_different_size_and_in_any_order_are_drawn_whole():
    blocks = np.random.default_rng(0).integers(0, 12, 60)
    drawn = draws_of_blocks(np.random.default_rng(1), blocks, 50)
    for block in range(12):
        of_block = drawn[:, blocks == block]
        assert (of_block == of_block[:, :1]).all()
    assert len(np.unique(drawn, axis=0)) == 50


def test_frames_of_few_blocks_are_drawn_singly():
    """Two scenes have three resamples: an interval of them would say nothing."""
    few, single = np.repeat(np.arange(9), 5), np.arange(45)
    drawn = [draws_of_blocks(np.random.default_rng(0), blocks, 20).tolist() for blocks in (few, single)]
    assert drawn[0] == drawn[1]


def test_runs_of_different_numbers_of_frames_are_told_of_their_frames():
    runs = [frame_scores([anno(["Car"])] * n, [anno(["Car"], scores=[0.5])] * n, ["Car"], "3d") for n in (1, 2)]
    with pytest.raises(ValueError, match=r"the same frames in the same order, but the frames of control\[0\]"):
        bootstrap_gains(runs[:1], runs[1:])


def test_runs_whose_frames_lie_in_other_blocks_are_refused():
    with pytest.raises(ValueError, match=r"the same blocks, control\[0\] has others than own\[0\]"):
        bootstrap_gains([InBlocks([1, 2], [0, 0])], [InBlocks([1, 2], [0, 1])])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"own": []}, "at least one, got 0 and 1"),
        ({"own": [(1, "3d", "Car")] * 2}, "the same seeds, at least one, got 2 and 1"),
        ({"control": [(1, "bev", "Car")]}, "own[0] has 3d, moderate, Car and control[0] has bev, moderate, Car"),
        ({"control": [(1, "3d", "Cyclist")]}, "control[0] has 3d, moderate, Cyclist"),
        (
            {"control": [(2, "3d", "Car")]},
            "the frames of control[0] do not hold as many objects of Car as those of own",
        ),
        ({"resamples": 0}, "resamples must be at least 1, got 0"),
    ],
)
def test_runs_that_cannot_be_resampled_together_are_named(change, message):
    def scores(objects, metric, name):
        return frame_scores([anno(["Car"] * objects)], [anno(["Car"], scores=[0.5])], [name], metric)

    given = {"own": [(1, "3d", "Car")], "control": [(1, "3d", "Car")], "resamples": 3, **change}
    own, control = ([scores(*run) for run in given[side]] for side in ("own", "control"))
    with pytest.raises(ValueError) as error:
        bootstrap_gains(own, control, given["resamples"])
    assert message in str(error.value)
