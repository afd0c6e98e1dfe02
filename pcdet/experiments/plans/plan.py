"""A plan of experiments: the YAML file that names data, teachers, students, methods, seeds and budget."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from easydict import EasyDict

from pcdet.config.files import find_config_file
from pcdet.config.load import cfg_from_yaml_file
from pcdet.experiments.plans.plan_rules import flag_problems, result_problems
from pcdet.experiments.results.schema import PLAIN, SELF_TRAINED, SLICES, TEACHER
from pcdet.registry import BASE_KEY, ConfigError
from pcdet.registry_types import Count, CountOrZero, Positive, nearest_name, parse_node

SLICES_BLOCK = {"INIT": {"NAME": "slice"}, "LOSSES": []}
FEW = 2  # frames of a rehearsal's splits, and factors of its search
FOLDERS = ("cfgs", "labels", "measures", "splits", "teachers")  # of a plan, beside one for each student
NAME_RULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*")  # of what becomes part of a folder's name


@dataclass(frozen=True, kw_only=True)
class SimulatedConfig:
    """Scenes to be made where ``DATA.PATH`` has none; see ``python -m pcdet.datasets.simulated``.

    Attributes:
        frames: of the train and the val split together.
        val_frames: of the val split.
        seed: of the scenes.
        far: labelled objects stand up to so many metres ahead.
    """

    frames: Count
    val_frames: Count
    seed: CountOrZero = 0
    far: Positive = 40.0


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Some frames of some info files.

    Attributes:
        infos: info files in ``DATA.PATH``, or in the folder of ``DATA.VERSION`` there, one after the other.
        first: the first frame that is taken, counted from 0.
        frames: how many are taken; None: all that follow.
    """

    infos: list[str]
    first: CountOrZero = 0
    frames: Count | None = None

    def __post_init__(self):
        if not self.infos:
            raise ValueError("INFOS: must name at least one info file, got an empty list")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data of all runs; everything else comes from the model files' own ``DATA_CONFIG``.

    Attributes:
        path: the data folder, from ``tools/``; it replaces ``DATA_CONFIG.DATA_PATH``.
        version: the release in it, of data sets that have several, such as nuScenes' v1.0-trainval; it replaces
            ``DATA_CONFIG.VERSION``. None: a data set without releases.
        train: what students train on.
        search: what every choice is made on: weights, lengths, finalists, the teacher. No frame of it may be in
            ``train`` or ``teacher_train``, unless the plan leaves nothing to choose.
        report: what every reported number is measured on. No frame of it may be in ``train`` or ``search``.
        teacher_train: what teachers train on; None: what students train on.
        unlabelled: further frames for the methods under ``UNLABELLED``, whose labels, if any, are not looked at; they
            are in no other split.
        simulated: makes the folder; None: it is there.
    """

    path: str
    version: str | None = None
    train: SplitConfig
    search: SplitConfig
    report: SplitConfig
    teacher_train: SplitConfig | None = None
    unlabelled: SplitConfig | None = None
    simulated: SimulatedConfig | None = None


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """A teacher: trained by the plan, or given.

    Attributes:
        cfg: its model file.
        ckpt: its checkpoint, from ``tools/``; None: the plan trains it.
        epochs: lengths of its training, ascending. The best on the search split teaches; where the longest gains less
            than a point over the one before, it has stopped improving.
        seed: of its trainings.
    """

    cfg: str
    ckpt: str | None = None
    epochs: list[Count] = field(default_factory=list)
    seed: CountOrZero = 0

    def __post_init__(self):
        if (self.ckpt is None) == (not self.epochs):
            raise ValueError("EPOCHS: give lengths to train it, or CKPT for one that is trained; one of them")
        if sorted(set(self.epochs)) != self.epochs:
            raise ValueError(f"EPOCHS: must rise, got {self.epochs}")


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """A student.

    Attributes:
        cfg: its model file; a ``KD`` block in it is replaced by that of each method.
        teacher: name of its teacher under ``TEACHERS``.
        epochs: of a training of length 1.
        methods: this student's own blocks of the plan's methods, such as those whose taps it does not have.
    """

    cfg: str
    teacher: str
    epochs: Count
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SeedsConfig:
    """How many seeds each stage has, counted from 0; the finals' come after those of the other stages.

    Attributes:
        screening: every method.
        finals: finalists and controls.
        curves: the other lengths, of finalists and controls.
    """

    screening: Count = 2
    finals: Count = 8
    curves: Count = 3


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """The search for each method's weight, ``KD.WEIGHT``: the same for every method.

    Attributes:
        share: norm of the losses' gradient against the detection loss's at which the search begins.
        factors: the trials, times that weight.
        epochs: of each trial's training.
        seed: of each trial's training.
        warm_steps: of the plain student's training before the gradients are measured: those of an untrained one say
            little.
        batches: over which they are measured.
    """

    share: Positive = 0.3
    factors: list[Positive] = field(default_factory=lambda: [1 / 3, 1.0, 3.0])
    epochs: Count
    seed: CountOrZero = 1000
    warm_steps: CountOrZero = 0
    batches: Count = 10

    def __post_init__(self):
        if not self.factors or len(set(self.factors)) < len(self.factors):
            raise ValueError(f"FACTORS: must be different numbers, at least one, got {self.factors}")


@dataclass(frozen=True, kw_only=True)
class FinalistsConfig:
    """Which methods go on after the screening.

    Attributes:
        best: so many, by their mean on the search split.
        always: methods that go on in any case.
    """

    best: CountOrZero = 3
    always: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """What the whole plan may cost.

    Attributes:
        cpu_minutes: CPU minutes of all trainings after which no further stage begins; None: no bound.
    """

    cpu_minutes: Positive | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A plan of experiments.

    Attributes:
        name: its output folder is ``output/experiments/<name>``.
        title: one line for tables and pictures.
        table: the form of its tables; see docs/EXPERIMENTS.md.
        data: see ``DataConfig``.
        teachers: name -> ``TeacherConfig``.
        students: name -> ``StudentConfig``.
        methods: name -> a ``KD`` block without its TEACHER.
        unlabelled: methods that also train on ``DATA.UNLABELLED``, which their teacher labels (``LABELS``). A length
            has as many samples as for all methods, hence fewer epochs.
        labelled_once: those of them whose teacher labels these frames once, before the training
            (``DATA_CONFIG.PSEUDO_LABELS``), instead of in every pass. What a teacher adds to labelled frames is left
            out.
        pairs: two methods each, the first of which is also compared with the second; both go on to the finals.
        titles: method, student or teacher -> its name in tables, where it is another one.
        parts: method -> what of it is on, for ``table: ablation``.
        settings: method -> name -> value, for ``table: sensitivity``.
        seeds: see ``SeedsConfig``.
        search: see ``SearchConfig``; None: the weights are those of the methods' blocks.
        cost_batches: over which costs are counted where there is no search; else ``SEARCH.BATCHES``.
        finalists: see ``FinalistsConfig``.
        lengths: of the learning curves, as multiples of a student's epochs, ascending; 1 is one of them.
        enough: points of the main score on the search split that a teacher must stand above the plain student at its
            best length, or there is little to distil.
        budget: see ``BudgetConfig``.
        flags: more flags of every training, such as ``[--batch_size, "16", --workers, "8"]``.
    """

    name: str
    title: str = ""
    table: Literal["overview", "detectors", "methods", "ablation", "sensitivity"] = "overview"
    data: DataConfig
    teachers: dict[str, TeacherConfig]
    students: dict[str, StudentConfig]
    methods: dict[str, dict[str, Any]]
    unlabelled: list[str] = field(default_factory=list)
    labelled_once: list[str] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    titles: dict[str, str] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    seeds: SeedsConfig = SeedsConfig()
    search: SearchConfig | None = None
    cost_batches: Count = 10
    finalists: FinalistsConfig = FinalistsConfig()
    lengths: list[Positive] = field(default_factory=lambda: [1.0])
    enough: Positive = 10.0
    budget: BudgetConfig = BudgetConfig()
    flags: list[str] = field(default_factory=list)

    def __post_init__(self):
        problems = [*_name_problems(self), *_reference_problems(self), *flag_problems(self.flags)]
        groups = {"TEACHERS": self.teachers, "STUDENTS": self.students, "METHODS": self.methods}
        problems += result_problems(groups, self.table, {"PARTS": self.parts, "SETTINGS": self.settings})
        if sorted(set(self.lengths)) != self.lengths or 1.0 not in self.lengths:
            problems.append(f"LENGTHS: must rise and have 1 among them, got {self.lengths}")
        if problems:
            raise ConfigError(problems)

    def deciding_keys(self) -> list[str]:
        """Keys of the plan by which something is chosen on the search split."""
        keys = {"SEARCH": self.search is not None, "LENGTHS": len(self.lengths) > 1}
        keys["FINALISTS.BEST"] = 0 < self.finalists.best < len(self.methods) and {*self.methods} > {
            *self.finalists.always
        }
        keys |= {f"TEACHERS.{name}.EPOCHS": len(teacher.epochs) > 1 for name, teacher in self.teachers.items()}
        return [key for key, decides in keys.items() if decides]

    def block(self, student: str, method: str) -> dict[str, Any]:
        """The ``KD`` block of a student's method, without its TEACHER and its weight, keys in upper case."""
        if method == SLICES:
            return SLICES_BLOCK
        if method in SELF_TRAINED:
            return {"LABELS": self.block(student, self.beside(student, method)[0])["LABELS"], "LOSSES": []}
        block = self.students[student].methods.get(method, self.methods[method])
        return {key.upper(): value for key, value in block.items()}

    def has_losses(self, student: str, method: str) -> bool:
        """Whether there is a weight to search for."""
        return method != PLAIN and bool(self.block(student, method).get("LOSSES"))

    def begins_with_weights(self, student: str, method: str) -> bool:
        """Whether the student takes its first weights from the teacher, so that slices alone are a control."""
        if method in (PLAIN, *SELF_TRAINED):
            return SELF_TRAINED.get(method) == SLICES
        return (self.block(student, method).get("INIT") or {}).get("NAME", "none") != "none"

    def base_of(self, student: str, method: str) -> str:
        """What a method would be without its labels and losses: slices or the plain student."""
        return SLICES if self.begins_with_weights(student, method) else PLAIN

    def beside(self, student: str, row: str) -> list[str]:
        """Methods on unlabelled frames that a row of ``SELF_TRAINED`` is the control of."""
        return [method for method in self.unlabelled if self.base_of(student, method) == SELF_TRAINED[row]]

    def sees_unlabelled(self, method: str) -> bool:
        """Whether a method trains on the unlabelled frames too."""
        return method in self.unlabelled or method in SELF_TRAINED


