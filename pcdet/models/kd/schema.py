"""The ``KD:`` block of a student's YAML: its schema, and what its presets stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Annotated, Any, Literal, get_args

from pcdet.models.kd.presets import TEACHER_MODE
from pcdet.models.kd.teacher_labels import LabelsConfig
from pcdet.registry import KD_LOSSES, MISSING, AtLeast, ConfigError, parameters_of, parse_node

Preset = Literal["default", "official", "paper"]


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """The teacher.

    Attributes:
        cfg: its YAML file; MODEL, CLASS_NAMES and what decides its voxels in DATA_CONFIG are read.
        ckpt: its checkpoint; ``--teacher_ckpt`` wins.
        mode: "eval"; "train", batch statistics in its batch norms, whose running ones drift, and dropout; "bn_train",
            the batch norms alone. None: what the preset says, else "eval".
    """

    cfg: str | None = None
    ckpt: str | None = None
    mode: Literal["eval", "train", "bn_train"] | None = None


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """How the student's weights begin.

    Attributes:
        name: "none", as the detector initialises itself; "slice", the first channels of each of the teacher's layers;
            "bn_scale", those of the largest batch norm scale; "l1", those whose filters have the largest L1 norm.
    """

    name: Literal["none", "slice", "bn_scale", "l1"] = "none"


@dataclass(frozen=True, kw_only=True)
class KDConfig:
    """The ``KD:`` block.

    Attributes:
        teacher: see ``TeacherConfig``.
        init: see ``InitConfig``.
        labels: which of the teacher's boxes join the student's labels; None: none.
        losses: one node each, with NAME and the keys of that class; a list of taps under FEATURE stands for as many
            losses. None at all is for a student that only begins with slices of its teacher.
        preset: for every loss that names none of its own.
        weight: multiplies the weight of every loss, so that one number makes a method stronger or weaker.
        log_every: iterations between two computations of the diagnostics that cost time; 0: never.
        target_var_warn: warn when a target's variance falls below this share of what it was at first.
    """

    teacher: TeacherConfig = TeacherConfig()
    init: InitConfig = InitConfig()
    labels: LabelsConfig | None = None
    losses: list[Annotated[dict, KD_LOSSES]] = field(default_factory=list)
    preset: Preset = "default"
    weight: Annotated[float, AtLeast(0)] = 1.0
    log_every: int = 50
    target_var_warn: float = 0.1

    def __post_init__(self):
        if not self.losses and self.init.name == "none" and self.labels is None:
            raise ValueError(
                "LOSSES: missing or empty; name at least one, begin with slices of the teacher (INIT.NAME slice), take "
                "its boxes for labels (LABELS: {}), or remove the KD block"
            )
        if self.labels is not None and self.teacher.mode == "train":
            raise ValueError(
                "LABELS: need a teacher that finds its boxes, which it does not in TEACHER.MODE train; use eval or "
                "bn_train"
            )
        if self.log_every < 0:
            raise ValueError(f"LOG_EVERY: must be at least 0 (never), got {self.log_every}")


def resolve(node: Mapping, kind_of: Callable[[str], str], *, path: str = "KD") -> tuple[KDConfig, dict[str, Any]]:
    """The block checked, and the same block with every preset and default written out.

    Args:
        node: the ``KD:`` block.
        kind_of: tap of the student -> what it is (``FeatureSpec.kind``), on which a preset's keys depend; for losses
            without a tap, "" -> what its head predicts on.
        path: where it stands, for messages.

    Returns:
        The parsed block, whose losses are expanded nodes, and a plain dictionary of it for the log.

    Raises:
        ConfigError: with every wrong, missing or ill-typed key.
    """
    block = parse_node(node, KDConfig, path=path)
    nodes = [_plain(loss) for loss in block.losses]
    problems = [f"{path}.LOSSES[{i}].{problem}" for i, node in enumerate(nodes) for problem in _tap_problems(node)]
    if problems:
        raise ConfigError(problems)
    losses = [_expand(one, block.preset, kind_of) for node in nodes for one in _per_tap(node)]
    for loss in losses:
        if block.weight != 1 and isinstance(loss["WEIGHT"], (int, float)):  # another type is the loss's own complaint
            loss["WEIGHT"] *= block.weight
    presets = [loss.get("PRESET", "default") for loss in losses]
    mode = block.teacher.mode or next((TEACHER_MODE[p] for p in presets if p in TEACHER_MODE), "eval")
    resolved = {
        "TEACHER": {"CFG": block.teacher.cfg, "CKPT": block.teacher.ckpt, "MODE": mode},
        "INIT": {"NAME": block.init.name},
        "LABELS": None if block.labels is None else _plain(asdict(block.labels)),
        "LOSSES": losses,
        "LOG_EVERY": block.log_every,
        "TARGET_VAR_WARN": block.target_var_warn,
    }
    return parse_node(resolved, KDConfig, path=path), resolved


def _tap_problems(loss: dict[str, Any]) -> list[str]:
    """What is wrong with the taps that a loss lists."""
    taps, teacher_taps = loss.get("FEATURE"), loss.get("TEACHER_FEATURE")
    if taps == []:
        return ["FEATURE: must name at least one tap, got an empty list; name one, or remove the loss"]
    if not isinstance(teacher_taps, list):
        return []
    if not isinstance(taps, list):
        return [f"TEACHER_FEATURE: must name one tap, as FEATURE {taps!r} does, got the list {teacher_taps}"]
    if len(teacher_taps) != len(taps):
        return [f"TEACHER_FEATURE: must list as many taps as FEATURE {taps}, got {teacher_taps}"]
    return []


def _per_tap(loss: dict[str, Any]) -> list[dict[str, Any]]:
    """A loss that lists several features as one loss for each of them."""
    taps, teacher_taps = loss.get("FEATURE"), loss.get("TEACHER_FEATURE")
    if not isinstance(taps, list):
        return [loss]
    if not isinstance(teacher_taps, list):
        return [{**loss, "FEATURE": tap} for tap in taps]
    pairs = zip(taps, teacher_taps, strict=True)
    return [{**loss, "FEATURE": tap, "TEACHER_FEATURE": of_teacher} for tap, of_teacher in pairs]


def _expand(node: dict[str, Any], block_preset: str, kind_of: Callable[[str], str]) -> dict[str, Any]:
    """A loss's node with its preset's keys, and then the class's own defaults, filled in under its own."""
    cls = KD_LOSSES.get(node["NAME"])
    presets = cls.PRESETS
    if presets:
        name = node.get("PRESET") or (block_preset if block_preset in presets else "default")
        node = _merge(presets.get(name, {}).get(kind_of(node.get("FEATURE", "")), {}), node)
        if len(presets) > 1:
            node["PRESET"] = name
    return {"NAME": node.pop("NAME"), **_with_defaults(cls, node)}


