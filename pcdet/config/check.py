"""Finds everything that is wrong with a configuration before anything is built.

Each problem is a sentence that begins with the path of the key. What a key may be is read off the class that takes it,
through the registries; what must fit together, the modules say in the dry walk over the ``MODEL`` block
(``models/description.py``) and the data set in its own rules (``datasets/config_rules.py``). Here is only what joins
the sections.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pcdet import registry as R
from pcdet.config.files import find_config_file
from pcdet.config.schema import PROGRAM_KEYS, SECTIONS, HookConfig
from pcdet.datasets.config import DataConfig
from pcdet.datasets.config_rules import class_map_problems, data_problems, grid_size, voxel_size
from pcdet.engine.optim import OptimizationConfig
from pcdet.models.description import SLOTS, DataFacts, Description, class_of, describe
from pcdet.models.kd.schema import KDConfig
from pcdet.models.model_utils.post_processing import PostProcessingConfig
from pcdet.models.width import scale_model_cfg
from pcdet.registry import BASE_KEY, NAME_KEY, ConfigError, nearest_name
from pcdet.utils.config_values import get, is_list, is_number, mappings, numbers

SCHEMAS = {"OPTIMIZATION": OptimizationConfig, "KD": KDConfig, "HOOK": HookConfig}
VOXEL_SIZE = "DATA_CONFIG.VOXEL_SIZE"  # where a module says it stands; the step that names it knows better


def validate_config(config: Mapping) -> None:
    """Raises ConfigError with everything that is wrong with a whole configuration."""
    problems = find_problems(config)
    if problems:
        raise ConfigError(problems)


def require_sections(config: Mapping, sections: Iterable[str]) -> None:
    """Raises ConfigError where a program's sections are missing, as where a data set's file is given for a model's."""
    missing = [section for section in sections if config.get(section) is None]
    if missing:
        raise ConfigError(
            f"{section}: missing; a model file such as cfgs/kitti_models/pointpillar.yaml has it" for section in missing
        )


def find_problems(config: Mapping) -> list[str]:
    """Everything that is wrong with a whole configuration, a sentence each; empty if nothing is."""
    found = [*_section_problems(config), *_schema_problems_of_data(config), *_schema_problems_of_model(config)]
    complained = {_path_of(problem) for problem in found}
    for rule in RULES:
        found += [problem for problem in rule(config) if _path_of(problem) not in complained]
    return list(dict.fromkeys(found))


def _path_of(problem: str) -> str:
    return problem.partition(": ")[0]


# ---------------------------------------------------------------------------------------------------------------- keys


def _section_problems(config: Mapping) -> Iterator[str]:
    for key in config:
        if key not in (*SECTIONS, *PROGRAM_KEYS, BASE_KEY):
            yield f"{key}: there is no such section; {nearest_name(key, SECTIONS)}"
    names = config.get("CLASS_NAMES")
    nameless = "MODEL" in config and not (is_list(names) and names)
    if nameless or (is_list(names) and not all(isinstance(n, str) for n in names)):
        yield f"CLASS_NAMES: expected a list of class names, got {names!r}"
    elif is_list(names) and len(set(names)) < len(names):
        yield f"CLASS_NAMES: every class may stand there once, got {list(names)}"
    for section, schema in SCHEMAS.items():
        if config.get(section) is not None:
            yield from _schema_problems(config[section], schema, section)


def _schema_problems(node: Any, schema: type, path: str) -> list[str]:
    try:
        R.parse_node(node, schema, path=path)
    except ConfigError as error:
        return error.problems
    return []


def _schema_problems_of_data(config: Mapping) -> Iterator[str]:
    if "DATA_CONFIG" not in config:
        return
    data, path = config["DATA_CONFIG"], "DATA_CONFIG"
    if not isinstance(data, Mapping):
        yield f"{path}: expected a mapping, got {data!r}"
        return
    schema = DataConfig
    try:
        schema = getattr(R.DATASETS.get(data.get("DATASET", ""), f"{path}.DATASET"), "SCHEMA", schema)
    except ConfigError as error:
        if "DATASET" in data:
            yield from error.problems
            return  # what the keys of a data set without a class may be, nobody knows
    yield from _schema_problems(data, schema, path)


