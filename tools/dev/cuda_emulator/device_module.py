"""The module ``torch.emulated``: what PyTorch and its users ask of ``torch.cuda``, for one device."""

from __future__ import annotations

import contextlib

import torch

NAME = "emulated"


class DeviceModule:
    """Functions of the names and meanings that ``torch.cuda`` has. There is one device, ready at all times."""

    class device(contextlib.nullcontext):  # noqa: N801 (PyTorch's name)
        """``with torch.emulated.device(index)``: the one device is current always."""

    @staticmethod
    def is_available() -> bool:
        """True."""
        return True

    @staticmethod
    def is_initialized() -> bool:
        """True."""
        return True

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def _lazy_init() -> None:
        pass

    @staticmethod
    def device_count() -> int:
        """One."""
        return 1

    @staticmethod
    def current_device() -> int:
        """Number 0."""
        return 0

    @staticmethod
    def set_device(device) -> None:
        """Accepts device 0 and refuses others with a RuntimeError."""
        torch.accelerator.set_device_index(device)

    @staticmethod
    def synchronize(device=None) -> None:
        """Counts as a wait; work is done when its call returns."""
        torch.accelerator.synchronize()

    @staticmethod
    def current_stream(device=None) -> torch.Stream:
        """The stream of this thread."""
        return torch.accelerator.current_stream()

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        """The types that torch.autocast takes."""
        return [torch.float16, torch.bfloat16]

    @staticmethod
    def is_bf16_supported(including_emulation: bool = True) -> bool:
        """True."""
        return True

    @staticmethod
    def manual_seed(seed: int) -> None:
        """Seeds the device's generator, which draws the CPU generator's numbers of that seed."""
        torch.ops.cuda_emulator.manual_seed(seed - 2**64 if seed >= 2**63 else seed)

    manual_seed_all = manual_seed

    @staticmethod
    def initial_seed() -> int:
        """The seed that the device's generator got last."""
        return torch.ops.cuda_emulator.initial_seed()

    @staticmethod
    def get_rng_state(device=NAME) -> torch.Tensor:
        """The state of the device's generator, bytes on the CPU."""
        return torch.ops.cuda_emulator.rng_state()

    @staticmethod
    def get_rng_state_all() -> list[torch.Tensor]:
        """The states of all devices' generators: one."""
        return [torch.ops.cuda_emulator.rng_state()]

    @staticmethod
    def set_rng_state(new_state: torch.Tensor, device=NAME) -> None:
        """Puts a state of ``get_rng_state`` back."""
        torch.ops.cuda_emulator.set_rng_state(new_state)

    @staticmethod
    def set_rng_state_all(new_states: list[torch.Tensor]) -> None:
        """Puts the states of ``get_rng_state_all`` back."""
        (state,) = new_states
        torch.ops.cuda_emulator.set_rng_state(state)
