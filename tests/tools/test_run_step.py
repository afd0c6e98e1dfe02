import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "run_step.py"


def run_step(program: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPT), "native ops", sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True)


def test_success_is_one_line_with_ninja_s_progress():
    done = run_step("print('[1/2] c++ -c a.cpp'); print('[2/2] c++ -c b.cpp')")
    assert done.returncode == 0 and re.fullmatch(r"native ops \.\.\. 2/2 \d+ s\n", done.stdout)


def test_a_warning_of_a_step_that_succeeds_is_shown():
    done = run_step("import sys; print('[1/1] c++ -c a.cpp'); print('a.cpp:1: warning: unused', file=sys.stderr)")
    assert done.stdout.splitlines()[1:] == ["a.cpp:1: warning: unused"]


def test_failure_shows_all_messages_and_keeps_the_exit_status():
    done = run_step("print('[1/2] c++ -c a.cpp\\nFAILED: a.o\\na.cpp:1: error: x'); raise SystemExit(7)")
    assert done.returncode == 7
    assert re.fullmatch(r"native ops \.\.\. 1/2 FAILED after \d+ s\nFAILED: a.o\na.cpp:1: error: x\n", done.stdout)
