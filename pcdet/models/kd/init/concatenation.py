"""Which layers read a concatenation, and of how many channels its parts are.

The first channels of a wide layer are not what its narrow counterpart reads where several outputs were joined before
it: there the first channels of every part are. One function for each kind of module says so. A module that joins
nothing needs none, nor does one that reads the volume of ``HeightCompression``: its channel c * D + d makes the first
C' * D the first C' channels at every height.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from pcdet.models.backbones_2d.base_bev_backbone import BaseBEVBackbone
from pcdet.models.backbones_3d.pointnet2_backbone import PointNet2MSG
from pcdet.models.backbones_3d.vfe.pillar_vfe import PillarVFE
from pcdet.models.dense_heads.anchor_head_branch import SingleHead
from pcdet.models.dense_heads.anchor_head_multi import AnchorHeadMulti
from pcdet.models.roi_heads.pointrcnn_head import PointRCNNHead

Parts = dict[str, list[int]]


def input_parts(detector: nn.Module) -> Parts:
    """Path of each layer that reads a concatenation -> the channels of its parts, in order."""
    parts: Parts = {}
    for slot, module in detector.named_children():
        if isinstance(module, BaseBEVBackbone):
            parts |= {f"{slot}.{path}": sizes for path, sizes in _of_bev_backbone(module).items()}
            head = _of_dense_head(getattr(detector, "dense_head", None), _joined(module))
            parts |= {f"dense_head.{path}": sizes for path, sizes in head.items()}
        for kind, of_kind in ((PillarVFE, _of_pillar_vfe), (PointNet2MSG, _of_pointnet2), (PointRCNNHead, _of_rcnn)):
            if isinstance(module, kind):
                parts |= {f"{slot}.{path}": sizes for path, sizes in of_kind(module).items()}
    return parts


def _of_pillar_vfe(vfe: PillarVFE) -> Parts:
    """Every layer but the first reads the points' own features and their pillar's."""
    later = list(enumerate(vfe.pfn_layers))[1:]
    return {f"pfn_layers.{i}.linear": [layer.linear.in_features // 2] * 2 for i, layer in later}


def _of_bev_backbone(backbone: BaseBEVBackbone) -> Parts:
    """An up-sampling behind all others reads what they leave."""
    if len(backbone.deblocks) <= len(backbone.blocks):
        return {}
    return {f"deblocks.{len(backbone.blocks)}.0": _branches(backbone)}


def _joined(backbone: BaseBEVBackbone) -> list[int]:
    """Parts of ``spatial_features_2d``."""
    whole = len(backbone.deblocks) > len(backbone.blocks) or not len(backbone.blocks)
    return [backbone.num_bev_features] if whole else _branches(backbone)


def _branches(backbone: BaseBEVBackbone) -> list[int]:
    ends = list(backbone.deblocks)[: len(backbone.blocks)] or list(backbone.blocks)
    return [[m for m in branch if hasattr(m, "out_channels")][-1].out_channels for branch in ends]


def _of_dense_head(head: nn.Module | None, given: list[int]) -> Parts:
    """Layers that read the joined map ``given``, and in branches with stages of their own what those leave."""
    if not isinstance(head, AnchorHeadMulti):
        named = head.named_modules() if head is not None else ()
        return {path: given for path, module in named if getattr(module, "in_channels", None) == sum(given)}
    parts: Parts = {}
    if head.shared_conv is not None:
        parts["shared_conv.0"] = given
        given = [_width(head.shared_conv)]
    for i, branch in enumerate(head.rpn_heads):
        parts |= {f"rpn_heads.{i}.{path}": sizes for path, sizes in _of_branch(branch, given).items()}
    return parts


def _of_branch(branch: SingleHead, given: list[int]) -> Parts:
    parts = _of_bev_backbone(branch)
    if len(branch.blocks):
        parts["blocks.0.1"] = given
        given = _joined(branch)
    for name in ("conv_cls", "conv_box", "conv_dir_cls"):
        parts |= {path: given for path in _first_layers(name, getattr(branch, name))}
    return parts


def _first_layers(path: str, module: nn.Module | None) -> Iterator[str]:
    """Paths of the layers that get what is given to a convolution, a sequence of them, or several side by side."""
    if isinstance(module, nn.ModuleDict):
        for name, child in module.items():
            yield from _first_layers(f"{path}.{name}", child)
    elif module is not None:
        yield f"{path}.0" if isinstance(module, nn.Sequential) else path


def _of_pointnet2(backbone: PointNet2MSG) -> Parts:
    """Scales side by side; offsets before features in set abstraction; carried before own features in propagation."""
    first = backbone.SA_modules[0].mlps[0][0]
    levels = [[first.in_channels - _offsets(backbone.SA_modules[0])]]
    parts: Parts = {}
    for i, module in enumerate(backbone.SA_modules):
        parts |= {f"SA_modules.{path}": sizes for path, sizes in _of_set_abstraction(i, module, levels[-1]).items()}
        levels.append([_width(mlp) for mlp in module.mlps])
    carried = levels.pop()
    for i in reversed(range(len(backbone.FP_modules))):
        parts[f"FP_modules.{i}.mlp.0"] = carried + levels.pop()
        carried = [_width(backbone.FP_modules[i].mlp)]
    return parts


def _of_rcnn(head: PointRCNNHead) -> Parts:
    """The points' own columns, lifted, beside the first stage's features; then set abstraction of one scale."""
    merged = head.merge_down_layer[0]
    lifted = _width(head.xyz_up_layer)
    parts = {"merge_down_layer.0": [lifted, merged.in_channels - lifted]}
    given = [merged.out_channels]
    for i, module in enumerate(head.SA_modules):
        parts |= {f"SA_modules.{path}": sizes for path, sizes in _of_set_abstraction(i, module, given).items()}
        given = [_width(mlp) for mlp in module.mlps]
    return parts


def _of_set_abstraction(index: int, module: nn.Module, given: list[int]) -> Parts:
    offsets = _offsets(module)
    return {f"{index}.mlps.{scale}.0": [offsets, *given] for scale in range(len(module.mlps))}


def _offsets(module: nn.Module) -> int:
    return 3 if module.groupers[0].use_xyz else 0


def _width(layers: nn.Sequential) -> int:
    return [layer for layer in layers if hasattr(layer, "out_channels")][-1].out_channels
