"""Prepares a nuScenes release: info files of its splits, the database of objects, and the objects' points.

First the tables are read and every file that they name is looked for; everything that is missing or malformed is named
at once. Then the objects of the training frames are cut out, in parallel. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pcdet.datasets.errors import BadFrameError, DataError
from pcdet.datasets.file_names import is_inside
from pcdet.datasets.nuscenes.categories import DETECTION_CLASSES, detection_class
from pcdet.datasets.nuscenes.gt_database import POINT_BYTES, ObjectsOfFrame, write_objects
from pcdet.datasets.nuscenes.infos import InfoMaker
from pcdet.datasets.nuscenes.layout import database_folder, database_name, info_name, release_folder
from pcdet.datasets.nuscenes.splits import OF_VERSION, samples_of_split
from pcdet.datasets.nuscenes.sweeps import FILE_COLUMNS
from pcdet.datasets.nuscenes.tables import Tables
from pcdet.datasets.object_database import ObjectDatabase
from pcdet.datasets.progress_log import ProgressLog
from pcdet.datasets.workers import worker_pool
from pcdet.utils import safe_pickle

ROW_BYTES = 4 * FILE_COLUMNS
PROGRESS_VERSION = 1
TRAINED = "train"  # the info file whose objects the database holds
UNLABELLED = ("test",)
TABLES_READ = ("scene", "sample", "sample_data", "ego_pose", "calibrated_sensor", "sensor")
LABEL_TABLES = ("category", "instance", "sample_annotation")


@dataclass(frozen=True)
class Request:
    """What is to be made of a release.

    Attributes:
        root: folder of the release: ``samples/``, ``sweeps/`` and the tables.
        version: name of the tables' folder.
        max_sweeps: clouds in a sample.
        skip_missing: leave out samples whose clouds are not there, and splits without any.
        database: cut out the objects of the training frames.
    """

    root: Path
    version: str
    max_sweeps: int
    skip_missing: bool = False
    database: bool = True

    @property
    def object_database(self) -> ObjectDatabase:
        """Where the objects of the training frames go."""
        folder, listing = database_folder(self.max_sweeps), database_name(self.max_sweeps)
        return ObjectDatabase(self.root / folder, self.root / listing)

    @property
    def progress_log(self) -> ProgressLog:
        """Which frames' objects have been cut out."""
        return ProgressLog(self.root / f".{database_name(self.max_sweeps)}.journal", PROGRESS_VERSION)


def create_nuscenes_infos(
    data_path: str | Path,
    version: str,
    max_sweeps: int = 10,
    *,
    workers: int = 4,
    skip_missing: bool = False,
    database: bool = True,
    logger: logging.Logger | None = None,
) -> dict[str, Path]:
    """Writes the info files of a release and, where it has a training split, the database of its objects.

    ``nuscenes_infos_10sweeps_{train,val}.pkl``, or ``..._test.pkl`` for v1.0-test, ``gt_database_10sweeps_withvelo/``
    and ``nuscenes_dbinfos_10sweeps_withvelo.pkl``, all in the release's folder. Files are written last, each whole.

    Args:
        data_path: DATA_CONFIG.DATA_PATH: holds ``<version>/{samples,sweeps,<version>}`` or, as the archives unpack,
            ``samples``, ``sweeps`` and ``<version>``.
        version: v1.0-trainval, v1.0-mini or v1.0-test.
        max_sweeps: clouds in a sample, its key frame among them.
        workers: processes; 0 and 1 work in this one.
        skip_missing: leave out samples of which a cloud is missing, as where only some archives were downloaded, and
            splits of which no scene is there. They are counted and told.
        database: whether the database is made.
        logger: for messages.

    Returns:
        Name -> path of the written files: the splits, and ``dbinfos``.

    Raises:
        DataError: with everything that is missing or malformed.
    """
    logger = logger or logging.getLogger("pcdet")
    if version not in OF_VERSION:
        raise DataError(f"there is no release {version!r} of nuScenes; VERSION must be one of {', '.join(OF_VERSION)}")
    if max_sweeps < 1:
        raise DataError(f"MAX_SWEEPS: must be at least 1, the key frame, got {max_sweeps}")
    request = Request(release_folder(data_path, version), version, max_sweeps, skip_missing, database)
    infos = with_clouds(make_infos(request, logger), request, logger)
    with worker_pool(workers) as run:
        entries = _cut_out(infos[TRAINED], request, run, logger) if database and infos.get(TRAINED) else None
    written = _write_infos(infos, request, logger)
    if entries is not None:
        written["dbinfos"] = _write_database(entries, request, logger)
    return written


