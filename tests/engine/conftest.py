"""Keeps the threads of other tests as they were."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_threads_afterwards():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
