"""One rule for smaller students: a teacher's ``MODEL`` block with all its channels scaled.

A network of a fraction of the parameters has channels times the square root of that fraction: width 0.5 is the "4x"
student, 0.25 the "16x" one, 1 / 2.8 the "8x" one and 1 / 1.4 the "2x" one (PointDistiller, section 4.1 and its released
configurations). Channels are cut to whole numbers. Those of the BEV map follow from what is written into it, and those
of a pillar layer that is joined with its maximum are even.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pcdet.registry import ConfigError

# For each part of a MODEL block, the keys that hold channels; a dot leads into a nested node, or into all of a list.
CHANNEL_KEYS = {
    "VFE": ("NUM_FILTERS",),
    "BACKBONE_3D": ("NUM_FILTERS", "OUT_CHANNELS", "SA_CONFIG.MLPS", "FP_MLPS"),
    "BACKBONE_2D": ("NUM_FILTERS", "NUM_UPSAMPLE_FILTERS"),
    "DENSE_HEAD": (
        "SHARED_CONV_NUM_FILTER",
        "RPN_HEAD_CFGS.NUM_FILTERS",
        "RPN_HEAD_CFGS.NUM_UPSAMPLE_FILTERS",
        "SEPARATE_REG_CONFIG.NUM_MIDDLE_FILTER",
    ),
    "POINT_HEAD": ("CLS_FC", "REG_FC"),
    "ROI_HEAD": ("XYZ_UP_LAYER", "CLS_FC", "REG_FC", "SA_CONFIG.MLPS"),
}
# Parts with default channels, which take the factor itself for those that the file does not name.
FIXED_WIDTH = ("VoxelBackBone8x", "VoxelResBackBone8x")
SPARSE_OUT_CHANNELS = 128  # that leave these by default
PILLAR_VFE = "PillarVFE"
CUT_SLACK = 0.05  # widths are written with few digits: 196 * 0.357 must still give 70, as 196 / 2.8 does


def scale_channels(channels: Any, width: float) -> Any:
    """A number of channels, or nested lists of such numbers, times ``width``, cut to whole numbers, at least one."""
    if isinstance(channels, (list, tuple)):
        return [scale_channels(c, width) for c in channels]
    return max(1, int(channels * width + CUT_SLACK))


def scale_bev_channels(channels: int, before: int | None, after: int | None, width: float) -> int:
    """Scaled channels of a BEV map: what is written into it, times as many cells in height as before.

    Args:
        channels: of the map, before.
        before: channels of what is written into it, before; None if they are not known.
        after: the same, scaled.
        width: factor where ``channels`` are no multiple of ``before``.
    """
    follows = before is not None and after is not None and channels % before == 0
    return channels // before * after if follows else scale_channels(channels, width)


def scale_model_cfg(model_cfg: Mapping, width: float) -> Any:
    """A copy of a ``MODEL`` block, without ``WIDTH``, whose channels are scaled.

    Args:
        model_cfg: the teacher's block; untouched.
        width: factor, in (0, 1] for a student; 1 changes nothing.

    Raises:
        ConfigError: ``width`` is not a positive number.
    """
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not width > 0:
        raise ConfigError(f"MODEL.WIDTH: must be a positive number, got {width!r}")
    scaled = copy.deepcopy(model_cfg)
    scaled.pop("WIDTH", None)
    if width == 1:
        return scaled
    for part, keys in CHANNEL_KEYS.items():
        node = scaled.get(part)
        if node is None:
            continue
        for key in keys:
            _scale_key(node, key.split("."), width)
        if node.get("NAME") in FIXED_WIDTH and not {"NUM_FILTERS", "OUT_CHANNELS"} <= node.keys():
            node["WIDTH"] = width * node.get("WIDTH", 1.0)
    _keep_pillar_halves_whole(scaled.get("VFE"))
    node = scaled.get("MAP_TO_BEV")
    if node is not None and node.get("NUM_BEV_FEATURES") is not None:
        written = _channels_written(model_cfg), _channels_written(scaled)
        node["NUM_BEV_FEATURES"] = scale_bev_channels(node["NUM_BEV_FEATURES"], *written, width)
    return scaled


def _keep_pillar_halves_whole(vfe: Any) -> None:
    """Even channels for every layer but the last: half are a layer's own, half their maximum over the pillar."""
    if vfe is not None and vfe.get("NAME") == PILLAR_VFE and vfe.get("NUM_FILTERS"):
        *hidden, last = vfe["NUM_FILTERS"]
        vfe["NUM_FILTERS"] = [*(max(2, channels - channels % 2) for channels in hidden), last]


def _channels_written(model_cfg: Mapping) -> int | None:
    """Channels of what is written into the BEV map: sparse voxels or pillars; None if the block does not say."""
    backbone = model_cfg.get("BACKBONE_3D")
    if backbone is None:
        filters = (model_cfg.get("VFE") or {}).get("NUM_FILTERS")
        return filters[-1] if filters else None
    named = backbone.get("OUT_CHANNELS")
    if named is None and backbone.get("NAME") in FIXED_WIDTH:
        return scale_channels(SPARSE_OUT_CHANNELS, backbone.get("WIDTH", 1.0))
    return named


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
