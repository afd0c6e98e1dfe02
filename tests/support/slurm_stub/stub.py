"""Slurm's commands for tests: array tasks as processes of this machine, in the folder that SLURM_STUB names.

Each submission has a folder with its script, its name, and per task a file with its state. ``controller`` runs tasks
and alone writes states; other commands leave it flags: ``3.cancel``, ``3.requeue``, ``3.lose``. As in Slurm, a signal
reaches every process of a task's step, and a cancelled task is killed some time after SIGTERM.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve()
ROOT = Path(os.environ["SLURM_STUB"])
KILL_WAIT_S = 3.0
LOOK_S = 0.03
LIFE_S = 180.0  # of a submission; tasks that a test has lost do not run on
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "TIMEOUT")


def tell(text: str) -> None:
    """Appends a line to the history that tests read."""
    with (ROOT / "history").open("a") as history:
        history.write(f"{time.monotonic()} {text}\n")


def write(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text)
    os.replace(scratch, path)


def options_of(script: str) -> dict[str, str]:
    lines = (shlex.split(line.removeprefix("#SBATCH "))[0] for line in script.splitlines() if "#SBATCH --" in line)
    return dict(line.removeprefix("--").partition("=")[::2] for line in lines)


def sbatch(file: str) -> int:
    """Takes a submission; ``refuse`` and ``kill_caller`` in the stub's folder say how it goes wrong."""
    if (ROOT / "refuse").exists():
        tell("refused")
        sys.exit("sbatch: error: Batch job submission failed: Invalid account")
    number = 1
    while True:
        try:
            (ROOT / str(number)).mkdir()
            break
        except FileExistsError:
            number += 1
    script = Path(file).read_text()
    options = options_of(script)
    array = re.fullmatch(r"0-(\d+)%(\d+)", options.get("array", ""))
    folder = ROOT / str(number)
    (folder / "script").write_text(script)
    (folder / "name").write_text(options["job-name"])
    keys = [str(index) for index in range(int(array[1]) + 1)] if array else ["single"]
    for key in keys:
        write(folder / f"{key}.state", "PENDING")
    tell(f"sbatch {number} {len(keys)}")
    subprocess.Popen(
        [sys.executable, "-S", HERE, "controller", str(number), array[2] if array else "1"],
        start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    if (ROOT / "kill_caller").exists():
        (ROOT / "kill_caller").unlink()
        os.kill(os.getppid(), signal.SIGKILL)
    print(f"Submitted batch job {number}")
    return 0


class Task:
    """One task, as the controller runs it."""

    def __init__(self, folder: Path, key: str):
        self.folder, self.key, self.process, self.killed_at = folder, key, None, None
        self.name = folder.name if key == "single" else f"{folder.name}_{key}"

    def flag(self, name: str) -> Path:
        return self.folder / f"{self.key}.{name}"

    @property
    def state(self) -> str:
        return self.flag("state").read_text()

    def become(self, state: str) -> None:
        write(self.flag("state"), state)
        tell(f"{state} {self.name}")

    def begin(self) -> None:
        raw = int(self.folder.name) * 1000 + (int(self.key) if self.key != "single" else 0)
        facts = {"SLURM_JOB_ID": str(raw), "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_PROCID": "0"}
        if self.key == "single":
            facts["SLURM_JOB_ID"] = self.folder.name
        else:
            facts.update(SLURM_ARRAY_JOB_ID=self.folder.name, SLURM_ARRAY_TASK_ID=self.key)
        facts["SLURM_STUB_STEP"] = str(self.flag("step"))
        self.flag("step").unlink(missing_ok=True)
        self.become("RUNNING")
        self.process = subprocess.Popen(["bash", self.folder / "script"], env={**os.environ, **facts})

    def signal(self, number: int) -> None:
        signal_step(self.flag("step"), number)

    def look(self) -> None:
        """One round of the controller."""
        if self.state == "PENDING" and self.flag("cancel").exists():
            self.become("CANCELLED")
        if self.process is None:
            return
        if self.flag("lose").exists() and self.killed_at is None:
            self.killed_at = time.monotonic()
            self.signal(signal.SIGKILL)
        if self.flag("cancel").exists() and self.killed_at is None:
            self.killed_at = time.monotonic() + KILL_WAIT_S
            self.signal(signal.SIGTERM)
        if self.killed_at is not None and time.monotonic() > self.killed_at:
            self.signal(signal.SIGKILL)
        code = self.process.poll()
        if code is not None:
            self.process = None
            self.end(code)

    def end(self, code: int) -> None:
        tell(f"ended {self.name}")
        if self.flag("lose").exists():
            self.become(self.flag("lose").read_text())
        elif self.flag("cancel").exists():
            self.become("CANCELLED")
        elif self.flag("requeue").exists():
            self.flag("requeue").unlink()
            self.become("PENDING")
        else:
            self.become("FAILED" if code else "COMPLETED")


def controller(number: str, parallel: str) -> int:
    """Runs a submission's tasks until all are over, ``stop`` lies in the stub's folder, or it has lived too long."""
    folder, end = ROOT / number, time.monotonic() + LIFE_S
    (folder / "controller").write_text(str(os.getpid()))
    tasks = [Task(folder, path.stem) for path in sorted(folder.glob("*.state"))]
    while any(task.state not in FINAL for task in tasks):
        if (ROOT / "stop").exists() or not ROOT.exists() or time.monotonic() > end:
            for task in tasks:
                if task.process is not None:
                    task.signal(signal.SIGKILL)
                    task.process.wait()
                if ROOT.exists() and task.state not in FINAL:
                    task.become("TIMEOUT")
            return 1
        for task in tasks:
            running = sum(task.process is not None for task in tasks)
            if task.state == "PENDING" and running < int(parallel) and not (ROOT / "full").exists():
                task.begin()
            task.look()
        time.sleep(LOOK_S)
    return 0


def srun(*arguments: str) -> int:
    """Becomes the step's command, in a process group of its own."""
    output = arguments[arguments.index("--output") + 1]
    command = list(arguments[arguments.index("--output") + 2 :])
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID", ""), os.environ.get("SLURM_ARRAY_TASK_ID", "")
    for mark, value in (("%A", array), ("%a", index), ("%j", os.environ["SLURM_JOB_ID"]), ("%t", "0")):
        output = output.replace(mark, value)
    os.setpgid(0, 0)
    write(Path(os.environ["SLURM_STUB_STEP"]), str(os.getpid()))
    stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    os.execvp(command[0], command)


def signal_step(step: Path, number: int) -> None:
    """Sends a signal to every process of a task's step, if there is one."""
    if step.exists():
        try:
            os.killpg(int(step.read_text()), number)
        except ProcessLookupError:
            pass


def flag_of(task: str, name: str) -> Path:
    number, _, index = task.partition("_")
    return ROOT / number / f"{index or 'single'}.{name}"


def scancel(task: str, *how: str) -> int:
    if how[:1] == ("--signal",):
        signal_step(flag_of(task, "step"), getattr(signal, "SIG" + how[1].removeprefix("SIG")))
        return 0
    tell(f"scancel {task}")
    flag_of(task, "cancel").touch()
    return 0


def scontrol(what: str, task: str) -> int:
    assert what == "requeue", what
    tell(f"requeue {task}")
    flag_of(task, "requeue").touch()
    return 0


def states() -> list[tuple[str, str, str]]:
    """(task, state, name of its submission) of all tasks."""
    found = []
    for path in sorted(ROOT.glob("*/*.state")):
        number, key = path.parent.name, path.stem
        task = number if key == "single" else f"{number}_{key}"
        found.append((task, path.read_text(), (path.parent / "name").read_text()))
    return found


def squeue(*arguments: str) -> int:
    if (ROOT / "down").exists():
        sys.exit("slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    assert {"--noheader", "--array", "--format=%i|%T|%j"} < set(arguments), arguments
    for task, state, name in states():
        if state not in FINAL:
            print(f"{task}|{state}|{name}")
    return 0


def sacct(*_: str) -> int:
    print("JobID|State|NodeList")
    for task, state, _name in states():
        print(f"{task}|{state}|node1")
    return 0


def sinfo(*_: str) -> int:
    print("PARTITION AVAIL TIMELIMIT NODES STATE NODELIST\ndebug* up infinite 1 idle node1")
    return 0


COMMANDS = (sbatch, squeue, scancel, sacct, scontrol, sinfo, srun, controller)

if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    sys.exit({command.__name__: command for command in COMMANDS}[name](*arguments))
