"""A plan carried out, stage by stage: teachers, costs, weights, screening, finals and learning curves.

Everything that a stage knows comes from files that earlier jobs left. A plan that is killed and started again therefore
takes the same decisions and goes on with what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from easydict import EasyDict
from tqdm import tqdm

from pcdet.config import cfg_from_yaml_file, find_config_file
from pcdet.experiments.plans import choices, forecast
from pcdet.experiments.plans.choices import mean, whole_epochs
from pcdet.experiments.plans.measures import OVERHEAD, Measures
from pcdet.experiments.plans.model_checks import check_models
from pcdet.experiments.plans.plan import Plan
from pcdet.experiments.plans.runs import Run, Runs
from pcdet.experiments.plans.scores import Scorer
from pcdet.experiments.plans.splits import Splits
from pcdet.experiments.plans.weight_search import WeightSearch
from pcdet.experiments.results.schema import PLAIN, SELF_TRAINED, SLICES, TEACHER, Choices
from pcdet.experiments.running.jobs import Job
from pcdet.experiments.running.pool import Places, run_jobs
from pcdet.experiments.running.progress import PlanProgress
from pcdet.registry import ConfigError


def balanced_classes(plan: Plan, folder: Path) -> list[str] | None:
    """The classes that the trainings of the first student balance, as ``Splits`` takes them; None where it does not.

    Args:
        plan: that names the student's file.
        folder: where the plan's model files go, from which the student's is looked for.
    """
    cfg = cfg_from_yaml_file(find_config_file(next(iter(plan.students.values())).cfg, folder), EasyDict())
    return list(cfg.CLASS_NAMES) if cfg.DATA_CONFIG.get("BALANCED_RESAMPLING") else None


class Laboratory:
    """Carries out a plan.

    Args:
        plan: what is asked for.
        tools: folder of the commands.
        output: the plan's folder.
        places: where jobs run.
        progress: the bar over the whole plan.
        on_cores: whether these are cores rather than GPUs.
        say: gets a line for people.

    Attributes:
        choices: what was decided, as ``results.json`` has it.
        wanted: every run of the plan so far, by its id.
    """

    def __init__(
        self,
        plan: Plan,
        tools: Path,
        output: Path,
        places: Places,
        progress: PlanProgress,
        *,
        on_cores: bool = True,
        say: Callable[[str], None] = tqdm.write,
    ):
        self.plan, self.output, self.places, self.progress, self.say = plan, output, places, progress, say
        balanced = balanced_classes(plan, output / "cfgs")
        self.splits = Splits(plan.data, tools / plan.data.path, output / "splits", balanced)
        self._check_choices()
        self.runs = Runs(plan, self.splits, tools, output, on_cores=on_cores)
        check_models(plan, self.runs)
        self.measures = Measures(self.runs)
        first = self.runs.config(self.runs.model_file(self.plain(next(iter(plan.students)), 1.0, 0)))
        self.search, self.report = (Scorer(first, self.splits, name, tools) for name in ("search", "report"))
        self.classes, self.metrics = self.report.classes, self.report.metrics
        self.choices: dict = {field.name: {} for field in fields(Choices)}
        self.wanted: dict[str, Run] = {}

    def carry_out(self) -> None:
        """All stages, one after the other."""
        self.measure_alone()
        self.train_teachers()
        self.label_frames()
        self.measure_methods()
        self.search_weights()
        self.screen()
        self.finish()

    # ---------------------------------------------------------------------------------------------------------- stages

    def measure_alone(self) -> None:
        """What a training step of every teacher and every plain student costs."""
        jobs = [self.measures.teacher_job(name) for name in self.plan.teachers]
        jobs += [self.measures.job(student, PLAIN, None) for student in self.plan.students]
        self._measure("costs", jobs)

    def train_teachers(self) -> None:
        """Every teacher at its lengths, and every plain student's learning curve."""
        teachers = [run for name in self.plan.teachers for run in self.teacher_runs(name)]
        curves = [run for name in self.plan.students for run in self.curve(name, PLAIN)]
        self.train("teachers", [*teachers, *curves])
        for name in self.plan.students:
            self.choices["best_length"][name] = self._best_length(name, PLAIN)
        for name, config in self.plan.teachers.items():
            if config.ckpt is None:
                self.choices["teachers"][name] = self._choose_teacher(name)

    def label_frames(self) -> None:
        """The labels that teachers give once, before the trainings of their students."""
        if self.plan.labelled_once:
            teachers = {config.teacher: self.teacher_job(name) for name, config in self.plan.students.items()}
            work = {name: self.measures.labelling_macs(name) + OVERHEAD for name in teachers}
            self._measure("labels", [self.runs.labels_job(name, job, work[name]) for name, job in teachers.items()])

    def measure_methods(self) -> None:
        """What a training step of every method costs, and how strong its losses are."""
        jobs = []
        for student in self.plan.students:
            teacher = self.teacher_job(student)
            jobs += [self.measures.job(student, method, teacher) for method in self.methods(student)[1:]]
        self._measure("costs of the methods", jobs)

    def search_weights(self) -> None:
        """The weight of every method with losses, from a trial of each factor."""
        config = self.plan.search
        if config is None:
            return
        search = WeightSearch(self.output / "weight_search.journal", config.factors)
        trials = {}
        for student in self.plan.students:
            for method in self.plan.methods:
                if not self.plan.has_losses(student, method):
                    continue
                base = self.measures.base_weight(student, method, config.share)
                search.ask(f"{student}/{method}")
                trials[student, method] = base, {f: self._trial(student, method, base * f, f) for f in config.factors}
        self.train("weights", [run for _, runs in trials.values() for run in runs.values()])
        for (student, method), (base, runs) in trials.items():
            values = {factor: self.found(run) for factor, run in runs.items()}
            chosen = search.tell(f"{student}/{method}", values)
            entry = {"base": base, "trials": [{"factor": f, "search": v} for f, v in values.items()], "chosen": chosen}
            self.choices["weights"].setdefault(student, {})[method] = entry

    def screen(self) -> None:
        """Every method at length 1, with few seeds, and the curve of slices; then the finalists are known."""
        runs = [self.run(s, m, 1.0, seed, "screening") for s, m, seed in self._screening()]
        runs += [run for student in self._with_slices() for run in self.curve(student, SLICES)]
        self.train("screening", runs)
        for student in self._with_slices():
            self.choices["slices_best_length"][student] = self._best_length(student, SLICES)
        for student in self.plan.students:
            seeds = range(self.plan.seeds.screening)
            means = {m: mean([self.found(self.run(student, m, 1.0, s)) for s in seeds]) for m in self.plan.methods}
            always = [*self.plan.finalists.always, *(name for pair in self.plan.pairs for name in pair)]
            chosen = choices.finalists(means, self.plan.finalists.best, always)
            self.choices["finalists"][student] = chosen
            self.choices["equal_length"][student] = {m: self._equal_length(student, m) for m in chosen}

    def finish(self) -> None:
        """Finalists and controls with all seeds, and their learning curves."""
        runs = []
        for student, chosen in self.choices["finalists"].items():
            compared = {**{method: [1.0] for method in chosen}, **self.control_lengths(student, chosen)}
            for method, lengths in compared.items():
                runs += [self.run(student, method, x, seed, "finals") for x in lengths for seed in self.final_seeds]
            self_trained = self.self_trained(student, chosen)
            runs += [self.run(student, row, 1.0, seed) for row in self_trained for seed in self.final_seeds]
            for method in (*chosen, *self_trained):
                runs += [run for run in self.curve(student, method) if run.length != 1]
        self.train("finals", runs)

    # ------------------------------------------------------------------------------------------------------------ runs

    @property
    def final_seeds(self) -> range:
        """None with which anything was chosen: what won by its luck with some seeds is compared on others."""
        seeds = self.plan.seeds
        first = max(seeds.screening, seeds.curves)
        return range(first, first + seeds.finals)

    def is_reported(self, run: Run) -> bool:
        """Whether its score on the report split is one of the results.

        Those of the weight search are not, nor a teacher that does not teach, nor a finalist's with the seeds by which
        it was chosen.
        """
        if run.method == TEACHER:
            return run.epochs == self.choices["teachers"][run.subject]["chosen"]
        is_finalist = run.method in self.choices["finalists"][run.subject]
        return run.factor is None and not (is_finalist and run.length == 1 and run.seed not in self.final_seeds)

    def methods(self, student: str) -> list[str]:
        """All rows of a student: controls first."""
        return [PLAIN, *([SLICES] if student in self._with_slices() else []), *self.plan.methods]

    def run(self, student: str, method: str, length: float, seed: int, stage: str = "finals") -> Run:
        """A student's run with the weight that was chosen for its method."""
        epochs = self.epochs(method, length * self.plan.students[student].epochs)
        return Run(student, method, length, epochs, seed, self.weight(student, method), stage)

    def plain(self, student: str, length: float, seed: int) -> Run:
        """The plain student's."""
        return self.run(student, PLAIN, length, seed)

    def epochs(self, method: str, epochs: float) -> int:
        """Whole epochs of a method that have as many samples as these on the labelled frames."""
        more = self.plan.sees_unlabelled(method)
        return whole_epochs(epochs * self.splits.samples("train") / self.splits.samples("train", unlabelled=more))

    def weight(self, student: str, method: str) -> float | None:
        """``KD.WEIGHT`` of a method; None where it has no losses."""
        if method in (PLAIN, SLICES) or not self.plan.has_losses(student, method):
            return None
        entry = self.choices["weights"].get(student, {}).get(method)
        return 1.0 if entry is None else entry["base"] * entry["chosen"]

    def curve(self, student: str, method: str) -> list[Run]:
        """A method at every length of the plan."""
        seeds = range(self.plan.seeds.curves)
        return [self.run(student, method, length, seed, "curves") for length in self.plan.lengths for seed in seeds]

    def begun_as(self, run: Run) -> Run:
        """The training that a self-trained student begins with, and that labels its frames."""
        return self.run(run.subject, SELF_TRAINED[run.method], run.length, run.seed)

    def training_macs(self, run: Run) -> float:
        """Multiply-accumulates of a run, of a self-trained student with those of the training that it begins with."""
        before = self.measures.training_macs(self.begun_as(run)) if run.method in SELF_TRAINED else 0
        return before + self.measures.training_macs(run)

    def self_trained(self, student: str, chosen: Sequence[str]) -> list[str]:
        """Controls of these finalists that label the unlabelled frames themselves."""
        bases = {self.plan.base_of(student, method) for method in chosen if method in self.plan.unlabelled}
        return [row for row, base in SELF_TRAINED.items() if base in bases]

    def control_lengths(self, student: str, chosen: Sequence[str]) -> dict[str, list[float]]:
        """Control -> the lengths at which it stands beside these finalists, all with all seeds."""
        equal = self.choices["equal_length"][student]
        lengths = {PLAIN: {1.0, self.choices["best_length"][student]["chosen"]}}
        lengths[PLAIN] |= {equal[method][PLAIN] for method in chosen}
        if student in self._with_slices():
            lengths[SLICES] = {1.0, self.choices["slices_best_length"][student]["chosen"]}
            lengths[SLICES] |= {equal[method][SLICES] for method in chosen if SLICES in equal[method]}
        return {control: sorted(values) for control, values in lengths.items()}

    def teacher_runs(self, name: str) -> list[Run]:
        """A teacher's trainings; none where it is given."""
        config = self.plan.teachers[name]
        longest = config.epochs[-1] if config.epochs else 1
        return [Run(name, TEACHER, e / longest, e, config.seed, stage="teacher") for e in config.epochs]

    def teacher_job(self, student: str) -> Job | None:
        """The job that trained the teacher of a student; None where the teacher is given."""
        name = self.plan.students[student].teacher
        chosen = {run.epochs: run for run in self.teacher_runs(name)}
        return self.runs.job(chosen[self.choices["teachers"][name]["chosen"]]) if chosen else None

    def train(self, stage: str, runs: Iterable[Run]) -> None:
        """Trains what is not trained yet; long ones first, so that the last to end is a short one.

        What others of the stage wait for counts with the longest of them.
        """
        self._check_budget(stage)
        runs = list({run.id: run for run in runs}.values())
        for run in runs:
            self.wanted.setdefault(run.id, run)
        jobs = [self._job(run) for run in runs]
        waiting: dict[str, float] = {}
        for job in jobs:
            for need in job.needs:
                waiting[need.name] = max(waiting.get(need.name, 0), job.work)
        self._run(stage, sorted(jobs, key=lambda job: -job.work - waiting.get(job.name, 0)))

    def found(self, run: Run) -> float:
        """The main score of a run on the search split: what choices are made on."""
        return self.search.score(self.runs.result_file(run))

    # --------------------------------------------------------------------------------------------------------- helpers

    def _job(self, run: Run) -> Job:
        teacher = None
        if run.method in SELF_TRAINED:
            teacher = self._job(self.begun_as(run))
        elif run.method not in (TEACHER, PLAIN):
            teacher = self.teacher_job(run.subject)
        return self.runs.job(run, teacher, work=self.measures.training_macs(run) + OVERHEAD)

    def _measure(self, stage: str, jobs: Sequence[Job]) -> None:
        self._check_budget(stage)
        self._run(stage, jobs)

    def _run(self, stage: str, jobs: Sequence[Job]) -> None:
        if jobs:
            self.say(f"{stage}: {len(jobs)} jobs")
            self.progress.label = stage
            self.progress.later_work = forecast.work_after(stage, self.plan, self._epochs())
            run_jobs(jobs, self.places, self.progress, self.say)

    def _epochs(self) -> dict[str, float]:
        """Student -> multiply-accumulates of an epoch of the plain one; empty before they are counted."""
        if not self.measures.known(PLAIN):
            return {}
        samples = self.splits.samples("train")
        return {student: self.measures.macs_per_sample(student, PLAIN) * samples for student in self.plan.students}

    def _check_budget(self, stage: str) -> None:
        """ConfigError where the stages before this one have spent the budget.

        What a killed call has done of this stage does not count: the stage had begun.
        """
        bound = self.plan.budget.cpu_minutes
        spent = sum(self.cpu_seconds(run) for run in self.wanted.values()) / 60
        if bound is not None and spent > bound:
            raise ConfigError(
                f"BUDGET.CPU_MINUTES: the trainings have taken {spent:.0f} CPU minutes, {bound:g} are allowed, and "
                f"{stage} would come next; what is there stays, and the same command with a larger budget goes on"
            )

    def cpu_seconds(self, run: Run) -> float:
        """What a run has taken so far."""
        file = self.runs.folder(run) / "run.json"
        return json.loads(file.read_text(encoding="utf-8")).get("train_cpu_s") or 0.0 if file.is_file() else 0.0

    def _trial(self, student: str, method: str, weight: float, factor: float) -> Run:
        config = self.plan.search
        length = config.epochs / self.plan.students[student].epochs
        epochs = self.epochs(method, config.epochs)
        return Run(student, method, length, epochs, config.seed, weight, "search", factor)

    def _screening(self) -> list[tuple[str, str, int]]:
        seeds = range(self.plan.seeds.screening)
        return [(s, m, seed) for s in self.plan.students for m in self.methods(s) for seed in seeds]

    def _with_slices(self) -> list[str]:
        """Students whose controls are slices too: where some method begins with the teacher's weights."""
        return [s for s in self.plan.students if any(self.plan.begins_with_weights(s, m) for m in self.plan.methods)]

    def _best_length(self, student: str, method: str) -> dict:
        seeds = range(self.plan.seeds.curves)
        found = {
            length: mean([self.found(self.run(student, method, length, seed)) for seed in seeds])
            for length in self.plan.lengths
        }
        lengths = [{"length": length, "search": value} for length, value in found.items()]
        return {"lengths": lengths, "chosen": choices.best(found)}

    def _trained_on_search(self) -> list[str]:
        """Splits that trainings see and that share frames with the search split."""
        return [name for name in ("train", "teacher_train") if self.splits.shared(name, "search")]

    def _check_choices(self) -> None:
        """ConfigError where a choice would be made on frames that were trained on."""
        if (seen := self._trained_on_search()) and (keys := self.plan.deciding_keys()):
            why = f"{', '.join(keys)} would be decided by what was learned by heart"
            raise ConfigError([self.splits.overlap(name, "search", why) for name in seen])

    def _choose_teacher(self, name: str) -> dict:
        found = {run.epochs: self.found(run) for run in self.teacher_runs(name)}
        chosen = choices.best(found)
        plain = [
            max(entry["search"] for entry in self.choices["best_length"][student]["lengths"])
            for student, config in self.plan.students.items()
            if config.teacher == name
        ]
        # On frames that both were trained on, the difference says nothing.
        above = None if self._trained_on_search() else found[chosen] - max(plain, default=0.0)
        if above is not None and above < self.plan.enough:
            self.say(
                f"teacher {name}: {above:.1f} points of {self.metrics.main.noun} above its plain student at its best "
                f"length; below {self.plan.enough:g} (ENOUGH) there is little to distil"
            )
        return {
            "lengths": [{"epochs": epochs, "search": value} for epochs, value in found.items()],
            "chosen": chosen,
            "stopped_improving": choices.stopped_improving(list(found.values())),
            "above_student": above,
            "enough": None if above is None else above >= self.plan.enough,
        }

    def _equal_length(self, student: str, method: str) -> dict[str, float]:
        """Control -> the length at which it costs what the method costs at length 1."""
        controls = [PLAIN, *([SLICES] if self.plan.begins_with_weights(student, method) else [])]
        runs = {name: self.run(student, name, 1.0, 0) for name in (method, *controls)}
        macs = {name: self.measures.training_macs(run) for name, run in runs.items()}
        epochs = self.plan.students[student].epochs
        return {c: choices.whole_length(choices.equal_length(macs[method] / macs[c]), epochs) for c in controls}
