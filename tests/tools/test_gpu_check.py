"""The tasks of `make gpu-check`: what is run, repeated, left out and ended, with stand-ins for their commands."""

import importlib
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest


def task(check, folder, name, program="pass", *, stage="steps", limit_s=20.0, **options):
    command = [sys.executable, "-c", program]
    place = folder / stage / name
    return check.tasks.Task(stage, name, command, limit_s, 1.0, place, check.outcomes.of_exit, **options)


def run(check, tasks, *, version=1, budget_s=60.0, again=()):
    """Task -> its outcome."""
    inputs = {"version": version}
    seen = []
    found = check.runner.run_tasks(
        tasks, lambda task: inputs, budget_s=budget_s, again=again, after_each=lambda results: seen.append(results)
    )
    return {result.task: result for result in found}


def counting(folder):
    """A program that counts how often it ran, and the file of the count."""
    file = folder / "runs"
    return f"open({str(file)!r}, 'a').write('x')", file


# --------------------------------------------------------------------------------------------- the tasks themselves


def test_a_task_that_fails_hides_no_other_and_says_why(check, tmp_path):
    failing = task(check, tmp_path, "failing", "raise SystemExit('the card is on fire')")
    found = run(check, [failing, task(check, tmp_path, "after")])
    assert (found["failing"].status, found["after"].status) == ("failed", "passed")
    assert "exit status 1" in found["failing"].reason and "the card is on fire" in found["failing"].reason
    assert check.main.exit_status(found.values()) == 1


def test_a_task_ends_at_its_limit_with_all_that_it_has_started(check, tmp_path):
    pid = tmp_path / "pid"
    program = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(pid)!r}, 'w').write(str(child.pid))\nchild.wait()"
    )
    found = run(check, [task(check, tmp_path, "endless", program, limit_s=1.5)])
    assert found["endless"].status == "timed out" and found["endless"].seconds < 10
    assert found["endless"].reason == "its limit ended it after 2 s"
    assert not runs(int(pid.read_text()))


def runs(pid):
    """Whether a process is at work; one that has ended and was not waited for is not."""
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_what_the_budget_does_not_hold_is_told_as_not_run(check, tmp_path):
    found = run(check, [task(check, tmp_path, "one"), task(check, tmp_path, "two")], budget_s=1.0)
    assert {result.status for result in found.values()} == {"not run"}
    assert found["two"].reason == "the budget of 1 s is used up"
    assert check.main.exit_status(found.values()) == 3


def test_a_task_that_the_budget_ends_has_not_failed(check, tmp_path, monkeypatch):
    monkeypatch.setattr(check.runner, "LEAST_S", 0.1)
    found = run(check, [task(check, tmp_path, "long", "import time; time.sleep(60)")], budget_s=1.0)
    assert found["long"].status == "not run" and found["long"].reason.startswith("the budget ended it after 1 s")
    assert check.main.exit_status(found.values()) == 3


def test_what_needs_a_task_that_failed_is_not_run(check, tmp_path):
    """Without the new library the old one would be measured, as if it were the new one."""
    library = task(check, tmp_path, "library", "raise SystemExit(1)", stage="build")
    program, file = counting(tmp_path)
    found = run(check, [library, task(check, tmp_path, "step", program, needs="build/library")])
    assert (found["step"].status, found["step"].reason) == ("not run", "build/library is failed")
    assert not file.exists()


def test_what_does_not_apply_is_left_out_with_its_reason_and_keeps_nothing_back(check, tmp_path):
    library = task(check, tmp_path, "library", stage="build", left_out="device cpu")
    found = run(check, [library, task(check, tmp_path, "step", needs="build/library")])
    assert (found["library"].status, found["library"].reason) == ("left out", "device cpu")
    assert found["step"].status == "passed" and check.main.exit_status(found.values()) == 0


def test_a_second_call_repeats_what_failed_and_nothing_else(check, tmp_path):
    program, file = counting(tmp_path)
    flag = tmp_path / "mended"
    failing = f"import os, sys; sys.exit(not os.path.exists({str(flag)!r}))"
    both = [task(check, tmp_path, "good", program), task(check, tmp_path, "bad", failing)]
    assert run(check, both)["bad"].status == "failed"
    flag.touch()
    found = run(check, both)
    assert found["bad"].status == "passed" and not found["bad"].from_earlier_call
    assert found["good"].status == "passed" and found["good"].from_earlier_call
    assert file.read_text() == "x"


