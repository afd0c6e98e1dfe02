"""What a tap will hold, before a detector has run: from what its modules say of themselves (``detector.described``)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from pcdet.models.description import Description, describes_itself
from pcdet.models.feature_spec import Entries, FeatureSpec, Kind
from pcdet.registry import nearest_name
from pcdet.utils.spconv_utils import is_sparse_convolution

NOTHING = Description(entries=Entries())


def described(detector: nn.Module) -> Description:
    """What a detector's modules say of themselves; nothing for a user's own kind of detector."""
    return getattr(detector, "described", NOTHING)


def find_spec(detector: nn.Module, name: str) -> FeatureSpec | None:
    """The spec of a tap, an entry of the batch_dict or a layer's path; None if no module describes it."""
    return described(detector).find(name)


def kind_of_tap(detector: nn.Module, name: str) -> Kind:
    """The kind of set that a tap is, which decides the defaults of a loss.

    "map" for one that no module describes: a loss on it is refused when it is built, with a reason.
    """
    spec = find_spec(detector, name)
    return "map" if spec is None else spec.kind


def channels_of_tap(detector: nn.Module, name: str) -> int:
    """Channels of a tap.

    Raises:
        ValueError: neither the modules' descriptions nor the layer itself tell, or the name can give no tensor.
    """
    known, modules = described(detector), {path: module for path, module in detector.named_modules() if path}
    if name in known.entries and name in known.written_by:
        return known.entries[name].channels
    if name in modules:
        _check_gives_tensor(detector, modules[name], name)
    if name in known.layers:
        return known.layers[name].channels
    found = _channels_of_module(modules[name]) if name in modules else None
    if found is None:
        raise ValueError(
            f"cannot tell how many channels {name!r} of {type(detector).__name__} has; {_instead_of(detector, name)}"
        )
    return found


def check_places(detector: nn.Module, name: str) -> None:
    """ValueError for a layer that gives rows of which nothing says where they stand."""
    layer = dict(detector.named_modules()).get(name)
    if layer is None or "." not in name:
        return
    spec, instead = find_spec(detector, name), None
    if spec is None:
        instead = ", ".join(entries_of(detector)) or "a map, or voxels"
    elif spec.kind == "voxel" and _is_sparse(detector.get_submodule(name.partition(".")[0])) and not _is_sparse(layer):
        instead = f"{name.rpartition('.')[0]}, the sparse layer around it"
    if instead:
        silent = "" if spec is not None else _undescribed(detector, name)
        raise ValueError(
            f"where the rows of tap {name!r} of {type(detector).__name__} stand is not known; tap {instead}"
            + (f"; {silent}" if silent else "")
        )


def check_learns(student: nn.Module, name: str) -> None:
    """ValueError for a tap of the student's that comes before everything that it trains: no loss there can teach."""
    slots = [slot for slot, _ in student.named_children()]
    trained = [slot for slot, module in student.named_children() if any(p.requires_grad for p in module.parameters())]
    slot = described(student).written_by.get(name, name.partition(".")[0])
    if slot not in slots or any(slots.index(other) <= slots.index(slot) for other in trained):
        return
    behind = slots[slots.index(trained[0]) :] if trained else []
    raise ValueError(
        f"{type(student).__name__} trains nothing before its tap {name!r}, so that no loss on it can teach; tap what "
        f"comes out of a trained layer ({', '.join(entries_of(student, behind)) or 'none is known'})"
    )


def entries_of(detector: nn.Module, slots: Iterable[str] | None = None) -> list[str]:
    """Entries that the modules in these slots write (in all, if none are named), but for those in dictionaries."""
    written = described(detector).written_by
    return [name for name, slot in written.items() if "." not in name and (slots is None or slot in slots)]


def _instead_of(detector: nn.Module, name: str) -> str:
    """What to tap where the channels of ``name`` are not known."""
    silent = _undescribed(detector, name)
    if silent:
        return f"{silent}; known: {_listed(detector)}"
    modules = {path: module for path, module in detector.named_modules() if path}
    if name in modules:
        return f"{type(modules[name]).__name__} does not say; tap the layer around it ({name.rpartition('.')[0]})"
    dictionary = name.partition(".")[0]
    inside = [entry for entry in described(detector).written_by if entry.startswith(f"{dictionary}.")]
    if inside:
        return f"known: {', '.join(inside)}"
    if "." in name and dictionary not in dict(detector.named_children()):
        return f"no module of {type(detector).__name__} says that it writes {dictionary!r}; known: {_listed(detector)}"
    known = modules if "." in name else entries_of(detector)
    return f"tap the module that makes it by its path (backbone_2d.blocks.0); {nearest_name(name, known)}"


def _undescribed(detector: nn.Module, name: str) -> str:
    """What to do about modules up to that of a tap which do not describe themselves; empty if all do."""
    slots = dict(detector.named_children())
    if described(detector) is NOTHING:  # a user's own kind of detector, whose modules nobody asks
        return ""
    own = name.partition(".")[0]
    up_to = list(slots)[: list(slots).index(own) + 1] if own in slots else list(slots)
    silent = [f"{slot} ({type(slots[slot]).__name__})" for slot in up_to if not describes_itself(type(slots[slot]))]
    if not silent:
        return ""
    return f"{', '.join(silent)} says nothing of itself: derive the class from pcdet.models.feature_spec.SlotModule"


def _listed(detector: nn.Module) -> str:
    return ", ".join(entries_of(detector)) or "none"


def _check_gives_tensor(detector: nn.Module, module: nn.Module, path: str) -> None:
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        inside = ", ".join(f"{path}.{name}" for name, _ in module.named_children())
        raise ValueError(f"{path} is a list of modules, which does not run itself; tap one of {inside}")
    if "." not in path:
        keys = ", ".join(entries_of(detector, [path])) or "none is known"
        raise ValueError(f"{path} gives the whole batch_dict; tap an entry that it writes ({keys}) or a layer in it")


def _is_sparse(module: nn.Module) -> bool:
    """Whether it gives a sparse tensor, which says where its rows stand."""
    return any(is_sparse_convolution(layer) for layer in module.modules())


def _channels_of_module(module: nn.Module) -> int | None:
    """Output channels of the last layer in ``module`` that has any."""
    for layer in reversed(list(module.modules())):
        for attribute in ("num_features", "out_channels", "out_features"):
            value = getattr(layer, attribute, None)
            if isinstance(value, int):
                return value
    return None