def load_plan(path: str | Path) -> tuple[Plan, dict[str, Any]]:
    """A plan from its file.

    Args:
        path: a YAML file, which may have a ``_BASE_CONFIG_`` as model files do; a relative path counts from the working
            directory, else from the repository's ``tools/``.

    Returns:
        The plan, and the content of the file laid over its bases.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: with everything that is wrong with it.
    """
    file = find_config_file(path)
    content = _plain(cfg_from_yaml_file(file, EasyDict()))
    try:
        return parse_node(content, Plan), content
    except ConfigError as error:
        raise ConfigError([f"{file.name}: {problem}" for problem in error.problems]) from error


def _plain(node: Any) -> Any:
    """Plain mappings and lists, without the names of bases."""
    if isinstance(node, Mapping):
        return {key: _plain(value) for key, value in node.items() if key != BASE_KEY}
    return [_plain(value) for value in node] if isinstance(node, (list, tuple)) else node


def rehearsal(plan: Plan) -> Plan:
    """The same plan at the least length: every stage and every row, in minutes, with numbers that say nothing.

    One epoch, one seed, two frames a split, one batch to measure costs; two factors and two lengths where the plan has
    several. Labels have a SCORE of 0, since a teacher of one epoch is sure of nothing.
    """
    few = {name: replace(getattr(plan.data, name), frames=FEW) for name in ("train", "search", "report")}
    for name in ("teacher_train", "unlabelled"):
        if getattr(plan.data, name) is not None:
            few[name] = replace(getattr(plan.data, name), frames=FEW)
    teachers = {name: replace(t, epochs=list(range(1, len(t.epochs[:2]) + 1))) for name, t in plan.teachers.items()}
    return replace(
        plan,
        name=f"{plan.name}_rehearsal",
        data=replace(plan.data, **few),
        teachers=teachers,
        students={
            name: replace(student, epochs=1, methods=_with_any_labels(student.methods))
            for name, student in plan.students.items()
        },
        methods=_with_any_labels(plan.methods),
        seeds=SeedsConfig(screening=1, finals=1, curves=1),
        cost_batches=1,
        search=plan.search and _short_search(plan.search),
        lengths=[1.0, 2.0] if len(plan.lengths) > 1 else [1.0],
        budget=BudgetConfig(),
    )


