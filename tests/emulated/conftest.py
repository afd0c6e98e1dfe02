"""Fixtures of tests of whole steps and devices; a card runs them too, but for those that use ``emulator``."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _full_float32():
    """A card would round float32 convolutions to ten bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def emulator(gpu):
    """The module ``emulated_device``, for what a real card does not tell."""
    if gpu.type == "cuda":
        pytest.skip("a real card does not count its host's waits, and has PyTorch's own device")
    import emulated_device

    return emulated_device
