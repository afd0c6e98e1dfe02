"""Finds everything that is wrong with a configuration before anything is built.

Three kinds of problem, each a sentence that begins with the path of the key: keys (unknown, with the nearest known
one; missing; ill-typed), names (of classes, coders, features), and geometry (a range that is no whole number of voxels,
a grid that the strides do not divide, a head whose stride is not the backbone's). What a key may be is read off the
class that takes it, through the registries; the rules of geometry are below, one function each. A rule whose facts are
missing or ill-typed says nothing: the schema has already complained.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pcdet import registry as R
from pcdet.registry import BASE_KEY, NAME_KEY, ConfigError, Registry, load_object, nearest_name

PROGRAM_KEYS = ("ROOT_DIR", "LOCAL_RANK", "TAG", "EXP_GROUP_PATH")  # set by programs, not by files
SECTIONS = ("CLASS_NAMES", "DATA_CONFIG", "MODEL", "OPTIMIZATION", "HOOK", "KD")

SLOTS = {
    "VFE": R.VFE,
    "BACKBONE_3D": R.BACKBONES_3D,
    "MAP_TO_BEV": R.MAP_TO_BEV,
    "PFE": R.BACKBONES_3D,
    "BACKBONE_2D": R.BACKBONES_2D,
    "DENSE_HEAD": R.DENSE_HEADS,
    "POINT_HEAD": R.POINT_HEADS,
    "ROI_HEAD": R.ROI_HEADS,
}
SCHEMAS = {
    "OPTIMIZATION": "pcdet.engine.optim:OptimizationConfig",
    "MODEL.POST_PROCESSING": "pcdet.models.model_utils.post_processing:PostProcessingConfig",
    "KD": "pcdet.models.kd.schema:KDConfig",
    "DATA_CONFIG": "pcdet.datasets.config:DataConfig",
}

STRIDE_3D = {"VoxelBackBone8x": 8, "VoxelResBackBone8x": 8}  # metres of BEV cell over metres of voxel
SPARSE_CHANNELS = 128  # of what leaves these backbones at width 1
SCALE_CHANNELS = "pcdet.models.width:scale_channels"
SCALE_BEV_CHANNELS = "pcdet.models.width:scale_bev_channels"
DATASET_TEMPLATE = "pcdet.datasets.dataset:DatasetTemplate"
KITTI_CLASSES = "pcdet.datasets.kitti.kitti_object_eval_python.rules:CLASS_NAMES"
DATABASE_FILTERS = "pcdet.datasets.augmentor.database_sampler:FILTERS"  # what gt_sampling's PREPARE may name
# Lists or numbers whose entries must be at least one, wherever they stand under these nodes.
COUNTS = {
    "MODEL.VFE": ("NUM_FILTERS",),
    "MODEL.MAP_TO_BEV": ("NUM_BEV_FEATURES",),
    "MODEL.BACKBONE_2D": ("LAYER_STRIDES", "NUM_FILTERS", "NUM_UPSAMPLE_FILTERS"),
    "MODEL.DENSE_HEAD": ("NUM_DIR_BINS", "SHARED_CONV_NUM_FILTER"),
    "MODEL.POST_PROCESSING.NMS_CONFIG": ("NMS_PRE_MAXSIZE", "NMS_POST_MAXSIZE"),
}
VOXEL_COUNTS = ("MAX_POINTS_PER_VOXEL", "MAX_NUMBER_OF_VOXELS")
WHOLE = 1e-3  # how far from a whole number a count of voxels may be: float32 ranges such as 69.12 / 0.16


@dataclasses.dataclass(frozen=True, kw_only=True)
class DisableAugmentation:
    """``HOOK.DisableAugmentationHook``: which augmentors rest during the last epochs."""

    disable_aug_list: list[str]
    num_last_epochs: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class HookConfig:
    """The ``HOOK`` section."""

    disableaugmentationhook: DisableAugmentation | None = None


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
    found = [*_section_problems(config), *_data_problems(config), *_model_problems(config)]
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
    nameless = "MODEL" in config and not (_is_list(names) and names)
    if nameless or (_is_list(names) and not all(isinstance(n, str) for n in names)):
        yield f"CLASS_NAMES: expected a list of class names, got {names!r}"
    elif _is_list(names) and len(set(names)) < len(names):
        yield f"CLASS_NAMES: every class may stand there once, got {list(names)}"
    for section in ("OPTIMIZATION", "KD"):
        if config.get(section) is not None:
            yield from _schema_problems(config[section], load_object(SCHEMAS[section]), section)
    if config.get("HOOK") is not None:
        yield from _schema_problems(config["HOOK"], HookConfig, "HOOK")


def _schema_problems(node: Any, schema: type, path: str) -> list[str]:
    try:
        R.parse_node(node, schema, path=path)
    except ConfigError as error:
        return error.problems
    return []


def _data_problems(config: Mapping) -> Iterator[str]:
    if "DATA_CONFIG" not in config:
        return
    data, path = config["DATA_CONFIG"], "DATA_CONFIG"
    if not isinstance(data, Mapping):
        yield f"{path}: expected a mapping, got {data!r}"
        return
    schema = load_object(SCHEMAS["DATA_CONFIG"])
    try:
        schema = getattr(R.DATASETS.get(data.get("DATASET", ""), f"{path}.DATASET"), "SCHEMA", schema)
    except ConfigError as error:
        if "DATASET" in data:
            yield from error.problems
            return  # what the keys of a data set without a class may be, nobody knows
    yield from _schema_problems(data, schema, path)


def _augmentors(config: Mapping) -> tuple[str, Any]:
    """Path and list of the augmentors; OpenPCDet also takes the list without its mapping."""
    node = _get(config, "DATA_CONFIG.DATA_AUGMENTOR")
    if isinstance(node, Mapping):
        return "DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST", node.get("AUG_CONFIG_LIST")
    return "DATA_CONFIG.DATA_AUGMENTOR", node


def _name_problems(name: Any, registry: Registry, path: str) -> list[str]:
    try:
        registry.get(name, path)
    except ConfigError as error:
        return error.problems
    return []


def _model_problems(config: Mapping) -> Iterator[str]:
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
        for slot, registry in SLOTS.items():  # which of its parts there are, all at once
            if isinstance(model.get(slot), Mapping):
                yield from _name_problems(model[slot].get(NAME_KEY), registry, f"MODEL.{slot}.{NAME_KEY}")
        return
    ours = detector.__module__.startswith("pcdet.")
    if ours:  # a user's own detector may read what it likes
        known = (NAME_KEY, *SLOTS, "POST_PROCESSING", "WIDTH", "BN_MOMENTUM")
        for key in model:
            if key not in (*known, BASE_KEY):
                yield f"MODEL.{key}: {model[NAME_KEY]} has no such part; {nearest_name(key, known)}"
        for attribute in getattr(detector, "REQUIRED", ()):
            slot = attribute.removesuffix("_module").upper()
            if slot not in model:
                yield f"MODEL.{slot}: missing; {model[NAME_KEY]} needs it"
    for slot, registry in SLOTS.items():
        if slot in model:
            yield from R.check_node(model[slot], registry, path=f"MODEL.{slot}")
    if ours or "POST_PROCESSING" in model:
        schema = load_object(SCHEMAS["MODEL.POST_PROCESSING"])
        yield from _schema_problems(model.get("POST_PROCESSING"), schema, "MODEL.POST_PROCESSING")
    width = model.get("WIDTH", 1.0)
    if not _is_number(width) or not width > 0:
        yield f"MODEL.WIDTH: must be a factor above 0 (0.5 halves every layer), got {width!r}"
    momentum = model.get("BN_MOMENTUM", 0.01)
    if not _is_number(momentum) or not 0 < momentum <= 1:
        yield f"MODEL.BN_MOMENTUM: must be above 0 and at most 1 (a new batch's share), got {momentum!r}"


# --------------------------------------------------------------------------------------------------------------- facts


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _is_number(value: Any) -> bool:
    """Whether it is a finite number; the schemas refuse the others."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(value: Any, count: int | None = None) -> list[float] | None:
    """``value`` if it is a list of (``count``) numbers."""
    if not _is_list(value) or not all(_is_number(v) for v in value) or count not in (None, len(value)):
        return None
    return list(value)


