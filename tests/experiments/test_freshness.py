import json

import pytest

from pcdet.experiments.running.freshness import claim, digest, first_difference


def test_the_first_difference_is_named_with_its_path_and_both_values():
    old = {"MODEL": {"WIDTH": 0.5, "NAME": "PointPillar"}, "seed": 0}
    new = {"MODEL": {"WIDTH": 0.25, "NAME": "PointPillar"}, "seed": 0}
    assert first_difference(old, new) == "MODEL.WIDTH: 0.5, now 0.25"
    assert first_difference(old, {**old, "teacher": "abc"}) == "teacher: nothing, now abc"
    assert first_difference(old, old) is None


def test_the_first_difference_is_found_inside_lists():
    old = {"LOSSES": [{"NAME": "PointDistiller", "WEIGHT": 5.0}, {"NAME": "PivotalLogit"}]}
    new = {"LOSSES": [{"NAME": "PointDistiller", "WEIGHT": 7.0}, {"NAME": "PivotalLogit"}]}
    assert first_difference(old, new) == "LOSSES[0].WEIGHT: 5.0, now 7.0"
    assert first_difference({"a": [1]}, {"a": [1, 2]}) == "a: [1], now [1, 2]"


def test_the_digest_follows_the_facts_and_not_the_order_of_their_keys():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


def test_a_new_folder_is_claimed_without_a_word(tmp_path):
    assert claim(tmp_path / "run", {"seed": 0}) is None
    assert json.loads((tmp_path / "run" / "job.json").read_text()) == {"seed": 0}


def test_a_folder_of_the_same_facts_keeps_everything(tmp_path):
    claim(tmp_path / "run", {"seed": 0, "cfg": {"lr": (1, 2)}})
    (tmp_path / "run" / "weights").write_text("kept")
    assert claim(tmp_path / "run", {"cfg": {"lr": (1, 2)}, "seed": 0}) is None
    assert (tmp_path / "run" / "weights").read_text() == "kept"


@pytest.mark.parametrize("known", [True, False])
def test_a_folder_of_other_facts_is_put_aside_and_nothing_is_lost(tmp_path, known):
    folder = tmp_path / "run"
    if known:
        claim(folder, {"seed": 0})
    folder.mkdir(exist_ok=True)
    (folder / "weights").write_text("old")
    message = claim(folder, {"seed": 1})
    assert ("seed: 0, now 1" if known else "nothing says how it was made") in message
    assert str(tmp_path / "run-old1") in message
    assert (tmp_path / "run-old1" / "weights").read_text() == "old"
    assert [path.name for path in folder.iterdir()] == ["job.json"]


def test_a_second_old_folder_gets_a_name_of_its_own(tmp_path):
    for seed in range(3):
        claim(tmp_path / "run", {"seed": seed})
    assert json.loads((tmp_path / "run-old1" / "job.json").read_text()) == {"seed": 0}
    assert json.loads((tmp_path / "run-old2" / "job.json").read_text()) == {"seed": 1}
