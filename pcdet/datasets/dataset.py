"""What every data set shares: load a frame, transform it, collate."""

from __future__ import annotations

import dataclasses
import logging
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from pcdet.datasets.augmentor import DataAugmentor
from pcdet.datasets.collate import collate_batch
from pcdet.datasets.config import DataConfig, encoder_node
from pcdet.datasets.errors import DataError
from pcdet.datasets.frame_labels import FrameLabels, MatchingRule, labels_of_sample
from pcdet.datasets.kitti.metrics import KITTI_METRICS
from pcdet.datasets.metrics import EvaluationMetrics
from pcdet.datasets.processor import DataProcessor
from pcdet.datasets.seeding import SAMPLE, draw_seed, generator_for
from pcdet.registry import POINT_ENCODERS, ConfigError, build_from_cfg, parse_node
from pcdet.utils.common_utils import limit_period
from pcdet.utils.places import ROOT


def resolve_data_path(data_path: str | Path) -> Path:
    """The folder that DATA_PATH means: from the working directory, else from the repository's ``tools/``.

    In an installed package the working directory stands for the repository: ``../data/kitti`` is its ``data/kitti``.
    """
    path = Path(data_path)
    from_tools = (ROOT / "tools" / path).resolve()
    return path if path.is_absolute() or path.is_dir() or not from_tools.is_dir() else from_tools