@pytest.mark.parametrize("change", [{"version": 2}, {"again": ["steps"]}])
def test_other_inputs_and_a_wish_repeat_what_passed(check, tmp_path, change):
    program, file = counting(tmp_path)
    one = [task(check, tmp_path, "one", program)]
    run(check, one)
    assert not run(check, one, **change)["one"].from_earlier_call
    assert file.read_text() == "xx"


def test_a_repeated_task_does_not_find_the_result_of_its_last_attempt(check, tmp_path):
    """It writes a result and fails, then succeeds without one."""
    result, flag = tmp_path / "steps/one/result.json", tmp_path / "flag"
    program = (
        "import os, sys\n"
        f"if os.path.exists({str(flag)!r}): sys.exit()\n"
        f"open({str(result)!r}, 'w').write('{{}}'); sys.exit(1)"
    )
    one = [replace(task(check, tmp_path, "one", program), read=check.outcomes.of_json)]
    assert run(check, one)["one"].status == "failed"
    flag.touch()
    assert run(check, one)["one"].reason.startswith("it wrote no result.json")


def test_an_outcome_depends_on_card_versions_sources_and_command(check, tmp_path):
    machine = check.machine.read_machine("cpu")
    one = task(check, tmp_path, "one")
    inputs = check.state.inputs_of(one, machine, small=False)
    for change in ({"card": "H200"}, {"versions": {"torch": "9"}}, {"sources": "0"}, {"driver": "1"}):
        assert check.state.inputs_of(one, {**machine, **change}, small=False) != inputs
    assert check.state.inputs_of(one, machine, small=True) != inputs
    assert check.state.inputs_of(task(check, tmp_path, "one", "1"), machine, small=False) != inputs


def test_a_package_that_is_not_installed_is_named(check, tmp_path, monkeypatch):
    text = "# all\nnumpy==2.4; python_version >= '3.11'\nnot-on-this-machine>=1\n"
    (tmp_path / "requirements.txt").write_text(text)
    monkeypatch.setattr(check.machine, "ROOT", tmp_path)
    assert check.machine._missing_packages() == ["not-on-this-machine"]


def test_the_sum_of_the_sources_sees_a_change_of_one_letter(check, tmp_path, monkeypatch):
    source = tmp_path / "pcdet/ops/knn.cu"
    source.parent.mkdir(parents=True)
    monkeypatch.setattr(check.machine, "ROOT", tmp_path)
    sums = set()
    for text in ("a", "b", "a"):
        source.write_text(text)
        sums.add(check.machine._sum_of_sources())
    assert len(sums) == 2


# ---------------------------------------------------------------------------------------------------- time to go


def test_the_time_to_go_follows_the_pace_of_what_is_done(check, tmp_path):
    """Two tasks guessed at 1 s took 3 s each; two are left, of which one took 7 s in an earlier call."""
    four = [task(check, tmp_path, name) for name in "abcd"]
    progress = check.progress.Progress(four, {"steps/d": 7.0}, time.monotonic() + 100)
    for done in four[:2]:
        progress.begin(done)
        progress.end(done, 3.0, "passed")
    progress.begin(four[2])
    assert progress.seconds_to_go(four[2], 1.0) == pytest.approx(2.0 + 7.0)


