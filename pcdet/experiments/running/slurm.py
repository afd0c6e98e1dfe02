"""Places of a Slurm cluster, through submitit: jobs as array tasks that outlive the caller and are found again."""

from __future__ import annotations

import getpass
import logging
import secrets
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pcdet
from pcdet.experiments.running.freshness import digest
from pcdet.experiments.running.jobs import Job
from pcdet.experiments.running.slurm_record import Entry, Record
from pcdet.experiments.running.slurm_task import CommandTask
from pcdet.registry import ConfigError

LARGEST_ARRAY = 1000  # tasks; Slurm's own limit is 1001 unless the cluster sets another
SIGNAL_DELAY_S = 90  # between Slurm's warning and the time limit, for a command to save its state
TIMEOUTS = 100  # a training that is longer than the time limit goes on in so many turns
LOST = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL")  # states of a task that the cluster took away and does not begin again
WAITING = ("PENDING", "CONFIGURING")  # states of a task that has not begun
RESUBMISSIONS = 5  # of a job that was lost
SUBMISSION_TRIES = 5  # while other jobs run: a controller that is busy or restarts answers later
TRY_AGAIN_S = 30.0
END_S = 180.0  # for cancelled tasks to save their state and leave
FIELDS = ("timeout_min", "gpus_per_node", "cpus_per_task", "max_parallel")
# Options of sbatch that follow from these, or that finding the tasks again rests on.
OWN_OPTIONS = ("array", "cpus-per-task", "error", "gpus-per-node", "job-name", "nodes", "ntasks", "ntasks-per-node")
OWN_OPTIONS += ("open-mode", "output", "partition", "signal", "time")

logger = logging.getLogger("pcdet")


