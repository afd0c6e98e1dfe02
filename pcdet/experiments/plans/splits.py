"""The frames of a plan: which info files its trainings and evaluations read, and that the splits keep apart."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pcdet.datasets.nuscenes.layout import release_folder
from pcdet.datasets.nuscenes.object_labels import frame_name
from pcdet.datasets.nuscenes.resampling import balanced_frames
from pcdet.datasets.pickles import read_pickle
from pcdet.experiments.plans.plan import DataConfig, SplitConfig
from pcdet.registry import ConfigError
from pcdet.utils.safe_files import replacing

REPORTED = "what is reported must come from frames that nothing was trained on or chosen by"
# Split -> why its frames may not be unlabelled ones too.
UNLABELLED = {
    "train": "students would train on them twice, with labels and without",
    "teacher_train": "on frames that it was trained on a teacher repeats labels that it has seen",
    "search": "students that train on them would be chosen by frames that the others have not seen",
}


class Splits:
    """The info files of a plan's splits, relative to the data folder, as ``DATA_CONFIG.INFO_PATH`` takes them.

    A split that is a part of its files gets a file of its own in ``folder``; the data folder stays as it is.

    Args:
        data: of the plan.
        root: the data folder.
        folder: for the files of parts.
        balanced: classes of trainings that draw their labelled frames so that each has an equal part, as nuScenes'
            BALANCED_RESAMPLING does; None: every frame comes once in an epoch.

    Attributes:
        files: ``train``, ``search``, ``report``, ``teacher_train`` and ``unlabelled``, if there -> info files.
        counts: the same -> number of frames.
        digests: the same -> a text that changes with their content.
        frames: the same -> the frames' names.

    Raises:
        ConfigError: an info file is missing or no list, a part lies beyond its end, or two splits share a frame that
            only one of them may have; all such pairs are named.
    """

    def __init__(self, data: DataConfig, root: Path, folder: Path, balanced: Sequence[str] | None = None):
        self._drawn: dict[str, int] = {}
        self.files: dict[str, list[str]] = {}
        self.counts: dict[str, int] = {}
        self.digests: dict[str, str] = {}
        self.frames: dict[str, set[str]] = {}
        if data.version is not None:
            root = release_folder(root, data.version)
        configs = {"train": data.train, "search": data.search, "report": data.report}
        configs["teacher_train"] = data.teacher_train or data.train
        if data.unlabelled is not None:
            configs["unlabelled"] = data.unlabelled
        for name, config in configs.items():
            infos = _read(config, root, f"DATA.{name.upper()}")
            self.counts[name] = self._drawn[name] = len(infos)
            if balanced is not None and name != "unlabelled":  # whose frames come once
                self._drawn[name] = len(balanced_frames([list(info.get("gt_names", ())) for info in infos], balanced))
            self.frames[name] = {_frame_of(info) for info in infos}
            self.digests[name] = hashlib.sha256(pickle.dumps(infos)).hexdigest()[:16]
            self.files[name] = _files(config, infos, root, folder / f"{name}.pkl")
        self._check_apart([name for name in configs if name != "teacher_train" or data.teacher_train is not None])

    def _check_apart(self, named: Sequence[str]) -> None:
        """ConfigError where splits that the plan names share frames that only one of them may have."""
        rules = [(name, "report", REPORTED) for name in named if name != "report"]
        rules += [(name, "unlabelled", UNLABELLED[name]) for name in named if name in UNLABELLED]
        problems = [self.overlap(name, other, why) for name, other, why in rules if self.shared(name, other)]
        if problems:
            raise ConfigError(problems)

    def overlap(self, name: str, other: str, why: str) -> str:
        """The sentence on two splits that share frames."""
        both = self.shared(name, other)
        where = f"DATA.{other.upper()}: {len(both)} of its frames, such as {both[0]}, are in DATA.{name.upper()} too"
        return f"{where}; {why}; take others (FIRST, FRAMES)"

    def shared(self, name: str, other: str) -> list[str]:
        """Frames that are in both splits, in order; none where the plan has no such split."""
        return sorted(self.frames.get(name, set()) & self.frames.get(other, set()))

    def samples(self, name: str, *, unlabelled: bool = False) -> int:
        """Samples of an epoch on a split, with the unlabelled ones where a run trains on them too."""
        return self._drawn[name] + (self._drawn["unlabelled"] if unlabelled else 0)


def _read(config: SplitConfig, root: Path, path: str) -> list[Any]:
    infos: list[Any] = []
    for name in config.infos:
        file = root / name
        if not file.is_file():
            raise ConfigError(
                f"{path}.INFOS: {file} does not exist; make the data set's info files first (those of a nuScenes "
                "release lie in its folder, which DATA.VERSION names)"
            )
        content = read_pickle(file)
        if not isinstance(content, list):
            raise ConfigError(f"{path}.INFOS: {file} holds no list of frames, but {type(content).__name__}")
        infos += content
    end = len(infos) if config.frames is None else config.first + config.frames
    if end > len(infos) or config.first >= len(infos):
        raise ConfigError(f"{path}: frames {config.first} to {end} are asked for; the files hold {len(infos)}")
    return infos[config.first : end]


def _files(config: SplitConfig, infos: Sequence[Any], root: Path, part: Path) -> list[str]:
    """Names of the split's info files from the data folder; writes ``part`` where it is a part of them."""
    if config.first == 0 and config.frames is None:
        return list(config.infos)
    content = pickle.dumps(infos)
    if not part.is_file() or part.read_bytes() != content:  # an unchanged file keeps its time
        part.parent.mkdir(parents=True, exist_ok=True)
        with replacing(part) as stream:
            stream.write(content)
    return [os.path.relpath(part.resolve(), root.resolve())]  # a data folder is often a link


def _frame_of(info: dict) -> str:
    """A frame's name in results: infos of KITTI, and of data sets in its manner, tell it; nuScenes' name its cloud."""
    if "point_cloud" in info:
        return str(info["point_cloud"]["lidar_idx"])
    return frame_name(info)