def _schema_problems_of_model(config: Mapping) -> Iterator[str]:
    if "MODEL" not in config:
        return
    model = config["MODEL"]
    if not isinstance(model, Mapping) or NAME_KEY not in model:
        yield f"MODEL.{NAME_KEY}: missing; it says which detector to build"
        return
    try:
        detector = R.DETECTORS.get(model[NAME_KEY], f"MODEL.{NAME_KEY}")
    except ConfigError as error:
        yield from error.problems
        for slot in SLOTS:  # which of its parts there are, all at once
            node = model.get(slot.key)
            if isinstance(node, Mapping):
                yield from slot.registry.complaints(str(node.get(NAME_KEY)), f"MODEL.{slot.key}.{NAME_KEY}")
        return
    ours = detector.__module__.startswith("pcdet.")
    if ours:  # a user's own detector may read what it likes
        yield from _part_problems(model, detector)
    for slot in SLOTS:
        if slot.key in model:
            yield from R.check_node(model[slot.key], slot.registry, path=f"MODEL.{slot.key}")
    if ours or "POST_PROCESSING" in model:
        yield from _schema_problems(model.get("POST_PROCESSING"), PostProcessingConfig, "MODEL.POST_PROCESSING")
    width = model.get("WIDTH", 1.0)
    if not is_number(width) or not width > 0:
        yield f"MODEL.WIDTH: must be a factor above 0 (0.5 halves every layer), got {width!r}"
    momentum = model.get("BN_MOMENTUM", 0.01)
    if not is_number(momentum) or not 0 < momentum <= 1:
        yield f"MODEL.BN_MOMENTUM: must be above 0 and at most 1 (a new batch's share), got {momentum!r}"


def _part_problems(model: Mapping, detector: type) -> Iterator[str]:
    """Sentences on parts that a detector does not have, and on those that it needs."""
    known = (NAME_KEY, *(slot.key for slot in SLOTS), "POST_PROCESSING", "WIDTH", "BN_MOMENTUM")
    for key in model:
        if key not in (*known, BASE_KEY):
            yield f"MODEL.{key}: {model[NAME_KEY]} has no such part; {nearest_name(key, known)}"
    for slot in SLOTS:
        if slot.attribute in getattr(detector, "REQUIRED", ()) and slot.key not in model:
            yield f"MODEL.{slot.key}: missing; {model[NAME_KEY]} needs it"


# --------------------------------------------------------------------------------------------- what joins the sections


def data_facts(config: Mapping) -> DataFacts:
    """What a detector reads of its data set, from the file instead of the data; None where the file does not tell."""
    data, names = get(config, "DATA_CONFIG"), config.get("CLASS_NAMES")
    if not isinstance(data, Mapping):
        return DataFacts(class_names=names if is_list(names) else None)
    voxel, columns = voxel_size(data), get(data, "POINT_FEATURE_ENCODING.used_feature_list")
    return DataFacts(
        class_names=names if is_list(names) and all(isinstance(name, str) for name in names) else None,
        point_cloud_range=numbers(data.get("POINT_CLOUD_RANGE"), 6),
        voxel_size=voxel and voxel[1],
        grid_size=grid_size(data),
        **({"num_point_features": len(columns)} if is_list(columns) else {}),
        makes_voxels=_has_step(data, "MAKES_VOXELS"),
        equal_frames=_has_step(data, "EQUAL_FRAMES"),
    )


def _has_step(data: Mapping, what: str) -> bool:
    """Whether a step of DATA_PROCESSOR says that it does this; a user's own step may."""
    if not is_list(data.get("DATA_PROCESSOR")):
        return True  # the schema complains
    known = set(R.PROCESSORS.names())
    names = [node.get(NAME_KEY) for _, node in mappings(data["DATA_PROCESSOR"])]
    steps = [R.PROCESSORS.get(name) for name in names if isinstance(name, str) and name in known]
    return any(getattr(step, what, not step.__module__.startswith("pcdet.")) for step in steps)


