"""What a detector's modules say of themselves before anything is built: what they read, what they write, what is wrong.

A module of a slot is a ``SlotModule``: its class names the entry that it reads, describes those that it writes as
``FeatureSpec``, and says which of its keys hold channels. ``models/description.py`` walks a ``MODEL`` block with them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

from torch import nn

from pcdet.models.channel_flow import ChannelFlow, Parts

Kind = Literal["point", "pillar", "voxel", "stage", "map"]
KINDS: tuple[Kind, ...] = ("point", "pillar", "voxel", "stage", "map")
MAPS: tuple[Kind, ...] = ("map", "stage")
STEPS = "DATA_CONFIG.DATA_PROCESSOR"  # where a module says that its input is missing
CUT_SLACK = 0.05  # widths are written with few digits: 196 * 0.357 must still give 70, as 196 / 2.8 does


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """What an entry of the batch_dict, or the output of a layer, holds.

    Attributes:
        kind: what its rows are. "voxel": occupied voxels of a volume; "stage": the cells of the map that a stage of a
            2-D backbone makes, where the paper taps SECOND; "map": the cells of another map, as the one a head reads.
        channels: C.
        stride: (z, y, x) voxels in one of its cells; on a map, whose one layer spans the height, z is not used.
        grid: (z, y, x) cells; None for points, and where the data set is not known.
        joined: channels of the parts that were concatenated to make it; empty where nothing was.
        equal_frames: whether every frame has as many rows.
    """

    kind: Kind
    channels: int
    stride: tuple[float, float, float] = (1, 1, 1)
    grid: tuple[int, int, int] | None = None
    joined: tuple[int, ...] = ()
    equal_frames: bool = False

    @property
    def parts(self) -> list[int]:
        """Channels of the parts; all of them where nothing was joined."""
        return list(self.joined) or [self.channels]


class NotDescribedError(LookupError):
    """Nothing is known of an entry: no module that describes itself writes it, or the arguments are wrong."""


class Entries(dict):
    """Name -> ``FeatureSpec`` of what the modules so far write; ``whole`` tells whether all of them said what it is."""

    whole = True

    def __missing__(self, name: str) -> FeatureSpec:
        raise NotDescribedError(name)

    def lacks(self, name: str) -> bool:
        """Whether it is certain that nothing makes this entry."""
        return self.whole and name not in self


class SlotModule(nn.Module):
    """A module of a detector's slot that describes itself.

    A user's own module need not be one. It is built all the same; what depends on its description is then refused, and
    says that it is missing.

    Attributes:
        READS: the entry whose channels are its ``input_channels``.
        CHANNEL_KEYS: keys that hold channels, which ``MODEL.WIDTH`` scales; a dot leads into a nested node, or into
            every node of a list.
        BOXES_OVERLAP: a head whose boxes overlap needs non-maximum suppression after it.
    """

    READS: ClassVar[str | None] = None
    CHANNEL_KEYS: ClassVar[Sequence[str]] = ()
    BOXES_OVERLAP: ClassVar[bool] = False

    @classmethod
    def reads(cls, config: SimpleNamespace) -> str | None:
        """The entry whose channels are its ``input_channels``, for these arguments."""
        return cls.READS

    @classmethod
    def outputs(cls, config: SimpleNamespace, inputs: Entries) -> dict[str, FeatureSpec]:
        """Name -> what it writes into the batch_dict, as far as it is a feature that others read or distil.

        Args:
            config: the constructor's arguments, and what the data set says (``grid_size``, ``class_names``, ...), None
                where it is not known.
            inputs: what the modules before it write.

        Raises:
            NotDescribedError: it depends on an entry that no module describes.
        """
        return {}

    @classmethod
    def layers(cls, config: SimpleNamespace, inputs: Entries) -> dict[str, FeatureSpec]:
        """Path inside the module -> what this layer, and those in it, make, for taps on them."""
        return {}

    @classmethod
    def problems(cls, config: SimpleNamespace, inputs: Entries) -> Iterable[str]:
        """What is wrong with the arguments where the module stands.

        Each sentence begins with the path of a key below the module's node, or with one from the top (``DATA_CONFIG.``,
        ``MODEL.``). An entry that no module describes ends them (``NotDescribedError``): what depends on ``inputs``
        comes last.
        """
        return ()

    @classmethod
    def scaled(cls, node: Mapping, width: float, before: Entries, after: Entries) -> Any:
        """A copy of its node with all channels scaled.

        Args:
            node: its node of the ``MODEL`` block.
            width: factor.
            before: entries that the modules before it write.
            after: the same at their scaled widths.
        """
        return scale_keys(node, cls.CHANNEL_KEYS, width)

    def channel_flow(self, flow: ChannelFlow, path: str, entries: Mapping[str, Parts]) -> dict[str, Parts]:
        """Tells which layer reads which channels; entry that it writes -> the parts of its channels.

        A student that begins with channels of its teacher asks for it (``KD.INIT``): chosen channels need it of every
        module, slices of those with a layer that reads a concatenation.

        Args:
            flow: is told of every layer and norm with weights.
            path: of this module in the detector.
            entries: what the modules before it write.

        Raises:
            NotDescribedError: the class does not say.
        """
        raise NotDescribedError(type(self).__name__)


def scale_channels(channels: Any, width: float) -> Any:
    """A number of channels, or nested lists of such numbers, times ``width``, cut to whole numbers, at least one."""
    if isinstance(channels, (list, tuple)):
        return [scale_channels(c, width) for c in channels]
    return max(1, int(channels * width + CUT_SLACK))


def scale_keys(node: Mapping, keys: Iterable[str], width: float) -> Any:
    """A copy of a node whose ``keys`` are scaled; what is not there stays away."""
    scaled = copy.deepcopy(node)
    for key in keys:
        _scale_key(scaled, key.split("."), width)
    return scaled


def _scale_key(node: Any, path: list[str], width: float) -> None:
    if isinstance(node, (list, tuple)):
        for entry in node:
            _scale_key(entry, path, width)
        return
    key, *rest = path
    if node.get(key) is None:
        return
    if rest:
        _scale_key(node[key], rest, width)
    else:
        node[key] = scale_channels(node[key], width)
