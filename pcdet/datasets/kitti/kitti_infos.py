"""Prepares a folder in KITTI's layout: info files, the database of objects, and gt_database/.

First everything is checked, and everything that is missing or malformed is named at once; then the frames are read, in
parallel. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pcdet.datasets.errors import BadFrameError, DataError
from pcdet.datasets.kitti.frame_files import DATABASE, FrameFiles, build_frame
from pcdet.datasets.kitti.kitti_utils import DEFAULT_IMAGE, image_shape_of_calibration
from pcdet.datasets.kitti.split_files import read_split
from pcdet.datasets.object_database import ObjectDatabase
from pcdet.datasets.progress_log import ProgressLog
from pcdet.datasets.workers import worker_pool
from pcdet.utils import safe_pickle
from pcdet.utils.calibration_kitti import Calibration
from pcdet.utils.places import IMAGE_SETS

CLASS_NAMES = ("Car", "Pedestrian", "Cyclist")
SPLITS = ("train", "val", "test")
DATABASE_LISTING = "kitti_dbinfos_train.pkl"
PROGRESS_VERSION = 1


def create_kitti_infos(
    dataset_cfg: dict,
    class_names: Sequence[str],
    data_path: str | Path,
    save_path: str | Path | None = None,
    workers: int = 4,
    logger: logging.Logger | None = None,
) -> dict[str, Path]:
    """Writes ``kitti_infos_{train,val,trainval,test}.pkl``, ``kitti_dbinfos_train.pkl`` and ``gt_database/``.

    Args:
        dataset_cfg: DATA_CONFIG; SKIP_BAD_FRAMES and the number of ``src_feature_list`` are read.
        class_names: not needed: infos and database hold all of KITTI's classes.
        data_path: folder with training/ and, where there are such, testing/ and ImageSets/ of its own.
        save_path: where the files go; ``data_path`` by default, from where the data set reads them.
        workers: processes; 0 and 1 work in this one.
        logger: for messages.

    Returns:
        Name -> path of the written info files.

    Raises:
        DataError: with everything that is missing or malformed.
    """
    logger = logger or logging.getLogger("pcdet")
    root, save = Path(data_path), Path(save_path or data_path)
    features = dataset_cfg.get("POINT_FEATURE_ENCODING", {}).get("src_feature_list", ["x", "y", "z", "intensity"])
    skip_bad = bool(dataset_cfg.get("SKIP_BAD_FRAMES", False))
    splits = find_frames(root, len(features), logger)
    with worker_pool(workers) as run:
        check_frames([f for frames in splits.values() for f in frames], skip_bad, run, logger)
        save.mkdir(parents=True, exist_ok=True)
        database = ObjectDatabase(save / DATABASE, save / DATABASE_LISTING)
        workplace = database.open_workplace()
        progress_logs = {
            split: ProgressLog(save / f".kitti_infos_{split}.journal", PROGRESS_VERSION) for split in splits
        }
        built = {
            split: _build_split(split, frames, workplace, progress_logs[split], skip_bad, run, logger)
            for split, frames in splits.items()
        }
    written = _write(built, save, database, logger)
    for progress_log in progress_logs.values():
        progress_log.remove()
    return written


# ----------------------------------------------------------------------------------------------------- what there is


def find_lists(root: Path, logger: logging.Logger) -> Path:
    """The folder's own ImageSets; where it holds no list at all, the project's, which divide KITTI as usual.

    Own and shipped lists are never mixed: they may share frames.
    """
    own = root / "ImageSets"
    if any(own.glob("*.txt")) or not IMAGE_SETS.is_dir():
        return own
    logger.info(f"{own} holds no lists of frames, so KITTI's usual ones count: {IMAGE_SETS}")
    return IMAGE_SETS


def find_frames(root: Path, num_features: int, logger: logging.Logger) -> dict[str, list[FrameFiles]]:
    """The frames of every split: train and val must be there, test may be missing.

    Raises:
        DataError: a folder or a list of frames is missing, or a list is malformed.
    """
    problems, splits = [], {}
    if not (root / "training").is_dir():
        problems.append(f"{root / 'training'} does not exist; {root.absolute()} should hold KITTI's training/")
    lists = find_lists(root, logger)
    for split in SPLITS:
        folder, listing = root / ("testing" if split == "test" else "training"), lists / f"{split}.txt"
        if split == "test" and not (listing.is_file() and (folder / "velodyne").is_dir()):
            lacking = listing if not listing.is_file() else folder / "velodyne"
            logger.info(f"Skipped the test split: {lacking} does not exist")
            continue
        if not listing.is_file():
            problems.append(f"{listing} does not exist; it lists the frames of the split, one number a line")
            continue
        try:
            names = read_split(listing)
        except DataError as error:
            problems += error.problems
            continue
        splits[split] = [FrameFiles(folder, name, split != "test", num_features) for name in names]
    if problems:
        raise DataError(problems)
    return splits


def _check(files: FrameFiles) -> tuple[list[str], str | None, str]:
    """Problems, a problem of the cloud's size, and where the image's size will come from."""
    problems = files.problems()
    if problems or files.image.is_file():
        return problems, files.cloud_problem(), "image"
    known = image_shape_of_calibration(Calibration(files.calib))[1]
    return problems, files.cloud_problem(), "calibration" if known else "default"


def check_frames(frames: list[FrameFiles], skip_bad: bool, run: Callable, logger: logging.Logger) -> None:
    """Names everything that is missing or malformed in any frame, before any cloud is read.

    Raises:
        DataError: with all of it.
    """
    problems: list[str] = []
    sources: list[str] = []
    for found, cloud_problem, source in run(_check, frames, "checking files"):
        problems += found
        sources.append(source)
        if cloud_problem and not skip_bad:
            problems.append(f"{cloud_problem}; copy it again, or set SKIP_BAD_FRAMES: True")
    if problems:
        raise DataError(problems)
    derived, default = sources.count("calibration"), sources.count("default")
    if derived or default:
        logger.warning(
            f"{derived + default} of {len(frames)} frames have no image_2/*.png to measure: the calibration tells the "
            f"size of {derived}, {default} are taken to have {DEFAULT_IMAGE[1]} x {DEFAULT_IMAGE[0]} pixels"
        )


# ------------------------------------------------------------------------------------------------------------- the work


def _build(task: tuple[FrameFiles, Path | None]) -> tuple[FrameFiles, dict | None, list[dict], str | None]:
    """A frame's info and database entries, or what is wrong with its cloud."""
    files, database = task
    try:
        return (files, *build_frame(files, database), None)
    except BadFrameError as error:
        return files, None, [], str(error)


