"""What the commands that make an audit's page share: its flags, and the audit with the importance of points."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from tqdm import tqdm

from pcdet.audit.build import build_audit
from pcdet.audit.judging import AuditedModel
from pcdet.audit.report import Audit, Scene
from pcdet.engine.precision import Precision
from pcdet.models.kd.features.grid import Geometry
from pcdet.models.kd.importance import importance_of_points
from pcdet.registry import ConfigError
from pcdet.utils.common_utils import batch_to_device

POINTS_OF_A_SCENE, ALL_POINTS = 12_000, 10_000_000
# Name of a model -> the detector, the data set that it reads, and the precision in which it runs.
Detectors = Mapping[str, tuple[nn.Module, Any, Precision]]


def add_page_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of what a page shows."""
    add = parser.add_argument
    add("--max_scenes", type=int, default=200, help="frames to look at, those with most objects won or lost first")
    add("--keep_whole", nargs="*", default=[], metavar="FRAME", help="frames whose points are not thinned")
    add("--importance", type=int, default=5, help="frames whose points show how important two of the models find them")


def check_page_flags(args: argparse.Namespace) -> None:
    """What can be told before anything is measured.

    Raises:
        ConfigError: a number is below 0, or what draws is not installed.
    """
    if args.max_scenes < 0 or args.importance < 0:
        raise ConfigError(
            f"--max_scenes and --importance must be at least 0, got {args.max_scenes} and {args.importance}"
        )
    if find_spec("plotly") is None:
        raise ConfigError("--page: a page needs plotly, which is not installed: pip install plotly")


def numbers_file(page: str | Path, others: Iterable[str | Path | None]) -> Path:
    """Where the audit's numbers go: a JSON file with the page's name, beside it.

    Args:
        page: the page to be made.
        others: files that the same command reads or writes; None stands for none.

    Raises:
        ConfigError: the page is no .html file, or the numbers would take the place of one of the others.
    """
    page = Path(page)
    if page.suffix.lower() != ".html":
        raise ConfigError(f"--page: the file of a page must end in .html, got {str(page)!r}")
    numbers = page.with_suffix(".json")
    if numbers.resolve() in {Path(other).resolve() for other in others if other}:
        raise ConfigError(
            f"--page {page}: the audit's numbers go into {numbers}, where this command has another file; give the page "
            "another name"
        )
    return numbers


def versions_text(versions: Mapping[str, str]) -> str:
    """``python 3.11.7, torch 2.13.0``, for a page's facts."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def make_audit(
    args: argparse.Namespace,
    dataset: Any,
    models: Sequence[AuditedModel],
    controls: Sequence[str],
    detectors: Detectors,
) -> Audit:
    """The audit of all students over all controls, or the teacher, with the importance of points in its first scenes.

    Args:
        args: with the flags of ``add_page_flags``.
        dataset: whose frames were evaluated.
        models: teacher, controls and students.
        controls: names of those that students are compared with; the teacher if there are none.
        detectors: whose importance is shown.

    Raises:
        ConfigError: a flag asks for what cannot be.
        DataError: frames have no labels, or detections are not of these frames.
    """
    beside = list(controls) or [model.name for model in models if model.role == "teacher"]
    pairs = [(model.name, other) for model in models if model.role == "student" for other in beside]
    points = ALL_POINTS if args.keep_whole else POINTS_OF_A_SCENE
    audit = build_audit(dataset, models, pairs, max_scenes=args.max_scenes, points_per_scene=points, progress=True)
    shown = {scene.frame for scene in audit.scenes}
    if unknown := [frame for frame in args.keep_whole if frame not in shown]:
        raise ConfigError(
            f"--keep_whole: no scene shows frame {unknown[0]}; the {len(shown)} with most objects won or lost "
            "are shown, --max_scenes shows more"
        )
    return with_importance(audit, detectors, args.importance)


def with_importance(audit: Audit, detectors: Detectors, frames: int) -> Audit:
    """The audit with the importance of the points of its first scenes.

    Args:
        audit: as it was built.
        detectors: in evaluation mode, with data sets of the audited frames.
        frames: how many scenes.
    """
    scenes = list(audit.scenes[:frames] if detectors else ())
    indices = {name: _indices(dataset, scenes) for name, (_, dataset, _) in detectors.items()}
    bar = tqdm(scenes, desc="importance", leave=False, dynamic_ncols=True, disable=None)
    shown = [_with_importance(scene, detectors, indices) for scene in bar]
    return dataclasses.replace(audit, scenes=[*shown, *audit.scenes[len(shown) :]])


def _indices(dataset: Any, scenes: Sequence[Scene]) -> dict[str, int]:
    """Frame of a scene -> its index in a data set."""
    wanted, found = {scene.frame for scene in scenes}, {}
    for index in range(len(dataset)):
        if len(found) == len(wanted):
            break  # a data set without labels of its own loads every cloud for them
        if (name := dataset.frame_labels(index).frame) in wanted:
            found[name] = index
    return found


def _with_importance(scene: Scene, detectors: Detectors, indices: Mapping[str, Mapping[str, int]]) -> Scene:
    found = {}
    for name, (model, dataset, precision) in detectors.items():
        batch = dataset.collate_batch([dataset[indices[name][scene.frame]]])
        batch_to_device(batch, next(model.parameters()).device)
        low, high = dataset.point_cloud_range[:3], dataset.point_cloud_range[3:]
        points = scene.points[((scene.points >= low) & (scene.points <= high)).all(axis=1)]
        with precision.autocast():
            value = importance_of_points(model, batch, points, Geometry.of(dataset))
        found[name] = np.column_stack([points, value])
    return dataclasses.replace(scene, importance=found)