class DatasetTemplate(Dataset):
    """A data set in the LiDAR frame (x forward, y left, z up; metres).

    A data set of your own needs ``num_frames`` and ``load_frame``, for evaluation ``evaluation`` and, where the form of
    the results differs, ``generate_prediction_dicts``. Classes written for OpenPCDet, which have ``__getitem__`` and
    ``__len__`` and call ``prepare_data``, work too.

    Args:
        dataset_cfg: DATA_CONFIG.
        class_names: classes in the order of their numbers, which begin at 1.
        training: whether samples are augmented, and which split is read.
        root_path: folder of the data; DATA_PATH by default.
        logger: for what is found and missing.

    Attributes:
        SCHEMA: the keys that DATA_CONFIG may have; further ones go into a subclass of ``DataConfig``.
        UNLABELLED_FRAMES: whether ``find_frames`` reads INFO_PATH.unlabelled and PSEUDO_LABELS, which are refused else.
        LABEL_ATTRIBUTES: what ``frame_labels`` tells of an object beside its box, each with its values in order.
        METRICS: what ``evaluation`` measures: KITTI's, unless a data set says otherwise.
    """

    SCHEMA: type = DataConfig
    UNLABELLED_FRAMES: ClassVar[bool] = False
    LABEL_ATTRIBUTES: ClassVar[Mapping[str, Sequence[str]]] = {}
    METRICS: ClassVar[EvaluationMetrics] = KITTI_METRICS

    def __init__(
        self,
        dataset_cfg: dict,
        class_names: Sequence[str],
        training: bool = True,
        root_path: str | Path | None = None,
        logger: logging.Logger | None = None,
    ):
        super().__init__()
        self.dataset_cfg = dataset_cfg
        self.config = parse_node(dataset_cfg, self.SCHEMA, path="DATA_CONFIG")
        self.class_names = list(class_names)
        self.training = training
        self.logger = logger or logging.getLogger("pcdet")
        self.root_path = resolve_data_path(root_path if root_path is not None else self.config.data_path)
        self.point_cloud_range = np.array(self.config.point_cloud_range, dtype=np.float32)
        self.seed: int = draw_seed() if training else 0  # tests repeat themselves without being asked to
        self.epoch = self.rank = 0
        self.total_epochs = 1
        self._check_unlabelled()
        self._build_transforms()
        self.find_frames()

    def _check_unlabelled(self) -> None:
        """ConfigError where frames without labels are asked for that this data set would leave out unsaid."""
        if self.training and self.config.info_path.get("unlabelled") and not self.UNLABELLED_FRAMES:
            raise ConfigError(
                f"DATA_CONFIG.INFO_PATH.unlabelled: {type(self).__name__} reads no frames without labels; remove it, "
                "or read them in find_frames and set UNLABELLED_FRAMES = True in the class"
            )

    def find_frames(self) -> None:
        """Finds the frames of the split; called once, at the end of construction."""

    def _build_transforms(self) -> None:
        self.point_feature_encoder = build_from_cfg(
            encoder_node(self.config.point_feature_encoding),
            POINT_ENCODERS,
            path="DATA_CONFIG.POINT_FEATURE_ENCODING",
            point_cloud_range=self.point_cloud_range,
        )
        self.data_augmentor = None
        if self.training:
            nodes = self.config.enabled_augmentors()
            self.data_augmentor = DataAugmentor(self.root_path, nodes, self.class_names, logger=self.logger)
        self.data_processor = DataProcessor(
            self.config.data_processor,
            point_cloud_range=self.point_cloud_range,
            training=self.training,
            num_point_features=self.point_feature_encoder.num_point_features,
        )
        self.grid_size = self.data_processor.grid_size
        self.voxel_size = self.data_processor.voxel_size
        self.depth_downsample_factor = None

    @property
    def mode(self) -> str:
        """``train`` or ``test``."""
        return "train" if self.training else "test"

    # ------------------------------------------------------------------------------------------------------ randomness

    def set_seed(self, seed: int, rank: int = 0) -> None:
        """Fixes the randomness of all samples. In testing the rank plays no part."""
        self.seed, self.rank = seed, rank if self.training else 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch, before the loader starts its workers for it. In testing every epoch is the same."""
        self.epoch = epoch if self.training else 0

    def sample_rng(self, index: int) -> np.random.Generator:
        """The generator of one sample in this epoch, independent of workers and of other samples."""
        return generator_for(SAMPLE, self.seed, self.epoch, self.rank, index)

    # --------------------------------------------------------------------------------------------------------- samples

    def merge_all_iters_to_one_epoch(self, merge: bool = True, epochs: int | None = None) -> None:
        """Makes one long epoch of ``epochs`` short ones, or undoes it; in training only."""
        self.total_epochs = epochs if merge and self.training and epochs else 1

    def num_frames(self) -> int:
        """Frames of the split, each counted once."""
        raise NotImplementedError(f"{type(self).__name__} must define num_frames(), or __len__ and __getitem__")

    def class_counts(self) -> dict[str, int] | None:
        """Labelled objects of each class in the split, before any augmentation; None where that is not known.

        A data set that can tell without reading its clouds should: a training on names that no label has is refused.
        """
        return None

    def frame_labels(self, index: int) -> FrameLabels | None:
        """The labels of a frame, for whoever asks single objects; None without labels.

        By default those of ``load_frame``: its cloud is read, and the points in each box are counted. With
        MAP_CLASS_TO_KITTI, neighbour classes are neutral, as in ``evaluation``.

        Raises:
            DataError: the labels cannot be used; the frame is named.
        """
        labels = labels_of_sample(self.load_frame(index))
        if labels is None or self.config.map_class_to_kitti is None:
            return labels
        from pcdet.datasets.kitti.object_labels import neutral_classes

        neutral = neutral_classes(labels.names, self.class_names, self.config.map_class_to_kitti)
        return dataclasses.replace(labels, neutral=neutral)

    def matching_rules(self) -> dict[str, MatchingRule]:
        """Class -> when a detection finds an object of it.

        By default a 3D overlap of at least 0.5, or with MAP_CLASS_TO_KITTI the one that ``evaluation`` asks for.

        Raises:
            ValueError: a class, by MAP_CLASS_TO_KITTI, that KITTI's evaluation does not know.
        """
        if self.config.map_class_to_kitti is None:
            return {name: MatchingRule("overlap", 0.5) for name in self.class_names}
        from pcdet.datasets.kitti.object_labels import kitti_matching_rules

        return kitti_matching_rules(self.class_names, self.config.map_class_to_kitti)

    def __len__(self) -> int:
        return self.num_frames() * self.total_epochs

    def load_frame(self, index: int) -> dict:
        """The frame as it lies on disk.

        Returns:
            ``points`` (N, C) float32, ``frame_id`` str and, where there are labels, ``gt_boxes`` (M, 7+) and
            ``gt_names`` (M,). Further entries are stacked in the batch.
        """
        raise NotImplementedError(f"{type(self).__name__} must define load_frame(index), or __len__ and __getitem__")

    def __getitem__(self, index: int) -> dict:
        return self.prepare_data(self.load_frame(index % self.num_frames()), self.sample_rng(index))

    def prepare_data(self, data_dict: dict, rng: np.random.Generator | None = None) -> dict:
        """A sample as the models take it: augmented (in training), labels numbered, features chosen, voxelised.

        A training frame in which no box survives stays, as background with ``gt_boxes`` (0, 8).

        Args:
            data_dict: what ``load_frame`` returns.
            rng: where all randomness comes from; by default a generator of this frame and epoch.

        Returns:
            The sample. ``gt_boxes`` (M, 8+) ends with the class number, 1 for the first class; ``lidar_aug_matrix``
            (4, 4) leads from the sensor's frame to the sample's; ``gt_names`` is gone.
        """
        if rng is None:
            rng = self.sample_rng(zlib.crc32(str(data_dict.get("frame_id")).encode()))
        if self.training:
            if "gt_boxes" not in data_dict:
                raise DataError(f"frame {data_dict.get('frame_id')} has no labels; training needs gt_boxes")
            data_dict = self.data_augmentor.forward(data_dict, rng)
            data_dict["gt_boxes"][:, 6] = limit_period(data_dict["gt_boxes"][:, 6], offset=0.5, period=2 * np.pi)
        data_dict.setdefault("lidar_aug_matrix", np.eye(4, dtype=np.float32))
        if data_dict.get("gt_boxes") is not None:
            data_dict = self._number_labels(data_dict)
        if data_dict.get("points") is not None:
            data_dict = self.point_feature_encoder.forward(data_dict)
        data_dict = self.data_processor.forward(data_dict, rng)
        for key in ("gt_names", "unlabelled"):  # for the augmentors alone
            data_dict.pop(key, None)
        return data_dict

    def _number_labels(self, sample: dict) -> dict:
        """Keeps the boxes of ``class_names`` and appends their class numbers."""
        numbers = {name: i for i, name in enumerate(self.class_names, start=1)}
        classes = np.array([numbers.get(name, 0) for name in sample["gt_names"]], dtype=np.float32)
        wanted = classes > 0
        boxes = np.concatenate([sample["gt_boxes"], classes[:, None]], axis=1).astype(np.float32)
        sample["gt_boxes"] = boxes[wanted]
        sample["gt_names"] = sample["gt_names"][wanted]
        if "gt_boxes2d" in sample:
            sample["gt_boxes2d"] = sample["gt_boxes2d"][wanted]
        return sample

    collate_batch = staticmethod(collate_batch)

    # --------------------------------------------------------------------------------------------------------- results

    @staticmethod
    def generate_prediction_dicts(
        batch_dict: dict, pred_dicts: list[dict], class_names: Sequence[str], output_path: Path | None = None
    ) -> list[dict]:
        """Results of a batch, one dict a frame, in the LiDAR frame.

        Args:
            batch_dict: with ``frame_id``.
            pred_dicts: per frame ``pred_boxes`` (N, 7+), ``pred_scores`` (N,), ``pred_labels`` (N,) from 1.
            class_names: in the order of the labels.
            output_path: unused here; data sets with a file format of their own write to it.

        Returns:
            Dicts of ``name`` (N,), ``score`` (N,), ``boxes_lidar`` (N, 7+), ``pred_labels`` (N,), ``frame_id``.
        """
        annos = []
        for frame_id, prediction in zip(batch_dict["frame_id"], pred_dicts, strict=True):
            boxes, scores, labels = prediction_arrays(prediction)
            annos.append(
                {
                    "name": np.array(class_names)[labels - 1] if len(labels) else np.array([], dtype="<U1"),
                    "score": scores,
                    "boxes_lidar": boxes,
                    "pred_labels": labels,
                    "frame_id": frame_id,
                }
            )
        return annos

    def prepare_evaluation(self) -> None:
        """Raises what would keep results from being evaluated; an evaluation calls it before the first frame is seen.

        Only rank 0 calls it, which evaluates. Here it does nothing.
        """

    def evaluation(self, det_annos: list[dict], class_names: Sequence[str], **kwargs: Any) -> tuple[str | None, dict]:
        """A text and a dict of numbers; (None, {}) where the split has no labels.

        With MAP_CLASS_TO_KITTI, KITTI's table (bev and 3d, every object easy) of the boxes that ``load_frame`` returns:
        every frame is loaded once more.

        Args:
            det_annos: what ``generate_prediction_dicts`` has made of all frames.
            class_names: in the order of the labels.
            **kwargs: ``eval_metric``, which must be kitti here, and ``output_path``.

        Raises:
            NotImplementedError: there is no MAP_CLASS_TO_KITTI, or there are no ``num_frames`` and ``load_frame`` to
                take labels from, and the data set has no evaluation of its own.
            DataError: results are missing, repeated or of other frames, or some frames have no labels.
        """
        mapping, metric = self.config.map_class_to_kitti, kwargs.get("eval_metric", "kitti")
        if mapping is None or metric != "kitti":
            raise NotImplementedError(
                f"{type(self).__name__} has no evaluation for EVAL_METRIC {metric!r}: write one, or use kitti with "
                "DATA_CONFIG.MAP_CLASS_TO_KITTI"
            )
        lacking = [n for n in ("num_frames", "load_frame") if getattr(type(self), n) is getattr(DatasetTemplate, n)]
        if lacking:
            raise NotImplementedError(
                f"{type(self).__name__} has no {' and '.join(lacking)}, from which KITTI's evaluation takes the labels "
                "(MAP_CLASS_TO_KITTI): define them, or an evaluation of its own"
            )
        from pcdet.datasets.kitti.lidar_annos import evaluate_lidar_boxes

        frames = map(self.load_frame, range(self.num_frames()))  # one cloud in memory at a time
        labels = [{key: frame.get(key) for key in ("frame_id", "gt_names", "gt_boxes")} for frame in frames]
        return evaluate_lidar_boxes(labels, det_annos, class_names, mapping)


def prediction_arrays(prediction: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (N, 7+), scores (N,) and labels (N,) int64 of one frame's predictions, as numpy arrays."""

    def to_numpy(value: Any) -> np.ndarray:
        return value.detach().float().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)

    boxes, scores = to_numpy(prediction["pred_boxes"]), to_numpy(prediction["pred_scores"])
    return boxes, scores, to_numpy(prediction["pred_labels"]).astype(np.int64)
