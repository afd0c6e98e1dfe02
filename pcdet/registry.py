"""Turns YAML nodes into objects: the constructor's signature is the schema.

A component is a class with keyword-only, annotated parameters, registered where it is written::

    @BACKBONES_2D.register
    class BaseBEVBackbone(nn.Module):
        INJECTED = ("input_channels",)  # supplied by the code, never by the file

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

import importlib
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from pcdet.registry_signatures import MISSING, injected_into, parameters_of, signature_of
from pcdet.registry_types import (
    BASE_KEY,
    NAME_KEY,
    Above,
    AtLeast,
    ConfigError,
    Count,
    CountOrZero,
    Positive,
    at_path,
    bind,
    join_path,
    known_keys,
    nearest_name,
    parse_node,
    place,
    shown,
)

__all__ = [
    "BASE_KEY",
    "MISSING",
    "NAME_KEY",
    "Above",
    "AtLeast",
    "ConfigError",
    "Count",
    "CountOrZero",
    "Positive",
    "Registry",
    "arguments_of",
    "build_from_cfg",
    "check_node",
    "find_class",
    "known_keys",
    "nearest_name",
    "parse_node",
    "parameters_of",
    "place",
]


class Registry:
    """Classes by name, filled by ``provider`` the first time a name is looked up that is not there yet.

    Args:
        name: what the classes are, for messages ("backbone_2d").
        provider: module whose import registers the project's own classes.
        injected: names of parameters that code supplies to every class here; a class adds its own in ``INJECTED``.
    """

    def __init__(self, name: str, provider: str, injected: Iterable[str] = ()):
        self.name = name
        self.provider = provider
        self.injected = frozenset(injected)
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
            raise ConfigError(f"{at_path(path)}the {self.name} must be a name, got {name!r}")
        if name not in self._classes:
            importlib.import_module(self.provider)
        if name in self._classes:
            return self._classes[name]
        if name in ELSEWHERE.get(self.name, "").split():  # no slip of the pen
            raise ConfigError(
                f"{at_path(path)}OpenPCDet's {self.name} {name!r} is not covered; covered: "
                f"{', '.join(sorted(self._classes))} (see docs/COMPATIBILITY.md)"
            )
        raise ConfigError(f"{at_path(path)}unknown {self.name} {name!r}; {nearest_name(name, self._classes)}")

    def complaints(self, value: Any, path: str) -> list[str]:
        """What is wrong with a value of type ``Annotated[dict, registry]``, a node, or ``Annotated[str, registry]``."""
        if not isinstance(value, str):
            return check_node(value, self, path=path)
        try:
            self.get(value, path)
        except ConfigError as error:
            return error.problems
        return []

    def names(self) -> list[str]:
        """All names, sorted."""
        importlib.import_module(self.provider)
        return sorted(self._classes)


# Classes of OpenPCDet that this project does not have.
ELSEWHERE = {
    "VFE": "DynamicPillarVFESimple2D DynamicVoxelVFE ImageVFE",
    "backbone_3d": "DSVT HEDNet PillarBackBone8x PillarRes18BackBone8x PointNet2Backbone UNetV2 "
    "VoxelResBackBone8xVoxelNeXt VoxelResBackBone8xVoxelNeXt2D VoxelSetAbstraction",
    "map_to_bev": "Conv2DCollapse PointPillarScatter3d",
    "backbone_2d": "BaseBEVBackboneV1 BaseBEVResBackbone CascadeDEDBackbone",
    "dense_head": "TransFusionHead VoxelNeXtHead",
    "point_head": "PointHeadSimple PointIntraPartOffsetHead",
    "roi_head": "MPPNetHead MPPNetHeadE2E PVRCNNHead PartA2FCHead SECONDHead VoxelRCNNHead",
    "detector": "BevFusion CaDDN MPPNet MPPNetE2E PVRCNN PVRCNNPlusPlus PartA2Net PillarNet SECONDNetIoU "
    "TransFusion VoxelNeXt VoxelRCNN",
    "target assigner": "ATSS ATSSTargetAssigner",
    "box coder": "PreviousResidualDecoder PreviousResidualRoIDecoder",
    "dataset": "Argo2Dataset CustomDataset LyftDataset ONCEDataset PandasetDataset WaymoDataset",
}
_FACTS = ("class_names", "grid_size", "voxel_size", "point_cloud_range", "depth_downsample_factor")
_OF_HEADS = ("input_channels", "num_class", "predict_boxes_when_training", *_FACTS)
_OF_STEPS = ("point_cloud_range", "num_point_features", "training", "mode", "rng")
_ASSIGNERS = "pcdet.models.dense_heads.target_assigner"

VFE = Registry("VFE", "pcdet.models.backbones_3d.vfe", ("num_point_features", *_FACTS))
BACKBONES_3D = Registry("backbone_3d", "pcdet.models.backbones_3d", ("input_channels", *_FACTS))
MAP_TO_BEV = Registry("map_to_bev", "pcdet.models.backbones_2d.map_to_bev", ("input_channels", *_FACTS))
BACKBONES_2D = Registry("backbone_2d", "pcdet.models.backbones_2d", ("input_channels", *_FACTS))
DENSE_HEADS = Registry("dense_head", "pcdet.models.dense_heads", _OF_HEADS)
POINT_HEADS = Registry("point_head", "pcdet.models.dense_heads", _OF_HEADS)
ROI_HEADS = Registry("roi_head", "pcdet.models.roi_heads", ("backbone_channels", *_OF_HEADS))
DETECTORS = Registry("detector", "pcdet.models.detectors", ("model_cfg", "num_class", "dataset"))
TARGET_ASSIGNERS = Registry("target assigner", _ASSIGNERS, ("class_names", "anchor_configs"))
BOX_CODERS = Registry("box coder", _ASSIGNERS)  # of boxes against boxes: anchors and proposals
KD_LOSSES = Registry("KD loss", "pcdet.models.kd.losses")
DATASETS = Registry("dataset", "pcdet.datasets.register_all")
AUGMENTORS = Registry("augmentor", "pcdet.datasets.augmentor", ("root_path", "class_names", "logger", "rng"))
PROCESSORS = Registry("data processor", "pcdet.datasets.processor", _OF_STEPS)
POINT_ENCODERS = Registry("point feature encoder", "pcdet.datasets.processor", ("point_cloud_range",))
OPTIMIZERS = Registry("optimizer", "pcdet.engine.optim", ("model", "params", "optim_cfg"))


def build_from_cfg(node: Mapping, registry: Registry, *, path: str = "", **injected: Any) -> Any:
    """The object that ``node`` describes.

    Args:
        node: mapping with ``NAME`` and the class's keys.
        registry: where ``NAME`` is looked up.
        path: where the node stands in the file, for messages (``MODEL.VFE``).
        **injected: what the code supplies, of what the registry or the class says it does; only what is in the class's
            signature is passed on.

    Raises:
        ConfigError: with every wrong, missing or ill-typed key of the node.
        TypeError: the code supplies something that the registry does not declare.
    """
    cls = find_class(node, registry, path)
    names = injected_into(cls, registry.injected)
    if undeclared := injected.keys() - names:
        raise TypeError(
            f"{registry.name} {cls.__name__} is given {sorted(undeclared)}, which neither its registry nor its "
            "INJECTED declares; a file could set them too"
        )
    parameters = signature_of(cls)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    injected = {key: value for key, value in injected.items() if takes_all or key in parameters}
    if "model_cfg" in parameters:
        injected.setdefault("model_cfg", node)
        return cls(**injected)
    bound = bind(node, cls, path, names, (NAME_KEY, BASE_KEY))
    if bound.problems:
        raise ConfigError(bound.problems)
    return cls(**{**bound.values, **injected})


def check_node(node: Any, registry: Registry, *, path: str = "", injected: Iterable[str] = ()) -> list[str]:
    """What is wrong with a component's node; empty if it can be built. Nothing is built.

    A class may have a classmethod ``rules(config)``: what it has against well-typed arguments, a sentence each, which
    begins with the path of the key below the node.

    Args:
        node: mapping with ``NAME`` and the class's keys.
        registry: where ``NAME`` is looked up.
        path: where the node stands in the file.
        injected: parameters that code supplies, beside those of the registry and of the class.
    """
    try:
        cls = find_class(node, registry, path)
    except ConfigError as error:
        return error.problems
    if "model_cfg" in signature_of(cls):
        return []
    bound = bind(node, cls, path, (*injected, *registry.injected), (NAME_KEY, BASE_KEY))
    rules = getattr(cls, "rules", None)
    if rules is None or bound.wrong:
        return bound.problems
    return bound.problems + [place(path, sentence) for sentence in rules(_with_defaults(bound.values, cls, registry))]


def arguments_of(node: Any, registry: Registry) -> SimpleNamespace | None:
    """A component's node as the arguments that its constructor would get from it, with defaults.

    None where the node has no class, a key of it is missing or ill-typed, or the class takes its node as it is.
    """
    try:
        cls = find_class(node, registry, "")
    except ConfigError:
        return None  # the check of the nodes tells why
    if "model_cfg" in signature_of(cls):
        return None
    bound = bind(node, cls, "", registry.injected, (NAME_KEY, BASE_KEY))
    return None if bound.wrong else _with_defaults(bound.values, cls, registry)


def _with_defaults(values: dict[str, Any], cls: type, registry: Registry) -> SimpleNamespace:
    injected = injected_into(cls, registry.injected)
    parameters = {name: p for name, p in parameters_of(cls, injected).items() if name not in injected}
    defaults = {name: p.default for name, p in parameters.items() if p.default is not MISSING}
    return SimpleNamespace(**{**defaults, **values})


def find_class(node: Any, registry: Registry, path: str) -> type:
    """The class that a component's node names; ConfigError if it names none."""
    if not isinstance(node, Mapping):
        raise ConfigError(f"{at_path(path)}expected a {registry.name} node with {NAME_KEY}, got {shown(node)}")
    if NAME_KEY not in node:
        raise ConfigError(f"{join_path(path, NAME_KEY)}: missing; it says which {registry.name} to build")
    return registry.get(node[NAME_KEY], join_path(path, NAME_KEY))
