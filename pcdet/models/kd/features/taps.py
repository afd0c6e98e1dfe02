"""What is seen: tensors read from a running detector, by ``batch_dict`` key or by module path, without editing it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from pcdet.registry import ConfigError


class TapsFilled(Exception):
    """Raised inside a teacher's forward once everything that was asked for has been seen."""


class Taps:
    """Context in which a detector's forward leaves the named tensors in ``values``.

    A name that is a submodule's path (``backbone_2d.blocks.0``) gives that module's output, a batch norm's as it is
    before the ReLU behind it writes over it. Anything else is the entry of this name in the ``batch_dict``
    (``multi_scale_3d_features.x_conv3``: in a dictionary there), as the first module that writes it leaves it.

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
            self._handles.append(
                module.register_forward_hook(lambda m, _a, out, name=name: self._seen(name, _before_relu(m, out)))
            )
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


def _before_relu(module: nn.Module, out: Any) -> Any:
    """A layer's output, that of a batch norm as it is before a ReLU writes over it."""
    return out.clone() if isinstance(module, nn.modules.batchnorm._BatchNorm) and isinstance(out, Tensor) else out


def _entry(batch_dict: Any, name: str) -> Any:
    """The entry ``name``, whose dots lead into nested dictionaries; None where there is none."""
    for part in name.split("."):
        if not isinstance(batch_dict, dict):
            return None
        batch_dict = batch_dict.get(part)
    return batch_dict


def head_taps(detector: nn.Module, *, scores_only: bool = False) -> tuple[str, ...]:
    """What to tap for a dense head's raw predictions: the layers that make them, or the head as a whole.

    Reading the layers lets a teacher stop before it decodes boxes.

    Args:
        detector: the detector.
        scores_only: leave out what makes boxes.

    Raises:
        ValueError: it has no dense head.
    """
    head = getattr(detector, "dense_head", None)
    if head is None:
        raise ValueError(f"{type(detector).__name__} has no dense_head, whose predictions this KD loss needs")
    layers = tuple(getattr(head, "score_taps", ()))
    if not scores_only:
        layers += tuple(getattr(head, "box_taps", ()))
    return tuple(dict.fromkeys(f"dense_head.{path}" for path in layers)) or ("dense_head",)


def head_kind(head: nn.Module | None) -> str:
    """What a head says that its predictions belong to (``HeadTemplate.PREDICTS``); "" for a user's own kind."""
    return getattr(head, "PREDICTS", "")