def _get(config: Any, path: str) -> Any:
    """What stands at a dotted path, or None."""
    for key in path.split("."):
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


def _mappings(nodes: Any) -> list[tuple[int, Mapping]]:
    return [(i, node) for i, node in enumerate(nodes) if isinstance(node, Mapping)] if _is_list(nodes) else []


def _name(config: Mapping, slot: str) -> Any:
    return _get(config, f"MODEL.{slot}.{NAME_KEY}")


def _voxel_size(config: Mapping) -> tuple[str, list[float]] | None:
    """Path and value of the voxel size, metres."""
    for i, node in _mappings(_get(config, "DATA_CONFIG.DATA_PROCESSOR")):
        size = _numbers(node.get("VOXEL_SIZE"), 3)
        if size and min(size) > 0:
            return f"DATA_CONFIG.DATA_PROCESSOR[{i}].VOXEL_SIZE", size
    return None


def _extent(config: Mapping) -> list[float] | None:
    """Length of the point cloud range along x, y, z, metres."""
    limits = _numbers(_get(config, "DATA_CONFIG.POINT_CLOUD_RANGE"), 6)
    return [high - low for low, high in zip(limits[:3], limits[3:], strict=True)] if limits else None


def _grid(config: Mapping) -> list[int] | None:
    """Voxels along x, y, z, if they fill the range."""
    voxel, extent = _voxel_size(config), _extent(config)
    if voxel is None or extent is None:
        return None
    counts = [length / size for length, size in zip(extent, voxel[1], strict=True)]
    if any(count <= 0 or abs(count - round(count)) > WHOLE for count in counts):
        return None
    return [round(count) for count in counts]


