"""Turns YAML nodes into objects: the constructor's signature is the schema.

A component is a class with keyword-only, annotated parameters, registered where it is written::

    @BACKBONES_2D.register
    class BaseBEVBackbone(nn.Module):
        GIVEN = ("input_channels",)  # supplied by the code, never by the file

        def __init__(self, *, layer_nums: list[int], num_filters: list[int], input_channels: int): ...

The YAML key in lower case is the parameter (``NUM_FILTERS`` -> ``num_filters``), ``NAME`` picks the class, a default
makes a key optional. ``check_node`` finds everything that is wrong with a node without building it; ``build_from_cfg``
checks, then builds. Annotations that are understood: ``bool``, ``int``, ``float`` (takes an int), ``str``, ``list[T]``,
``tuple[...]``, ``dict[K, V]``, ``Literal``, unions, ``None``, dataclasses (nested nodes) and
``Annotated[dict, SOME_REGISTRY]`` (a nested component node: checked here, built by its owner). Anything else is not
checked. A class with a ``model_cfg`` parameter gets its raw node, unchecked, as in OpenPCDet.

Nothing of pcdet is imported here: a registry names the package that fills it, and imports it at the first lookup.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import importlib
import inspect
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

NAME_KEY = "NAME"
BASE_KEY = "_BASE_CONFIG_"  # OpenPCDet leaves it in the loaded configuration, at any level
MISSING = inspect.Parameter.empty


class ConfigError(ValueError):
    """Everything that is wrong with a configuration, found before anything is built.

    Attributes:
        problems: one sentence each, beginning with the path of the key.
    """

    def __init__(self, problems: str | Iterable[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self):
        return type(self), (self.problems,)


class Registry:
    """Classes by name, filled by ``provider`` the first time a name is looked up that is not there yet.

    Args:
        name: what the classes are, for messages ("backbone_2d").
        provider: module whose import registers the project's own classes.
        given: parameter names that code supplies to every class here; a class adds its own in ``GIVEN``.
        elsewhere: names of OpenPCDet's classes that this project does not have, separated by blanks: a file of
            OpenPCDet that names one is no slip of the pen, and is told so.
    """

    def __init__(self, name: str, provider: str, given: Iterable[str] = (), elsewhere: str = ""):
        self.name = name
        self.provider = provider
        self.given = frozenset(given)
        self.elsewhere = frozenset(elsewhere.split())
        self._classes: dict[str, type] = {}

    def __repr__(self) -> str:
        return f"Registry({self.name!r}, {sorted(self._classes)})"

    def register(self, cls: type | None = None, *, name: str | None = None):
        """Class decorator: ``@R.register`` or ``@R.register(name="random_world_flip")``."""
        if cls is None:
            return lambda cls: self.register(cls, name=name)
        key = name or cls.__name__
        old = self._classes.get(key)
        if old is None or old.__module__ == cls.__module__:
            self._classes[key] = cls
        elif cls.__module__ != "__main__":  # `python -m` runs a module a second time under that name
            raise ValueError(
                f"{self.name} {key!r} is registered twice: {old.__module__}.{old.__qualname__} and "
                f"{cls.__module__}.{cls.__qualname__}; rename one of them"
            )
        return cls

    def get(self, name: str, path: str = "") -> type:
        """The class of this name; ConfigError with the nearest one where there is none."""
        if not isinstance(name, str):
            raise ConfigError(f"{_at(path)}the {self.name} must be a name, got {name!r}")
        if name not in self._classes:
            importlib.import_module(self.provider)
        if name in self._classes:
            return self._classes[name]
        if name in self.elsewhere:
            raise ConfigError(
                f"{_at(path)}OpenPCDet's {self.name} {name!r} is not covered; covered: "
                f"{', '.join(sorted(self._classes))} (see docs/COMPATIBILITY.md)"
            )
        raise ConfigError(f"{_at(path)}unknown {self.name} {name!r}; {nearest_name(name, self._classes)}")

    def names(self) -> list[str]:
        """All names, sorted."""
        importlib.import_module(self.provider)
        return sorted(self._classes)


_DATASET_FACTS = ("class_names", "grid_size", "voxel_size", "point_cloud_range", "depth_downsample_factor")

VFE = Registry(
    "VFE",
    "pcdet.models.backbones_3d.vfe",
    ("num_point_features", *_DATASET_FACTS),
    elsewhere="DynMeanVFE DynPillarVFE DynamicPillarVFESimple2D DynamicVoxelVFE ImageVFE",
)
BACKBONES_3D = Registry(
    "backbone_3d",
    "pcdet.models.backbones_3d",
    ("input_channels", *_DATASET_FACTS),
    elsewhere="DSVT HEDNet PillarBackBone8x PillarRes18BackBone8x PointNet2Backbone UNetV2 VoxelResBackBone8xVoxelNeXt "
    "VoxelResBackBone8xVoxelNeXt2D VoxelSetAbstraction",
)
MAP_TO_BEV = Registry(
    "map_to_bev",
    "pcdet.models.backbones_2d.map_to_bev",
    ("input_channels", *_DATASET_FACTS),
    elsewhere="Conv2DCollapse PointPillarScatter3d",
)
BACKBONES_2D = Registry(
    "backbone_2d",
    "pcdet.models.backbones_2d",
    ("input_channels",),
    elsewhere="BaseBEVBackboneV1 BaseBEVResBackbone CascadeDEDBackbone",
)
_HEAD_GIVEN = ("input_channels", "num_class", "predict_boxes_when_training", *_DATASET_FACTS)
DENSE_HEADS = Registry(
    "dense_head", "pcdet.models.dense_heads", _HEAD_GIVEN, elsewhere="CenterHead TransFusionHead VoxelNeXtHead"
)
POINT_HEADS = Registry(
    "point_head", "pcdet.models.dense_heads", _HEAD_GIVEN, elsewhere="PointHeadSimple PointIntraPartOffsetHead"
)
ROI_HEADS = Registry(
    "roi_head",
    "pcdet.models.roi_heads",
    ("backbone_channels", *_HEAD_GIVEN),
    elsewhere="MPPNetHead MPPNetHeadE2E PVRCNNHead PartA2FCHead SECONDHead VoxelRCNNHead",
)
DETECTORS = Registry(
    "detector",
    "pcdet.models.detectors",
    ("model_cfg", "num_class", "dataset"),
    elsewhere="BevFusion CaDDN CenterPoint MPPNet MPPNetE2E PVRCNN PVRCNNPlusPlus PartA2Net PillarNet SECONDNetIoU "
    "TransFusion VoxelNeXt VoxelRCNN",
)
TARGET_ASSIGNERS = Registry(
    "target assigner",
    "pcdet.models.dense_heads.target_assigner",
    ("class_names", "anchor_configs"),
    elsewhere="ATSS ATSSTargetAssigner",
)
BOX_CODERS = Registry(  # of boxes against boxes: anchors and proposals
    "box coder",
    "pcdet.models.dense_heads.target_assigner",
    elsewhere="PreviousResidualDecoder PreviousResidualRoIDecoder",
)
KD_LOSSES = Registry("KD loss", "pcdet.models.kd.losses")
DATASETS = Registry(
    "dataset",
    "pcdet.datasets.catalogue",
    elsewhere="Argo2Dataset CustomDataset LyftDataset NuScenesDataset ONCEDataset PandasetDataset WaymoDataset",
)
AUGMENTORS = Registry("augmentor", "pcdet.datasets.augmentor", ("root_path", "class_names", "logger", "rng"))
PROCESSORS = Registry(
    "data processor", "pcdet.datasets.processor", ("point_cloud_range", "num_point_features", "training", "mode", "rng")
)
POINT_ENCODERS = Registry("point feature encoder", "pcdet.datasets.processor", ("point_cloud_range",))
OPTIMIZERS = Registry("optimizer", "pcdet.engine.optim", ("model", "params", "optim_cfg"))


def load_object(spec: str) -> Any:
    """The object that ``"package.module:Name"`` points at, imported now."""
    module, _, name = spec.partition(":")
    return getattr(importlib.import_module(module), name)


def build_from_cfg(node: Mapping, registry: Registry, *, path: str = "", **given: Any) -> Any:
    """The object that ``node`` describes.

    Args:
        node: mapping with ``NAME`` and the class's keys.
        registry: where ``NAME`` is looked up.
        path: where the node stands in the file, for messages (``MODEL.VFE``).
        **given: what the code supplies; only those in the class's signature are passed on.

    Raises:
        ConfigError: with every wrong, missing or ill-typed key of the node.
    """
    cls = _component(node, registry, path)
    parameters = _parameters(cls)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls).parameters.values())
    given = {key: value for key, value in given.items() if takes_all or key in parameters}
    if "model_cfg" in parameters:
        given.setdefault("model_cfg", node)
        return cls(**given)
    bound = _bind(node, cls, path, frozenset(given) | registry.given, (NAME_KEY, BASE_KEY))
    if bound.problems:
        raise ConfigError(bound.problems)
    return cls(**{**bound.values, **given})


def check_node(node: Any, registry: Registry, *, path: str = "", given: Iterable[str] = ()) -> list[str]:
    """What is wrong with a component's node; empty if it can be built. Nothing is built.

    Args:
        node: mapping with ``NAME`` and the class's keys.
        registry: where ``NAME`` is looked up.
        path: where the node stands in the file.
        given: further parameter names that code supplies, beside ``registry.given`` and the class's ``GIVEN``.
    """
    try:
        cls = _component(node, registry, path)
    except ConfigError as error:
        return error.problems
    if "model_cfg" in _parameters(cls):
        return []
    return _bind(node, cls, path, frozenset(given) | registry.given, (NAME_KEY, BASE_KEY)).problems


def parse_node(node: Mapping | None, schema: type, *, path: str = "") -> Any:
    """An instance of ``schema``, a keyword-only dataclass, filled from ``node``; keys in any case.

    Nested dataclasses, lists and dictionaries of them are filled the same way; an absent or null node is an empty one.
    A ``ValueError`` from a dataclass's ``__post_init__`` becomes a problem with its path.

    Raises:
        ConfigError: with every wrong, missing or ill-typed key.
    """
    value, problems = _parse_dataclass({} if node is None else node, schema, path)
    if problems:
        raise ConfigError(problems)
    return value


def known_keys(cls: type) -> dict[str, str]:
    """YAML key -> type, as text, of a component or a dataclass, in the order of its signature."""
    hidden = frozenset(getattr(cls, "GIVEN", ()))
    return {
        name.rstrip("_").upper(): _type_name(p.annotation) for name, p in _parameters(cls).items() if name not in hidden
    }


# ----------------------------------------------------------------------------------------------------------- binding


class _Parameter(NamedTuple):
    annotation: Any
    required: bool


class _Bound(NamedTuple):
    values: dict[str, Any]  # by parameter name
    unknown: list[str]  # complaints about keys that have no business there
    wrong: list[str]  # complaints about values, and missing keys

    @property
    def problems(self) -> list[str]:
        return self.unknown + self.wrong


def _component(node: Any, registry: Registry, path: str) -> type:
    if not isinstance(node, Mapping):
        raise ConfigError(f"{_at(path)}expected a {registry.name} node with {NAME_KEY}, got {_show(node)}")
    if NAME_KEY not in node:
        raise ConfigError(f"{_join(path, NAME_KEY)}: missing; it says which {registry.name} to build")
    return registry.get(node[NAME_KEY], _join(path, NAME_KEY))


def _parameters(cls: type) -> dict[str, _Parameter]:
    """Name -> parameter of a constructor, without ``self``, ``*args`` and ``**kwargs``."""
    if dataclasses.is_dataclass(cls):
        hints = typing.get_type_hints(cls, include_extras=True)
        return {
            f.name: _Parameter(
                hints[f.name], f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
            )
            for f in dataclasses.fields(cls)
            if f.init
        }
    scope = getattr(inspect.unwrap(cls.__init__), "__globals__", {})
    return {
        name: _Parameter(_resolve(p.annotation, scope), p.default is MISSING)
        for name, p in inspect.signature(cls).parameters.items()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }


def _resolve(annotation: Any, scope: dict) -> Any:
    """An annotation as an object; one that only exists for type checkers counts as Any."""
    if not isinstance(annotation, str):
        return Any if annotation is MISSING else annotation
    try:
        return eval(annotation, scope)
    except NameError:
        return Any


def _bind(node: Mapping, cls: type, path: str, given: frozenset[str], ignored: Iterable[str] = (BASE_KEY,)) -> _Bound:
    given = given | frozenset(getattr(cls, "GIVEN", ()))
    parameters = _parameters(cls)
    by_key = {name.rstrip("_"): name for name in parameters if name not in given}
    values, unknown, wrong = {}, [], []
    for key, value in node.items():
        name = by_key.get(str(key).lower())
        where = _join(path, key)
        if name is None:
            if key not in ignored:
                unknown.append(f"{where}: {_unknown(str(key), cls, parameters, by_key)}")
        elif name in values:
            unknown.append(f"{where}: given twice, in different spellings")
        else:
            values[name], found = _convert(value, parameters[name].annotation, where)
            wrong += found
    for key, name in by_key.items():
        if parameters[name].required and name not in values:
            wanted = _type_name(parameters[name].annotation)
            wrong.append(f"{_join(path, key.upper())}: missing; {cls.__name__} needs it ({wanted})")
    return _Bound(values, unknown, wrong)


def _unknown(key: str, cls: type, parameters: Mapping, by_key: Mapping) -> str:
    if key.lower() in parameters:
        return f"{cls.__name__} gets this from the code; remove it from the file"
    known = [k if key.islower() else k.upper() for k in by_key if k != NAME_KEY.lower()]
    return f"{cls.__name__} has no such key; {nearest_name(key, known)}"


def _parse_dataclass(node: Any, schema: type, path: str) -> tuple[Any, list[str]]:
    if isinstance(node, schema):
        return node, []
    if not isinstance(node, Mapping):
        return None, [f"{_at(path)}expected a mapping with the keys of {schema.__name__}, got {_show(node)}"]
    bound = _bind(node, schema, path, frozenset())
    if bound.wrong:
        return None, bound.problems
    try:
        return schema(**bound.values), bound.problems
    except ConfigError as error:
        return None, bound.problems + [_join_sentence(path, p) for p in error.problems]
    except ValueError as error:
        return None, [*bound.problems, _join_sentence(path, str(error))]


# ------------------------------------------------------------------------------------------------------------- types


def _convert(value: Any, annotation: Any, path: str) -> tuple[Any, list[str]]:
    """``value`` as ``annotation`` wants it, and what is wrong with it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _convert_annotated(value, arguments, path)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, annotation, arguments, path)
    if origin is typing.Literal:
        if any(value == a and type(value) is type(a) for a in arguments):
            return value, []
        return value, [f"{path}: must be one of {', '.join(map(repr, arguments))}; got {_show(value)}"]
    container = origin or annotation
    if container in (list, tuple, collections.abc.Sequence, collections.abc.Iterable):
        return _convert_sequence(value, annotation, container, arguments, path)
    if container in (dict, collections.abc.Mapping, collections.abc.MutableMapping):
        return _convert_mapping(value, annotation, arguments, path)
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return _parse_dataclass(value, annotation, path)
    return _convert_scalar(value, annotation, path)


