"""What is seen: tensors read from a running detector, by ``batch_dict`` key or by module path, without editing it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pcdet.models.dense_heads.anchor_head_multi import AnchorHeadMulti
from pcdet.registry import ConfigError, nearest_name
from pcdet.utils.spconv_utils import is_sparse_convolution

# Modules of an anchor head whose outputs are its raw predictions; reading them lets a teacher stop before it decodes.
HEAD_OUTPUTS = ("conv_cls", "conv_box")
# Entries of the batch_dict that OpenPCDet's modules write: the slot that does, and where it says how many channels.
KEYS = {
    "pillar_features": ("vfe", "get_output_feature_dim"),
    "voxel_features": ("vfe", "get_output_feature_dim"),
    "encoded_spconv_tensor": ("backbone_3d", "num_point_features"),
    "point_features": ("backbone_3d", "num_point_features"),
    "spatial_features": ("map_to_bev_module", "num_bev_features"),
    "spatial_features_2d": ("backbone_2d", "num_bev_features"),
}
# Slots whose layers give maps over the whole range. What the second stage and point networks make has four dimensions
# too, but one of them counts proposals or points.
MAP_SLOTS = ("map_to_bev_module", "backbone_2d", "dense_head")
NO_PLACES = ("pfe", "point_head", "roi_head")
MULTI_SCALE = "multi_scale_3d_features"  # a dictionary of sparse tensors, one for each stage
FEATURE_KINDS = ("pillar", "voxel", "point", "stage", "map")


def feature_kind(name: str) -> str:
    """The kind of set a tap's name stands for, which decides the defaults.

    "pillar"; "voxel", occupied voxels of a volume; "point"; "stage", every cell of the map that a stage of the 2-D
    backbone makes, where the paper taps SECOND; "map", every cell of another map, such as the one that the head reads.
    """
    if name in ("voxel_features", "encoded_spconv_tensor") or name.startswith((f"{MULTI_SCALE}.", "backbone_3d.")):
        return "voxel"
    if name.startswith("backbone_2d.blocks."):
        return "stage"
    return {"pillar_features": "pillar", "point_features": "point"}.get(name, "map")


class TapsFilled(Exception):
    """Raised inside a teacher's forward once everything that was asked for has been seen."""


class Taps:
    """Context in which a detector's forward leaves the named tensors in ``values``.

    A name that is a submodule's path (``backbone_2d.blocks.0``) gives that module's output, anything else the entry of
    this name in the ``batch_dict`` (``multi_scale_3d_features.x_conv3``: in a dictionary there), as the first module
    that writes it leaves it.

    Args:
        model: the detector.
        names: what to read.
        stop: end the forward with ``TapsFilled`` as soon as all names have been seen.
    """

    def __init__(self, model: nn.Module, names: Iterable[str], *, stop: bool = False):
        self.values: dict[str, Any] = {}
        self._model = model
        self._stop = stop
        modules = dict(model.named_modules())
        self._paths = {name: modules[name] for name in names if name in modules}
        self._keys = [name for name in names if name not in modules]
        self._handles: list[Any] = []

    def __enter__(self) -> Taps:
        self.values = {}
        for name, module in self._paths.items():
            self._handles.append(module.register_forward_hook(lambda _m, _a, out, name=name: self._seen(name, out)))
        if self._keys:
            for module in self._model.children():
                self._handles.append(module.register_forward_hook(lambda _m, _a, out: self._look_into(out)))
        return self

    def __exit__(self, kind: type | None, *_: object) -> bool:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        return kind is TapsFilled

    def complete(self, batch_dict: dict) -> dict[str, Any]:
        """All values; keys that no module was seen to write are taken from ``batch_dict``.

        Raises:
            ConfigError: one is nowhere.
        """
        self._look_into(batch_dict, stop=False)
        for name in (*self._paths, *self._keys):
            if name not in self.values:
                tensors = sorted(k for k, v in batch_dict.items() if isinstance(v, Tensor))
                raise ConfigError(
                    f"KD.LOSSES: {type(self._model).__name__} has no tap {name!r}: neither a module path that ran nor "
                    f"one of the batch's tensors: {', '.join(tensors)}"
                )
        return self.values

    def _look_into(self, out: Any, *, stop: bool = True) -> None:
        if isinstance(out, dict):
            for key in self._keys:
                found = None if key in self.values else _entry(out, key)
                if found is not None:
                    self._seen(key, found, stop=stop)

    def _seen(self, name: str, value: Any, *, stop: bool = True) -> None:
        self.values.setdefault(name, value)
        if stop and self._stop and len(self.values) == len(self._paths) + len(self._keys):
            raise TapsFilled


