"""nuScenes' detection data: frames of several sweeps from info files, results in OpenPCDet's form, its evaluation."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pcdet.datasets.dataset import DatasetTemplate, resolve_data_path
from pcdet.datasets.errors import DataError
from pcdet.datasets.frame_labels import FrameLabels, MatchingRule
from pcdet.datasets.nuscenes.config import NuScenesConfig
from pcdet.datasets.nuscenes.info_checks import check_infos
from pcdet.datasets.nuscenes.info_store import InfoStore
from pcdet.datasets.nuscenes.layout import TEST_RELEASE, release_folder
from pcdet.datasets.nuscenes.metrics import NUSCENES_METRICS
from pcdet.datasets.nuscenes.object_labels import MOTION, boxes_of_info, frame_name, labels_of_info
from pcdet.datasets.nuscenes.resampling import balanced_frames
from pcdet.datasets.nuscenes.sweeps import choose_sweeps, load_sweeps
from pcdet.datasets.pickles import read_pickle
from pcdet.datasets.pseudo_labels import PseudoLabels
from pcdet.datasets.results import in_frame_order, repeated_frames
from pcdet.datasets.seeding import SWEEPS, generator_for
from pcdet.registry import DATASETS
from pcdet.utils.safe_files import sha256_of

if TYPE_CHECKING:
    from pcdet.datasets.nuscenes.evaluation.by_frame import FrameScores

CREATE_COMMAND = "python -m pcdet.datasets.nuscenes.nuscenes_dataset --func create_nuscenes_infos --cfg_file CFG"
MATCHING_DISTANCE = 2.0  # metres: the one of the evaluation's four at which errors are measured
LABELS = ("gt_boxes", "gt_names", "num_lidar_pts", "num_radar_pts")  # of an info, those that anything here reads


@DATASETS.register
class NuScenesDataset(DatasetTemplate):
    """Samples of a nuScenes release that ``create_nuscenes_infos``, or OpenPCDet, has prepared.

    A sample's points are [x, y, z, intensity 0..255, time lag], the lag 0 in the key frame and seconds before it in the
    sweeps. They and the boxes stand in nuScenes' LIDAR_TOP frame: x to the right, y ahead, z up.

    Attributes:
        infos: what is known of each frame, in OpenPCDet's form, each once; frames that only a teacher labels come last.
        num_labelled: infos before those that only a teacher labels.
        order: (F,) which frame each sample is: balanced resampling repeats some and leaves others out, but has each
            frame that only a teacher labels once.
        split: name of the split.
    """

    SCHEMA = NuScenesConfig
    UNLABELLED_FRAMES = True
    LABEL_ATTRIBUTES: ClassVar[Mapping[str, Sequence[str]]] = {"motion": MOTION}
    METRICS = NUSCENES_METRICS

    def __init__(
        self,
        dataset_cfg: dict,
        class_names: Sequence[str],
        training: bool = True,
        root_path: str | Path | None = None,
        logger: logging.Logger | None = None,
    ):
        root = resolve_data_path(root_path if root_path is not None else dataset_cfg["DATA_PATH"])
        folder = release_folder(root, str(dataset_cfg.get("VERSION", "")))
        self._data_path = root
        self._pass_start = 0  # of the pass over the frames that is being read, among the samples of a merged epoch
        super().__init__(dataset_cfg, class_names, training, folder, logger)

    # ------------------------------------------------------------------------------------------------------ the frames

    def find_frames(self) -> None:
        """Reads the info files of the split, and chooses the frames of an epoch."""
        self.split = self.config.data_split[self.mode]
        self._info_digests: list[str] = []
        infos = self._read_infos(self.config.info_path[self.mode], self.root_path, self.config.version)
        self.num_labelled = len(infos)
        self.infos = InfoStore(infos + (self._read_unlabelled_infos() if self.training else []))
        self._check_repeated()
        self.order = self._frames_of_an_epoch()
        unlabelled = len(self.infos) - self.num_labelled
        of_a_teacher = f", {unlabelled} of them without labels of their own" if unlabelled else ""
        self.logger.info(
            f"nuScenes {self.split}: {len(self.infos)} frames{of_a_teacher}, {len(self.order)} samples an epoch"
        )

    def _frames_of_an_epoch(self) -> np.ndarray:
        """(F,) the frames of an epoch, see ``order``."""
        labelled = np.arange(self.num_labelled)
        if self.training and self.config.balanced_resampling:
            present = [list(self.infos.class_counts(i)) for i in range(self.num_labelled)]
            labelled = balanced_frames(present, self.class_names)
        return np.concatenate([labelled, np.arange(self.num_labelled, len(self.infos))])

    def _read_infos(self, names: Sequence[str], folder: Path, version: str, advice: str = "") -> list[dict]:
        infos: list[dict] = []
        for name in names:
            path = folder / name
            if not path.is_file():
                raise DataError(
                    f"{path} does not exist; make it with `{CREATE_COMMAND} --version {version}` "
                    f"(DATA_CONFIG.DATA_PATH is {self.config.data_path!r}, VERSION {self.config.version!r}){advice}"
                )
            self._info_digests.append(sha256_of(path))
            content = read_pickle(path)
            check_infos(content, path, num_sweeps=self.config.max_sweeps - 1, velocity=self.config.pred_velocity)
            infos += content
        return infos

    def _read_unlabelled_infos(self) -> list[dict]:
        """Infos of frames that only a teacher labels. Labels that they have are not looked at."""
        names, split = self.config.info_path.get("unlabelled", []), self.config.data_split.get("unlabelled")
        version = TEST_RELEASE if split == "test" else self.config.version
        self._unlabelled_folder = release_folder(self._data_path, version)
        advice = "" if split == "test" else f"; frames of {TEST_RELEASE} need DATA_CONFIG.DATA_SPLIT.unlabelled: test"
        infos = self._read_infos(names, self._unlabelled_folder, version, advice)
        if names:
            self._info_digests.append(f"unlabelled frames of {version}")
        infos = [{key: value for key, value in info.items() if key not in LABELS} for info in infos]
        return infos if self.config.pseudo_labels is None else self._with_pseudo_labels(infos)

    def _with_pseudo_labels(self, infos: list[dict]) -> list[dict]:
        """These infos with the boxes of PSEUDO_LABELS."""
        frames = [frame_name(info) for info in infos]
        found = PseudoLabels(self.config.pseudo_labels, self.class_names, columns=self._box_columns, frames=frames)
        self._info_digests.append(found.digest)
        self.logger.info(f"PSEUDO_LABELS: {found}")
        labels = [dict(zip(("gt_names", "gt_boxes"), found[frame], strict=True)) for frame in frames]
        return [{**info, **of_frame} for info, of_frame in zip(infos, labels, strict=True)]

    def _check_repeated(self) -> None:
        """DataError for a frame that is evaluated twice; a warning for one that is trained on twice."""
        repeated = repeated_frames(self.infos.tokens())
        if not repeated:
            return
        text = f"INFO_PATH: the {self.split} split holds frames more than once: {repeated}"
        if not self.training:
            raise DataError(text)
        self.logger.warning(text)

    @property
    def fingerprint(self) -> str:
        """Changes when the info files or the frames of an epoch change."""
        order = hashlib.sha256(self.order.tobytes()).hexdigest()
        return hashlib.sha256("\n".join([*self._info_digests, order]).encode()).hexdigest()[:16]

    def num_frames(self) -> int:
        """Samples of an epoch."""
        return len(self.order)

    def class_counts(self) -> dict[str, int] | None:
        """Objects of each class in the split, the most frequent first, each counted once; None without labels.

        Those of PSEUDO_LABELS count too; those that FILTER_MIN_POINTS_IN_GT leaves out do not.
        """
        if not len(self.infos) or "gt_boxes" not in self.infos[0]:
            return None
        counts: Counter[str] = Counter()
        for i in range(len(self.infos)):
            counts.update(self.infos.class_counts(i, self.config.filter_min_points_in_gt))
        return dict(counts.most_common())

    # --------------------------------------------------------------------------------------------------------- samples

    def __getitem__(self, index: int) -> dict:
        """A sample; where one epoch is several passes over the frames, each pass draws sweeps anew."""
        self._pass_start = index - index % self.num_frames()
        try:
            return super().__getitem__(index)
        finally:
            self._pass_start = 0

    def load_frame(self, index: int) -> dict:
        """A sample: points of its key frame and of sweeps, labels, ``frame_id`` and ``metadata`` with its token."""
        number = int(self.order[index])
        info, unlabelled = self.infos[number], number >= self.num_labelled
        folder = self._unlabelled_folder if unlabelled else self.root_path
        rng = generator_for(SWEEPS, self.seed, self.epoch, self.rank, self._pass_start + index)
        chosen = choose_sweeps(len(info["sweeps"]), self.config.max_sweeps - 1, rng)
        sample: dict[str, Any] = {
            "points": load_sweeps(folder, info["lidar_path"], [info["sweeps"][k] for k in chosen]),
            "frame_id": frame_name(info),
            "metadata": {"token": info["token"]},
        }
        if "gt_boxes" in info:
            sample.update(self._labels(info))
        elif unlabelled:
            sample.update(gt_boxes=np.zeros((0, self._box_columns), np.float32), gt_names=np.empty(0, dtype="<U1"))
        if unlabelled:
            sample["unlabelled"] = True  # nothing is pasted into it
        return sample

    def _labels(self, info: dict) -> dict:
        keep = self._has_points(info)
        boxes = boxes_of_info(info)[keep, : self._box_columns].astype(np.float32)
        if self.config.set_nan_velocity_to_zeros:
            boxes[np.isnan(boxes)] = 0.0
        return {"gt_names": info["gt_names"][keep], "gt_boxes": boxes}

    @property
    def _box_columns(self) -> int:
        return 9 if self.config.pred_velocity else 7

    def _has_points(self, info: dict) -> np.ndarray:
        """(N,) bool: boxes with at least FILTER_MIN_POINTS_IN_GT points; all where the info does not count them."""
        least = self.config.filter_min_points_in_gt
        if "num_lidar_pts" not in info:
            return np.ones(len(info["gt_names"]), dtype=bool)
        return info["num_lidar_pts"] >= least

    def frame_labels(self, index: int) -> FrameLabels | None:
        """The labels of a frame, as ``object_labels.labels_of_info`` makes them; None without labels of its own."""
        number = int(self.order[index])
        return labels_of_info(self.infos[number]) if number < self.num_labelled else None

    def matching_rules(self) -> dict[str, MatchingRule]:
        """Class -> centres at most 2 m apart, the distance at which nuScenes' evaluation measures errors."""
        return {name: MatchingRule("distance", MATCHING_DISTANCE) for name in self.class_names}

    # --------------------------------------------------------------------------------------------------------- results

    @staticmethod
    def generate_prediction_dicts(
        batch_dict: dict, pred_dicts: list[dict], class_names: Sequence[str], output_path: Path | None = None
    ) -> list[dict]:
        """Results of a batch, one dict a frame, in the LiDAR frame.

        Args:
            batch_dict: with ``frame_id`` and ``metadata``.
            pred_dicts: per frame ``pred_boxes`` (N, 9), ``pred_scores`` (N,), ``pred_labels`` (N,) from 1.
            class_names: in the order of the labels.
            output_path: unused: nuScenes has one file for all frames, which ``evaluation`` writes.

        Returns:
            Dicts of ``name`` (N,), ``score`` (N,), ``boxes_lidar`` (N, 9), ``pred_labels`` (N,), ``frame_id`` and
            ``metadata`` with the sample's ``token``.
        """
        annos = DatasetTemplate.generate_prediction_dicts(batch_dict, pred_dicts, class_names)
        for anno, metadata in zip(annos, batch_dict["metadata"], strict=True):
            anno["metadata"] = metadata
        return annos

    def prepare_evaluation(self) -> None:
        """Reads the labels that results will be compared with.

        Raises:
            DataError: they cannot be evaluated, see ``evaluation.read_labels``.
        """
        from pcdet.datasets.nuscenes.evaluation import read_labels

        read_labels(self.root_path, self.config.version, self.infos)

    def evaluation(self, det_annos: list[dict], class_names: Sequence[str], **kwargs: Any) -> tuple[str | None, dict]:
        """The mAP, NDS and errors of nuScenes as a text and a dict; (None, {}) where the split has no labels.

        Args:
            det_annos: what ``generate_prediction_dicts`` has made of all frames.
            class_names: in the order of the labels.
            **kwargs: ``output_path``, where ``results_nusc.json`` goes.

        Raises:
            DataError: results are missing, repeated or of other frames.
        """
        from pcdet.datasets.nuscenes.evaluation import evaluate_annos

        return evaluate_annos(
            self._in_frame_order(det_annos),
            class_names,
            root_path=self.root_path,
            version=self.config.version,
            infos=self.infos,
            output_path=kwargs.get("output_path"),
        )

    def frame_scores(self, det_annos: list[dict], class_names: Sequence[str], metric: str = "NDS") -> FrameScores:
        """What each frame adds to the NDS or mAP of ``evaluation``, so that resamples of frames can be scored.

        Args:
            det_annos: of all frames of the split.
            class_names: in the order of the labels; the scores are always those of nuScenes' ten classes.
            metric: "NDS" or "mAP".

        Raises:
            DataError: results are missing, repeated or of other frames, or the frames have no labels.
            ValueError: an unknown metric.
        """
        from pcdet.datasets.nuscenes.evaluation import frame_scores_of_annos

        return frame_scores_of_annos(
            self._in_frame_order(det_annos),
            root_path=self.root_path,
            version=self.config.version,
            infos=self.infos,
            metric=metric,
        )

    def _in_frame_order(self, det_annos: list[dict]) -> list[dict]:
        """Results in the order of the infos; DataError for missing, repeated and unknown frames."""
        return in_frame_order(det_annos, [frame_name(self.infos[i]) for i in range(len(self.infos))])


if __name__ == "__main__":
    from pcdet.cli.create_nuscenes_infos import main

    raise SystemExit(main())
