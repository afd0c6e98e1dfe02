"""Sentences that warn of what the numbers of a plan do not say."""

from support.synthetic_results import results, run, small_results

from pcdet.experiments.results.files import parse_results
from pcdet.experiments.results.groups import Reported
from pcdet.experiments.results.sentences import claims


def said(content) -> str:
    return "\n".join(claims(Reported(parse_results(content))))


def made_with(facts, method, seed, score=50.0):
    content = run(method, score, seed=seed)
    return {**content, "run": {**content["run"], **facts}}


def test_runs_of_two_versions_of_the_code_are_told_with_both():
    """A loss that was changed in between would look like a gain."""
    old, new = {"git_commit": "a" * 40}, {"git_commit": "a" * 40 + "-dirty"}
    assert "versions of the code" not in said(results([made_with(old, "plain", 0), made_with(old, "fitnet", 0)]))
    text = said(results([made_with(old, "plain", 0), made_with(new, "fitnet", 0)]))
    assert "made by different versions of the code (aaaaaaaaaaaa, aaaaaaaaaaaa-dirty)" in text


def test_runs_on_two_kinds_of_devices_are_told_with_both():
    devices = [{"device": {"type": "cuda", "cpu": "some", "gpu": name}} for name in ("A100", "H100")]
    runs = [made_with(facts, "plain", seed) for seed, facts in enumerate(devices)]
    assert "made on different devices (A100, H100)" in said(results(runs))


def test_of_a_teacher_with_one_length_it_is_not_said_whether_it_would_have_improved():
    content = small_results()
    teacher = content["choices"]["teachers"]["pp"]
    assert "it had not stopped improving" in said(content)
    teacher["lengths"] = teacher["lengths"][-1:]
    assert "trained for 24 epochs; no other length was tried" in said(content)


def test_a_control_that_is_best_at_the_longest_training_tried_is_told():
    """Its learning curve may rise on: then no gain over it holds against a training that is longer still."""
    content = small_results()
    tried = [{"length": length, "search": 50.0 + length} for length in (1.0, 2.0, 4.0)]
    for length, told in ((2.0, False), (4.0, True)):
        content["choices"]["best_length"]["4x"] = {"lengths": tried, "chosen": length}
        text = "4x: plain is best at the longest training that was tried, 4 times the length"
        assert (text in said(content)) == told