def _convert_scalar(value: Any, annotation: Any, path: str) -> tuple[Any, list[str]]:
    if annotation in (None, type(None)):
        return value, [] if value is None else [_mismatch(value, annotation, path)]
    if annotation not in (bool, int, float, str):
        return value, []
    if annotation is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value), [] if math.isfinite(value) else [f"{path}: must be finite, got {value}"]
    if isinstance(value, annotation) and (annotation is bool or not isinstance(value, bool)):
        return value, []
    return value, [_mismatch(value, annotation, path)]


def _convert_annotated(value: Any, arguments: tuple, path: str) -> tuple[Any, list[str]]:
    registry = next((a for a in arguments[1:] if isinstance(a, Registry)), None)
    if registry is None:
        return _convert(value, arguments[0], path)
    return value, check_node(value, registry, path=path)


def _convert_union(value: Any, annotation: Any, arguments: tuple, path: str) -> tuple[Any, list[str]]:
    """The first member that fits; else the complaints of the one the value was most likely meant for."""
    exact = [a for a in arguments if isinstance(a, type) and type(value) is a]  # so that int | float keeps an int
    complaints = []
    for member in (*exact, *arguments):
        converted, problems = _convert(value, member, path)
        if not problems:
            return converted, []
        structured = isinstance(value, Mapping) or (isinstance(value, (list, tuple)) and _is_sequence(member))
        if structured and not any(p.startswith(f"{path}: expected") for p in problems):
            complaints = complaints or problems
    return value, complaints or [_mismatch(value, annotation, path)]


