"""Times the parts of a distilled training step of one detector.

    python -m gpu_check.training_step --detector pointpillar --device cuda --json FILE [--small]

The step is the trainer's own. Parts are told apart by watching the functions between which they lie; "other" is what no
part covers, such as the waits for the logged losses. Two figures lie outside the step: the host makes them in the
loader's workers, beside it: "voxels and augmentation" of a batch's frames, and their collation.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import torch
from _device import Device

from gpu_check.distilled import CONFIGS, Distillation, build_distillation
from gpu_check.state import write_json
from gpu_check.timeline import OTHER, Timeline, seconds_of
from pcdet.engine import trainer as trainer_module
from pcdet.models.kd.losses import point_distiller

WARM_UP, STEPS = 4, 12
SMALL_WARM_UP, SMALL_STEPS = 1, 2
BATCHES = 4  # different ones, which take turns
PARTS = (
    "data upload", "teacher forward", "student forward", "student losses", "KD graphs", "KD losses", "backward",
    "gradient norms", "optimizer", OTHER,
)  # fmt: skip
LOADING, COLLATION = "voxels and augmentation", "collation"


def watch_parts(stack: ExitStack, timeline: Timeline, run: Distillation) -> None:
    """Makes the functions of a training step parts of the timeline."""
    trainer, distiller = run.trainer, run.trainer.model
    timeline.watch(stack, trainer_module, "batch_to_device", "data upload")
    timeline.watch(stack, distiller, "_run_teacher", "teacher forward")
    timeline.watch(stack, distiller.student, "forward_features", "student forward")
    timeline.watch(stack, distiller.student, "get_training_loss", "student losses")
    timeline.watch(stack, distiller, "_kd_losses", "KD losses")
    for name in ("build_graphs", "edge_graph"):
        timeline.watch(stack, point_distiller, name, "KD graphs")
    timeline.watch(stack, torch.Tensor, "backward", "backward")
    timeline.watch(stack, torch.nn.utils, "clip_grad_norm_", "gradient norms")
    timeline.watch(stack, trainer.optimizer, "step", "optimizer")


def measure(run: Distillation, device: Device, warm_up: int, steps: int) -> dict:
    """Times of the parts, of whole steps and of the host's work, and the peak of memory."""
    host: dict[str, list[float]] = {}
    batches = []
    for number in range(min(BATCHES, steps)):
        first = number * run.frames
        with seconds_of(host, LOADING):
            samples = [run.dataset[first + i] for i in range(run.frames)]
        with seconds_of(host, COLLATION):
            batches.append(run.dataset.collate_batch(samples))
    for number in range(warm_up):
        run.step(batches[number % len(batches)])
    device.wait()
    device.forget_peak()
    timeline, parts, whole, losses = Timeline(device), {name: [] for name in PARTS}, [], []
    with ExitStack() as stack:
        watch_parts(stack, timeline, run)
        for number in range(steps):
            with timeline.part(OTHER):
                losses.append(run.step(batches[number % len(batches)]))
            found = timeline.ms_by_part()
            whole.append(sum(found.values()))
            for name in PARTS:
                parts[name].append(found.get(name, 0.0))
    peak = device.peak()
    return {
        "parts": {name: spread(times) for name, times in parts.items()},
        "step": spread(whole),
        "host": {name: spread(times) for name, times in host.items()},
        "losses": losses,
        "peak_mb": None if peak is None else peak / 2**20,
    }


def spread(times: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median_ms": median(times), "least_ms": min(times), "most_ms": max(times)}


def missing_parts(found: dict) -> str | None:
    """What is wrong where a part took no time at all: the function that it watches is not called any more."""
    silent = [name for name, times in found["parts"].items() if name != OTHER and times["most_ms"] == 0]
    return f"no time was measured for {', '.join(silent)}" if silent else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", choices=CONFIGS, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    device = Device(args.device)
    run = build_distillation(args.detector, device, args.small)
    warm_up, steps = (SMALL_WARM_UP, SMALL_STEPS) if args.small else (WARM_UP, STEPS)
    found = measure(run, device, warm_up, steps)
    head = {"config": run.config, "frames": run.frames, "points": run.dataset.num_points, "steps": steps}
    write_json(args.json, {**head, **found, "problem": missing_parts(found)})


if __name__ == "__main__":
    main()
