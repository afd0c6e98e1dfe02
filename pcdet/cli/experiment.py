"""Carries out a plan of experiments: teachers, controls and distilled students, statistics, tables and pictures.

    python experiment.py --plan cfgs/experiments/lab_pointpillar.yaml --jobs 2

Killed and started again, it goes on where it was. Everything lies in output/experiments/<the plan's name>.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pcdet.cli.ending import run
from pcdet.cli.place_flags import add_place_flags, places_from_flags
from pcdet.experiments.plans.collect import collect
from pcdet.experiments.plans.laboratory import Laboratory
from pcdet.experiments.plans.plan import Plan, load_plan, rehearsal
from pcdet.experiments.plans.scenes import prepare_scenes
from pcdet.experiments.results.files import parse_results, write_results
from pcdet.experiments.results.page import results_text, write_report
from pcdet.experiments.results.schema import Results
from pcdet.experiments.running.pool import Places
from pcdet.experiments.running.progress import PlanProgress
from pcdet.registry import ConfigError
from pcdet.utils.cpu_features import mixed_precision, read_processor
from pcdet.utils.folder_lock import FolderLock
from pcdet.utils.places import INSTALLED, ROOT

TOOLS = ROOT / "tools"


def main(argv: Sequence[str] | None = None) -> None:
    """The command; its arguments are those of the process if None."""
    run(lambda: experiment(parse_args(argv)))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", required=True, help="the plan's file, such as cfgs/experiments/lab_pointpillar.yaml")
    parser.add_argument("--output_dir", type=Path, help="instead of output/experiments/<the plan's name>")
    parser.add_argument("--data_path", help="the data folder, from tools/, instead of the plan's DATA.PATH")
    parser.add_argument(
        "--rehearse", action="store_true", help="every stage at its least length, to see in minutes that all works"
    )
    add_place_flags(parser)
    return parser.parse_args(argv)


def experiment(args: argparse.Namespace, tools: Path = TOOLS) -> None:
    """A whole plan, from its file to its pictures, with the commands of the folder ``tools``.

    Raises:
        ConfigError: something is wrong with the plan, or its budget is spent.
        FolderInUseError: another call carries it out.
    """
    if INSTALLED:
        raise ConfigError("experiment.py starts train.py and train_kd.py of a checkout's tools/; run it in a checkout")
    plan, content = load_plan(args.plan)
    if args.data_path is not None:
        plan = replace(plan, data=replace(plan.data, path=args.data_path))
    if args.rehearse:
        plan = rehearsal(plan)
    output = output_of(args, plan)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the jobs are then told to end too
    advice = "wait for it, or end what is left running (pgrep -af 'experiment.py|train(_kd)?.py|test.py|kd_measure.py')"
    held = FolderLock(output, advice=advice, inheritable=True)  # a job outlives a call that is killed
    try:
        places = places_from_flags(args, output)
        results = carry_out(plan, content, output, places, tools, on_cores=args.gpus is None and args.slurm is None)
        for path in write_all(results, output):
            print(os.path.relpath(path))
        print(f"what was won and lost, as a page: python audit.py --results {os.path.relpath(output / 'results.json')}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"this step failed (exit {error.returncode}): {shlex.join(map(str, error.cmd))}")
    finally:
        held.release()


def output_of(args: argparse.Namespace, plan: Plan) -> Path:
    """The plan's folder. A rehearsal has one of its own, so that it leaves the runs of the plan itself alone."""
    if args.output_dir is None:
        return ROOT / "output" / "experiments" / plan.name
    folder = args.output_dir.absolute()
    return folder.with_name(f"{folder.name}_rehearsal") if args.rehearse else folder


def carry_out(
    plan: Plan, content: Mapping[str, Any], output: Path, places: Places, tools: Path, *, on_cores: bool = True
) -> Results:
    """Data, stages, results.

    Args:
        plan: what is asked for.
        content: of its file.
        output: the plan's folder, which the caller holds.
        places: where jobs run.
        tools: folder of the commands.
        on_cores: whether the places are cores rather than GPUs.
    """
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    torch.set_num_threads(1)
    prepare_data(plan, tools)
    with PlanProgress() as progress:
        laboratory = Laboratory(plan, tools, output, places, progress, on_cores=on_cores)
        laboratory.carry_out()
    return parse_results(collect(laboratory, content, facts_of(on_cores=on_cores)))


def prepare_data(plan: Plan, tools: Path) -> None:
    """Makes the plan's scenes, if it names any."""
    scenes = plan.data.simulated
    if scenes is not None:
        flags = {"frames": scenes.frames, "val-frames": scenes.val_frames, "seed": scenes.seed, "far": scenes.far}
        prepare_scenes((tools / plan.data.path).resolve(), flags, tools)


def facts_of(*, on_cores: bool) -> dict[str, Any]:
    """What the numbers depend on beside the plan. Of GPUs and nodes each run says itself what it ran on."""
    numpy, pytorch = np.__version__, str(torch.__version__)
    facts: dict[str, Any] = {"versions": {"python": platform.python_version(), "torch": pytorch, "numpy": numpy}}
    if on_cores:
        processor = read_processor()
        facts |= {"processor": processor.name, "precision": mixed_precision(processor).name, "threads": 1}
    return facts


def write_all(results: Results, output: Path) -> list[Path]:
    """Writes results.json, prints the tables, writes the pictures and the page that shows both; returns the files."""
    file = output / "results.json"
    write_results(file, results)  # first: what follows draws and can be repeated
    print(results_text(results))
    return [file, *write_report(results, output)]
