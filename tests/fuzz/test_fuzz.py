"""The fuzzing machinery finds what it is made to find, by readers that fail on purpose."""

import ctypes
import functools
import itertools
import json
import random
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st

from fuzz import report
from fuzz.__main__ import main
from fuzz.campaign import keep, run
from fuzz.engines import ENGINES, run_bytes, run_hypothesis, run_random
from fuzz.mutate import MAX_SIZE, mutated
from fuzz.op_case import LAYOUTS, laid_out
from fuzz.outcome import CRASH, HANG, MEMORY, OK, REFUSED, WRONG, Outcome, judge
from fuzz.session import Finding, Session, judge_alone
from fuzz.simpler import minimise, shorter
from fuzz.target import Target
from fuzz.targets import OP_TARGETS, READER_TARGETS, TARGETS, replay


def read(path, word=b"!", act=None):
    """Refuses files without an A, and does what it should not where the word stands."""
    data = path.read_bytes()
    if word in data:
        act()
    if b"A" not in data:
        raise ValueError(f"{path} has no A")
    return data


def target(act, **changes):
    options = {"name": "planted", "folder": "planted", "suffix": ".x", "refusals": (ValueError,), "modules": ()}
    options |= {"read": functools.partial(read, act=act), "seeds": lambda: [b"AAAA"], "tokens": [b"!"], "seconds": 0.3}
    return Target(**{**options, **changes})


def fuzzed(made, limit=400, engine=run_bytes):
    session = Session(made, engine, seed="1", seconds=60, limit=limit)
    session.start()
    while session.poll():
        time.sleep(0.005)
    return session


def crash():
    ctypes.string_at(0)


def loop():
    while True:
        pass


def eat():
    return b"x" * (1 << 31)


def hide():
    try:
        eat()
    except MemoryError:
        raise ValueError("input.x is too large") from None


def err():
    raise KeyError("no such key")


def be_vague():
    raise ValueError("something is wrong")


@pytest.mark.parametrize(
    ("act", "kind", "words"),
    [
        (crash, CRASH, "SIGSEGV"),
        (loop, HANG, "loop"),
        (eat, MEMORY, "MemoryError"),
        (hide, MEMORY, "too large"),
        (err, WRONG, "KeyError"),
        (be_vague, WRONG, "does not name the file"),
    ],
)
def test_what_a_reader_must_not_do_is_found_with_the_input_that_makes_it(act, kind, words):
    session = fuzzed(target(act), limit=60 if act is loop else 400)
    assert (
        session.counts[kind] > 0
        and sum(session.counts.values()) == session.counts[OK] + session.counts[REFUSED] + (session.counts[kind])
    )
    (finding,) = session.findings
    assert b"!" in finding.data and words in finding.outcome.reason


def test_a_value_that_breaks_a_promise_is_found():
    def check(value, path):
        assert b"!" not in value, "there is a mark"

    session = fuzzed(target(lambda: None, check=check))
    assert session.counts[WRONG] > 0
    assert session.findings[0].outcome.reason.startswith("accepted, but there is a mark")


def test_a_new_child_goes_on_after_a_crash_until_too_many_have_died():
    session = fuzzed(target(crash), limit=300)
    assert session.counts[CRASH] == session.max_deaths and session.counts[OK] >= session.max_deaths


def test_the_same_seed_gives_the_same_inputs():
    first, second, third = (fuzzed(target(lambda: None), limit=300).counts for _ in range(3))
    assert first == second == third
    rng, again = random.Random("7"), random.Random("7")
    corpus = [b"hello", bytes(200)]
    assert [mutated(rng, corpus, [b"x"]) for _ in range(300)] == [mutated(again, corpus, [b"x"]) for _ in range(300)]


def test_mutations_stay_below_the_largest_size():
    rng = random.Random(0)
    assert max(len(mutated(rng, [bytes(MAX_SIZE)], [b"abc"])) for _ in range(200)) <= MAX_SIZE


def test_minimising_leaves_what_the_failure_needs():
    found = minimise(b"long before!long behind", shorter, lambda data: b"!" in data, seconds=5)
    assert found == b"!"


