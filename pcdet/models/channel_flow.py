"""Which channels are the same ones: how a detector's layers hand their channels on to each other.

A narrower copy of a network keeps some of a layer's output channels. All that reads them must then keep the same ones.
So every layer gives its output channels a name, their *group*, and says of which groups the channels are that it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import nn

from pcdet.utils.spconv_utils import is_sparse_convolution

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.modules.batchnorm._BatchNorm,)


class Part(NamedTuple):
    """Neighbouring channels of one origin.

    Attributes:
        group: of the layer that makes them; None for those of the input, which are the same at every width.
        channels: how many.
        repeat: how often each stands there, side by side (the heights of a volume that is written into a map).
    """

    group: str | None
    channels: int
    repeat: int = 1

    @property
    def size(self) -> int:
        """Channels that it takes up."""
        return self.channels * self.repeat


Parts = tuple[Part, ...]


def given(channels: int) -> Parts:
    """Channels of the input, which no layer makes."""
    return (Part(None, channels),)


def repeated(parts: Parts, times: int) -> Parts:
    """Every channel ``times`` times, side by side."""
    return tuple(part._replace(repeat=part.repeat * times) for part in parts)


@dataclass
class ChannelFlow:
    """What reads which channels, as a detector's modules tell it (``SlotModule.channel_flow``).

    Attributes:
        reads: path of a layer -> the parts that it reads.
        makes: path of a layer -> the group of its output channels.
        norms: path of a batch norm -> the group that it normalises; None for channels of the input.
        channels: group -> how many it has.
    """

    reads: dict[str, Parts] = field(default_factory=dict)
    makes: dict[str, str] = field(default_factory=dict)
    norms: dict[str, str | None] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)

    def layer(self, path: str, module: nn.Module, parts: Parts, *, group: str | None = None) -> Parts:
        """A convolution or linear layer: what it reads -> what it makes.

        Args:
            path: in the detector.
            module: the layer.
            parts: what it reads.
            group: that its outputs belong to, where they are added to others; None: one of their own.

        Raises:
            ValueError: it reads, or makes, another number of channels.
        """
        reads, makes = _widths(module)
        wanted = sum(part.size for part in parts), self.channels.get(group, makes)
        if wanted != (reads, makes):
            raise ValueError(
                f"channel_flow gives {path} {wanted[0]} channels and lets it make {wanted[1]}, but it reads {reads} "
                f"and makes {makes}"
            )
        self.reads[path], self.makes[path] = parts, group or path
        self.channels[group or path] = makes
        return (Part(group or path, makes),)

    def norm(self, path: str, parts: Parts) -> Parts:
        """A batch norm of the channels of one layer; it hands them on."""
        (part,) = parts
        self.norms[path] = part.group
        return parts

    def sequence(self, path: str, modules: nn.Module, parts: Parts) -> Parts:
        """Layers, norms and sequences of them, one after the other; what has no channels hands them on.

        A block of layers that are not one after the other says so in a method ``flow_through(flow, path, parts)``.
        """
        for name, module in modules.named_children():
            inner = f"{path}.{name}"
            if isinstance(module, nn.Sequential):
                parts = self.sequence(inner, module, parts)
            elif hasattr(module, "flow_through"):
                parts = module.flow_through(self, inner, parts)
            elif isinstance(module, NORMS):
                parts = self.norm(inner, parts)
            elif next(module.parameters(recurse=False), None) is not None:
                parts = self.layer(inner, module, parts)
        return parts

    def branches(self, path: str, modules: nn.Module | None, parts: Parts) -> None:
        """What ends here: a layer, a sequence of layers, or several of these side by side, which read the same."""
        if isinstance(modules, nn.Sequential):
            self.sequence(path, modules, parts)
        elif isinstance(modules, nn.ModuleDict):
            for name, module in modules.items():
                self.branches(f"{path}.{name}", module, parts)
        elif modules is not None:
            self.layer(path, modules, parts)


def join(several: Iterable[Parts]) -> Parts:
    """What a concatenation of several outputs holds."""
    return tuple(part for parts in several for part in parts)


def axes_of(layer: nn.Module) -> tuple[int, int]:
    """The axes of a layer's weight along which its outputs and its inputs are."""
    if isinstance(layer, TRANSPOSED):
        return 1, 0
    return 0, layer.weight.dim() - 1 if is_sparse_convolution(layer) else 1


def _widths(module: nn.Module) -> Sequence[int]:
    """Channels that a layer reads and makes."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return module.in_channels, module.out_channels
