"""One dry walk over a ``MODEL`` block: what every entry of the batch_dict will hold, before anything is built.

The check of a configuration, the building of a detector, ``MODEL.WIDTH``, the taps of distillation and weight slicing
all ask this walk; what a module is, its own class says (``models/feature_spec.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

from pcdet import registry
from pcdet.models.feature_spec import Entries, FeatureSpec, Kind, NotDescribedError, SlotModule
from pcdet.registry import ConfigError, Registry, arguments_of, place


class Slot(NamedTuple):
    """A place for a module: its attribute, which begins its names in the state_dict, its key in MODEL, its classes."""

    attribute: str
    key: str
    registry: Registry


SLOTS = (  # in the order of running
    Slot("vfe", "VFE", registry.VFE),
    Slot("backbone_3d", "BACKBONE_3D", registry.BACKBONES_3D),
    Slot("map_to_bev_module", "MAP_TO_BEV", registry.MAP_TO_BEV),
    Slot("pfe", "PFE", registry.BACKBONES_3D),
    Slot("backbone_2d", "BACKBONE_2D", registry.BACKBONES_2D),
    Slot("dense_head", "DENSE_HEAD", registry.DENSE_HEADS),
    Slot("point_head", "POINT_HEAD", registry.POINT_HEADS),
    Slot("roi_head", "ROI_HEAD", registry.ROI_HEADS),
)


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What a data set says of itself, before it is opened or read off it; None where it is not known.

    Attributes:
        class_names: in the order of the class ids.
        point_cloud_range: [x, y, z, x, y, z] minimum and maximum, metres.
        voxel_size: [x, y, z] metres.
        grid_size: voxels along x, y, z.
        num_point_features: columns of a point, x, y, z first.
        depth_downsample_factor: of a camera's depth map.
        makes_voxels: whether its samples hold voxels; what has a grid may leave them to the model.
        equal_frames: whether all samples have as many points.
    """

    class_names: Sequence[str] | None = None
    point_cloud_range: Sequence[float] | None = None
    voxel_size: Sequence[float] | None = None
    grid_size: Sequence[int] | None = None
    num_point_features: int = 4
    depth_downsample_factor: int | None = None
    makes_voxels: bool = True
    equal_frames: bool = True

    @classmethod
    def of(cls, dataset: Any) -> DataFacts:
        """Those of anything that a detector can be built for (see ``Detector3DTemplate``)."""
        return cls(
            class_names=list(dataset.class_names),
            point_cloud_range=dataset.point_cloud_range,
            voxel_size=dataset.voxel_size,
            grid_size=dataset.grid_size,
            num_point_features=dataset.point_feature_encoder.num_point_features,
            depth_downsample_factor=getattr(dataset, "depth_downsample_factor", None),
        )

    def injected(self) -> dict[str, Any]:
        """What modules can have as arguments, by name."""
        names = ("class_names", "point_cloud_range", "voxel_size", "grid_size", "num_point_features")
        return {name: getattr(self, name) for name in (*names, "depth_downsample_factor")}

    def entries(self) -> Entries:
        """What a batch holds before the first module."""
        found = Entries()
        columns = self.num_point_features
        found["points"] = FeatureSpec(kind="point", channels=columns, equal_frames=self.equal_frames)
        if self.makes_voxels:
            grid = None if self.grid_size is None else tuple(int(n) for n in self.grid_size[::-1])
            kind: Kind = "pillar" if grid is not None and grid[0] == 1 else "voxel"
            found["voxels"] = FeatureSpec(kind=kind, channels=columns, grid=grid)
        return found


class Input(NamedTuple):
    """An entry that a module reads.

    Attributes:
        spec: as the last module that describes it leaves it.
        overwriters: attributes of slots in between whose modules say nothing, and may have written it anew.
    """

    spec: FeatureSpec
    overwriters: tuple[str, ...]