def _convert_sequence(value: Any, annotation: Any, container: Any, arguments: tuple, path: str) -> tuple[Any, list]:
    if not isinstance(value, (list, tuple)):
        return value, [_mismatch(value, annotation, path)]
    if container is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            return value, [f"{path}: expected {len(arguments)} items ({_type_name(annotation)}), got {_show(value)}"]
        members = arguments
    else:
        members = (arguments[0] if arguments else Any,) * len(value)
    pairs = [_convert(v, member, f"{path}[{i}]") for i, (v, member) in enumerate(zip(value, members, strict=True))]
    converted = [v for v, _ in pairs]
    problems = [p for _, found in pairs for p in found]
    return (tuple(converted) if container is tuple else converted), problems


def _convert_mapping(value: Any, annotation: Any, arguments: tuple, path: str) -> tuple[Any, list[str]]:
    if not isinstance(value, Mapping):
        return value, [_mismatch(value, annotation, path)]
    if not arguments:
        return value, []
    converted, problems = {}, []
    for key, item in value.items():
        if key != BASE_KEY:
            new_key, wrong_key = _convert(key, arguments[0], _join(path, key))
            converted[new_key], wrong_value = _convert(item, arguments[1], _join(path, key))
            problems += wrong_key + wrong_value
    return converted, problems


