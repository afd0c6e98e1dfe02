"""Device, threads, seeds."""

import random

import numpy as np
import pytest
import torch
from support.toy import ToyModel

from pcdet.engine.runtime import (
    FIXED_SEED,
    available_cpus,
    choose_seed,
    parallelize,
    preserved_rng,
    read_seed,
    rng_state,
    seed_process,
    select_device,
    set_rng_state,
    set_threads,
)
from pcdet.registry import ConfigError

CPU = torch.device("cpu")


def test_devices_are_chosen_and_missing_ones_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert select_device() == select_device("cpu") == CPU
    with pytest.raises(ValueError, match="finds no GPU; use --device cpu"):
        select_device("cuda")
    with pytest.raises(ValueError, match="auto, cpu or cuda, got 'gpu'"):
        select_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert select_device("auto", 1) == torch.device("cuda", 1)
    assert select_device("cpu", 1) == CPU


def test_several_processes_get_one_thread_each(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert set_threads(None, processes=2) == torch.get_num_threads() == 1
    assert set_threads(None, processes=1) == available_cpus()
    assert set_threads(2, processes=8) == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert set_threads(None, processes=8) == 2
    with pytest.raises(ValueError, match="at least 1, got 0"):
        set_threads(0)


def draw():
    return random.random(), np.random.rand(), torch.rand(()).item(), random.gauss(0, 1), np.random.randn()


def test_generators_go_on_from_a_saved_state(tmp_path):
    random.gauss(0, 1), np.random.randn()  # leaves half of a pair of normal numbers in the state
    torch.save(rng_state(), tmp_path / "rng.pth")
    expected = draw()
    draw()
    set_rng_state(torch.load(tmp_path / "rng.pth", weights_only=True))
    assert draw() == expected


def test_a_block_can_leave_the_generators_alone():
    seed_process(3)
    expected = draw()
    seed_process(3)
    with preserved_rng():
        draw()
    assert draw() == expected


def test_the_seed_is_the_named_one_else_the_checkpoints_else_fixed_or_fresh():
    assert choose_seed(5, True, {"seed": 7}) == 5
    assert choose_seed(None, True, {"seed": 7}) == 7
    assert choose_seed(None, True, {}) == FIXED_SEED
    assert choose_seed() != choose_seed()


def test_only_a_fixed_seed_asks_for_deterministic_kernels():
    seed_process(1)
    assert not torch.backends.cudnn.deterministic
    seed_process(1, deterministic=True)
    assert torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = False


def test_one_process_needs_no_wrapping():
    model = ToyModel()
    assert parallelize(model, CPU, sync_bn=True) is model


def test_a_seed_is_one_that_every_generator_takes():
    for seed in (0, 3, 2**32 - 1):
        assert read_seed(str(seed)) == seed
        np.random.seed(seed)
        torch.manual_seed(seed)
    with pytest.raises(ValueError):
        np.random.seed(2**32)
    for text in ("-1", str(2**32), str(2**64), "1.5", "abc", ""):
        with pytest.raises(ConfigError, match=f"^--seed must be a whole number from 0 to 4294967295, got '{text}'$"):
            read_seed(text)
