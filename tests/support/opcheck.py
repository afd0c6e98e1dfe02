"""torch.library.opcheck on every device."""

from __future__ import annotations

import torch

KNOWN_DEVICES = {"cpu", "cuda", "xpu"}
ALL_CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


def opcheck(op: torch._ops.OpOverload, args: tuple) -> None:
    """``torch.library.opcheck``, all of its checks.

    The check of how gradients are registered knows no devices but torch's own. It is the same for all devices, and is
    left out on another one.
    """
    devices = {arg.device.type for arg in args if isinstance(arg, torch.Tensor)}
    left_out = set() if devices <= KNOWN_DEVICES else {"test_autograd_registration"}
    torch.library.opcheck(op, args, test_utils=[check for check in ALL_CHECKS if check not in left_out])