def _with_defaults(cls: type, node: Mapping) -> dict[str, Any]:
    """``node`` with the default of every key that it leaves out, in the order of a loss's signature."""
    written = {}
    for name, parameter in parameters_of(cls).items():
        key = name.upper()
        value = node.get(key, parameter.default)
        if value is MISSING:
            continue
        schema = next((t for t in (parameter.annotation, *get_args(parameter.annotation)) if is_dataclass(t)), None)
        if isinstance(value, Mapping) and schema is not None:
            value = parse_node(value, schema, path=key)
        written[key] = _plain(asdict(value)) if is_dataclass(value) else value
    return written


def _plain(node: Any) -> Any:
    """Plain dictionaries and lists, with upper-case keys."""
    if isinstance(node, Mapping):
        return {str(key).upper(): _plain(value) for key, value in node.items()}
    return [_plain(value) for value in node] if isinstance(node, (list, tuple)) else node


def _merge(base: Mapping, over: Mapping) -> dict[str, Any]:
    """``over`` upon ``base``, mappings merged key by key; null replaces."""
    merged = {key: _plain(value) for key, value in base.items()}
    if over.get("BY", merged.get("BY")) != merged.get("BY"):
        merged.pop("TEMPERATURE", None)  # it is in the unit of the measure that is replaced
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
