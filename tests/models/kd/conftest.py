"""The batch that distillation's tests train on."""

import pytest
from kd_pairs import FACTS, pp


@pytest.fixture
def batch():
    """Two frames of different sizes."""
    return pp.random_batch(FACTS, frames=2, points=300, seed=3)