@dataclass
class SlurmPlaces:
    """Places of a cluster.

    Every job that may start is submitted, in one array. A task that Slurm takes away for another one's sake, or at its
    time limit, is begun again and resumes. The folder must lie on a file system that the nodes share. A caller that is
    killed at any moment and started again finds its tasks in the queue and submits none twice.

    Args:
        folder: of the plan; ``slurm/`` in it gets the tasks' files and ``submitted.json``.
        partition: of the cluster; None for its default.
        timeout_min: of one turn of a task.
        gpus_per_node: of each task.
        cpus_per_task: of each task.
        max_parallel: how many tasks run at once.
        options: further options of sbatch, without dashes: ``{"account": "lidar", "mem": "32G", "exclusive": True}``.
        poll_s: seconds between two looks at the results.
        query_s: seconds between two questions to Slurm.
        lag_s: how long the shared file system may take to show a result.

    Raises:
        ConfigError: a number below its least, an option that is set here, or no Slurm on this machine.
    """

    folder: Path
    partition: str | None = None
    timeout_min: int = 240
    gpus_per_node: int = 1
    cpus_per_task: int = 4
    max_parallel: int = 16
    options: Mapping[str, str | bool] = field(default_factory=dict)
    poll_s: float = 2.0
    query_s: float = 15.0
    lag_s: float = 30.0

    def __post_init__(self):
        self.files = Path(self.folder).absolute() / "slurm"
        self._record = Record(self.files / "submitted.json")
        self._queue: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._asked = self._try_at = self.answered = float("-inf")
        self._failures = 0
        problems = [
            f"{name} must be at least {least}, got {getattr(self, name)}"
            for name, least in zip(FIELDS, (1, 0, 1, 1), strict=True)
            if getattr(self, name) < least
        ]
        taken = sorted(key for key in self.options if key.replace("_", "-") in OWN_OPTIONS)
        problems += [f"sbatch's option {key} is set here; leave it out, or set {', '.join(FIELDS)}" for key in taken]
        missing = [name for name in ("sbatch", "squeue", "scancel", "srun") if shutil.which(name) is None]
        if missing:
            problems.append(f"{', '.join(missing)} not found: Slurm is used from a login node of the cluster")
        if problems:
            raise ConfigError(problems)

    @property
    def count(self) -> int:
        """How many jobs run at once."""
        return self.max_parallel

    def adopt(self, jobs: Sequence[Job]) -> list[Job]:
        """Those of the jobs that an earlier call submitted and that still wait or run.

        A task of other facts, and one whose submission was cut short, is cancelled first.

        Raises:
            SystemExit: the record cannot be read, Slurm does not answer, or a cancelled task does not leave; nothing
                may be submitted then.
        """
        try:
            entries = self._record.read()
        except ValueError as error:
            raise SystemExit(str(error)) from error
        if not entries:
            return []
        self._ask(must_answer=True)
        adopted, cancelled = [], []
        for job in jobs:
            entry = entries.get(_key(job))
            task = entry and self._find(entry)
            if task is None:
                continue
            run = SlurmRun(self, job, task)
            if entry.facts != digest(job.facts) or not self.paths(task).submitted_pickle.is_file():
                run.terminate()
                cancelled.append(run)
            else:
                job.process, job.queued, job.began = run, True, time.monotonic()
                adopted.append(job)
        for run in cancelled:
            run.wait()
            if self.state(run.task):
                raise SystemExit(f"task {run.task} of {run.job.name} was cancelled and is still there; wait for it")
        return adopted

    def start(self, ready: Sequence[Job], running: Sequence[Job]) -> list[Job]:
        """Submits the ready jobs as one array, or as many as there is room for beside what runs.

        Raises:
            SystemExit: sbatch refuses them while nothing runs, or again and again.
        """
        room = LARGEST_ARRAY if not running else max(0, self.max_parallel - len(running))
        batch = list(ready[: min(room, LARGEST_ARRAY)])
        if not batch or time.monotonic() < self._try_at:
            return []
        try:
            tasks = self.submit(batch)
        except RuntimeError as error:  # of submitit: what sbatch said
            self._failures += 1
            if not running or self._failures >= SUBMISSION_TRIES:
                raise SystemExit(f"{batch[0].name} cannot be submitted to Slurm: {error}") from error
            logger.warning(f"{batch[0].name} cannot be submitted to Slurm and is tried again: {error}")
            self._try_at = time.monotonic() + TRY_AGAIN_S
            return []
        self._failures = 0
        for job, task in zip(batch, tasks, strict=True):
            job.process, job.queued = SlurmRun(self, job, task), True
        return batch

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        """Submits jobs as one array; returns the task of each.

        The record names them before and has their tasks after: a kill between the two leaves a name to look for.

        Raises:
            RuntimeError: of sbatch.
        """
        name = f"{Path(self.folder).name}-{secrets.token_hex(4)}"
        entries = [Entry(name, index if len(jobs) > 1 else None, digest(job.facts)) for index, job in enumerate(jobs)]
        self._record.add({_key(job): entry for job, entry in zip(jobs, entries, strict=True)})
        for job in jobs:
            job.begin()
        tasks = [CommandTask([*map(str, job.command)], str(job.cwd), str(job.log.absolute())) for job in jobs]
        submitted = [task.job_id for task in self._executor(name).submit_array(tasks)]
        for entry, task in zip(entries, submitted, strict=True):
            entry.task = task
        self._record.add({_key(job): entry for job, entry in zip(jobs, entries, strict=True)})
        self._asked = float("-inf")  # what Slurm said before does not hold them
        return submitted

    def _executor(self, name: str):
        import submitit  # here: other commands do without

        executor = submitit.SlurmExecutor(folder=self.files, max_num_timeout=TIMEOUTS)
        root = shlex.quote(str(Path(pcdet.__file__).resolve().parents[1]))
        given = {key.replace("_", "-"): value for key, value in self.options.items()}
        executor.update_parameters(
            job_name=name, partition=self.partition, time=self.timeout_min, cpus_per_task=self.cpus_per_task,
            gpus_per_node=self.gpus_per_node or None, array_parallelism=self.max_parallel,
            signal_delay_s=SIGNAL_DELAY_S, stderr_to_stdout=True,
            setup=[f"export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}}"],
            additional_parameters={"requeue": True, **given},
        )  # fmt: skip
        return executor

    def paths(self, task: str):
        """Where submitit keeps a task's files."""
        from submitit.core.utils import JobPaths

        return JobPaths(self.files, job_id=task)

    def outcome(self, task: str) -> str | None:
        """What a task left: "success" or "error"; None as long as there is nothing."""
        from submitit.core.utils import pickle_load

        path = self.paths(task).result_pickle
        return pickle_load(path)[0] if path.is_file() else None

    def state(self, task: str) -> str | None:
        """What Slurm's queue says of a task, such as PENDING or RUNNING; None if it is not there."""
        if time.monotonic() - self._asked >= self.query_s:
            self._ask(must_answer=False)
        return self._queue.get(task)

    def last_state(self, task: str) -> str:
        """How the accounting says that a task ended; UNKNOWN where the cluster has none."""
        from submitit import SlurmJob

        if shutil.which("sacct") is None:
            return "UNKNOWN"
        SlurmJob.watcher.register_job(task)
        return SlurmJob.watcher.get_state(task, mode="force").split()[0]

    def forget_what_slurm_said(self) -> None:
        """Asks anew at the next question."""
        self._asked = float("-inf")

    def _find(self, entry: Entry) -> str | None:
        """The task of an entry if it is in the queue, by its number or, after a submission cut short, by its name."""
        if entry.task is not None:
            return entry.task if self._names.get(entry.task) == entry.name else None
        suffix = "" if entry.index is None else f"_{entry.index}"
        named = (task for task, name in self._names.items() if name == entry.name)
        return next((task for task in named if task.endswith(suffix) and ("_" in task) == bool(suffix)), None)

    def _ask(self, *, must_answer: bool) -> None:
        command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i|%T|%j"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self._asked = time.monotonic()
        if done.returncode:
            said = f"{shlex.join(command)} failed (exit {done.returncode}): {done.stderr.strip()}"
            if must_answer:
                raise SystemExit(f"{said}; nothing is submitted before Slurm says what runs already")
            logger.warning(f"{said}; its last answer is taken to hold")
            return
        lines = [line.split("|", 2) for line in done.stdout.splitlines() if line.count("|") >= 2]
        self.answered = self._asked  # a question that fails leaves it: what is known is as old as the last answer
        self._queue = {task.strip(): state for task, state, _ in lines}
        self._names = {task.strip(): name for task, _, name in lines}


