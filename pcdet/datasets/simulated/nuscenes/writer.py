"""Writes simulated scenes as a nuScenes release: in parallel, resumable, the same bytes for the same seed."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pcdet.datasets.nuscenes.splits import OF_VERSION, scene_names
from pcdet.datasets.nuscenes.tables import TABLES
from pcdet.datasets.simulated.nuscenes.scenes import ScenePlan, make_scene
from pcdet.datasets.simulated.nuscenes.tables import MAP_FILE, fixed_tables
from pcdet.datasets.simulated.output import claim_folder, map_in_processes, write_whole
from pcdet.datasets.simulated.render import png

VERSION = 1  # raised whenever the same settings give other files
RELEASES = ("v1.0-mini", "v1.0-trainval")
ROWS_FOLDER = "simulated_scenes"  # each scene's rows, from which the tables are put together
NEAREST, FARTHEST = 15.0, 70.0  # metres; limits of the reach

NOTE = """SIMULATED DATA, NOT NUSCENES.

Ray-cast scenes in nuScenes' folder layout, tables and file formats, for learning and testing the pipeline.
No result on them is a nuScenes result.

made by: {command}
{train_scenes} + {val_scenes} scenes of {key_frames} key frames, seed {seed}, simulator version {version}

{release}/samples, sweeps     float32 x, y, z, intensity 0..255, ring; sensor frame (x right, y forward, z up), metres
{release}/{release}   the 13 tables; scenes are named after those of the release's splits; no camera and no radar
{release}/simulated_scenes    the tables' rows scene by scene, from which an interrupted run goes on
"""


@dataclass(frozen=True, kw_only=True)
class NuScenesSettings:
    """Everything that the files depend on; :func:`write_nuscenes` says what is what."""

    release: str
    train_scenes: int
    val_scenes: int
    key_frames: int
    sweeps: int
    azimuths: int
    reach: float
    seed: int
    version: int = VERSION
    format: str = "nuscenes"

    def __post_init__(self):
        if self.release not in RELEASES:
            raise ValueError(f"release must be one of {', '.join(RELEASES)}, got {self.release}")
        for field, split in zip(("train_scenes", "val_scenes"), OF_VERSION[self.release], strict=True):
            most = len(scene_names()[split])
            if not 1 <= getattr(self, field) <= most:
                raise ValueError(f"{field} must be within 1 and the {most} of {split}, got {getattr(self, field)}")
        for field, least in {"key_frames": 2, "sweeps": 1, "azimuths": 8, "seed": 0}.items():
            if getattr(self, field) < least:
                raise ValueError(f"{field} must be at least {least}, got {getattr(self, field)}")
        if not NEAREST <= self.reach <= FARTHEST:
            raise ValueError(f"reach must be within {NEAREST} and {FARTHEST} metres, got {self.reach}")

    @property
    def command(self) -> str:
        """The command line that makes the same folder; where it is made leaves no trace in its files."""
        flags = {key: value for key, value in asdict(self).items() if key not in ("version", "format")}
        said = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in flags.items())
        return f"python -m pcdet.datasets.simulated --format nuscenes --out DIR {said}"

    def plans(self) -> list[ScenePlan]:
        """The scenes: those of the train split, then those of the val split, each in the order of their names."""
        counts = zip(OF_VERSION[self.release], (self.train_scenes, self.val_scenes), strict=True)
        names = [name for split, count in counts for name in sorted(scene_names()[split])[:count]]
        common = dict(key_frames=self.key_frames, sweeps=self.sweeps, azimuths=self.azimuths, reach=self.reach)
        # The number in the whole split: a scene is the same whatever the number of scenes is.
        return [ScenePlan(name=name, index=int(name[-4:]), seed=self.seed, **common) for name in names]


def write_nuscenes(
    out: str | Path,
    *,
    release: str = "v1.0-mini",
    train_scenes: int = 8,
    val_scenes: int = 2,
    key_frames: int = 10,
    sweeps: int = 10,
    azimuths: int = 720,
    reach: float = 40.0,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """A folder of simulated scenes in nuScenes' layout: OUT/RELEASE/{samples, sweeps, maps, RELEASE}.

    The files depend on the settings alone, not on ``workers``; a scene is the same whatever the number of scenes is.
    A run that was interrupted goes on where it stopped, and a finished folder is left as it is.

    Args:
        out: the folder, made if need be; the data set's DATA_PATH.
        release: v1.0-mini (up to 8 + 2 scenes) or v1.0-trainval (700 + 150).
        train_scenes: how many of the train split.
        val_scenes: how many of the val split.
        key_frames: of a scene, two a second.
        sweeps: from one key frame to the next, the key frame counted; 10 are nuScenes' 20 a second.
        azimuths: rays of each of the 32 beams in a turn; 1,450 give nuScenes' 34,000 points a sweep.
        reach: objects are annotated, and most of them stand, within so many metres of the ego vehicle.
        seed: another seed, other scenes.
        workers: processes; None for one per core, 0 or 1 to stay in this one.
        progress: show a progress bar.

    Returns:
        ``out``.

    Raises:
        ValueError: a setting is impossible, or the folder holds something else.
    """
    out = Path(out)
    settings = NuScenesSettings(
        release=release,
        train_scenes=train_scenes,
        val_scenes=val_scenes,
        key_frames=key_frames,
        sweeps=sweeps,
        azimuths=azimuths,
        reach=float(reach),
        seed=seed,
    )
    note = NOTE.format(command=settings.command, **asdict(settings))
    claim_folder(out, asdict(settings), command=settings.command, note=note, others=(release, "training"), defaults={})
    root = out / release
    for folder in ("samples/LIDAR_TOP", "sweeps/LIDAR_TOP", "maps", ROWS_FOLDER):
        (root / folder).mkdir(parents=True, exist_ok=True)
    plans = settings.plans()
    todo = [plan for plan in plans if not _is_complete(root, plan)]
    with tqdm(total=len(plans), initial=len(plans) - len(todo), desc="simulate", disable=not progress) as bar:
        for _ in map_in_processes(partial(_write_scene, root), todo, workers, share=2):
            bar.update()
    write_whole(root / MAP_FILE, png(np.zeros((1, 1, 3), np.uint8)))
    _write_tables(root, release, plans)
    return out


def _rows_file(root: Path, plan: ScenePlan) -> Path:
    return root / ROWS_FOLDER / f"{plan.name}.json"


def _is_complete(root: Path, plan: ScenePlan) -> bool:
    rows = _rows_file(root, plan)
    return rows.exists() and all(
        (root / row["filename"]).exists() for row in json.loads(rows.read_text())["sample_data"]
    )


def _write_scene(root: Path, plan: ScenePlan) -> None:
    rows = make_scene(plan, lambda name, data: write_whole(root / name, data))
    write_whole(_rows_file(root, plan), json.dumps(rows).encode())  # the last file: where it is, the scene is whole


def _write_tables(root: Path, release: str, plans: list[ScenePlan]) -> None:
    """Puts the tables together and moves them to their place all at once."""
    scenes = [json.loads(_rows_file(root, plan).read_text()) for plan in plans]
    tables = {table: [row for scene in scenes for row in scene[table]] for table in scenes[0]}
    tables.update(fixed_tables([row["token"] for row in tables["log"]]))
    files = {f"{table}.json": json.dumps(tables[table], indent=0).encode() for table in TABLES}
    folder, partial_folder = root / release, root / f".{release}.{os.getpid()}"
    if folder.is_dir() and all((folder / n).exists() and (folder / n).read_bytes() == d for n, d in files.items()):
        return
    partial_folder.mkdir()
    for name, data in files.items():
        (partial_folder / name).write_bytes(data)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial_folder, folder)
