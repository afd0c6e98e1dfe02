"""A sparse volume written into a BEV map, its height into the channels (SECOND)."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

from pcdet.models.backbones_2d.map_to_bev.bev_map import BEVMap
from pcdet.models.feature_spec import Entries
from pcdet.registry import MAP_TO_BEV, Count


@MAP_TO_BEV.register
class HeightCompression(BEVMap):
    """BEV map with the channels of all heights of a column in its cell, and zeros elsewhere.

    Args:
        num_bev_features: channels of the map, those of the volume times its cells in height.
        input_channels: channels of the volume.

    The layer behind it needs no parts of a concatenation to be sliced: channel c * D + d makes the first C' * D the
    first C' channels at every height.
    """

    READS = "encoded_spconv_tensor"

    def __init__(self, *, num_bev_features: Count, input_channels: int | None = None):
        super().__init__()
        if input_channels is not None and num_bev_features % input_channels:
            raise ValueError(
                f"NUM_BEV_FEATURES must be the {input_channels} channels of the 3-D backbone times the cells that it "
                f"leaves in height, got {num_bev_features}"
            )
        self.num_bev_features = num_bev_features

    @classmethod
    def problems(cls, config: SimpleNamespace, inputs: Entries) -> Iterator[str]:
        """The volume fills the map."""
        volume = inputs[cls.READS]
        if volume.grid is None:
            return
        channels, depth = volume.channels, volume.grid[0]
        if config.num_bev_features != channels * depth:
            yield (
                f"NUM_BEV_FEATURES: the 3-D backbone's {channels} channels in {depth} layers of height make "
                f"{channels * depth}, got {config.num_bev_features}"
            )

    def forward(self, batch_dict: dict) -> dict:
        """Writes the volume into the map.

        Reads: ``encoded_spconv_tensor``, C channels on a (D, H, W) grid; ``encoded_spconv_tensor_stride``.
        Writes: ``spatial_features`` (B, C * D, H, W), channel c * D + d holding channel c at height d, in channels-last
        memory; ``spatial_features_stride``.
        """
        volume = batch_dict["encoded_spconv_tensor"]
        features, (frame, z, y, x) = volume.features, volume.indices.long().unbind(1)
        depth, height, width = volume.spatial_shape
        channels = features.shape[1]
        if channels * depth != self.num_bev_features:
            raise ValueError(
                f"NUM_BEV_FEATURES must be {channels * depth}, the {channels} channels of the 3-D backbone times the "
                f"{depth} cells that it leaves in height, got {self.num_bev_features}"
            )
        columns = features.new_zeros(volume.batch_size * height * width, channels, depth)
        columns[(frame * height + y) * width + x, :, z] = features
        rows = columns.view(volume.batch_size, height, width, channels * depth)
        batch_dict["spatial_features"] = rows.permute(0, 3, 1, 2)
        batch_dict["spatial_features_stride"] = batch_dict["encoded_spconv_tensor_stride"]
        return batch_dict
