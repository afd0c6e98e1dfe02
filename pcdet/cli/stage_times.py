"""How long each stage of a detection takes: contenders take turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import nn
from tqdm import tqdm

from pcdet.cli.contender import Contender
from pcdet.experiments.quickstart.comparison import Spread

WARM_UP = 3  # turns that do not count: the first calls pay for allocations and the choice of kernels
Key = TypeVar("Key", bound=Hashable)


def time_stages(
    contenders: Mapping[Key, Contender], batch_sizes: Sequence[int], turns: int
) -> dict[Key, dict[int, dict[str, Spread]]]:
    """Milliseconds per frame of each stage.

    Stages are ``load`` (reading and voxelising the frames in this process, collating them, moving them to the device),
    ``network`` (the model up to its predictions, the proposals of two-stage detectors among them) and ``decode_nms``
    (decoding boxes, non-maximum suppression, counting recall); ``forward`` is the last two, ``total`` all three.

    Args:
        contenders: to be timed.
        batch_sizes: timed one after the other.
        turns: how often each contender runs a batch; in a turn all run one of the same frames, each time another first.

    Returns:
        Contender -> batch size -> stage -> median and quartiles over the turns.
    """
    measured: dict[Key, dict[int, dict[str, Spread]]] = {key: {} for key in contenders}
    for size in batch_sizes:
        taken: dict[Key, list[dict[str, float]]] = {key: [] for key in contenders}
        shown = tqdm(range(WARM_UP + turns), desc=f"timing {size}", leave=False, dynamic_ncols=True, disable=None)
        for turn in shown:
            indices = range(turn * size, (turn + 1) * size)
            for key in _turned(list(contenders), turn):
                stages = stage_seconds(contenders[key], indices)
                if turn >= WARM_UP:
                    taken[key].append({stage: 1e3 * seconds / size for stage, seconds in stages.items()})
        for key, times in taken.items():
            measured[key][size] = {stage: Spread.of([one[stage] for one in times]) for stage in times[0]}
    return measured


def stage_seconds(contender: Contender, indices: Sequence[int]) -> dict[str, float]:
    """Seconds of each stage of ``time_stages`` for one batch of frames."""
    device = contender.conditions.device
    with _when_post_processing_begins(contender.model, lambda: _clock(device)) as marks:
        begun = _clock(device)
        batch = contender.batch(indices)
        loaded = _clock(device)
        contender.detect(batch)
        done = _clock(device)
    (predicted,) = marks
    stages = {"load": loaded - begun, "network": predicted - loaded, "decode_nms": done - predicted}
    return {**stages, "forward": done - loaded, "total": done - begun}


@contextlib.contextmanager
def _when_post_processing_begins(model: nn.Module, clock: Callable[[], float]) -> Iterator[list[float]]:
    """Notes the time at every call of the model's ``post_processing``, which every detector ends with."""
    marks: list[float] = []
    post_processing = model.post_processing

    def marked(*args, **kwargs):
        marks.append(clock())
        return post_processing(*args, **kwargs)

    model.post_processing = marked
    try:
        yield marks
    finally:
        del model.post_processing  # the class's own again


def _turned(keys: list[Key], turn: int) -> list[Key]:
    first = turn % len(keys)
    return keys[first:] + keys[:first]


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