def _is_sequence(annotation: Any) -> bool:
    return (typing.get_origin(annotation) or annotation) in (list, tuple, collections.abc.Sequence)


# ---------------------------------------------------------------------------------------------------------- sentences


def _mismatch(value: Any, annotation: Any, path: str) -> str:
    text = f"{path}: expected {_type_name(annotation)}, got {_show(value)}"
    number = _number_in(value, annotation) if isinstance(value, str) else None
    return text if number is None else f"{text}; YAML reads this as text, write {number}"


def _number_in(text: str, annotation: Any) -> str | None:
    """A text's number as YAML reads it as one of the wanted type; None if there is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    if annotation is int:
        return str(int(number)) if number.is_integer() else None
    if annotation is float:
        written = repr(number)
        return written if "." in written or "e" not in written else written.replace("e", ".0e")
    return None


def _type_name(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (None, type(None)):
        return "null"
    if origin is typing.Annotated:
        return _type_name(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_name(a) for a in arguments)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin is not None:
        inner = ", ".join("..." if a is Ellipsis else _type_name(a) for a in arguments)
        return f"{origin.__name__}[{inner}]"
    return getattr(annotation, "__name__", str(annotation))


def _show(value: Any) -> str:
    text = repr(dict(value)) if isinstance(value, Mapping) else repr(value)
    text = text if len(text) <= 80 else text[:77] + "..."
    return "null" if value is None else f"{text} ({type(value).__name__})"


def nearest_name(word: str, known: Iterable[str]) -> str:
    """'did you mean X?', or all there is to choose from."""
    known = sorted(map(str, known))
    by_folded = {k.lower(): k for k in known}
    match = difflib.get_close_matches(word.lower(), by_folded, n=1, cutoff=0.6)
    if match:
        return f"did you mean {by_folded[match[0]]}?"
    return f"known: {', '.join(known)}" if known else "none are known"


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _at(path: str) -> str:
    return f"{path}: " if path else ""


def _join_sentence(path: str, sentence: str) -> str:
    """Puts the path before a complaint of a dataclass's own, which may begin with ``KEY: ``."""
    is_path = re.match(r"[A-Z][A-Z0-9_]*([.\[]\S+)?: ", sentence)
    return _join(path, sentence) if is_path else f"{_at(path)}{sentence}"