def _with_any_labels(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """``KD`` blocks whose labels may have any score."""
    return {name: {key: _any_score(key, value) for key, value in block.items()} for name, block in methods.items()}


def _any_score(key: str, value: Any) -> Any:
    if key.upper() != "LABELS" or not isinstance(value, Mapping):
        return value
    return {**{k: v for k, v in value.items() if k.upper() != "SCORE"}, "SCORE": 0.0}


def _short_search(search: SearchConfig) -> SearchConfig:
    return replace(search, factors=search.factors[:FEW], epochs=1, batches=1, warm_steps=min(search.warm_steps, 1))


def _name_problems(plan: Plan) -> list[str]:
    """Names that cannot be part of a folder's, or that a control has."""
    groups = {"TEACHERS": plan.teachers, "STUDENTS": plan.students, "METHODS": plan.methods}
    problems = [] if NAME_RULE.fullmatch(plan.name) else [f"NAME: {_not_a_name(plan.name)}"]
    for key, entries in groups.items():
        problems += [f"{key}.{name}: {_not_a_name(name)}" for name in entries if not NAME_RULE.fullmatch(name)]
        if key != "METHODS" and not entries:
            problems.append(f"{key}: must name at least one")
    problems += [
        f"STUDENTS.{name}: the plan has a folder of this name; use another one"
        for name in plan.students
        if name in FOLDERS
    ]
    taken = [name for name in (TEACHER, PLAIN, SLICES, *SELF_TRAINED) if name in plan.methods]
    return problems + [f"METHODS.{name}: the plan makes this row itself; use another name" for name in taken]


def _not_a_name(name: str) -> str:
    return f"becomes part of a folder's name: letters, digits and + . _ - only, got {name!r}"


def _label_problems(plan: Plan) -> list[str]:
    """Methods on unlabelled frames without labels, or with others than those that have the same control."""
    problems = []
    methods = [name for name in plan.unlabelled if name in plan.methods]
    for student in plan.students:
        labels = {method: plan.block(student, method).get("LABELS") for method in methods}
        problems += [
            f"UNLABELLED: {method} needs LABELS, with which the teacher labels the frames"
            for method, block in labels.items()
            if block is None
        ]
        for row, base in SELF_TRAINED.items():
            alike = [method for method in methods if plan.base_of(student, method) == base]
            problems += [
                f"UNLABELLED: {method} has other LABELS than {alike[0]}, and {row} is the control of both; give them "
                "the same, or make two plans"
                for method in alike
                if labels[method] != labels[alike[0]]
            ]
    return problems


def _labelled_once_problems(plan: Plan) -> list[str]:
    """Methods whose frames are labelled once that have none, or nothing beside these labels to distil."""
    problems = []
    for method in (name for name in plan.labelled_once if name in plan.methods):
        if method not in plan.unlabelled:
            problems.append(f"LABELLED_ONCE: {method} has no frames without labels; name it in UNLABELLED too")
        for student in plan.students:
            if plan.base_of(student, method) == PLAIN and not plan.has_losses(student, method):
                problems.append(f"LABELLED_ONCE: {method} of {student} needs INIT or LOSSES beside the labels")
    return problems


def _reference_problems(plan: Plan) -> list[str]:
    """Names that are nowhere else in the plan, and blocks that hold what the plan itself writes."""
    problems = [
        f"STUDENTS.{name}.TEACHER: TEACHERS has no {student.teacher!r}; {nearest_name(student.teacher, plan.teachers)}"
        for name, student in plan.students.items()
        if student.teacher not in plan.teachers
    ]
    everything = [TEACHER, PLAIN, SLICES, *SELF_TRAINED, *plan.methods, *plan.students, *plan.teachers]
    groups = {
        "FINALISTS.ALWAYS": (plan.finalists.always, plan.methods),
        "UNLABELLED": (plan.unlabelled, plan.methods),
        "LABELLED_ONCE": (plan.labelled_once, plan.methods),
        "PAIRS": ([name for pair in plan.pairs for name in pair], plan.methods),
        "TITLES": (plan.titles, everything),
        "PARTS": (plan.parts, plan.methods),
        "SETTINGS": (plan.settings, plan.methods),
        **{f"STUDENTS.{name}.METHODS": (student.methods, plan.methods) for name, student in plan.students.items()},
    }
    for key, (names, known) in groups.items():
        unknown = [name for name in names if name not in known]
        problems += [f"{key}: METHODS has no {name!r}; {nearest_name(name, known)}" for name in unknown]
    same = [first for first, second in plan.pairs if first == second]
    problems += [f"PAIRS: {name} is compared with itself; name two methods" for name in same]
    if plan.unlabelled and plan.data.unlabelled is None:
        problems.append("UNLABELLED: DATA.UNLABELLED is missing, the frames that these methods train on")
    problems += [*_label_problems(plan), *_labelled_once_problems(plan)]
    blocks = {f"METHODS.{name}": block for name, block in plan.methods.items()}
    for name, student in plan.students.items():
        blocks |= {f"STUDENTS.{name}.METHODS.{method}": block for method, block in student.methods.items()}
    for path, block in blocks.items():
        written = [k for k in block if k.upper() in ("TEACHER", "WEIGHT")]
        problems += [f"{path}.{key}: the plan writes this itself; remove it" for key in written]
    return problems