def _bev_levels(config: Mapping) -> tuple[list[int], list[float]] | None:
    """Strides and upsampling strides of a BaseBEVBackbone, where both are whole."""
    if _name(config, "BACKBONE_2D") != "BaseBEVBackbone":
        return None
    node = _get(config, "MODEL.BACKBONE_2D")
    strides, ups = _numbers(node.get("LAYER_STRIDES") or []), _numbers(node.get("UPSAMPLE_STRIDES") or [])
    if strides is None or ups is None or not all(s >= 1 for s in strides) or not all(u > 0 for u in ups):
        return None
    return strides, ups


def _stride_3d(config: Mapping) -> int | None:
    """Stride of the 3-D backbone; 1 without one, None if it is not known."""
    return STRIDE_3D.get(_name(config, "BACKBONE_3D")) if _get(config, "MODEL.BACKBONE_3D") else 1


def _level_strides(config: Mapping) -> list[float] | None:
    """Stride, against the voxels, of each level of the BEV backbone after its upsampling."""
    levels, start = _bev_levels(config), _stride_3d(config)
    if levels is None or start is None:
        return None
    strides, ups = levels
    reached, total = [], start
    for i, stride in enumerate(strides):
        total *= stride
        reached.append(total / ups[i] if i < len(ups) else total)
    return reached


def _head_stride(config: Mapping) -> float | None:
    """Stride of the map that the head reads."""
    reached, levels = _level_strides(config), _bev_levels(config)
    if not reached or len(set(reached)) > 1:
        return None
    strides, ups = levels
    return reached[0] / ups[-1] if len(ups) > len(strides) else reached[0]


# --------------------------------------------------------------------------------------------------- rules of geometry


