"""The precision of a run and the memory layout of its feature maps, both as the machine has them fast."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import nn

from pcdet.utils.cpu_features import FASTER_LAYOUT, Processor, mixed_precision, read_processor

AMP_DTYPES = ("auto", "fp16", "bf16")
COST_OF_EMULATION = "convolutions take at least ten times as long as in float32"


@dataclass(frozen=True)
class Precision:
    """Mixed precision, off or with its type, and the layout of feature maps.

    Attributes:
        device_type: ``cpu`` or ``cuda``.
        dtype: None (off), bf16, or fp16 with a gradient scaler.
        loss_scale: fp16's first.
        layout: of feature maps, ``contiguous`` or ``channels_last``.
        reason: why these.
        slow: the machine only emulates the type.
    """

    device_type: str = "cpu"
    dtype: torch.dtype | None = None
    loss_scale: float = 2.0**16
    layout: str = "contiguous"
    reason: str = "not chosen"
    slow: bool = False

    @classmethod
    def choose(
        cls,
        device: torch.device,
        enabled: bool,
        *,
        dtype: str = "auto",
        loss_scale: float = 2.0**16,
        channels_last: bool = False,
        processor: Processor | None = None,
    ) -> Precision:
        """What a run on ``device`` computes with.

        On a CPU mixed precision is bf16 where the processor has instructions for it, else float32; ``dtype`` ``bf16``
        insists. On a GPU it is fp16 as in OpenPCDet unless ``dtype`` is ``bf16``.

        Args:
            device: of the run.
            enabled: mixed precision is asked for.
            dtype: auto, fp16 or bf16.
            loss_scale: fp16's first.
            channels_last: insists on this layout. Else a CPU in mixed precision gets the layout that is faster with its
                type, all others contiguous maps.
            processor: of the machine; None: this one's.

        Raises:
            ValueError: for another ``dtype`` than auto, fp16 and bf16, and for fp16 on a CPU.
        """
        if dtype not in AMP_DTYPES:
            raise ValueError(f"amp_dtype must be auto, fp16 or bf16, got {dtype!r}")
        slow = False
        if not enabled:
            half, reason = None, "mixed precision was not asked for (--use_amp)"
        elif device.type == "cpu":
            half, reason, slow = _on_cpu(dtype, processor or read_processor())
        else:
            half = torch.bfloat16 if dtype == "bf16" else torch.float16
            reason = "mixed precision on a GPU" + (", of the type asked for" if dtype != "auto" else "")
        layout = FASTER_LAYOUT[_name(half)] if device.type == "cpu" else "contiguous"
        if channels_last and layout != "channels_last":
            layout, reason = "channels_last", f"{reason}; the layout was asked for"
        return cls(device.type, half, loss_scale, layout, reason, slow)

    @property
    def name(self) -> str:
        """``float32``, ``bfloat16`` or ``float16``."""
        return _name(self.dtype)

    def describe(self) -> str:
        """One line for the log: precision, layout and why."""
        return f"precision {self.name}, {self.layout.replace('_', '-')} maps: {self.reason}"

    def facts(self) -> dict[str, str]:
        """Precision and layout for a run's record."""
        return {"precision": str(self.dtype or "float32"), "layout": self.layout}

    def lay_out(self, model: nn.Module) -> nn.Module:
        """The model with weights in the layout."""
        return use_channels_last(model) if self.layout == "channels_last" else model

    def autocast(self):
        """Context of the forward pass; does nothing where mixed precision is off."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device_type, dtype=self.dtype)

    def grad_scaler(self) -> torch.amp.GradScaler:
        """The scaler of the loss, disabled unless the precision is fp16."""
        return torch.amp.GradScaler(self.device_type, init_scale=self.loss_scale, enabled=self.dtype is torch.float16)


def _on_cpu(dtype: str, processor: Processor) -> tuple[torch.dtype | None, str, bool]:
    """(type or None, reason, whether it is only emulated) of mixed precision on a processor."""
    if dtype == "fp16":
        raise ValueError("fp16 training needs a GPU; on a CPU leave --amp_dtype out, or insist on bf16")
    fast, reason = mixed_precision(processor)
    if fast == "bfloat16":
        return torch.bfloat16, reason, False
    if dtype == "bf16":
        return torch.bfloat16, f"--amp_dtype bf16 insists, but {reason}; {COST_OF_EMULATION}", True
    return None, f"mixed precision was asked for, but {reason}", False


def _name(dtype: torch.dtype | None) -> str:
    return str(dtype or torch.float32).removeprefix("torch.")


def use_channels_last(model: nn.Module) -> nn.Module:
    """The model with the weights of its 2D convolutions in channels-last memory.

    A model with parts that are no submodules names them by a method ``all_modules()``. Feature maps follow the weights.
    Other tensors of four dimensions, such as anchors, keep their layout.
    """
    for module in getattr(model, "all_modules", model.modules)():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.to(memory_format=torch.channels_last)
    return model