def _key(job: Job) -> str:
    """Of a job in the record: its folder, from wherever the command is called."""
    return str(Path(job.folder).absolute())


@dataclass(eq=False)
class SlurmRun:
    """A job's task on the cluster, with the methods of a process.

    Attributes:
        places: that submitted it.
        job: whose command it runs.
        task: its number in Slurm: ``12`` or, in an array, ``12_3``.
    """

    places: SlurmPlaces
    job: Job
    task: str
    code: int | None = None
    cancelled: bool = False
    resubmissions: int = 0
    _gone_since: float | None = None

    def poll(self) -> int | None:
        """0 if the command ended well, 1 if not; None as long as the task waits, runs or is begun again."""
        if self.code is None:
            self.code = self._look()
        return self.code

    def _look(self) -> int | None:
        outcome = self.places.outcome(self.task)
        if outcome is not None and (outcome != "success" or self.job.product.is_file()):
            return int(outcome != "success")
        state = None if outcome else self.places.state(self.task)
        if state is not None:
            self._gone_since = None
            if self.job.queued and state in (*WAITING, "RUNNING"):
                # One that ends before Slurm says that it runs has run since Slurm last said that it waits.
                self.job.queued, self.job.began = state != "RUNNING", self.places.answered
            return None
        if self.cancelled:
            return 1
        if self._gone_since is None:
            self._gone_since = time.monotonic()
        if time.monotonic() - self._gone_since < max(self.places.lag_s, self.places.query_s):
            return None
        return 0 if outcome or self.job.product.is_file() else self._lost()

    def _lost(self) -> int | None:
        """Submits a task anew that the cluster took away; says in the log how any other left without a result."""
        state = self.places.last_state(self.task)
        self._gone_since = None
        if state in LOST and self.resubmissions < RESUBMISSIONS:
            self.resubmissions += 1
            try:
                (self.task,) = self.places.submit([self.job])
                self.job.queued = True
            except RuntimeError as error:  # of sbatch
                logger.warning(f"{self.job.name} was lost ({state}), cannot be submitted and is tried again: {error}")
            return None
        output = self.places.paths(self.task).stdout
        tail = output.read_text(errors="replace").splitlines()[-5:] if output.is_file() else []
        with self.job.log.open("a") as log:
            log.write("\n".join([*tail, f"[Slurm {self.task}] left the queue without a result: {state}"]) + "\n")
        return 1

    def terminate(self) -> None:
        """Cancels the task: Slurm tells its command to end, and kills it some time later."""
        self.cancelled = True  # from here on nothing is submitted anew
        if self.poll() is not None:
            return
        done = subprocess.run(["scancel", self.task], capture_output=True, text=True, check=False)
        if done.returncode:
            logger.warning(f"scancel {self.task} of {self.job.name} failed: {done.stderr.strip()}; cancel it by hand")
        self.places.forget_what_slurm_said()

    def wait(self) -> int | None:
        """Comes back once the task has left, or has not after a long time; the next call then finds it running."""
        deadline = time.monotonic() + END_S
        while self.places.state(self.task) is not None and time.monotonic() < deadline:
            time.sleep(self.places.poll_s)
            self.places.forget_what_slurm_said()
        if self.poll() is None:
            logger.warning(f"task {self.task} of {self.job.name} was cancelled {END_S:.0f} s ago and is still there")
        return self.code