def _build_split(
    split: str,
    frames: list[FrameFiles],
    workplace: Path,
    progress_log: ProgressLog,
    skip_bad: bool,
    run: Callable,
    logger: logging.Logger,
) -> tuple[list[dict], list[dict]]:
    """Infos and database entries of a split, in the order of its list; the database is of the train split."""
    database = workplace if split == "train" else None
    done = {
        files.frame: (record["info"], record["objects"])
        for files, record in _valid_records(frames, progress_log.read(), database)
    }
    if done:
        logger.info(f"{split}: going on after {len(done)} of {len(frames)} frames")
    tasks = [(files, database) for files in frames if files.frame not in done]
    bad = []
    try:
        for files, info, objects, problem in run(_build, tasks, split):
            if problem is not None:
                bad.append(problem)
                continue
            done[files.frame] = info, objects
            progress_log.append(files.frame, signature=files.signature(), info=info, objects=objects)
    finally:
        progress_log.close()
    if bad and not skip_bad:
        raise DataError(bad)
    for problem in bad:
        logger.warning(f"SKIP_BAD_FRAMES: {problem}")
    if bad:
        logger.warning(f"SKIP_BAD_FRAMES: left out {len(bad)} of {len(frames)} frames of {split}")
    pairs = [done[files.frame] for files in frames if files.frame in done]
    return [info for info, _ in pairs], [entry for _, objects in pairs for entry in objects]


def _valid_records(
    frames: list[FrameFiles], records: dict[str, dict[str, Any]], database: Path | None
) -> Iterator[tuple[FrameFiles, dict[str, Any]]]:
    """Records of frames whose files have not changed since, and whose objects' files are there."""
    sizes = {}
    if database is not None and records:
        with os.scandir(database) as entries:
            sizes = {entry.name: entry.stat().st_size for entry in entries}
    for files in frames:
        record = records.get(files.frame)
        if record is None or record["signature"] != files.signature():
            continue
        row = 4 * files.num_features
        if database is None or all(
            sizes.get(Path(entry["path"]).name) == entry["num_points_in_gt"] * row for entry in record["objects"]
        ):
            yield files, record


def _write(
    built: dict[str, tuple[list, list]], save: Path, database: ObjectDatabase, logger: logging.Logger
) -> dict[str, Path]:
    """The info files and the database's file."""
    infos = {split: pair[0] for split, pair in built.items()}
    infos["trainval"] = infos["train"] + infos["val"]
    written = {}
    for split, content in infos.items():
        written[split] = save / f"kitti_infos_{split}.pkl"
        safe_pickle.dump(content, written[split])
        logger.info(f"{written[split]}: {len(content)} frames")
    by_class: dict[str, list[dict]] = {name: [] for name in CLASS_NAMES}
    for entry in built["train"][1]:
        by_class.setdefault(entry["name"], []).append(entry)
    database.replace(by_class)
    written["dbinfos_train"] = database.listing
    counts = ", ".join(f"{name} {len(entries)}" for name, entries in by_class.items())
    logger.info(f"{written['dbinfos_train']}: {counts}")
    return written
