"""Islands of full precision inside autocast."""

from __future__ import annotations

import torch


def full_precision(device: torch.device) -> torch.autocast:
    """Context in which autocast is off on this kind of device."""
    return torch.autocast(device_type=device.type, enabled=False)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The lower precision that autocast uses here, or None outside it."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
