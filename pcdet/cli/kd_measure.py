"""Measures a distillation before it is trained: multiply-accumulates of a training step, and how strong each loss is.

Builds what train_kd.py builds, looks at some batches in the order of a training with this seed, and trains nothing
(but --warm_steps). A file without a KD block has the cost of its plain training.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from easydict import EasyDict
from torch import nn

from pcdet import api
from pcdet.cli import train, train_kd
from pcdet.cli.ending import naming_unwritable, run
from pcdet.cli.flags import add_set_flag
from pcdet.cli.session import Session, open_session
from pcdet.config import ConfigError
from pcdet.engine.optim import build_optimizer, build_scheduler
from pcdet.engine.runtime import read_seed, seed_process
from pcdet.engine.trainer import NonFiniteError, Trainer
from pcdet.models.kd import Distiller
from pcdet.models.kd.features.grid import Geometry
from pcdet.models.kd.measurement import PASSES, StepMeasures, measure_step, parameters_of, summarise
from pcdet.utils import safe_files
from pcdet.utils.common_utils import batch_to_device, create_logger
from pcdet.utils.tables import format_table, human_count

NOTHING = "0 on these batches, so no weight gives it a share: measure a trained student (--student_ckpt, --warm_steps)"
# What open_session and make_trainer read beside the flags of this command: one process, float32, no folder.
PLAIN_RUN = {
    "launcher": "none", "tcp_port": None, "use_amp": False, "amp_dtype": "auto", "channels_last": False,
    "output_dir": None, "extra_tag": "default", "pretrained_model": None, "sync_bn": False,
    "find_unused_parameters": False, "merge_all_iters_to_one_epoch": False,
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """The command; its arguments are those of the process if None."""
    run(lambda: run_measurement(parse_args(argv)))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags.

    Raises:
        ConfigError: ``--seed`` is not one.
    """
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--cfg_file", required=True, help="model file, such as cfgs/simulated_models/kd/pointpillar_mgd.yaml")
    add("--teacher_ckpt", help="the teacher's checkpoint; KD.TEACHER.CKPT if left out")
    add("--student_ckpt", help="measure the student with these weights, not as its training begins")
    add("--batches", type=int, default=10, help="training batches to look at")
    add("--warm_steps", type=int, default=0, help="first train the student alone for this many steps of its file")
    add("--epochs", type=int, help="of the training that is measured; OPTIMIZATION.NUM_EPOCHS if left out")
    add("--share", type=float, default=0.2, help="of the detection loss's gradient: weights that give it are printed")
    add("--json", help="write the numbers here")
    add("--batch_size", type=int, help="OPTIMIZATION.BATCH_SIZE_PER_GPU if left out")
    add("--seed", default="0", help="of weights, order and augmentation, as train_kd.py's")
    add("--workers", type=int, default=0, help="loader processes")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--threads", type=int, help="CPU threads; all CPUs if left out")
    add_set_flag(parser)
    parser.set_defaults(**PLAIN_RUN)
    args = parser.parse_args(argv)
    if args.batches < 1 or args.warm_steps < 0 or not 0 < args.share < math.inf:
        parser.error(
            "--batches must be at least 1, --warm_steps at least 0 and --share above 0, got "
            f"{args.batches}, {args.warm_steps} and {args.share}"
        )
    if args.epochs is not None and args.epochs < 1:
        parser.error(f"--epochs must be at least 1, got {args.epochs}")
    args.seed = read_seed(args.seed)
    return args


def run_measurement(args: argparse.Namespace) -> None:
    """A whole measurement: models and batches, then the table, then the file."""
    session = open_session(args)
    session.logger = create_logger(log_level=logging.WARNING)
    seed_process(args.seed)
    distil = bool(session.cfg.get("KD"))
    build = train_kd.build_student_with_teacher if distil else train.build_detector
    epochs = session.optim.num_epochs if args.epochs is None else args.epochs
    dataset, trainer = train.make_trainer(session, build, epochs, args.seed)
    distiller = trainer.model if distil else without_losses(trainer.model, dataset)
    if args.student_ckpt:
        api.load_weights(distiller.student, args.student_ckpt, logger=session.logger)
    batches = batches_of(trainer)
    warm_up(session, distiller.student, trainer, batches)
    steps = [measure(distiller, batch, session) for batch in itertools.islice(batches, args.batches)]
    weights = {label: distiller.losses[label].weight for label in steps[0].values}
    report = summarise(steps, weights, args.share)
    report |= {"params": parameters_of(distiller), "share": args.share}
    report |= {name: getattr(args, name) for name in ("batches", "seed", "warm_steps", "student_ckpt")}
    report |= {"batch_size": session.batch_size, "epochs": epochs}
    print(tables(report))
    if args.json:
        write_report(args.json, report)


def without_losses(student: nn.Module, dataset: Any) -> Distiller:
    """A plain student as a distillation of nothing."""
    return Distiller(student, None, {}, Geometry.of(dataset))


def batches_of(trainer: Trainer) -> Iterator[dict]:
    """The batches of a training, on its device, epoch after epoch."""
    if not len(trainer.loader):
        raise ConfigError("the training split has no batch to measure; see DATA_CONFIG.DATA_PATH and DATA_SPLIT")
    for epoch in itertools.count():
        trainer.loader.sampler.set_epoch(epoch)
        trainer.loader.dataset.set_epoch(epoch)
        for batch in trainer.loader:
            yield batch_to_device(batch, trainer.device)


