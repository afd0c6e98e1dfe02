"""Twenty thousand tiny iterations in one process: memory, open files, threads and processes stay as they are.

The toy of the engine's tests stands for detector and data in ``train.py``, whose hooks are all there: lines,
TensorBoard, checkpoints by the epoch and by the clock, evaluation, and two loader workers, new ones for every epoch.
"""

from __future__ import annotations

import json
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
FLAGS = ["--device", "cpu", "--threads", "1", "--workers", "2", "--skip_eval", "--eval_interval", "10",
         "--ckpt_save_interval", "5", "--max_ckpt_save_num", "3", "--ckpt_save_time_interval", "1"]  # fmt: skip
GROWTH = 4 << 20  # bytes that resident memory may grow by over the second half, by its slope


def draw(rng: random.Random, number: int, seconds: float = 0) -> dict:
    """How many iterations; all of them where the budget in seconds buys them."""
    epochs = min(ITERATIONS, max(10 * PER_EPOCH, int(RATE * seconds))) // PER_EPOCH
    return {"epochs": epochs, "seed": rng.randrange(1000)}


def play(facts: dict, lab: Lab) -> Tally:
    """Plays a case, drawn or kept."""
    folder, samples_file, tally = lab.new_folder(), lab.new_folder("samples"), Tally(runs=1)
    argv = ["--cfg_file", str(lab.root / "pointpillar.yaml"), "--output_dir", str(folder), *FLAGS]
    argv += ["--epochs", str(facts["epochs"]), "--seed", str(facts["seed"])]
    child = lab.fork(lambda: train_toy(argv, samples_file))
    if not child.wait(START_LIMIT + facts["epochs"] * PER_EPOCH / RATE * 5):
        tally.hang(f"still ran: {last_lines(child)}")
        child.end()
    elif child.code:
        tally.problems.append(f"exit status {child.code}: {last_lines(child)}")
    else:
        tally.problems += growth(json.loads(samples_file.read_text()))
    return tally


def growth(samples: list[dict[str, int]]) -> list[str]:
    """What grows over the second half of the samples, one an epoch."""
    half = samples[len(samples) // 2 :]
    problems = []
    for what in ("handles", "threads", "children"):
        counts = [sample[what] for sample in half]
        # the least of each quarter: what belongs to the epoch's loader may still be ending
        before, after = min(counts[: len(half) // 2]), min(counts[len(half) // 2 :])
        if after > before:
            problems.append(f"{what} went from {before} to {after} over the second half")
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


def train_toy(argv: list[str], samples_file: Path) -> None:
    """Does what ``train.py`` does with these flags, with the toy for detector and data, and samples every epoch."""
    from support import toy

    from pcdet.cli import session, train
    from pcdet.cli.ending import run
    from pcdet.engine.hooks import Hook

    samples = []

    class Sample(Hook):
        def after_epoch(self, trainer):
            samples.append(sample())

        def after_train(self, trainer):
            samples_file.write_text(json.dumps(samples))

    def build_dataloader(*, training, workers, **_):
        loader = toy.make_loader(2 * PER_EPOCH if training else 8, workers=workers)
        return loader.dataset, loader, loader.sampler

    hooks_of_the_command = train.training_hooks
    train.training_hooks = lambda *arguments: [*hooks_of_the_command(*arguments), Sample()]
    session.build_dataloader = build_dataloader
    sys.argv = ["train.py", *argv]
    run(lambda: train.run_training(train.parse_args(argv), build_model=lambda *_: toy.ToyModel()))
