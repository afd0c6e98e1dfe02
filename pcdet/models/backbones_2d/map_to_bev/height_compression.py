"""A sparse volume written into a BEV map, its height into the channels (SECOND)."""

from __future__ import annotations

import torch.nn as nn

from pcdet.registry import MAP_TO_BEV


@MAP_TO_BEV.register
class HeightCompression(nn.Module):
    """BEV map with the channels of all heights of a column in its cell, and zeros elsewhere.

    Args:
        num_bev_features: channels of the map, those of the volume times its cells in height.
        input_channels: channels of the volume.
    """

    def __init__(self, *, num_bev_features: int, input_channels: int | None = None):
        super().__init__()
        if input_channels is not None and num_bev_features % input_channels:
            raise ValueError(
                f"NUM_BEV_FEATURES must be the {input_channels} channels of the 3-D backbone times the cells that it "
                f"leaves in height, got {num_bev_features}"
            )
        self.num_bev_features = num_bev_features

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
