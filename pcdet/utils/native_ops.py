"""What kernels the native ops have in this process, and the commands that build them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pcdet.utils import places

if TYPE_CHECKING:
    import torch

BUILD_OPS = "python setup.py build_ext --inplace (or: make setup)"
BUILD_WHEEL = (
    "pip wheel . --no-build-isolation --no-deps -w dist in a checkout, beside this torch, and pip install "
    "--force-reinstall --no-deps dist/pcdet-*.whl here"
)


class NoKernelError(RuntimeError):
    """The native ops have no kernels for the device of a model."""


def how_to_build() -> str:
    """The command that builds the ops: of a checkout, or of an installed package."""
    return BUILD_WHEEL if places.INSTALLED else BUILD_OPS


def how_to_build_with_cuda() -> str:
    """The same with CUDA; in a checkout it installs NVIDIA's compiler where the machine has none that fits."""
    return f"FORCE_CUDA=1 {BUILD_WHEEL}, with nvcc installed" if places.INSTALLED else "make setup FORCE_CUDA=1"


def kernels(torch: Any, keys: Sequence[str]) -> dict[str, list[str]]:
    """Op -> those of the dispatch keys that it has a kernel for.

    Args:
        torch: the package; this module does not import it, so that the doctor works without.
        keys: names of dispatch keys, such as CPU.
    """
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    names = sorted(n for n in torch._C._dispatch_get_all_op_names() if n.startswith("pcdet::"))
    return {name: [key for key in keys if has(name, key)] for name in names}


def require_kernels(device: torch.device) -> None:
    """Refuses a device that the native ops of this process have no kernels for, before a first step meets it.

    Raises:
        NoKernelError: with the command that builds them.
    """
    import torch

    key = torch._C._dispatch_key_for_device(device.type)
    found = kernels(torch, [key])
    if found and not any(found.values()):
        raise NoKernelError(
            f"the model runs on {device}, and the native ops are built without {key}: build them with "
            f"`{how_to_build_with_cuda()}`, or run on the CPU (--device cpu)"
        )