def test_minimising_ends_in_its_time():
    began = time.monotonic()
    minimise(bytes(range(256)) * 50, lambda data: itertools.repeat(data + b"x"), lambda data: False, seconds=0.2)
    assert time.monotonic() - began < 2


def test_a_finding_is_saved_small_with_its_reason_and_once(tmp_path):
    made = target(err)
    finding = Finding(b"AAAA! and more", judge_alone(made, b"AAAA! and more"))
    kept = keep(made, finding, tmp_path, seconds=10)
    keep(made, finding, tmp_path, seconds=10)
    assert kept.file.read_bytes() == b"!" and kept.file.parent == tmp_path / "planted"
    lines = (tmp_path / "planted/README.md").read_text().splitlines()
    assert len(lines) == 1 and kept.file.name in lines[0] and "KeyError" in lines[0]


def test_errors_that_come_from_one_place_are_one_finding():
    def act():
        raise KeyError(random.random())

    assert len(fuzzed(target(act)).findings) == 1


def test_a_run_counts_every_target_and_engine(tmp_path):
    rows, kept = run(
        [target(err), target(lambda: None, name="sound")], seconds=2, seed="1", jobs=2, save=tmp_path, atheris=False
    )
    assert {(row.target, row.engine) for row in rows} == {("planted", "bytes"), ("sound", "bytes")}
    assert [entry.target for entry in kept] == ["planted"]
    assert all(row.inputs == sum(row.counts.values()) > 0 for row in rows)


def test_counts_of_runs_add_up(tmp_path):
    rows, _ = run([target(lambda: None)], seconds=0.5, seed="1", jobs=1, save=tmp_path, atheris=False)
    file = tmp_path / "new/counts.jsonl"
    report.append(file, rows, "1")
    report.append(file, rows, "2")
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    assert [entry["seed"] for entry in entries] == ["1", "2"] and entries[0]["versions"]["python"]
    assert f"| `planted` | bytes | {report.human_count(2 * rows[0].inputs)} |" in report.summary([file])
    assert f"| `planted` | bytes | {report.human_count(4 * rows[0].inputs)} |" in report.summary([file, file])


def test_the_command_ends_with_1_where_something_failed(tmp_path, monkeypatch, capsys):
    for act, status in ((lambda: None, 0), (err, 1)):
        monkeypatch.setattr("fuzz.__main__.chosen", lambda options, act=act: [target(act)])
        assert main(["--seconds", "1", "--jobs", "1", "--no-atheris", "--save", str(tmp_path)]) == status
    assert "KeyError" in capsys.readouterr().out


def test_the_command_names_the_targets_where_none_fits():
    with pytest.raises(SystemExit, match="no target's name contains kiti; there are points_bin"):
        main(["--targets", "kiti"])
    with pytest.raises(SystemExit, match="no target of the group ops has a name with kitti"):
        main(["--group", "ops", "--targets", "kitti"])


@pytest.mark.parametrize(
    ("arguments", "groups"),
    [
        ([], "readers ops"),
        (["--targets", "kitti"], "readers"),
        (["--targets", "nms"], "ops"),
        (["--group", "ops"], "ops"),
    ],
)
def test_the_command_tells_which_groups_hold_the_targets(arguments, groups, capsys):
    assert main(["--groups", *arguments]) == 0
    assert capsys.readouterr().out.split() == groups.split()


