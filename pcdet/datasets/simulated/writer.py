"""Writes simulated frames as a KITTI folder: in parallel, resumable, the same bytes for the same seed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from pcdet.datasets.simulated import camera
from pcdet.datasets.simulated.frame import make_frame
from pcdet.datasets.simulated.labels import plane_text, road_plane
from pcdet.datasets.simulated.layout import SceneSettings
from pcdet.datasets.simulated.output import claim_folder, map_in_processes, write_whole

VERSION = 1  # raised whenever the same settings give other files
VAL_SHARE = 0.25
FARTHEST, NEAREST = SceneSettings.far, 15.0  # metres; limits of how far the labelled objects reach

NOTE = """SIMULATED DATA, NOT KITTI.

Ray-cast scenes in KITTI's folder layout and file formats, for learning and testing the pipeline.
No result on them is a KITTI result.

made by: {command}
{frames} frames, seed {seed}, {images}, simulator version {version}

training/velodyne   float32 x, y, z, intensity; LiDAR frame, metres; only what the camera sees
training/label_2    occlusion and truncation computed from visibility; objects with fewer than 5 points are DontCare
training/calib      one calibration for all frames
training/planes     the true ground plane
ImageSets           train, val, trainval; val frames are spread evenly over the sequence
"""


@dataclass(frozen=True)
class Settings:
    """Everything that the files depend on."""

    frames: int
    seed: int
    images: bool
    val_frames: int
    far: float = FARTHEST
    version: int = VERSION

    def __post_init__(self):
        if not NEAREST <= self.far <= FARTHEST:
            raise ValueError(f"far must be within {NEAREST} and {FARTHEST} metres, got {self.far}")
        if self.frames < 1:
            raise ValueError(f"frames must be at least 1, got {self.frames}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if not 0 <= self.val_frames <= self.frames:
            raise ValueError(f"val_frames must be within 0 and frames={self.frames}, got {self.val_frames}")

    @property
    def command(self) -> str:
        """The command line that makes the same folder; where it is made leaves no trace in its files."""
        images = " --images" if self.images else ""
        far = f" --far {self.far:g}" if self.far != FARTHEST else ""
        return (
            f"python -m pcdet.datasets.simulated --out DIR --frames {self.frames} --seed {self.seed} "
            f"--val-frames {self.val_frames}{far}{images}"
        )

    @property
    def scenes(self) -> SceneSettings:
        """How the scenes are filled: the labelled objects stand in a field twice as long as it is wide to each side."""
        return SceneSettings(far=self.far, side=SceneSettings.side * self.far / FARTHEST)


def write_kitti(
    out: str | Path,
    *,
    frames: int = 400,
    seed: int = 0,
    workers: int | None = None,
    images: bool = False,
    val_frames: int | None = None,
    far: float = FARTHEST,
    progress: bool = True,
) -> Path:
    """A KITTI-layout folder of simulated frames.

    The files depend on the settings alone, not on ``workers``; frame i is the same whatever ``frames`` is. A run
    that was interrupted goes on where it stopped, and a finished folder is left as it is.

    Args:
        out: the folder, made if need be.
        frames: how many, named 000000 and on.
        seed: another seed, other scenes.
        workers: processes; None for one per core, 0 or 1 to stay in this one.
        images: render ``image_2`` too (about four times slower).
        val_frames: how many of the frames form the val split, spread evenly; None for a quarter.
        far: labelled objects stand up to so many metres ahead, and half as far to each side.
        progress: show a progress bar.

    Returns:
        ``out``.

    Raises:
        ValueError: a setting is impossible, or the folder holds something else.
    """
    out = Path(out)
    val_frames = round(VAL_SHARE * frames) if val_frames is None else val_frames
    settings = Settings(frames, seed, images, val_frames, far)
    _claim(out, settings)
    for path in [*_files(out, 0, images).values(), out / "ImageSets" / "train.txt"]:
        path.parent.mkdir(parents=True, exist_ok=True)
    todo = [index for index in range(frames) if not _is_complete(out, index, images)]
    write = partial(_write_frame, out, settings)
    with tqdm(total=frames, initial=frames - len(todo), desc="simulate", unit="scene", disable=not progress) as bar:
        for _ in map_in_processes(write, todo, workers, share=8):
            bar.update()
    _write_splits(out, settings)
    return out


def val_indices(frames: int, val_frames: int) -> set[int]:
    """Which frames are validated on: ``val_frames`` of them at even steps."""
    return {i for i in range(frames) if (i + 1) * val_frames // frames > i * val_frames // frames}


def _claim(out: Path, settings: Settings) -> None:
    images = "with images" if settings.images else "without images"
    claim_folder(
        out,
        asdict(settings),
        command=settings.command,
        note=NOTE.format(command=settings.command, **{**asdict(settings), "images": images}),
        others=("training", "ImageSets"),
        defaults={"far": FARTHEST},  # a folder of before there was a choice
    )


def _files(out: Path, index: int, images: bool) -> dict[str, Path]:
    kinds = {"calib": "txt", "label_2": "txt", "planes": "txt", "velodyne": "bin"}
    if images:
        kinds["image_2"] = "png"
    return {kind: out / "training" / kind / f"{index:06d}.{suffix}" for kind, suffix in kinds.items()}


def _is_complete(out: Path, index: int, images: bool) -> bool:
    return all(path.exists() for path in _files(out, index, images).values())


def _write_frame(out: Path, settings: Settings, index: int) -> None:
    frame = make_frame(settings.seed, index, settings=settings.scenes)
    files = _files(out, index, settings.images)
    write_whole(files["velodyne"], frame.scan.points.tobytes())
    write_whole(files["calib"], camera.calibration_text().encode())
    write_whole(files["label_2"], "".join(label.line() + "\n" for label in frame.labels).encode())
    write_whole(files["planes"], plane_text(road_plane(frame.scene.ground)).encode())
    if settings.images:
        from pcdet.datasets.simulated.render import png, render  # the other files never need it

        write_whole(files["image_2"], png(render(frame.scene)))


def _write_splits(out: Path, settings: Settings) -> None:
    val = val_indices(settings.frames, settings.val_frames)
    for split, members in (
        ("train", [i for i in range(settings.frames) if i not in val]),
        ("val", sorted(val)),
        ("trainval", range(settings.frames)),
    ):
        write_whole(out / "ImageSets" / f"{split}.txt", "".join(f"{i:06d}\n" for i in members).encode())
