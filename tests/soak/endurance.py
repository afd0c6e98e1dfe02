"""Twenty thousand tiny iterations in one process: memory, open files, threads and processes stay as they are.

The toy detector of the engine's tests runs through the real trainer with its hooks: lines, TensorBoard, checkpoints by
the epoch and by the clock, evaluation, and two loader workers that are started anew for every epoch.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
from pathlib import Path

from soak.lab import START_LIMIT, Lab
from soak.process import children
from soak.trial import Tally, last_lines

NAME, SHARE, LEAST = "endurance", 3, 0
ITERATIONS, PER_EPOCH = 20_000, 125
RATE = 100  # iterations a second that a slow machine manages: the budget in seconds buys so many
GROWTH = 4 << 20  # bytes that resident memory may grow by over the second half, by its slope


def draw(rng: random.Random, number: int, seconds: float = 0) -> dict:
    """How many iterations; all of them where the budget in seconds buys them."""
    epochs = min(ITERATIONS, max(10 * PER_EPOCH, int(RATE * seconds))) // PER_EPOCH
    return {"epochs": epochs, "seed": rng.randrange(1000)}


def play(facts: dict, lab: Lab) -> Tally:
    """Plays a case, drawn or kept."""
    folder, tally = lab.new_folder(), Tally(runs=1)
    folder.mkdir()
    child = lab.fork(lambda: train(folder, facts["epochs"], facts["seed"]))
    if not child.wait(START_LIMIT + facts["epochs"] * PER_EPOCH / RATE * 5):
        tally.hang(f"still ran: {last_lines(child)}")
        child.end()
    elif child.code:
        tally.problems.append(f"exit status {child.code}: {last_lines(child)}")
    else:
        tally.problems += growth(json.loads((folder / "samples.json").read_text()))
    return tally


def growth(samples: list[dict[str, int]]) -> list[str]:
    """What grows over the second half of the samples, one an epoch."""
    half = samples[len(samples) // 2 :]
    problems = []
    for what in ("handles", "threads", "children"):
        counts = [sample[what] for sample in half]
        if max(counts) > min(counts):
            problems.append(f"{what} went from {min(counts)} to {max(counts)} over the second half")
    grown = slope([sample["memory"] for sample in half]) * (len(half) - 1)
    if grown > GROWTH:
        problems.append(f"memory grew by {grown / 2**20:.1f} MiB over the second half, {GROWTH >> 20} MiB is the limit")
    return problems


def slope(values: list[int]) -> float:
    """Growth from one value to the next, by least squares."""
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    spread = sum((i - middle) ** 2 for i in range(len(values)))
    return sum((i - middle) * (value - mean) for i, value in enumerate(values)) / max(spread, 1)


def sample() -> dict[str, int]:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory": pages * os.sysconf("SC_PAGE_SIZE"),
        "handles": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "children": len(children(os.getpid())),
    }


def train(folder: Path, epochs: int, seed: int) -> None:
    """Trains the toy and writes ``samples.json``, one sample an epoch."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))
    import torch
    import toy

    from pcdet.engine import hooks
    from pcdet.engine.evaluate import EvalSettings, eval_one_epoch
    from pcdet.engine.optim import build_optimizer, build_scheduler
    from pcdet.engine.run_record import RecordTimes, RunRecord
    from pcdet.engine.runtime import tensorboard_writer
    from pcdet.engine.trainer import Trainer, TrainSettings
    from pcdet.utils.common_utils import create_logger

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    logger = create_logger(folder / "train.log")
    logger.setLevel(logging.INFO)
    model, loader = toy.ToyModel(), toy.make_loader(2 * PER_EPOCH, workers=2)
    optimizer = build_optimizer(model, toy.OPTIMIZATION)
    samples = []

    class Sample(hooks.Hook):
        def after_epoch(self, trainer):
            samples.append(sample())

    def evaluate(epoch):
        settings = EvalSettings(class_names=["Car"], recall_thresholds=[0.3], progress=False)
        eval_one_epoch(model, toy.make_loader(8), settings, epoch_id=epoch, result_dir=folder / "eval", logger=logger)

    found = [
        hooks.Checkpoint(folder / "ckpt", interval=5, max_num=3, time_interval=1),
        hooks.Logging(logger, tensorboard_writer(folder / "tensorboard"), interval=50),
        RecordTimes(RunRecord(folder / "run.json", {})),
        hooks.Evaluate(evaluate, 10),
        Sample(),
    ]
    scheduler = build_scheduler(optimizer, len(loader), epochs, -1, toy.OPTIMIZATION)
    Trainer(model, loader, optimizer, scheduler, found, settings=TrainSettings(epochs=epochs), logger=logger).run()
    (folder / "samples.json").write_text(json.dumps(samples))
