"""Fixtures of tests that need the emulated device itself."""

import pytest


@pytest.fixture
def emulator(gpu):
    """The module ``emulated_device``, for what a real card does not tell."""
    if gpu.type == "cuda":
        pytest.skip("a real card does not count its host's waits, and has PyTorch's own device")
    import emulated_device

    return emulated_device
