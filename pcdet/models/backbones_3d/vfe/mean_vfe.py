"""Voxel features that are the mean of the points in the voxel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace

from pcdet.models.channel_flow import ChannelFlow, Parts
from pcdet.models.feature_spec import STEPS, Entries, FeatureSpec, SlotModule
from pcdet.registry import VFE


@VFE.register
class MeanVFE(SlotModule):
    """Mean of the raw point features; nothing is learned."""

    READS = "voxels"

    def __init__(self, *, num_point_features: int):
        super().__init__()
        self.num_point_features = num_point_features

    @classmethod
    def outputs(cls, config: SimpleNamespace, inputs: Entries) -> dict[str, FeatureSpec]:
        """``voxel_features``: a row for each voxel."""
        return {"voxel_features": replace(inputs["voxels"], kind="voxel")}

    @classmethod
    def problems(cls, config: SimpleNamespace, inputs: Entries) -> Iterator[str]:
        """There must be voxels."""
        if inputs.lacks("voxels"):
            yield f"{STEPS}: {cls.__name__} reads voxels; add transform_points_to_voxels to them"

    def channel_flow(self, flow: ChannelFlow, path: str, entries: Mapping[str, Parts]) -> dict[str, Parts]:
        """The columns of the points."""
        return {"voxel_features": entries["voxels"]}

    def get_output_feature_dim(self) -> int:
        """Channels of ``voxel_features``."""
        return self.num_point_features

    def forward(self, batch_dict: dict) -> dict:
        """Averages the points of every voxel.

        Reads: ``voxels`` (V, P, C), zero where there is no point; ``voxel_num_points`` (V,).
        Writes: ``voxel_features`` (V, C).
        """
        voxels, count = batch_dict["voxels"], batch_dict["voxel_num_points"]
        batch_dict["voxel_features"] = voxels.sum(dim=1) / count.to(voxels.dtype).clamp(min=1).unsqueeze(1)
        return batch_dict