# --------------------------------------------------------------------------------------------------------------- infos


def make_infos(request: Request, logger: logging.Logger) -> dict[str, list[dict]]:
    """The infos of every split, by the name that stands in the info file's: train, val or test.

    Raises:
        DataError: with everything that is wrong with the tables.
    """
    tables = Tables(request.root, request.version)
    _read_tables(tables, request)
    infos: dict[str, list[dict]] = {}
    problems = _unknown_categories(tables, request)
    for split in OF_VERSION[request.version]:
        try:
            samples = samples_of_split(tables, split)
        except DataError as error:
            if not request.skip_missing:
                raise
            logger.warning(f"Skipped the split {split}: {error}")
            continue
        maker = InfoMaker(tables, request.max_sweeps, labelled=split not in UNLABELLED)
        made = infos[split.removeprefix("mini_")] = []
        for sample in tqdm(samples, desc=split, unit="frame", dynamic_ncols=True):
            try:
                made.append(maker.make(sample))
            except DataError as error:
                problems += error.problems
    if problems:
        raise DataError(problems)
    if not infos:
        raise DataError(f"{tables.folder} has no scene of the splits {', '.join(OF_VERSION[request.version])}")
    return infos


def _read_tables(tables: Tables, request: Request) -> None:
    """DataError with every table that is missing or damaged, each told once and not for every sample that needs it."""
    problems = []
    for name in (*TABLES_READ, *(LABEL_TABLES if _has_labels(request) else ())):
        try:
            tables.rows(name)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    _ = tables.key_frames  # a problem of theirs is all samples' problem


def _has_labels(request: Request) -> bool:
    return not set(OF_VERSION[request.version]) <= set(UNLABELLED)


def _unknown_categories(tables: Tables, request: Request) -> list[str]:
    if not _has_labels(request):
        return []
    problems = []
    for row in tables.rows("category"):
        try:
            detection_class(str(row.get("name")))
        except DataError as error:
            problems.append(f"{tables.folder / 'category'}.json: {error}")
    return problems


# -------------------------------------------------------------------------------------------------------------- clouds


def paths_of(info: dict) -> list[str]:
    """The files of a sample's clouds, each once, the key frame's first."""
    return list(dict.fromkeys([info["lidar_path"], *(sweep["lidar_path"] for sweep in info["sweeps"])]))


def _sizes(root: Path, paths: Iterable[str]) -> dict[str, int | None]:
    """Bytes of each file; None where there is none. A listing of each folder takes less than a look at each file."""
    listings: dict[str, dict[str, int]] = {}
    sizes: dict[str, int | None] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder not in listings:
            there = (root / folder).is_dir()
            entries = os.scandir(root / folder) if there else ()
            listings[folder] = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        sizes[path] = listings[folder].get(name)
    return sizes


def with_clouds(infos: dict[str, list[dict]], request: Request, logger: logging.Logger) -> dict[str, list[dict]]:
    """The infos whose clouds are all there: all of them or, with ``skip_missing``, those that are left.

    Raises:
        DataError: with every file that is missing or cut short.
    """
    paths = dict.fromkeys(path for of_split in infos.values() for info in of_split for path in paths_of(info))
    if outside := [path for path in paths if not is_inside(path)]:
        raise DataError([f"sample_data.json: filename must stay inside {request.root}, got {p!r}" for p in outside])
    sizes = _sizes(request.root, paths)
    absent = {path for path, size in sizes.items() if size is None}
    problems = [
        f"{request.root / path} has {size} bytes, which is no multiple of {ROW_BYTES}: it is cut short; copy it again"
        if size
        else f"{request.root / path} is empty; copy it again"
        for path, size in sizes.items()
        if size is not None and (size == 0 or size % ROW_BYTES)
    ]
    if absent and not request.skip_missing:
        problems.append(
            f"{len(absent)} of {len(paths)} clouds are missing in {request.root}; unpack all archives there, or leave "
            "out the samples that need them (skip_missing, --skip_missing)"
        )
        problems += [f"{request.root / path} does not exist" for path in sorted(absent)]
    if problems:
        raise DataError(problems)
    kept = {split: [i for i in of_split if absent.isdisjoint(paths_of(i))] for split, of_split in infos.items()}
    for split, of_split in kept.items():
        if left_out := len(infos[split]) - len(of_split):
            logger.warning(f"skip_missing: left out {left_out} of {len(infos[split])} samples of {split}")
    if not any(kept.values()):
        raise DataError(f"{request.root}: no sample has all its clouds, for instance {min(absent)} is missing")
    return kept