def warm_up(session: Session, student: nn.Module, trainer: Trainer, batches: Iterator[dict]) -> None:
    """Trains the student alone for ``--warm_steps`` steps, as the first ones of its file's plain training.

    Raises:
        ConfigError: that training has fewer steps.
    """
    loader = labelled_loader(session, trainer)
    steps, per_epoch, epochs = session.args.warm_steps, trainer.settings.iters_per_epoch(loader), trainer.epochs
    if steps > per_epoch * epochs:
        raise ConfigError(
            f"--warm_steps must be at most the {per_epoch * epochs} steps of a training, got {steps}; take fewer, or "
            f"more than {epochs} --epochs"
        )
    optimizer = build_optimizer(student, session.optim)
    scheduler = build_scheduler(optimizer, per_epoch, epochs, -1, session.optim)
    alone = Trainer(
        student, loader, optimizer, scheduler, settings=trainer.settings, device=trainer.device,
        logger=session.logger,
    )  # fmt: skip
    if loader is not trainer.loader:
        batches = batches_of(alone)
    for batch in itertools.islice(batches, steps):
        alone.train_step(batch)
        alone.it += 1
    optimizer.zero_grad(set_to_none=True)


def labelled_loader(session: Session, trainer: Trainer) -> Any:
    """The training's loader, without the frames that only a teacher labels: alone, a student finds nothing in them."""
    infos = session.cfg.DATA_CONFIG.INFO_PATH
    if not infos.get("unlabelled") or session.cfg.DATA_CONFIG.get("PSEUDO_LABELS") is not None:
        return trainer.loader
    labelled = {**session.cfg.DATA_CONFIG, "INFO_PATH": {k: v for k, v in infos.items() if k != "unlabelled"}}
    plain = replace(session, cfg=EasyDict(session.cfg, DATA_CONFIG=labelled))
    return plain.loader(training=True, seed=session.args.seed, total_epochs=trainer.epochs)[1]


def measure(distiller: Distiller, batch: dict, session: Session) -> StepMeasures:
    """One batch's numbers.

    Raises:
        NonFiniteError: one of them is not finite.
        ConfigError: the detection loss has no gradient to compare with.
    """
    step = measure_step(distiller.train(), batch)
    found = {"detection loss": step.detection, "its gradient": step.detection_norm, **step.values}
    found |= {f"the gradient of {label}": norm for label, norm in step.norms.items()}
    if bad := [f"{name} is {value}" for name, value in found.items() if not math.isfinite(value)]:
        frames = ", ".join(map(str, batch.get("frame_id", ())))
        raise NonFiniteError(f"{'; '.join(bad)} on the frames {frames}; check their points and boxes, or the weights")
    if not step.detection_norm:
        raise ConfigError(
            f"MODEL of {session.args.cfg_file}: the detection loss has no gradient on the student's weights, so no "
            "loss can be compared with it; are all of them frozen?"
        )
    return step


# ------------------------------------------------------------------------------------------------------- what it says


def tables(report: Mapping[str, Any]) -> str:
    """Cost, then losses, as aligned text."""
    text = [cost_table(report)]
    if report["losses"]:
        text.append(loss_table(report))
    idle = [label for label, loss in report["losses"].items() if loss["weight_for_share"] is None]
    text += [f"{label}: its value or its gradient is {NOTHING}" for label in idle]
    return "\n\n".join(text)


def cost_table(report: Mapping[str, Any]) -> str:
    """Passes of a training step and their multiply-accumulates, and the parameters."""
    total = report["training_macs_per_sample"]["total"]
    rows = []
    for name in PASSES:
        macs = report["macs_by_pass"][name]
        both = sum(macs.values())
        rows.append([name.replace("_", ", "), human_count(both), human_count(macs["sparse"]), f"{both / total:.1%}"])
    rows.append(["training step", human_count(total), "", "100.0%"])
    of_plain = total / report["training_macs_per_sample"]["student"]
    counts = {name.replace("_", " "): human_count(n) for name, n in report["params"].items() if n is not None}
    return (
        f"{format_table(['MACs a sample', 'all', 'of them sparse', 'share'], rows)}\n"
        f"{of_plain:.3f} times the plain student's; parameters: "
        + ", ".join(f"{name} {count}" for name, count in counts.items())
    )


def loss_table(report: Mapping[str, Any]) -> str:
    """Strength of each loss, and of all together."""
    wanted = f"weight for {report['share']:.3g} of it"
    header = ["loss", "value", "weight", "of detection loss", "of its gradient", wanted]
    rows = [["detection", f"{report['detection']['value']:.4g}", "", "", "", ""]]
    for label, loss in report["losses"].items():
        rows.append([label, f"{loss['value']:.4g}", f"{loss['weight']:.4g}", *strength(loss, "weight_for_share")])
    total = report["total"]
    *shares, factor = strength(total, "factor_for_share")
    rows.append(["all, weighted", f"{total['value']:.4g}", "", *shares, factor if factor == "-" else f"x {factor}"])
    return format_table(header, rows)


def strength(loss: Mapping[str, Any], wanted: str) -> list[str]:
    """Both shares and the weight for the share asked for, as text."""
    weight = loss[wanted]
    shares = (f"{100 * loss[name]:.3g} %" for name in ("share_of_loss", "share_of_gradient"))
    return [*shares, "-" if weight is None else f"{weight:.4g}"]


def write_report(path: str, report: Mapping[str, Any]) -> None:
    """The numbers as JSON, whole or not at all.

    Raises:
        WriteError: the folder or the file cannot be written.
    """
    with naming_unwritable(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with safe_files.replacing(path) as stream:
            stream.write((json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
