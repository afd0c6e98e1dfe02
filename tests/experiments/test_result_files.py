import copy
import dataclasses
import json

import pytest
from support.synthetic_results import comparison, results, run, small_results, teacher

from pcdet.experiments.results.files import ResultsError, parse_results, read_results, without_times, write_results
from pcdet.experiments.results.schema import RunFacts


def changed(path, value):
    """The small results with one value replaced, by keys and indices; ``...`` as the value takes the key away."""
    content = copy.deepcopy(small_results())
    place = content
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return content


def problems(content):
    with pytest.raises(ResultsError) as caught:
        parse_results(content)
    return str(caught.value).splitlines()


def test_what_was_written_is_read_and_written_again_to_the_byte(tmp_path):
    first, second = tmp_path / "results.json", tmp_path / "again.json"
    write_results(first, small_results())
    write_results(second, read_results(first))
    assert first.read_bytes() == second.read_bytes()
    assert json.loads(first.read_text()) == json.loads(json.dumps(small_results()))


def test_keys_have_a_fixed_order_whatever_that_of_the_writer(tmp_path):
    write_results(tmp_path / "a.json", small_results())
    turned = dict(reversed(small_results().items()))
    turned["runs"] = [dict(reversed(run.items())) for run in turned["runs"]]
    write_results(tmp_path / "b.json", turned)
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()
    keys = list(json.loads((tmp_path / "b.json").read_text()))
    assert keys == ["schema", "name", "title", "plan", "facts", "classes", "metric", "frames", "runs", "choices",
                    "comparisons"]  # fmt: skip


def test_results_as_objects_are_checked_like_those_from_a_file(tmp_path):
    checked = parse_results(small_results())
    write_results(tmp_path / "r.json", checked)
    assert read_results(tmp_path / "r.json") == checked
    with pytest.raises(ResultsError, match=r"^facts\.folder: must be null, a number, .*got PosixPath; convert it$"):
        write_results(tmp_path / "r.json", dataclasses.replace(checked, facts={"folder": tmp_path}))


def test_floats_keep_every_digit(tmp_path):
    score = 51.123456789012345
    write_results(tmp_path / "r.json", results([run("plain", score)]))
    assert read_results(tmp_path / "r.json").runs[0].search["mAP"] == score + 1.0


