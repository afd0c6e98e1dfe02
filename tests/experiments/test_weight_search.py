"""The weight search: every factor once, and on with it after a kill."""

import pytest

from pcdet.experiments.plans.weight_search import WeightSearch

FACTORS = [1 / 3, 1.0, 3.0]


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "search" / "weights.journal"


def test_every_factor_has_one_trial(journal):
    trials = WeightSearch(journal, FACTORS).ask("4x/fitnet")
    assert list(trials) == FACTORS
    assert sorted(trials.values()) == [0, 1, 2]


def test_a_search_that_was_killed_goes_on_with_its_trials(journal):
    before = WeightSearch(journal, FACTORS).ask("4x/fitnet")
    again = WeightSearch(journal, FACTORS)
    assert again.ask("4x/fitnet") == before
    assert again.tell("4x/fitnet", {1 / 3: 5.0, 1.0: 7.0, 3.0: 6.0}) == 1.0
    assert WeightSearch(journal, FACTORS).tell("4x/fitnet", {1 / 3: 5.0, 1.0: 7.0, 3.0: 6.0}) == 1.0


def test_a_search_that_was_killed_while_a_trial_began_goes_on(journal):
    study = WeightSearch(journal, FACTORS)._study("4x/fitnet")
    for factor in FACTORS:
        study.enqueue_trial({"factor": factor})
    study.ask()  # the trial runs, and its factor is not written yet
    assert WeightSearch(journal, FACTORS).tell("4x/fitnet", {1 / 3: 5.0, 1.0: 7.0, 3.0: 6.0}) == 1.0


def test_of_equal_factors_the_smaller_is_taken(journal):
    assert WeightSearch(journal, FACTORS).tell("4x/pkd", dict.fromkeys(FACTORS, 4.0)) == 1 / 3


def test_other_factors_are_another_search(journal):
    assert WeightSearch(journal, FACTORS).tell("4x/pkd", {1 / 3: 9.0, 1.0: 7.0, 3.0: 6.0}) == 1 / 3
    assert WeightSearch(journal, [3.0, 9.0]).tell("4x/pkd", {3.0: 6.0, 9.0: 8.0}) == 9.0


def test_methods_do_not_share_trials(journal):
    search = WeightSearch(journal, FACTORS)
    assert search.tell("4x/pkd", {1 / 3: 9.0, 1.0: 7.0, 3.0: 6.0}) == 1 / 3
    assert search.tell("4x/cwd", {1 / 3: 1.0, 1.0: 7.0, 3.0: 9.0}) == 3.0