def _entry(batch_dict: Any, name: str) -> Any:
    """The entry ``name``, whose dots lead into nested dictionaries; None where there is none."""
    for part in name.split("."):
        if not isinstance(batch_dict, dict):
            return None
        batch_dict = batch_dict.get(part)
    return batch_dict


def head_taps(detector: nn.Module, *outputs: str) -> tuple[str, ...]:
    """What to tap for a dense head's raw predictions: the convolutions named, or the head as a whole.

    Args:
        detector: the detector.
        outputs: of ``HEAD_OUTPUTS``; all if none is named.

    Raises:
        ValueError: it has no dense head, or one whose predictions are not one map.
    """
    head = getattr(detector, "dense_head", None)
    if head is None:
        raise ValueError(f"{type(detector).__name__} has no dense_head, whose predictions this KD loss needs")
    if isinstance(head, AnchorHeadMulti):
        raise ValueError(
            f"{type(detector).__name__}'s {type(head).__name__} predicts branch by branch, not in the one map that "
            "this KD loss reads; use losses on features (FitNet, PointDistiller) with BY channel_l2 or num_points"
        )
    names = outputs or HEAD_OUTPUTS
    if all(isinstance(getattr(head, name, None), nn.Module) for name in names):
        return tuple(f"dense_head.{name}" for name in names)
    return ("dense_head",)


def may_be_map(name: str) -> bool:
    """Whether a tensor of four dimensions under this name is a map: an entry of the batch, or of a slot with maps."""
    return "." not in name or name.partition(".")[0] in MAP_SLOTS


def check_places(detector: nn.Module, name: str) -> None:
    """ValueError for a layer that gives rows of which nothing says where they stand."""
    slot = name.partition(".")[0]
    layer = dict(detector.named_modules()).get(name)
    if layer is None or "." not in name:
        return
    instead = None
    if slot in NO_PLACES or (slot == "backbone_3d" and getattr(detector, "vfe", None) is None):
        instead = ", ".join(_keys_of(detector, dict(detector.named_children()))) or "a map, or voxels"
    elif slot == "backbone_3d" and _is_sparse(detector.backbone_3d) and not _is_sparse(layer):
        instead = f"{name.rpartition('.')[0]}, the sparse layer around it"
    if instead:
        raise ValueError(
            f"where the rows of tap {name!r} of {type(detector).__name__} stand is not known; tap {instead}"
        )


def check_learns(student: nn.Module, name: str) -> None:
    """ValueError for a tap of the student's that comes before everything that it trains: no loss there can teach."""
    slots = [slot for slot, _ in student.named_children()]
    trained = [slot for slot, module in student.named_children() if any(p.requires_grad for p in module.parameters())]
    slot = _slot_of(name)
    if slot not in slots or any(slots.index(other) <= slots.index(slot) for other in trained):
        return
    behind = slots[slots.index(trained[0]) :] if trained else []
    raise ValueError(
        f"{type(student).__name__} trains nothing before its tap {name!r}, so that no loss on it can teach; tap what "
        f"comes out of a trained layer ({', '.join(_keys_of(student, behind)) or 'none is known'})"
    )


def probe_channels(detector: nn.Module, name: str) -> int:
    """Channels of a tap, read off the detector's modules without running it.

    Raises:
        ValueError: the modules do not tell, or the name is one that can give no tensor.
    """
    modules = {path: module for path, module in detector.named_modules() if path}
    found = _channels_of_key(detector, name)
    if found is None and name in modules:
        _check_gives_tensor(modules[name], name)
        found = _channels_of_module(modules[name])
    if found is None:
        raise ValueError(
            f"cannot tell how many channels {name!r} of {type(detector).__name__} has; {_instead_of(detector, name)}"
        )
    return found