def test_wrong_results_leave_the_old_file_as_it_is(tmp_path):
    file = tmp_path / "r.json"
    file.write_text("old")
    with pytest.raises(ResultsError, match="schema"):
        write_results(file, changed(["schema"], 2))
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (["schema"], 2, "schema: must be one of 1; got 2 (int)"),
        (["frames", "report"], 0, "frames.report: must be at least 1, got 0"),
        (["runs", 1, "seed"], "0", "runs[1].seed: expected int, got '0' (str); YAML reads this as text, write 0"),
        (["runs", 1, "stage"], "final", "runs[1].stage: must be one of 'teacher', 'search', 'screening', 'finals', "
         "'curves'; got 'final' (str)"),
        (["runs", 1, "params"], ..., "runs[1].params: missing; Run needs it (int)"),
        (["runs", 1, "run", "started"], "now", "runs[1].run.started: RunFacts has no such key; known: command, "
         "config_digest, dataset, device, git_commit, seed, versions"),
        (["comparisons", 0, "control"], "plainn", "comparisons[0].control: must be a control or a method with runs, "
         "got 'plainn'; did you mean plain?"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_named_with_what_it_must_be_and_what_it_is(path, value, sentence):
    assert problems(changed(path, value)) == [sentence]


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (["facts", "load"], float("nan"), "facts.load: must be finite, got nan; give null for a number that was not "
         "measured"),
        (["plan", 3], "x", "plan: keys must be text, got 3; quote it"),
        (["facts", "folder"], {1}, "facts.folder: must be null, a number, a text, a list or a mapping, got set; "
         "convert it"),
        (["runs", 2, "id"], "4x/plain/x1/seed0", "runs: an id must be of one run, got '4x/plain/x1/seed0' 2 times; "
         "keep one of them"),
        (["runs", 0, "method"], "plain", "runs[0].student: must be null for method 'teacher' and for no other, got "
         "None with method 'plain'; correct one of them"),
        (["runs", 1, "search"], {"map": 1.0}, "runs[1].search: must hold mAP, got ['map']; add it, or give null"),
        (["runs", 1, "report", "Car_3d/moderate_R40"], ..., "runs[1].report: must hold every class, metric and "
         "difficulty, misses Car_3d/moderate_R40; evaluate it anew"),
        (["choices", "teachers", "pp", "chosen"], 36, "choices.teachers.pp.chosen: must be one that was tried "
         "(12, 24), got 36; choose again"),
        (["choices", "weights", "4x", "fitnet", "chosen"], 1.0, "choices.weights.4x.fitnet.chosen: must be one that "
         "was tried (3.0), got 1.0; choose again"),
        (["choices", "finalists", "4x"], ["kd"], "choices.finalists.4x: no run has the method 'kd'; known: "
         "fitnet, plain, slices, teacher"),
        (["choices", "finalists", "4"], [], "choices.finalists.4: no run has this student; did you mean 4x?"),
        (["comparisons", 0, "gains"], [2.4], "comparisons[0].gains: must hold one number a seed (2), got 1; compare "
         "again"),
        (["comparisons", 0, "mean"], 3.0, "comparisons[0].mean: must be that of the gains (2.5), got 3.0; compare "
         "again"),
        (["comparisons", 0, "gains"], [1.0, 4.0], "comparisons[0].gains: must be those of the reported runs of seeds "
         "[0, 1] ([2.4, 2.6]), got [1.0, 4.0]; compare again"),
        (["comparisons", 0, "cost"], 1.0, "comparisons[0].cost: must be the training MACs over the control's (1.5), "
         "got 1.0; compare again"),
        (["comparisons", 0, "p"], 1.5, "comparisons[0].p: must lie in 0 to 1, got 1.5; compare again"),
        (["comparisons", 0, "bootstrap"], [4.0, 0.5], "comparisons[0].bootstrap: must rise, got [4.0, 0.5]; compare "
         "again"),
        (["comparisons", 1, "shown"], True, "comparisons[1].shown: must be False with [-1.77062, 0.77062], got True; "
         "correct it"),
        (["comparisons", 0, "bootstrap"], [-4.0, -0.5], "comparisons[0].shown: must be False with [1.22938, 3.77062] "
         "and [-4.0, -0.5], got True; correct it"),
        (["comparisons", 0, "control"], "self-training", "comparisons[0].method: no run of 'self-training' at length "
         "1.0 has a report for student '4x'; report it"),
        (["comparisons", 1, "control_length"], 2.0, "comparisons[1].method: no run of 'plain' at length 2.0 has a "
         "report for student '4x'; report it"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_named_with_key_value_and_fix(path, value, sentence):
    assert problems(changed(path, value)) == [sentence]


def test_an_interval_may_be_absent_for_one_seed_only():
    wrong = problems(changed(["comparisons", 3, "interval"], None))
    assert wrong[0] == "comparisons[3].interval: must be there for 2 seeds, got null; compare again"
    runs = [run("plain", 50.0), run("fitnet", 51.0)]
    parse_results(results(runs, [comparison("fitnet", "plain", [1.0], None)]))


def test_a_seed_may_be_reported_once():
    runs = [run("plain", 50.0), run("plain", 51.0, id="b")]
    assert problems(results(runs)) == [
        "runs: one run a seed may have a report, got 2 of Key(teacher='pp', student='4x', method='plain', length=1.0), "
        "seed 0; set the others' to null"
    ]
    parse_results(results([runs[0], run("plain", None, id="b")]))


def test_a_name_that_looks_like_a_time_is_refused():
    assert problems(results([run("fast_s", 50.0)])) == [
        "fast_s: a name must not end in _s, which marks times; rename it in the plan"
    ]


def test_a_file_of_another_schema_is_named_with_the_fix(tmp_path):
    file = tmp_path / "r.json"
    file.write_text(json.dumps(changed(["schema"], 0)))
    with pytest.raises(ResultsError, match=r"r\.json cannot be read; run the plan again with this version, which writes"
                       r" schema 1:\nschema: must be one of 1; got 0"):  # fmt: skip
        read_results(file)
    file.write_text(file.read_text()[:40])
    with pytest.raises(ResultsError, match=r"r\.json is no JSON text .*; run the plan again, which writes it anew"):
        read_results(file)


def test_results_that_differ_in_times_only_are_equal_without_them():
    slow = copy.deepcopy(small_results())
    for entry in slow["runs"]:
        entry["train_cpu_s"], entry["train_wall_s"] = 7.0, None
    slow["facts"]["total_s"] = 12
    assert slow != small_results()
    assert without_times(slow) == without_times(small_results())
    assert slow["runs"][0]["train_cpu_s"] == 7.0  # a copy was cut
    other = changed(["runs", 1, "training_macs"], 1)
    assert without_times(other) != without_times(small_results())


def test_a_run_keeps_what_its_result_depends_on_and_no_time():
    run_json = {
        "command": ["train.py"], "started": "2026-01-01", "seed": 3, "git_commit": "abc", "versions": {"torch": "2"},
        "device": {"type": "cpu", "threads": 1}, "world_size": 1, "dataset": None, "config": {"A": 1},
        "sessions": [{"wall_s": 1}], "results": {},
    }  # fmt: skip
    facts = RunFacts.of(run_json)
    assert facts == RunFacts.of({**run_json, "started": "later", "sessions": []})
    assert facts != RunFacts.of({**run_json, "config": {"A": 2}})
    parse_results(results([teacher(run={**vars(facts)})]))