def failing_command(made, monkeypatch, capsys, folder):
    monkeypatch.setattr("fuzz.__main__.chosen", lambda options: [made])
    assert main(["--seconds", "0.3", "--jobs", "1", "--no-atheris", "--save", str(folder)]) == 1
    assert not list(folder.iterdir())  # no input is to blame
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "engine",
    [lambda *arguments: None, lambda *arguments: time.sleep(600)],
    ids=["returns at once", "never returns"],
)
def test_an_engine_that_tries_nothing_fails_by_name(engine, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(ENGINES, "bytes", engine)
    monkeypatch.setattr("fuzz.session.GRACE", 0.5)
    assert "planted, bytes: no input was tried" in failing_command(target(err), monkeypatch, capsys, tmp_path)


@pytest.mark.parametrize("kind", ["bytes", "hypothesis"])
def test_a_target_that_refuses_its_own_seeds_fails_by_name(kind, monkeypatch, capsys, tmp_path):
    def refuse(path):
        raise ValueError(f"{path} is refused, as every file")

    made = target(err, read=refuse, structure=(lambda: st.just(b"B")) if kind == "hypothesis" else None)
    text = failing_command(made, monkeypatch, capsys, tmp_path)
    assert f"planted, {kind}: none of" in text and "not even the seeds" in text


@pytest.mark.parametrize("engine", [run_bytes, run_hypothesis])
def test_an_engine_that_is_late_still_tries_the_first_seed(engine):
    made = target(lambda: None, structure=lambda: st.just(b"A"))
    session = Session(made, engine, seed="1", seconds=1e-9)
    session.start()
    while session.poll():
        time.sleep(0.005)
    assert session.counts[OK] == 1 and sum(session.counts.values()) == 1


@pytest.mark.parametrize("name", [t.name for t in READER_TARGETS])
def test_seeds_are_accepted(name, tmp_path):
    made = TARGETS[name]
    path = made.place(tmp_path, f"input{made.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for data in made.seeds():
        path.write_bytes(data)
        outcomes.append(judge(made, path))
    assert outcomes[0] == Outcome(OK) and not any(outcome.failed for outcome in outcomes)


@pytest.mark.parametrize("name", [t.name for t in OP_TARGETS])
def test_ops_pass_some_cases(name):
    """At least a fifth of the cases, or one where arguments are drawn by the schema alone."""
    session = fuzzed(TARGETS[name], limit=25, engine=run_random)
    assert session.counts[OK] + session.counts[REFUSED] == 25, session.findings
    assert session.counts[OK] >= (1 if name == "op_any_schema" else 5)


@pytest.mark.parametrize("shape", [(24,), (6, 4), (2, 3, 4)])
@pytest.mark.parametrize("layout", sorted({*LAYOUTS} - {"expanded"}))
def test_layouts_keep_the_numbers_and_lie_in_memory_in_another_way(layout, shape):
    values = torch.arange(24.0).view(shape)
    other = laid_out(values, layout)
    assert torch.equal(other, values)
    one_way = layout == "plain" or (layout == "transposed" and len(shape) == 1)
    assert ((other.stride(), other.storage_offset()) == (values.stride(), values.storage_offset())) == one_way


@pytest.mark.parametrize("name", ["points_bin", "points_npy", "kitti_infos", "kitti_dbinfos"])
def test_coverage_is_followed_in_the_files_of_the_reader(name, tmp_path):
    made, called = TARGETS[name], set()
    path = made.place(tmp_path, f"input{made.suffix}")
    for data in made.seeds():
        path.write_bytes(data)
        made.read(path)  # what is done once, outside of the profile
        sys.setprofile(lambda frame, event, argument: called.add(frame.f_globals.get("__name__", "")))
        try:
            made.read(path)
        finally:
            sys.setprofile(None)
    assert {n for n in called if n.startswith("pcdet.datasets.")} - {"pcdet.datasets.pickles"} <= {*made.modules}
    assert {*made.modules} <= called


def test_every_native_op_is_reached():
    from fuzz.op_schemas import _schemas

    names = {schema.name for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("pcdet::")}
    assert {schema.name for schema in _schemas()} == names and len(names) > 25


def test_regression_files_are_replayed_by_the_target_in_their_name(tmp_path):
    (tmp_path / "kitti_labels-00000000.txt").write_text("Car 0\n")
    replay(tmp_path / "kitti_labels-00000000.txt")
    with pytest.raises(KeyError, match="must be called"):
        replay(tmp_path / "other-00000000.txt")


KEPT = Path(__file__).parents[1] / "regressions" / "fuzz"
FOUND = sorted(file for file in KEPT.rglob("*-*.*") if file.suffix != ".md")


@pytest.mark.parametrize("file", FOUND, ids=lambda file: file.name)
def test_what_fuzzing_has_found_does_not_fail_again(file):
    replay(file)
