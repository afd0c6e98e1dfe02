"""What the layers of a set abstraction read: offsets from its centre, then the features of the level before."""

from __future__ import annotations

from torch import nn

from pcdet.models.channel_flow import ChannelFlow, Parts, given, join


def num_offsets(module: nn.Module) -> int:
    """Columns of the offsets that a set abstraction puts before the features."""
    return 3 if module.groupers[0].use_xyz else 0


def abstraction_flow(flow: ChannelFlow, path: str, module: nn.Module, features: Parts) -> Parts:
    """The channels of the features before a set abstraction -> those of its scales, side by side.

    Args:
        flow: is told of the layers.
        path: of the set abstraction in the detector.
        module: the set abstraction.
        features: the channels before it.
    """
    offsets = num_offsets(module)
    parts = join((given(offsets) if offsets else (), features))
    return join(flow.sequence(f"{path}.mlps.{scale}", mlp, parts) for scale, mlp in enumerate(module.mlps))
