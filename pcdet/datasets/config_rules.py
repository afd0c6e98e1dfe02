"""Rules on DATA_CONFIG that no schema can express: a grid that fills the range, features that exist, limits in order.

A rule whose facts are missing or ill-typed says nothing: the schema has already complained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pcdet import registry as R
from pcdet.datasets.dataset import DatasetTemplate
from pcdet.datasets.kitti.kitti_object_eval_python.rules import CLASS_NAMES as KITTI_CLASSES
from pcdet.registry import nearest_name
from pcdet.utils.config_values import get, is_list, is_number, mappings, numbers

WHOLE = 1e-3  # how far from a whole number a count of voxels may be: float32 ranges such as 69.12 / 0.16


def data_problems(data: Mapping, path: str = "DATA_CONFIG") -> Iterator[str]:
    """What is wrong with a data set's node, a sentence each that begins with ``path`` and the key's.

    Args:
        data: the node.
        path: where it stands.
    """
    for rule in (_voxels_fill_the_range, _features_exist, _augmentors_have_limits):
        yield from rule(data, path)


def voxel_size(data: Mapping, path: str = "DATA_CONFIG") -> tuple[str, list[float]] | None:
    """Path and value of the voxel size, metres."""
    for i, node in mappings(get(data, "DATA_PROCESSOR")):
        size = numbers(node.get("VOXEL_SIZE"), 3)
        if size and min(size) > 0:
            return f"{path}.DATA_PROCESSOR[{i}].VOXEL_SIZE", size
    return None


def grid_size(data: Mapping) -> list[int] | None:
    """Voxels along x, y, z, if they fill the range."""
    voxel, extent = voxel_size(data), _extent(data)
    if voxel is None or extent is None:
        return None
    counts = [length / size for length, size in zip(extent, voxel[1], strict=True)]
    if any(count <= 0 or abs(count - round(count)) > WHOLE for count in counts):
        return None
    return [round(count) for count in counts]


def _extent(data: Mapping) -> list[float] | None:
    """Length of the point cloud range along x, y, z, metres."""
    limits = numbers(get(data, "POINT_CLOUD_RANGE"), 6)
    return [high - low for low, high in zip(limits[:3], limits[3:], strict=True)] if limits else None


def _voxels_fill_the_range(data: Mapping, path: str) -> Iterator[str]:
    for i, node in mappings(get(data, "DATA_PROCESSOR")):
        size = node.get("VOXEL_SIZE")
        if size is not None and (numbers(size, 3) is None or min(size) <= 0):
            yield f"{path}.DATA_PROCESSOR[{i}].VOXEL_SIZE: expected three lengths above 0, got {size!r}"
    voxel, extent = voxel_size(data, path), _extent(data)
    if voxel is None or extent is None:
        return
    for axis, length, size in zip("xyz", extent, voxel[1], strict=True):
        count = length / size
        if length > 0 and abs(count - round(count)) > WHOLE:
            fits = " or ".join(f"{n * size:g}" for n in (int(count), int(count) + 1) if n)
            yield (
                f"{path}.POINT_CLOUD_RANGE: {length:g} m along {axis} are {count:g} voxels of {size:g} m "
                f"({voxel[0]}), not a whole number; {fits} m would fit"
            )


def _features_exist(data: Mapping, path: str) -> Iterator[str]:
    encoding, where = get(data, "POINT_FEATURE_ENCODING"), f"{path}.POINT_FEATURE_ENCODING"
    used, source = get(encoding, "used_feature_list"), get(encoding, "src_feature_list")
    if not is_list(used) or not is_list(source):
        return
    for i, name in enumerate(used):
        if name not in source:
            yield f"{where}.used_feature_list[{i}]: {name!r} is not in src_feature_list {list(source)}"
    for key, names in (("used_feature_list", used), ("src_feature_list", source)):
        if list(names[:3]) != ["x", "y", "z"]:
            yield f"{where}.{key}: must begin with x, y, z, got {list(names)}"
    place, augmentors = _augmentors(data, path)
    for i, node in mappings(augmentors):
        count = node.get("NUM_POINT_FEATURES")
        if is_number(count) and count < len(source):
            yield f"{place}[{i}].NUM_POINT_FEATURES: the points have {len(source)} features, got {count}"


def _augmentors(data: Mapping, path: str) -> tuple[str, Any]:
    """Path and list of the augmentors; OpenPCDet also takes the list without its mapping."""
    node = get(data, "DATA_AUGMENTOR")
    if isinstance(node, Mapping):
        return f"{path}.DATA_AUGMENTOR.AUG_CONFIG_LIST", node.get("AUG_CONFIG_LIST")
    return f"{path}.DATA_AUGMENTOR", node


def _augmentors_have_limits(data: Mapping, path: str) -> Iterator[str]:
    place, augmentors = _augmentors(data, path)
    for i, node in mappings(augmentors):
        for key, value in node.items():
            limits = numbers(value)
            if key.endswith(("_RANGE", "_ANGLE")) and limits is not None:
                if len(limits) != 2 or limits[0] > limits[1]:
                    yield f"{place}[{i}].{key}: expected [low, high] with low <= high, got {list(value)}"
            if key == "ALONG_AXIS_LIST" and is_list(value):
                wrong = [axis for axis in value if axis not in ("x", "y", "z")]
                if wrong:
                    yield f"{place}[{i}].{key}: {wrong[0]!r} is none of x, y, z"


def class_map_problems(data: Mapping, class_names: Any, metric: Any, path: str = "DATA_CONFIG") -> Iterator[str]:
    """Sentences on classes that are renamed for KITTI's evaluation, but not into one that it knows.

    Args:
        data: the data set's node.
        class_names: the model file's CLASS_NAMES.
        metric: the one that is asked for; None for the data set's own.
        path: where the node stands.
    """
    path = f"{path}.MAP_CLASS_TO_KITTI"
    mapping = get(data, "MAP_CLASS_TO_KITTI")
    if not isinstance(mapping, Mapping) or not mapping or not is_list(class_names):
        return
    if metric not in (None, "kitti") or not _is_evaluated_by_kitti(get(data, "DATASET")):
        return
    for name, kitti in mapping.items():
        if isinstance(kitti, str) and kitti not in KITTI_CLASSES:
            yield f"{path}.{name}: KITTI's evaluation has no class {kitti!r}; {nearest_name(kitti, KITTI_CLASSES)}"
    for name in class_names:
        if isinstance(name, str) and name not in mapping and name not in KITTI_CLASSES:
            yield (
                f"{path}: has no entry for {name!r} of CLASS_NAMES, which KITTI's evaluation does not know; map it to "
                f"one of {', '.join(KITTI_CLASSES)}"
            )


def _is_evaluated_by_kitti(name: Any) -> bool:
    """Whether a data set has this package's evaluation and the frames that it needs."""
    if name not in R.DATASETS.names():
        return False
    dataset = R.DATASETS.get(name)
    evaluation, load_frame = (getattr(dataset, method, None) for method in ("evaluation", "load_frame"))
    return getattr(evaluation, "__module__", "").startswith("pcdet.") and load_frame is not DatasetTemplate.load_frame
