"""What both writers of a BEV map share: its description, and channels that follow from what is written into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pcdet.models.feature_spec import Entries, FeatureSpec


def map_like(source: FeatureSpec, channels: int) -> FeatureSpec:
    """The spec of a map with the cells that a set of pillars or voxels has from above."""
    grid = None if source.grid is None else (1, *source.grid[1:])
    return FeatureSpec(kind="map", channels=channels, stride=(1, *source.stride[1:]), grid=grid)


def with_map_channels(scaled: Any, node: Mapping, source: str, before: Entries, after: Entries) -> Any:
    """A scaled node whose ``NUM_BEV_FEATURES`` are what is written into the map, times its cells in height.

    Args:
        scaled: the node with its channels scaled by themselves, which they stay where the source does not fit them.
        node: the node before.
        source: the entry that is written into the map.
        before: entries before the scaling.
        after: entries after it.
    """
    channels = node.get("NUM_BEV_FEATURES")
    if channels is not None and source in before and source in after and channels % before[source].channels == 0:
        scaled["NUM_BEV_FEATURES"] = channels // before[source].channels * after[source].channels
    return scaled