def _instead_of(detector: nn.Module, name: str) -> str:
    """What to tap where the channels of ``name`` are not known."""
    modules = {path: module for path, module in detector.named_modules() if path}
    if name in modules:
        return f"{type(modules[name]).__name__} does not say; tap the layer around it ({name.rpartition('.')[0]})"
    if name.partition(".")[0] == MULTI_SCALE:
        scales = ", ".join(f"{MULTI_SCALE}.{scale}" for scale in _scales(detector))
        return f"known: {scales}" if scales else "only sparse backbones (VoxelBackBone8x) write this entry"
    known = modules if "." in name else _keys_of(detector, dict(detector.named_children()))
    return f"tap the module that makes it by its path (backbone_2d.blocks.0); {nearest_name(name, known)}"


def _check_gives_tensor(module: nn.Module, path: str) -> None:
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        inside = ", ".join(f"{path}.{name}" for name, _ in module.named_children())
        raise ValueError(f"{path} is a list of modules, which does not run itself; tap one of {inside}")
    if "." not in path:
        keys = ", ".join(key for key, (slot, _) in KEYS.items() if slot == path) or "none is known"
        raise ValueError(f"{path} gives the whole batch_dict; tap an entry that it writes ({keys}) or a layer in it")


def _slot_of(name: str) -> str:
    """The detector's slot in which a tap's value is made, as far as the name tells."""
    if name.startswith(f"{MULTI_SCALE}."):
        return "backbone_3d"
    return KEYS[name][0] if name in KEYS else name.partition(".")[0]


def sparse_strides(detector: nn.Module, name: str) -> list[int] | None:
    """Voxels to a cell of a sparse tap, [z, y, x], off the convolutions up to it; None where they do not tell.

    They are taken to run in the order in which the backbone holds them, and its stages to have OpenPCDet's names.
    """
    backbone = getattr(detector, "backbone_3d", None)
    layer = name.removeprefix("backbone_3d.").removeprefix(f"{MULTI_SCALE}.x_")
    layer = "conv_out" if name == "encoded_spconv_tensor" else layer
    layers = [] if backbone is None else list(backbone.named_modules())
    inside = [i for i, (path, _) in enumerate(layers) if path == layer or path.startswith(f"{layer}.")]
    if not inside:
        return None
    strides = [1, 1, 1]
    for _, module in layers[: inside[-1] + 1]:
        if is_sparse_convolution(module) and not module.subm:
            if module.inverse or module.transposed:
                return None
            strides = [a * b for a, b in zip(strides, module.stride, strict=True)]
    return strides


def _is_sparse(module: nn.Module) -> bool:
    """Whether it gives a sparse tensor, which says where its rows stand."""
    return any(is_sparse_convolution(layer) for layer in module.modules())


def _scales(detector: nn.Module) -> dict[str, int]:
    """Channels of every entry of ``MULTI_SCALE``, by its name; empty without a sparse backbone."""
    widths = getattr(getattr(detector, "backbone_3d", None), "backbone_channels", None)
    return widths if isinstance(widths, dict) else {}


def _keys_of(detector: nn.Module, slots: Iterable[str]) -> list[str]:
    """What modules in these slots are known to write."""
    of_voxels, of_others = ("voxel_features", "encoded_spconv_tensor"), ("pillar_features", "point_features")
    absent = of_others if _scales(detector) else of_voxels
    return [key for key, (slot, _) in KEYS.items() if slot in slots and key not in absent]


def _channels_of_key(detector: nn.Module, key: str) -> int | None:
    """Channels of the ``batch_dict`` entries that OpenPCDet's modules write."""
    scales, _, scale = key.partition(".")
    if scales == MULTI_SCALE:
        return _scales(detector).get(scale)
    owner, attribute = KEYS.get(key, ("", ""))
    found = getattr(getattr(detector, owner, None), attribute, None)
    return found() if callable(found) else found


def _channels_of_module(module: nn.Module) -> int | None:
    """Output channels of the last layer in ``module`` that has any."""
    for layer in reversed(list(module.modules())):
        for attribute in ("num_features", "out_channels", "out_features"):
            value = getattr(layer, attribute, None)
            if isinstance(value, int):
                return value
    return None


def tensor_of(value: Any, name: str) -> Tensor:
    """The tensor behind a tapped value; ConfigError with what was found where there is none."""
    if isinstance(value, torch.Tensor):
        return value
    raise ConfigError(f"KD.LOSSES: tap {name!r} gives {type(value).__name__}, not a tensor; tap a layer inside it")