def _modules_fit(config: Mapping) -> Iterator[str]:
    """What the modules have against where they stand, at the width at which they are built, in the file's numbers."""
    model = config.get("MODEL")
    if not isinstance(model, Mapping):
        return
    facts, width = data_facts(config), model.get("WIDTH", 1.0)
    as_written = describe(model, facts)
    problems = as_written.problems
    if width != 1 and not list(_schema_problems_of_model(config)):
        try:
            problems = _in_the_files_numbers(describe(scale_model_cfg(model, width), facts).problems, problems)
        except ConfigError as error:
            problems = error.problems
    place = voxel_size(config["DATA_CONFIG"]) if isinstance(config.get("DATA_CONFIG"), Mapping) else None
    for problem in problems:
        yield problem.replace(VOXEL_SIZE, place[0], 1) if place and problem.startswith(VOXEL_SIZE) else problem
    yield from _strides_divide_the_grid(facts, as_written)


def _in_the_files_numbers(as_built: list[str], as_written: list[str]) -> list[str]:
    """What is wrong at the built widths; where the file's own numbers are wrong at the same place, as those have it."""
    written = {_path_of(problem) for problem in as_written}
    kept = {_path_of(problem) for problem in as_built}
    return [p for p in as_written if _path_of(p) in kept] + [p for p in as_built if _path_of(p) not in written]


def _strides_divide_the_grid(facts: DataFacts, described: Description) -> Iterator[str]:
    total = described.coarsest()
    if facts.grid_size is None:
        return
    for axis, count, size in zip("xy", facts.grid_size, facts.voxel_size, strict=False):
        if count % total:
            below = int(count // total * total)
            fits = " or ".join(f"{n} ({n * size:g} m)" for n in (below, int(below + total)) if n)
            yield (
                f"DATA_CONFIG.POINT_CLOUD_RANGE: the grid has {count} voxels along {axis}, which the strides of the "
                f"backbones ({total:g} in all) do not divide; {fits} would fit"
            )


def _data_fits(config: Mapping) -> Iterator[str]:
    data = config.get("DATA_CONFIG")
    if isinstance(data, Mapping):
        yield from data_problems(data)
        yield from class_map_problems(data, config.get("CLASS_NAMES"), get(config, "MODEL.POST_PROCESSING.EVAL_METRIC"))


def _overlapping_boxes_are_suppressed(config: Mapping) -> Iterator[str]:
    model, path = config.get("MODEL"), "MODEL.POST_PROCESSING"
    if not isinstance(get(config, path), Mapping) or get(config, f"{path}.NMS_CONFIG") is not None:
        return
    for slot in SLOTS:
        node = model.get(slot.key)
        if isinstance(node, Mapping) and getattr(class_of(slot, node), "BOXES_OVERLAP", False):
            yield f"{path}.NMS_CONFIG: missing; an anchor head's boxes overlap"


def _teacher_file_exists(config: Mapping) -> Iterator[str]:
    path = "KD.TEACHER.CFG"
    if isinstance(get(config, path), str):
        try:
            find_config_file(get(config, path))
        except FileNotFoundError as error:
            yield f"{path}: {error}"


def _somebody_labels_the_frames(config: Mapping) -> Iterator[str]:
    path = "DATA_CONFIG.INFO_PATH.unlabelled"
    if get(config, path) and get(config, "KD.LABELS") is None and get(config, "DATA_CONFIG.PSEUDO_LABELS") is None:
        yield (
            f"{path}: these frames get their labels from a teacher; set KD.LABELS (LABELS: {{}}), with which it labels "
            "them in every pass, or DATA_CONFIG.PSEUDO_LABELS for boxes that were found before, or remove them from "
            "the file"
        )


RULES = (
    _data_fits, _modules_fit, _overlapping_boxes_are_suppressed, _teacher_file_exists, _somebody_labels_the_frames,
)  # fmt: skip