# ------------------------------------------------------------------------------------------------------------ database


def _objects(frame: ObjectsOfFrame) -> tuple[ObjectsOfFrame, list[dict], str | None]:
    """A frame's database entries, or what is wrong with its clouds."""
    try:
        return frame, write_objects(frame), None
    except BadFrameError as error:
        return frame, [], str(error)


def _cut_out(infos: list[dict], request: Request, run: Callable, logger: logging.Logger) -> list[dict]:
    """The database's entries, in the order of the frames; their points are written."""
    place = request.object_database
    folder = place.open_workplace()
    frames = [
        ObjectsOfFrame(request.root, folder, place.folder.name, number, info) for number, info in enumerate(infos)
    ]
    progress_log = request.progress_log
    done = dict(_valid_records(frames, progress_log.read()))
    if done:
        logger.info(f"database: going on after {len(done)} of {len(frames)} frames")
    bad = []
    try:
        for frame, entries, problem in run(_objects, [f for f in frames if f.number not in done], "database"):
            if problem is not None:
                bad.append(problem)
                continue
            done[frame.number] = entries
            progress_log.append(str(frame.number), signature=_signature(frame), objects=entries)
    finally:
        progress_log.close()
    if bad:
        raise DataError(list(dict.fromkeys(bad)))
    return [entry for frame in frames for entry in done[frame.number]]


def _signature(frame: ObjectsOfFrame) -> list[Any]:
    """Changes when a frame's clouds or labels change."""
    return [hashlib.sha256(safe_pickle.dumps(frame.info)).hexdigest(), *frame.signature()]


def _valid_records(
    frames: Sequence[ObjectsOfFrame], records: dict[str, dict[str, Any]]
) -> Iterator[tuple[int, list[dict]]]:
    """Entries of frames that have not changed since, and whose objects' files are there."""
    sizes = {}
    if records:
        with os.scandir(frames[0].folder) as files:
            sizes = {file.name: file.stat().st_size for file in files}
    for frame in frames:
        record = records.get(str(frame.number))
        if record is None or record["signature"] != _signature(frame):
            continue
        counts = {Path(entry["path"]).name: entry["num_points_in_gt"] for entry in record["objects"]}
        if all(sizes.get(file) == count * POINT_BYTES for file, count in counts.items()):
            yield frame.number, record["objects"]


def _write_infos(infos: dict[str, list[dict]], request: Request, logger: logging.Logger) -> dict[str, Path]:
    """The info files by their splits."""
    written = {}
    for split, content in infos.items():
        written[split] = request.root / info_name(split, request.max_sweeps)
        safe_pickle.dump(content, written[split])
        logger.info(f"{written[split]}: {len(content)} frames")
    return written


def _write_database(entries: list[dict], request: Request, logger: logging.Logger) -> Path:
    """The file that lists the objects; what told a stopped run's progress goes."""
    by_class: dict[str, list[dict]] = {name: [] for name in DETECTION_CLASSES}
    for entry in entries:
        by_class[entry["name"]].append(entry)
    place = request.object_database
    place.replace(by_class)
    counts = ", ".join(f"{name} {len(of_class)}" for name, of_class in by_class.items())
    logger.info(f"{place.listing}: {counts}")
    request.progress_log.remove()
    return place.listing
