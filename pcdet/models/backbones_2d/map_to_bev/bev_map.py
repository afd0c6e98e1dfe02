"""What both writers of a BEV map share: its description, and channels that follow from what is written into it."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from pcdet.models.channel_flow import ChannelFlow, Parts, repeated
from pcdet.models.feature_spec import Entries, FeatureSpec, SlotModule


class BEVMap(SlotModule):
    """Writes what it ``READS`` into a map, ``spatial_features``."""

    CHANNEL_KEYS = ("NUM_BEV_FEATURES",)

    @classmethod
    def outputs(cls, config: SimpleNamespace, inputs: Entries) -> dict[str, FeatureSpec]:
        """``spatial_features``: a map with the cells that a set of pillars or voxels has from above."""
        source = inputs[cls.READS]
        grid = None if source.grid is None else (1, *source.grid[1:])
        stride = (1, *source.stride[1:])
        made = FeatureSpec(kind="map", channels=config.num_bev_features, stride=stride, grid=grid)
        return {"spatial_features": made}

    def channel_flow(self, flow: ChannelFlow, path: str, entries: Mapping[str, Parts]) -> dict[str, Parts]:
        """The channels of what is written; where the map has more, every one at each height, side by side."""
        source = entries[self.READS]
        return {"spatial_features": repeated(source, self.num_bev_features // sum(part.size for part in source))}

    @classmethod
    def scaled(cls, node: Mapping, width: float, before: Entries, after: Entries) -> Any:
        """As many channels as the scaled pillars or voxels have, times as many layers of height as before.

        Channels that are no multiple of what is written are scaled by themselves.
        """
        scaled, channels, source = super().scaled(node, width, before, after), node.get("NUM_BEV_FEATURES"), cls.READS
        if channels is not None and source in before and source in after and channels % before[source].channels == 0:
            scaled["NUM_BEV_FEATURES"] = channels // before[source].channels * after[source].channels
        return scaled