@dataclass(kw_only=True)
class Description:
    """What a detector's modules say of themselves.

    Attributes:
        entries: name -> spec of all that is written.
        layers: path in the detector -> spec of what the layers there make.
        written_by: entry -> attribute of the slot that writes it first.
        read_by: attribute of a slot -> what its module finds written.
        inputs: attribute of a slot -> the entry whose channels are its module's ``input_channels``, where it is known.
        overwriters: entry -> attributes of slots behind it whose modules say nothing, and may have written it anew.
        problems: what the modules have against their arguments, a sentence each with its path.
    """

    entries: Entries
    layers: dict[str, FeatureSpec] = field(default_factory=dict)
    written_by: dict[str, str] = field(default_factory=dict)
    read_by: dict[str, Entries] = field(default_factory=dict)
    inputs: dict[str, Input] = field(default_factory=dict)
    overwriters: dict[str, tuple[str, ...]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def find(self, name: str) -> FeatureSpec | None:
        """The spec of an entry, or of the described layer ``name`` is or lies in; None where nothing describes it."""
        if name in self.entries:
            return self.entries[name]
        while name and name not in self.layers:
            name = name.rpartition(".")[0]
        return self.layers.get(name)

    def coarsest(self) -> float:
        """The largest stride along x or y of anything that is made on the way: it must divide the grid."""
        return max((max(spec.stride[1:]) for spec in (*self.entries.values(), *self.layers.values())), default=1)


def slots_of(model_cfg: Mapping) -> Iterator[tuple[Slot, Mapping]]:
    """The slots that a ``MODEL`` block fills, with their nodes, in the order of running."""
    for slot in SLOTS:
        node = model_cfg.get(slot.key)
        if isinstance(node, Mapping):
            yield slot, node


def class_of(slot: Slot, node: Mapping) -> type | None:
    """The class that a node names, or None if it names none that there is."""
    try:
        return registry.find_class(node, slot.registry, "")
    except ConfigError:
        return None


def describes_itself(cls: type | None) -> bool:
    """Whether a class says what its modules read and write."""
    return isinstance(cls, type) and issubclass(cls, SlotModule)


def describe(model_cfg: Mapping, facts: DataFacts | None = None) -> Description:
    """Walks a ``MODEL`` block; nodes that cannot be built, and users' own modules, are left out.

    Args:
        model_cfg: the block, at the widths at which it is built.
        facts: of the data set; without any, grids are not known.
    """
    facts = facts or DataFacts()
    found = Description(entries=facts.entries())
    for slot, node in slots_of(model_cfg):
        add_slot(found, slot, node, facts)
    return found


def add_slot(found: Description, slot: Slot, node: Mapping, facts: DataFacts) -> None:
    """Adds what the module of one slot says to a walk that has come to it."""
    cls, config = class_of(slot, node), arguments_of(node, slot.registry)
    inputs = _copy(found.entries)
    found.read_by[slot.attribute] = inputs
    if not describes_itself(cls) or config is None:
        found.entries.whole = False
        for name in found.entries:
            found.overwriters[name] = (*found.overwriters.get(name, ()), slot.attribute)
        return
    config = SimpleNamespace(**{**facts.injected(), **vars(config)})
    found.problems += [_placed(slot, sentence) for sentence in _sentences(cls, config, inputs)]
    try:
        read = cls.reads(config)
        if read in inputs:
            found.inputs[slot.attribute] = Input(inputs[read], found.overwriters.get(read, ()))
        written, layers = cls.outputs(config, inputs), cls.layers(config, inputs)
    except NotDescribedError:
        found.entries.whole = False
        return
    for name, spec in written.items():
        found.entries[name] = spec
        found.written_by.setdefault(name, slot.attribute)
        found.overwriters.pop(name, None)
    found.layers.update({f"{slot.attribute}.{path}": spec for path, spec in layers.items()})


def _sentences(cls: type[SlotModule], config: SimpleNamespace, inputs: Entries) -> Iterator[str]:
    """What a class has against its arguments, up to what depends on an entry that no module describes."""
    try:
        yield from cls.problems(config, inputs)
    except NotDescribedError:
        return


def _copy(entries: Entries) -> Entries:
    copied = Entries(entries)
    copied.whole = entries.whole
    return copied


def _placed(slot: Slot, sentence: str) -> str:
    """A module's sentence with the path of its node in front, unless it begins at the top."""
    return sentence if sentence.startswith(("DATA_CONFIG.", "MODEL.")) else place(f"MODEL.{slot.key}", sentence)