def _voxels_fill_the_range(config: Mapping) -> Iterator[str]:
    for i, node in _mappings(_get(config, "DATA_CONFIG.DATA_PROCESSOR")):
        size = node.get("VOXEL_SIZE")
        if size is not None and (_numbers(size, 3) is None or min(size) <= 0):
            yield f"DATA_CONFIG.DATA_PROCESSOR[{i}].VOXEL_SIZE: expected three lengths above 0, got {size!r}"
    voxel, extent = _voxel_size(config), _extent(config)
    if voxel is None or extent is None:
        return
    for axis, length, size in zip("xyz", extent, voxel[1], strict=True):
        count = length / size
        if length > 0 and abs(count - round(count)) > WHOLE:
            fits = " or ".join(f"{n * size:g}" for n in (int(count), int(count) + 1) if n)
            yield (
                f"DATA_CONFIG.POINT_CLOUD_RANGE: {length:g} m along {axis} are {count:g} voxels of {size:g} m "
                f"({voxel[0]}), not a whole number; {fits} m would fit"
            )


def _strides_divide_the_grid(config: Mapping) -> Iterator[str]:
    grid, start, voxel = _grid(config), _stride_3d(config), _voxel_size(config)
    if grid is None or start is None or not isinstance(config.get("MODEL"), Mapping):
        return
    total = start
    levels = _bev_levels(config)
    for stride in levels[0] if levels else ():
        total *= stride
    for axis, count, size in zip("xy", grid, voxel[1], strict=False):
        if count % total:
            below = int(count // total * total)
            fits = " or ".join(f"{n} ({n * size:g} m)" for n in (below, int(below + total)) if n)
            yield (
                f"DATA_CONFIG.POINT_CLOUD_RANGE: the grid has {count} voxels along {axis}, which the strides of the "
                f"backbones ({total:g} in all) do not divide; {fits} would fit"
            )


def _pillars_span_the_height(config: Mapping) -> Iterator[str]:
    grid, voxel = _grid(config), _voxel_size(config)
    if grid and _name(config, "MAP_TO_BEV") == "PointPillarScatter" and grid[2] != 1:
        yield (
            f"{voxel[0]}: PointPillarScatter needs one voxel over the whole height of {_extent(config)[2]:g} m, "
            f"got {grid[2]} of {voxel[1][2]:g} m"
        )


def _bev_levels_meet(config: Mapping) -> Iterator[str]:
    levels, path = _bev_levels(config), "MODEL.BACKBONE_2D"
    if levels is None:
        return
    node = _get(config, path)
    lists = {key: node.get(key) or [] for key in ("LAYER_NUMS", "LAYER_STRIDES", "NUM_FILTERS")}
    counts = {key: len(value) for key, value in lists.items() if _is_list(value)}
    if len(set(counts.values())) > 1:
        yield f"{path}: an item for each stage is needed in {', '.join(f'{k} ({n})' for k, n in counts.items())}"
    strides, ups = levels
    filters = node.get("NUM_UPSAMPLE_FILTERS") or []
    if _is_list(filters) and len(filters) != len(ups):
        yield f"{path}.NUM_UPSAMPLE_FILTERS: has {len(filters)} items, UPSAMPLE_STRIDES has {len(ups)}"
    if len(ups) not in (0, len(strides), len(strides) + 1):
        yield f"{path}.UPSAMPLE_STRIDES: an item for each of the {len(strides)} stages is needed, got {list(ups)}"
        return
    for i, up in enumerate(ups):
        factor = up if up >= 1 else 1 / up
        if abs(factor - round(factor)) > WHOLE:
            yield f"{path}.UPSAMPLE_STRIDES[{i}]: must be a whole number or one over a whole number, got {up!r}"
    reached = _level_strides(config)
    if reached and max(reached) - min(reached) > WHOLE:
        yield (
            f"{path}.UPSAMPLE_STRIDES: the stages must meet at one stride, but LAYER_STRIDES {list(strides)} and "
            f"{list(ups)} end at {', '.join(f'{r:g}' for r in reached)}"
        )


def _head_stride_is_the_backbones(config: Mapping) -> Iterator[str]:
    stride, head = _head_stride(config), _get(config, "MODEL.DENSE_HEAD")
    if stride is None or not isinstance(head, Mapping):
        return
    own_blocks = [
        name
        for node, names in _branches(head)
        if node.get("LAYER_STRIDES") or node.get("UPSAMPLE_STRIDES")
        for name in names
    ]
    places = [
        (f"MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[{i}].feature_map_stride", anchor.get("feature_map_stride"))
        for i, anchor in _mappings(head.get("ANCHOR_GENERATOR_CONFIG"))
        if anchor.get("class_name") not in own_blocks
    ]
    path = "TARGET_ASSIGNER_CONFIG.FEATURE_MAP_STRIDE"
    for where, value in [*places, (f"MODEL.DENSE_HEAD.{path}", _get(head, path))]:
        if _is_number(value) and abs(value - stride) > WHOLE:
            yield f"{where}: the map that the head reads has stride {stride:g} (from MODEL.BACKBONE_2D), got {value!r}"


def _channels_meet(config: Mapping) -> Iterator[str]:
    path = "MODEL.MAP_TO_BEV.NUM_BEV_FEATURES"
    channels = _get(config, path)
    if not _is_number(channels):
        return
    filters = _numbers(_get(config, "MODEL.VFE.NUM_FILTERS"))
    if _name(config, "MAP_TO_BEV") == "PointPillarScatter" and filters and filters[-1] != channels:
        yield f"{path}: must equal the last of MODEL.VFE.NUM_FILTERS, {filters[-1]}, got {channels!r}"
    yield from _volume_fills_the_map(config, path, channels)


def _volume_fills_the_map(config: Mapping, path: str, channels: float) -> Iterator[str]:
    """The sparse backbone's channels in each layer of height, all at the widths that the layers get."""
    width = _width(config)
    grid, before, out = _grid(config), _sparse_channels(config, 1.0), _sparse_channels(config, width)
    pad = _get(config, "MODEL.BACKBONE_3D.last_pad") or 0
    pad = pad[0] if _is_list(pad) and pad else pad
    if grid is None or out is None or not _is_number(pad) or _name(config, "MAP_TO_BEV") != "HeightCompression":
        return
    depth = _sparse_depth(grid[2], int(pad))
    got = load_object(SCALE_BEV_CHANNELS)(channels, before, out, width)
    if got != out * depth:
        scaled = "" if width == 1 else f", {channels!r} at MODEL.WIDTH {width:g}; {before * depth} fits"
        yield (
            f"{path}: the 3-D backbone's {out} channels in {depth} layers of height make {out * depth}, got "
            f"{got}{scaled}"
        )


def _sparse_channels(config: Mapping, width: float) -> int | None:
    """Channels that leave a sparse backbone at a width; None if they are not known."""
    if _name(config, "BACKBONE_3D") not in STRIDE_3D:
        return None
    node, scale = _get(config, "MODEL.BACKBONE_3D"), load_object(SCALE_CHANNELS)
    own, factor = node.get("OUT_CHANNELS"), node.get("WIDTH", 1.0)
    if own is not None:  # the factor is on what is not named
        return scale(own, width) if _is_number(own) else None
    return scale(SPARSE_CHANNELS, factor * width) if _is_number(factor) else None


def _width(config: Mapping) -> float:
    """``MODEL.WIDTH``; 1 without a usable one."""
    width = _get(config, "MODEL.WIDTH")
    return width if _is_number(width) and width > 0 else 1.0


def _sparse_depth(nz: int, last_pad: int) -> int:
    """Layers of height that VoxelBackBone8x leaves of a grid with ``nz``."""
    depth = nz + 1
    for kernel, stride, padding in ((3, 2, 1), (3, 2, 1), (3, 2, 0), (3, 2, last_pad)):
        depth = (depth + 2 * padding - kernel) // stride + 1
    return depth


def _every_class_has_anchors(config: Mapping) -> Iterator[str]:
    path = "MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG"
    names, anchors = config.get("CLASS_NAMES"), _mappings(_get(config, path))
    if not _is_list(names) or not _is_list(_get(config, path)):
        return
    for i, anchor in anchors:
        name = anchor.get("class_name")
        if name is not None and name not in names:
            yield f"{path}[{i}].class_name: {name!r} is not among CLASS_NAMES; {nearest_name(str(name), names)}"
    covered = [anchor.get("class_name") for _, anchor in anchors]
    for name in names:
        if name not in covered:
            yield f"{path}: {name!r} of CLASS_NAMES has no anchors"
    branches = [names for _, names in _branches(_get(config, "MODEL.DENSE_HEAD"))]
    named = [name for names in branches for name in names]
    if branches and sorted(map(str, named)) != sorted(map(str, names)):
        yield (
            f"MODEL.DENSE_HEAD.RPN_HEAD_CFGS: each of CLASS_NAMES {list(names)} must stand in one HEAD_CLS_NAME, in "
            f"any order, got {named}"
        )


def _branches(head: Any) -> list[tuple[Mapping, list]]:
    """The branches of a multi-head, each with its classes."""
    nodes = [node for _, node in _mappings(_get(head, "RPN_HEAD_CFGS"))]
    return [(node, list(node["HEAD_CLS_NAME"])) for node in nodes if _is_list(node.get("HEAD_CLS_NAME"))]


def _box_codes_fit(config: Mapping) -> Iterator[str]:
    for head in ("DENSE_HEAD", "ROI_HEAD"):  # a point head's coder is in its schema
        for section in ("TARGET_ASSIGNER_CONFIG", "TARGET_CONFIG"):
            coder = _get(config, f"MODEL.{head}.{section}.BOX_CODER")
            if coder is not None:
                yield from _name_problems(coder, R.BOX_CODERS, f"MODEL.{head}.{section}.BOX_CODER")
    assigner = _get(config, "MODEL.DENSE_HEAD.TARGET_ASSIGNER_CONFIG")
    weights = _get(config, "MODEL.DENSE_HEAD.LOSS_CONFIG.LOSS_WEIGHTS.code_weights")
    if not isinstance(assigner, Mapping) or assigner.get("BOX_CODER") != "ResidualCoder" or not _is_list(weights):
        return
    options = assigner.get("BOX_CODER_CONFIG") or {}
    size = options.get("code_size", 7) + bool(options.get("encode_angle_by_sincos", False))
    if len(weights) != size:
        yield (
            f"MODEL.DENSE_HEAD.LOSS_CONFIG.LOSS_WEIGHTS.code_weights: ResidualCoder makes {size} codes, got "
            f"{len(weights)} weights"
        )


def _anchor_boxes_are_suppressed(config: Mapping) -> Iterator[str]:
    path = "MODEL.POST_PROCESSING"
    anchors = str(_name(config, "DENSE_HEAD")).startswith("AnchorHead")
    if anchors and isinstance(_get(config, path), Mapping) and _get(config, f"{path}.NMS_CONFIG") is None:
        yield f"{path}.NMS_CONFIG: missing; an anchor head's boxes overlap"


def _features_exist(config: Mapping) -> Iterator[str]:
    encoding, path = _get(config, "DATA_CONFIG.POINT_FEATURE_ENCODING"), "DATA_CONFIG.POINT_FEATURE_ENCODING"
    used, source = _get(encoding, "used_feature_list"), _get(encoding, "src_feature_list")
    if not _is_list(used) or not _is_list(source):
        return
    for i, name in enumerate(used):
        if name not in source:
            yield f"{path}.used_feature_list[{i}]: {name!r} is not in src_feature_list {list(source)}"
    for key, names in (("used_feature_list", used), ("src_feature_list", source)):
        if list(names[:3]) != ["x", "y", "z"]:
            yield f"{path}.{key}: must begin with x, y, z, got {list(names)}"
    place, augmentors = _augmentors(config)
    for i, node in _mappings(augmentors):
        count = node.get("NUM_POINT_FEATURES")
        if node.get(NAME_KEY) == "gt_sampling" and _is_number(count) and count < len(source):
            yield f"{place}[{i}].NUM_POINT_FEATURES: the points have {len(source)} features, got {count}"


def _counts_are_counts(config: Mapping) -> Iterator[str]:
    places = [(path, _get(config, path), keys) for path, keys in COUNTS.items()]
    places += [
        (f"DATA_CONFIG.DATA_PROCESSOR[{i}]", node, VOXEL_COUNTS)
        for i, node in _mappings(_get(config, "DATA_CONFIG.DATA_PROCESSOR"))
    ]
    for path, node, keys in places:
        for key in keys if isinstance(node, Mapping) else ():
            if key == "NUM_FILTERS" and node.get(key) == []:
                yield f"{path}.{key}: must name the channels of at least one layer, got []"
            for where, value in _entries(node.get(key), f"{path}.{key}"):
                if _is_number(value) and value < 1:
                    yield f"{where}: must be at least 1, got {value!r}"
    for where, value in _entries(_get(config, "MODEL.BACKBONE_2D.LAYER_NUMS"), "MODEL.BACKBONE_2D.LAYER_NUMS"):
        if _is_number(value) and value < 0:
            yield f"{where}: must not be negative, got {value!r}"
    for where, value in _entries(
        _get(config, "MODEL.BACKBONE_2D.UPSAMPLE_STRIDES"), "MODEL.BACKBONE_2D.UPSAMPLE_STRIDES"
    ):
        if _is_number(value) and value <= 0:
            yield f"{where}: must be above 0, got {value!r}"


def _entries(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(path, value) of every leaf."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _entries(item, f"{path}.{key}")
    elif _is_list(value):
        for i, item in enumerate(value):
            yield from _entries(item, f"{path}[{i}]")
    else:
        yield path, value


def _augmentors_have_limits(config: Mapping) -> Iterator[str]:
    place, augmentors = _augmentors(config)
    for i, node in _mappings(augmentors):
        for key, value in node.items():
            numbers = _numbers(value)
            if key.endswith(("_RANGE", "_ANGLE")) and numbers is not None:
                if len(numbers) != 2 or numbers[0] > numbers[1]:
                    yield f"{place}[{i}].{key}: expected [low, high] with low <= high, got {list(value)}"
            if key == "ALONG_AXIS_LIST" and _is_list(value):
                wrong = [axis for axis in value if axis not in ("x", "y", "z")]
                if wrong:
                    yield f"{place}[{i}].{key}: {wrong[0]!r} is none of x, y, z"


def _sampling_is_written_right(config: Mapping) -> Iterator[str]:
    place, augmentors = _augmentors(config)
    for i, node in _mappings(augmentors):
        if node.get(NAME_KEY) != "gt_sampling":
            continue
        for key in node.get("PREPARE") if isinstance(node.get("PREPARE"), Mapping) else ():
            if key not in (known := load_object(DATABASE_FILTERS)):
                yield f"{place}[{i}].PREPARE.{key}: there is no such filter; {nearest_name(key, known)}"
        for key in ("SAMPLE_GROUPS", "PREPARE.filter_by_min_points"):
            entries = _get(node, key)
            for j, entry in enumerate(entries if _is_list(entries) else ()):
                if not re.fullmatch(r"[^:]+:\s*\d+", str(entry)):
                    yield f"{place}[{i}].{key}[{j}]: expected 'Class:number', got {entry!r}"


def _inputs_are_made_if_read(config: Mapping) -> Iterator[str]:
    steps = _get(config, "DATA_CONFIG.DATA_PROCESSOR")
    if not _is_list(steps):
        return
    names = [node.get(NAME_KEY) for _, node in _mappings(steps)]
    reader = _name(config, "VFE")
    if reader in ("PillarVFE", "MeanVFE") and "transform_points_to_voxels" not in names:
        yield f"DATA_CONFIG.DATA_PROCESSOR: {reader} reads voxels; add transform_points_to_voxels to {names}"
    if _name(config, "BACKBONE_3D") == "PointNet2MSG" and "sample_points" not in names:
        yield (
            "DATA_CONFIG.DATA_PROCESSOR: PointNet2MSG reads equally many points of every frame; add sample_points to "
            f"{names}"
        )


def _point_features_are_made_if_read(config: Mapping) -> Iterator[str]:
    path = "MODEL.POINT_HEAD.USE_POINT_FEATURES_BEFORE_FUSION"
    makers = [_get(config, f"MODEL.{slot}") for slot in ("BACKBONE_3D", "PFE")]
    if _name(config, "POINT_HEAD") != "PointHeadBox" or _get(config, path) is not True:
        return
    if all(node is None or _is_ours(node, R.BACKBONES_3D) for node in makers):
        yield f"{path}: nothing makes such features here, as VoxelSetAbstraction is not covered; set it to False"


def _is_ours(node: Any, registry: Registry) -> bool:
    """Whether a node names a class of this package; a user's own may write and read what it likes."""
    name = _get(node, NAME_KEY)
    return name in registry.names() and registry.get(name).__module__.startswith("pcdet.")


def _teacher_file_exists(config: Mapping) -> Iterator[str]:
    path = "KD.TEACHER.CFG"
    if isinstance(_get(config, path), str):
        try:
            load_object("pcdet.config:find_config_file")(_get(config, path))
        except FileNotFoundError as error:
            yield f"{path}: {error}"


def _classes_are_mapped(config: Mapping) -> Iterator[str]:
    """Where classes are renamed for KITTI's evaluation, each must become one that it knows."""
    path = "DATA_CONFIG.MAP_CLASS_TO_KITTI"
    mapping, names = _get(config, path), config.get("CLASS_NAMES")
    if not isinstance(mapping, Mapping) or not mapping or not _is_list(names) or not _is_evaluated_by_kitti(config):
        return
    known = load_object(KITTI_CLASSES)
    for name, kitti in mapping.items():
        if isinstance(kitti, str) and kitti not in known:
            yield f"{path}.{name}: KITTI's evaluation has no class {kitti!r}; {nearest_name(kitti, known)}"
    for name in names:
        if isinstance(name, str) and name not in mapping and name not in known:
            yield (
                f"{path}: has no entry for {name!r} of CLASS_NAMES, which KITTI's evaluation does not know; map it to "
                f"one of {', '.join(known)}"
            )


def _is_evaluated_by_kitti(config: Mapping) -> bool:
    """Whether no other metric is asked for, and the data set has this package's evaluation and the frames it needs."""
    name, metric = _get(config, "DATA_CONFIG.DATASET"), _get(config, "MODEL.POST_PROCESSING.EVAL_METRIC")
    if metric not in (None, "kitti") or name not in R.DATASETS.names():
        return False
    dataset, template = R.DATASETS.get(name), load_object(DATASET_TEMPLATE)
    evaluation, load_frame = (getattr(dataset, method, None) for method in ("evaluation", "load_frame"))
    return getattr(evaluation, "__module__", "").startswith("pcdet.") and load_frame is not template.load_frame


RULES = (
    _voxels_fill_the_range,
    _strides_divide_the_grid,
    _pillars_span_the_height,
    _bev_levels_meet,
    _head_stride_is_the_backbones,
    _channels_meet,
    _every_class_has_anchors,
    _box_codes_fit,
    _features_exist,
    _counts_are_counts,
    _augmentors_have_limits,
    _anchor_boxes_are_suppressed,
    _sampling_is_written_right,
    _teacher_file_exists,
    _inputs_are_made_if_read,
    _point_features_are_made_if_read,
    _classes_are_mapped,
)
