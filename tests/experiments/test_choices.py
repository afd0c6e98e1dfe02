"""What a plan decides from its numbers, against decisions made by hand."""

import pytest

from pcdet.experiments.plans import choices


@pytest.mark.parametrize(
    "cost, length, expected",
    [(1.0, 1.0, 1.0), (1.01, 1.0, 1.25), (1.25, 1.0, 1.25), (1.6, 1.0, 1.75), (1.6, 2.0, 3.25), (0.7, 1.0, 1.0)],
)
def test_a_control_at_equal_compute_is_never_shorter_than_its_share_of_the_cost(cost, length, expected):
    assert choices.equal_length(cost, length) == expected


@pytest.mark.parametrize("epochs, expected", [(4, 4), (2.5, 3), (0.25, 1), (10.4, 10)])
def test_a_training_has_whole_epochs_and_half_ones_are_rounded_up(epochs, expected):
    assert choices.whole_epochs(epochs) == expected


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 12])
def test_a_control_at_equal_compute_has_at_least_as_many_epochs_as_the_method_costs(epochs):
    for cost in (0.7, 1.0, 1.01, 1.2, 1.25, 1.4667, 2.1):
        length = choices.whole_length(choices.equal_length(cost), epochs)
        trained = choices.whole_epochs(length * epochs)
        assert trained == pytest.approx(length * epochs) and trained >= cost * epochs - 1e-9


def test_lengths_of_as_many_epochs_are_one_length():
    assert choices.whole_length(1.25, 1) == choices.whole_length(1.75, 1) == 2.0
    assert choices.whole_length(1.75, 12) == 1.75


def test_a_training_has_stopped_improving_when_the_longest_gains_less_than_a_point():
    assert choices.stopped_improving([10.0, 20.0, 20.9])
    assert choices.stopped_improving([10.0, 20.0, 18.0])
    assert not choices.stopped_improving([10.0, 20.0, 21.0])
    assert not choices.stopped_improving([10.0])


def test_of_equal_values_the_first_is_best():
    assert choices.best({1.0: 20.0, 2.0: 25.0, 4.0: 25.0}) == 2.0


def test_finalists_are_the_best_and_those_that_always_go_on_in_the_order_of_the_table():
    means = {"fitnet": 3.0, "pkd": 9.0, "cwd": 5.0, "mgd": 7.0, "pointdistiller": 1.0}
    assert choices.finalists(means, 2, ["pointdistiller"]) == ["pkd", "mgd", "pointdistiller"]
    assert choices.finalists(means, 2, ["pkd"]) == ["pkd", "mgd"]