def test_a_task_that_takes_longer_than_expected_has_no_known_end(check, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(check.progress, "QUIET_S", 0.0)
    two = [task(check, tmp_path, name, limit_s=90) for name in "ab"]
    progress = check.progress.Progress(two, {"steps/a": 3.0, "steps/b": 65.0}, time.monotonic() + 100)
    progress.begin(two[0])
    progress.tick(two[0], 2.0)
    progress.tick(two[0], 4.0)
    ends = [line.split(" s, ")[1] for line in capsys.readouterr().out.splitlines()]
    assert ends == ["1:08 to go", "1:06 to go", "at least 1:05 to go"]


def test_the_time_to_go_is_no_longer_than_the_budget(check, tmp_path):
    one = task(check, tmp_path, "one")
    progress = check.progress.Progress([one], {"steps/one": 15.0}, time.monotonic() + 5)
    progress.begin(one)
    assert progress.seconds_to_go(one, 0.0) == pytest.approx(5.0, abs=0.2)


def test_a_task_that_tells_its_share_is_judged_by_it(check, tmp_path):
    """A quarter is done after 5 s: 15 s are left, whatever was guessed."""
    shares = iter([0.0, 0.25])
    one = task(check, tmp_path, "one", limit_s=100, share=lambda folder: next(shares))
    progress = check.progress.Progress([one], {}, time.monotonic() + 100)
    progress.share_before = one.share(one.folder)
    assert progress.seconds_to_go(one, 5.0) == pytest.approx(15.0)


# ----------------------------------------------------------------------------------------------------- on a card


def card(check, **changes):
    return {**check.machine.read_machine("cpu"), "device": "cuda", "card": "NVIDIA H200", "card_memory": "143771 MiB",
            "compute_capability": "9.0", "driver": "580", **changes}  # fmt: skip


def tasks_on_card(check, tmp_path):
    settings = check.tasks.Settings("cuda", False, 16, tmp_path)
    return {task.key: task for task in check.tasks.all_tasks(settings, card(check))}


def test_the_build_is_for_the_card_alone_and_uses_all_processors(check, tmp_path):
    build = tasks_on_card(check, tmp_path)["build/library"]
    assert build.env == {"FORCE_CUDA": "1", "MAX_JOBS": "16", "TORCH_CUDA_ARCH_LIST": "9.0"}
    assert build.left_out is None


def test_on_a_card_everything_but_the_build_needs_it(check, tmp_path):
    found = tasks_on_card(check, tmp_path)
    assert {task.needs for key, task in found.items() if key not in ("build/library", "profile/counters")} == {
        "build/library"
    }
    assert found["profile/counters"].needs == "profile/kernels"


def test_without_spconv_second_is_left_out_and_says_so(check, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "spconv" else find(name))
    found = tasks_on_card(check, tmp_path)
    assert found["steps/second"].left_out == "spconv is not installed"
    assert "second" not in found["profile/kernels"].command


def test_the_tests_run_side_by_side(check, tmp_path):
    command = tasks_on_card(check, tmp_path)["tests/gpu"].command
    assert command[command.index("-n") + 1] == "6" and command[command.index("-m", 2) + 1] == "gpu"
    assert not any(argument.endswith(".py") for argument in command)  # all of them


@pytest.mark.parametrize(
    "kernel, name",
    [
        ("void pcdet::cuda::(anonymous namespace)::search_kernel<float, 128>(float const*, int)", "search_kernel"),
        ("pcdet::cuda::scan(int*, std::pair<int, int>)", "scan"),
    ],
)
def test_the_kernel_that_is_looked_into_is_named_without_scope_and_arguments(check, kernel, name):
    assert check.counters.function_name(kernel) == name


def test_the_emulator_is_asked_for_its_library(check, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PCDET_CUDA_EMULATOR", str(tmp_path / "absent.so"))
    assert check.main.main(["--device", "emulated", "--output", str(tmp_path)]) == 1
    assert "PCDET_CUDA_EMULATOR must name it, got" in capsys.readouterr().err


def test_another_library_of_the_emulator_is_another_machine(check, monkeypatch, tmp_path):
    monkeypatch.setenv("PCDET_CUDA_EMULATOR", str(tmp_path / "lib.so"))
    versions = []
    for content in (b"1", b"2"):
        (tmp_path / "lib.so").write_bytes(content)
        versions.append(check.machine.read_machine("emulated")["versions"])
    assert versions[0] != versions[1]


def test_a_machine_without_a_driver_is_told_how_to_rehearse(check, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check.main.main(["--output", str(tmp_path)]) == 1
    assert "no NVIDIA driver here; rehearse with --device cpu --small" in capsys.readouterr().err


def test_the_compiler_of_the_environments_wheels_is_the_machines_where_there_is_no_other(check, monkeypatch, tmp_path):
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pcdet.utils.cuda_toolkit.USUAL_HOME", tmp_path / "none")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    home = tmp_path / "nvcc/nvidia/cu13"
    for folder in ("bin", "include"):
        (home / folder).mkdir(parents=True)
    (home / "include/cuda_runtime.h").touch()
    (home / "bin/nvcc").write_text("#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.88'\n")
    (home / "bin/nvcc").chmod(0o755)
    assert check.machine.read_machine("cpu")["versions"]["nvcc"] == "13.0"
