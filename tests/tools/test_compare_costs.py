"""What compare.py says of time and memory, with a clock and allocations that the tests know."""

import logging
import os
from types import SimpleNamespace

import pytest
import torch
from easydict import EasyDict
from support import warm_python

from pcdet.cli import peak_memory, stage_times
from pcdet.cli.contender import Conditions, Contender
from pcdet.config import cfg_from_yaml_file
from pcdet.datasets import build_dataloader
from pcdet.experiments.quickstart.comparison import Spread
from pcdet.models import build_network

on_linux = pytest.mark.skipif(not peak_memory.measures_resident_memory(), reason="needs Linux's /proc/self/clear_refs")


@pytest.fixture(scope="module")
def ckpt(cfg_file, tmp_path_factory):
    cfg = cfg_from_yaml_file(cfg_file, EasyDict())
    dataset, _, _ = build_dataloader(cfg.DATA_CONFIG, cfg.CLASS_NAMES, 1, False, workers=0, training=False)
    path = tmp_path_factory.mktemp("weights") / "checkpoint_epoch_1.pth"
    torch.save({"model_state": build_network(cfg.MODEL, len(cfg.CLASS_NAMES), dataset).state_dict()}, path)
    return path


@pytest.fixture
def contender(cfg_file, ckpt):
    return Contender("tiny", str(cfg_file), str(ckpt), Conditions(workers=0), logging.getLogger("test"))


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until something adds to its ``now``."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(stage_times, "_clock", lambda device: clock.now)
    return clock


def taking(clock, function, seconds):
    """The function, which takes so long by the clock."""

    def slow(*args, **kwargs):
        clock.now += seconds
        return function(*args, **kwargs)

    return slow


def test_each_stage_takes_what_its_work_takes(contender, clock, monkeypatch):
    dataset, model = type(contender.dataset), contender.model
    monkeypatch.setattr(dataset, "__getitem__", taking(clock, dataset.__getitem__, 0.003))
    monkeypatch.setattr(dataset, "collate_batch", staticmethod(taking(clock, dataset.collate_batch, 0.010)))
    monkeypatch.setattr(type(model), "post_processing", taking(clock, type(model).post_processing, 0.020))
    model.vfe.register_forward_pre_hook(taking(clock, lambda *_: None, 0.030))
    model.dense_head.register_forward_hook(taking(clock, lambda *_: None, 0.070))
    times = stage_times.time_stages({"a": contender}, [1, 2], 4)["a"]
    expected = {
        1: {"load": 13.0, "network": 100.0, "decode_nms": 20.0, "forward": 120.0, "total": 133.0},
        2: {"load": 8.0, "network": 50.0, "decode_nms": 10.0, "forward": 60.0, "total": 68.0},
    }
    for size, stages in expected.items():
        assert {stage: spread.median for stage, spread in times[size].items()} == pytest.approx(stages)


def test_timing_changes_nothing_of_what_is_computed(contender):
    def found():
        with torch.no_grad():
            return contender.model(contender.batch([0, 1]))[0]

    before = found()
    stage_times.stage_seconds(contender, [0, 1])
    assert "post_processing" not in vars(contender.model)
    for first, second in zip(before, found(), strict=True):
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_contenders_take_turns_on_the_same_frames_and_the_first_turns_do_not_count(monkeypatch):
    ran = []

    def seconds(contender, indices):
        ran.append((contender, list(indices)))
        return {"total": 1.0 if len(ran) <= 2 * stage_times.WARM_UP else 0.004 * len(indices)}

    monkeypatch.setattr(stage_times, "stage_seconds", seconds)
    times = stage_times.time_stages({"a": "A", "b": "B"}, [3], 2)
    assert times == {"a": {3: {"total": Spread(4.0, 4.0, 4.0)}}, "b": {3: {"total": Spread(4.0, 4.0, 4.0)}}}
    turns = [(ran[i], ran[i + 1]) for i in range(0, len(ran), 2)]
    assert len(turns) == stage_times.WARM_UP + 2
    for turn, ((first, frames), (second, same)) in enumerate(turns):
        assert frames == same == [3 * turn, 3 * turn + 1, 3 * turn + 2]
        assert (first, second) == (("A", "B") if turn % 2 == 0 else ("B", "A"))


def test_a_spread_is_the_median_between_the_quartiles():
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


# In a process of its own, as the command measures: other threads of this one come and go.
GROWTHS = """
import numpy as np
from pcdet.cli.peak_memory import growth_on_cpu
MIB = 2**20

def in_one_piece():
    np.ones(64 * MIB, np.uint8)
    np.ones(16 * MIB, np.uint8)

def in_pieces():
    return [np.ones(64 * 1024, np.uint8) for _ in range(1024)]

print(*(growth_on_cpu(work) / MIB for work in (in_one_piece, in_pieces, in_one_piece, in_pieces)))
held = np.ones(64 * MIB, np.uint8)
print(growth_on_cpu(lambda: held.sum()) / MIB)
"""


@on_linux
def test_growth_is_what_work_allocates_at_its_peak_also_where_memory_was_freed_before(tmp_path):
    with warm_python.shared().start(["-c", GROWTHS], cwd=tmp_path) as command:
        printed = command.stdout.read()
        assert command.wait() == 0, printed
    grown, held = ([float(word) for word in line.split()] for line in printed.splitlines())
    assert len(grown) == 4 and all(63 < growth < 68 for growth in grown), grown  # Linux counts pages in lots
    assert held[0] < 4, "what was there before does not count"


@on_linux
def test_more_frames_take_more_memory_and_each_model_is_measured_alone(contender, cfg_file, ckpt):
    entry = ("tiny", str(cfg_file), str(ckpt), contender.conditions)
    first, second = peak_memory.peak_memory([entry, entry], [1, 16])
    assert first[16] > 2 * first[1] > 0
    assert second[16] == pytest.approx(first[16], rel=0.25)


def test_a_process_that_is_ended_while_it_measures_is_told():
    with pytest.raises(RuntimeError, match=r"ended while it ran 9; .* smaller --batch_sizes, or --no_memory"):
        peak_memory._in_process("fork", os._exit, 9)
