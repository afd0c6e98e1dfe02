"""KITTI's object detection data: frames from info files, results in KITTI's form, its evaluation.

As a program it prepares a folder: ``python -m pcdet.datasets.kitti.kitti_dataset create_kitti_infos CFG``.
"""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pcdet.datasets.dataset import DatasetTemplate, prediction_arrays
from pcdet.datasets.errors import BadFrameError, DataError
from pcdet.datasets.file_names import frame_file
from pcdet.datasets.frame_labels import FrameLabels, MatchingRule
from pcdet.datasets.kitti.info_checks import check_infos
from pcdet.datasets.kitti.kitti_infos import create_kitti_infos
from pcdet.datasets.kitti.kitti_utils import (
    LARGEST_IMAGE,
    calibration_of,
    fov_flag,
    lidar_fov_flag,
    read_road_plane,
    write_result_file,
)
from pcdet.datasets.kitti.lidar_annos import in_kitti_classes, kitti_classes
from pcdet.datasets.kitti.object_labels import (
    DIFFICULTY,
    OCCLUSION,
    boxes_of_objects,
    kitti_matching_rules,
    labels_of_info,
)
from pcdet.datasets.pickles import read_pickle
from pcdet.datasets.point_files import read_points
from pcdet.datasets.pseudo_labels import PseudoLabels
from pcdet.datasets.results import in_frame_order, repeated_frames
from pcdet.registry import DATASETS
from pcdet.utils.box_utils import (
    boxes3d_kitti_camera_to_imageboxes,
    boxes3d_lidar_to_kitti_camera,
)
from pcdet.utils.calibration_kitti import Calibration
from pcdet.utils.safe_files import sha256_of

if TYPE_CHECKING:
    from pcdet.datasets.kitti.kitti_object_eval_python.by_frame import FrameScores

__all__ = ["KittiDataset", "create_kitti_infos"]

NO_LABELS = np.empty(0, dtype="<U1"), np.zeros((0, 7), np.float32)
CREATE_COMMAND = "python -m pcdet.datasets.kitti.kitti_dataset create_kitti_infos CFG"


@DATASETS.register
class KittiDataset(DatasetTemplate):
    """Frames of a folder in KITTI's layout that ``create_kitti_infos`` has prepared.

    Attributes:
        kitti_infos: what is known of each frame, in OpenPCDet's form; a frame that only a teacher labels also has
            ``unlabelled_split``, the name of its split.
        split: name of the split.
        root_split_path: folder of the split's frames.
        pseudo_labels: of the frames without labels; None where their teacher labels them in the training.
        bad_frames: frames left out because of SKIP_BAD_FRAMES.
    """

    UNLABELLED_FRAMES = True
    LABEL_ATTRIBUTES: ClassVar[Mapping[str, Sequence[str]]] = {"occlusion": OCCLUSION, "difficulty": DIFFICULTY}

    def find_frames(self) -> None:
        """Reads the info files of the split, and tells what is missing."""
        self.split = self.config.data_split[self.mode]
        self.root_split_path = self._folder_of(self.split)
        self._info_digests: list[str] = []
        self.kitti_infos = self._read_infos(self.config.info_path[self.mode])
        if self.training:
            self.kitti_infos += self._read_unlabelled_infos()
        self._check_repeated()
        self.bad_frames: list[str] = []
        if self.config.skip_bad_frames:
            self._leave_out_bad_frames()
        self.pseudo_labels = self._read_pseudo_labels() if self.training else None
        self.logger.info(f"KITTI {self.split}: {len(self.kitti_infos)} frames")
        self._tell_missing_planes()

    def _folder_of(self, split: str) -> Path:
        return self.root_path / ("testing" if split == "test" else "training")

    def _elsewhere(self, info: dict) -> tuple[Path, ...]:
        """The folder of a frame of another split than this data set's; nothing for its own frames."""
        split = info.get("unlabelled_split", self.split)
        return () if split == self.split else (self._folder_of(split),)

    def _read_unlabelled_infos(self) -> list[dict]:
        """Infos of frames that only a teacher labels. Labels that they have are not looked at."""
        names, split = self.config.info_path.get("unlabelled", []), self.config.data_split.get("unlabelled")
        infos = self._read_infos(names)
        if infos and "gt_boxes2d" in self.config.get_item_list:
            raise DataError(
                "INFO_PATH.unlabelled: these frames have no boxes in the image; take gt_boxes2d out of GET_ITEM_LIST"
            )
        if split is None and (lacking := [info for info in infos if "annos" not in info]):
            raise DataError(
                f"INFO_PATH.unlabelled: {len(lacking)} of {len(infos)} frames have no annos, as those of KITTI's test "
                "split, whose numbers stand in training/ for other frames; set DATA_SPLIT.unlabelled to test for "
                f"frames of testing/, or to {self.split} for those of training/"
            )
        if names:
            self._info_digests.append(f"unlabelled frames of {split or self.split}")
        return [
            {key: value for key, value in info.items() if key != "annos"} | {"unlabelled_split": split or self.split}
            for info in infos
        ]

    def _read_pseudo_labels(self) -> PseudoLabels | None:
        """Labels of the unlabelled frames that are trained on; None where no file has them."""
        if self.config.pseudo_labels is None:
            return None
        frames = [info["point_cloud"]["lidar_idx"] for info in self.kitti_infos if "unlabelled_split" in info]
        found = PseudoLabels(self.config.pseudo_labels, self.class_names, columns=7, frames=frames)
        self._info_digests.append(found.digest)
        self.logger.info(f"PSEUDO_LABELS: {found}")
        return found

    def _read_infos(self, names: Sequence[str]) -> list[dict]:
        infos: list[dict] = []
        for name in names:
            path = self.root_path / name
            if not path.is_file():
                raise DataError(
                    f"{path} does not exist; make it with `{CREATE_COMMAND}` (DATA_CONFIG.DATA_PATH is "
                    f"{self.config.data_path!r}, which means {self.root_path.absolute()})"
                )
            self._info_digests.append(sha256_of(path))
            content = read_pickle(path)
            check_infos(content, path)
            infos += content
        return infos

    def _check_repeated(self) -> None:
        """DataError for a frame that is evaluated twice; a warning for one that is trained on twice."""
        # A number of testing/ names another frame than the same one of training/.
        splits = [info.get("unlabelled_split", self.split) for info in self.kitti_infos]
        names = [info["point_cloud"]["lidar_idx"] for info in self.kitti_infos]
        repeated = repeated_frames(
            f"testing/{name}" if split == "test" != self.split else name
            for split, name in zip(splits, names, strict=True)
        )
        if repeated and not self.training:
            raise DataError(f"INFO_PATH: the {self.split} split holds frames more than once: {repeated}")
        if repeated:
            self.logger.warning(f"INFO_PATH: the {self.split} split holds frames more than once: {repeated}")

    def class_counts(self) -> dict[str, int] | None:
        """Objects of each class, the most frequent first, without DontCare; None without labels.

        Those of PSEUDO_LABELS count too.
        """
        names = [info["annos"]["name"] for info in self.kitti_infos if "annos" in info]
        if not names and self.pseudo_labels is None:
            return None
        counts = Counter(name for of_frame in names for name in of_frame.tolist())
        if self.pseudo_labels is not None:
            counts += self.pseudo_labels.class_counts()
        return {name: count for name, count in counts.most_common() if name != "DontCare"}

    def _leave_out_bad_frames(self) -> None:
        """Reads every cloud once and drops the frames whose cloud is damaged."""

        def complaint(info: dict) -> str | None:
            try:
                self.get_lidar(info["point_cloud"]["lidar_idx"], *self._elsewhere(info))
            except (BadFrameError, OSError) as error:
                return str(error)
            return None

        with ThreadPoolExecutor(4) as pool:
            complaints = list(pool.map(complaint, self.kitti_infos))
        for info, text in zip(self.kitti_infos, complaints, strict=True):
            if text is not None:
                self.bad_frames.append(info["point_cloud"]["lidar_idx"])
                self.logger.warning(f"SKIP_BAD_FRAMES: {text}")
        if self.bad_frames:
            self.kitti_infos = [i for i, text in zip(self.kitti_infos, complaints, strict=True) if text is None]
            self.logger.warning(f"SKIP_BAD_FRAMES: left out {len(self.bad_frames)} of {len(complaints)} frames")

    def _tell_missing_planes(self) -> None:
        """One warning, here and not in every worker and epoch, if objects cannot be set on the road everywhere."""
        augmentors = self.data_augmentor.data_augmentor_queue if self.training else []
        if not any(getattr(augmentor, "use_road_plane", False) for augmentor in augmentors):
            return
        folder = self.root_split_path / "planes"
        there = {path.stem for path in folder.glob("*.txt")}
        labelled = [info["point_cloud"]["lidar_idx"] for info in self.kitti_infos if "unlabelled_split" not in info]
        lacking = sum(name not in there for name in labelled)
        if lacking:
            self.logger.warning(
                f"gt_sampling: USE_ROAD_PLANE is True, but {lacking} of {len(labelled)} frames have no file in "
                f"{folder}; objects pasted into them keep the height of their own scene"
            )

    @property
    def fingerprint(self) -> str:
        """Changes when the info files or the frames that are used change."""
        return hashlib.sha256("\n".join(self._info_digests + self.bad_frames).encode()).hexdigest()[:16]

    # ----------------------------------------------------------------------------------------------------------- files

    def get_lidar(self, idx: str, folder: Path | None = None) -> np.ndarray:
        """(N, 4) float32 [x, y, z, intensity], LiDAR frame; of another folder than the split's if one is given."""
        path = (folder or self.root_split_path) / "velodyne" / f"{idx}.bin"
        return read_points(path, len(self.point_feature_encoder.src_feature_list))

    def get_image(self, idx: str, folder: Path | None = None) -> np.ndarray:
        """(H, W, 3) float32 RGB in [0, 1]; of another folder than the split's if one is given."""
        from PIL import Image

        with Image.open((folder or self.root_split_path) / "image_2" / f"{idx}.png") as image:
            return np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0

    def get_calib(self, idx: str) -> Calibration:
        """Calibration of a frame, from its file."""
        return Calibration(self.root_split_path / "calib" / f"{idx}.txt")

    def get_road_plane(self, idx: str, folder: Path | None = None) -> np.ndarray | None:
        """(4,) plane in the rectified camera frame; None if there is no file."""
        path = (folder or self.root_split_path) / "planes" / f"{idx}.txt"
        return read_road_plane(path) if path.is_file() else None

    get_fov_flag = staticmethod(fov_flag)

    # --------------------------------------------------------------------------------------------------------- samples

    def num_frames(self) -> int:
        """Frames of the split."""
        return len(self.kitti_infos)

    def load_frame(self, index: int) -> dict:
        """A frame: points, labels of all classes but DontCare, calibration, image shape."""
        info = self.kitti_infos[index]
        idx, calib, elsewhere = info["point_cloud"]["lidar_idx"], calibration_of(info), self._elsewhere(info)
        sample: dict[str, Any] = {"frame_id": idx, "calib": calib}
        if "annos" in info:
            sample.update(self._labels(info["annos"], calib))
        elif "unlabelled_split" in info:
            names, boxes = NO_LABELS if self.pseudo_labels is None else self.pseudo_labels[idx]
            sample.update(gt_boxes=boxes, gt_names=names, unlabelled=True)
        if "gt_boxes" in sample and (plane := self.get_road_plane(idx, *elsewhere)) is not None:
            sample["road_plane"] = plane
        items = self.config.get_item_list
        if "points" in items:
            points = self.get_lidar(idx, *elsewhere)
            if self.config.fov_points_only:
                points = points[lidar_fov_flag(points, fov_shape(info["image"]), calib)]
            sample["points"] = points
        if "images" in items:
            sample["images"] = self.get_image(idx, *elsewhere)
        if "calib_matricies" in items:
            sample["trans_lidar_to_cam"] = calib.lidar_to_rect_matrix.astype(np.float32)
            sample["trans_cam_to_img"] = np.vstack([calib.P2, [0, 0, 0, 1]]).astype(np.float32)
        sample["image_shape"] = np.asarray(info["image"]["image_shape"], dtype=np.int32)
        return sample

    def _labels(self, annos: dict, calib: Calibration) -> dict:
        is_object, boxes = boxes_of_objects(annos, calib)
        labels = {"gt_names": annos["name"][is_object], "gt_boxes": boxes.astype(np.float32)}
        if "gt_boxes2d" in self.config.get_item_list:
            labels["gt_boxes2d"] = annos["bbox"][is_object].astype(np.float32)
        return labels

    def frame_labels(self, index: int) -> FrameLabels | None:
        """The labels of a frame, from its info: points in the camera's view, occlusion, difficulty, neighbour classes.

        The difficulty is the easiest level at which the evaluation counts the object. None without labels.
        """
        return labels_of_info(self.kitti_infos[index], self.class_names, self.config.map_class_to_kitti)

    def matching_rules(self) -> dict[str, MatchingRule]:
        """Class -> the strict 3D overlap of KITTI's evaluation.

        Raises:
            ValueError: a class that the evaluation does not know.
        """
        return kitti_matching_rules(self.class_names, self.config.map_class_to_kitti)

    # --------------------------------------------------------------------------------------------------------- results

    @staticmethod
    def generate_prediction_dicts(
        batch_dict: dict, pred_dicts: list[dict], class_names: Sequence[str], output_path: Path | None = None
    ) -> list[dict]:
        """Results of a batch in KITTI's form, one dict a frame.

        Args:
            batch_dict: with ``frame_id``, ``calib`` and ``image_shape`` (B, 2).
            pred_dicts: per frame ``pred_boxes`` (N, 7+), ``pred_scores`` (N,), ``pred_labels`` (N,) from 1.
            class_names: in the order of the labels.
            output_path: folder for KITTI's txt files, one a frame; none are written if it is None.

        Returns:
            Dicts of ``name, truncated, occluded, alpha, bbox (N, 4), dimensions (N, 3) [l, h, w], location (N, 3),
            rotation_y, score, boxes_lidar (N, 7), frame_id``.
        """
        annos = []
        shapes = np.asarray(batch_dict["image_shape"].tolist())  # of all frames, since the GPU has them by now
        for i, prediction in enumerate(pred_dicts):
            anno = prediction_anno(prediction, batch_dict["calib"][i], shapes[i], class_names)
            anno["frame_id"] = batch_dict["frame_id"][i]
            if output_path is not None:
                write_result_file(frame_file(output_path, anno["frame_id"], ".txt"), anno)
            annos.append(anno)
        return annos

    def evaluation(self, det_annos: list[dict], class_names: Sequence[str], **kwargs: Any) -> tuple[str | None, dict]:
        """KITTI's table and OpenPCDet's dict of numbers; (None, {}) where the split has no labels.

        Results are matched to frames by ``frame_id`` where they have one. Classes are renamed by MAP_CLASS_TO_KITTI.

        Raises:
            DataError: results are missing, repeated or of other frames, or some frames have no labels; all are named.
        """
        if not any("annos" in info for info in self.kitti_infos):
            return None, {}
        from pcdet.datasets.kitti.kitti_object_eval_python.eval import get_official_eval_result

        return get_official_eval_result(*self._to_evaluate(det_annos, class_names))

    def frame_scores(self, det_annos: list[dict], class_names: Sequence[str], metric: str = "3d") -> FrameScores:
        """What each frame adds to the moderate AP of ``evaluation``, so that resamples of frames can be scored.

        Args:
            det_annos: of all frames of the split.
            class_names: in the order of the labels.
            metric: "3d" or "bev".

        Raises:
            DataError: results are missing, repeated or of other frames, or some frames have no labels; all are named.
        """
        from pcdet.datasets.kitti.kitti_object_eval_python.by_frame import frame_scores

        return frame_scores(*self._to_evaluate(det_annos, class_names), metric=metric)

    def _to_evaluate(self, det_annos: list[dict], class_names: Sequence[str]) -> tuple[list, list, list[str]]:
        """(labels, detections in the order of the frames, classes), all by KITTI's names."""
        unlabelled = [info["point_cloud"]["lidar_idx"] for info in self.kitti_infos if "annos" not in info]
        if unlabelled:
            raise DataError(
                f"{len(unlabelled)} of {len(self.kitti_infos)} frames have no labels, such as {unlabelled[0]}"
            )
        mapping = self.config.map_class_to_kitti
        frames = [info["point_cloud"]["lidar_idx"] for info in self.kitti_infos]
        det_annos = in_kitti_classes(copy.deepcopy(in_frame_order(det_annos, frames)), mapping)
        gt_annos = in_kitti_classes([copy.deepcopy(info["annos"]) for info in self.kitti_infos], mapping)
        return gt_annos, det_annos, kitti_classes(class_names, mapping)


def fov_shape(image_info: dict) -> tuple[int, int]:
    """(rows, columns) by which a frame's cloud is cropped.

    Where there was no image to measure, the largest of KITTI's, so that no point is cut that the image may have shown.
    """
    rows, columns = (int(n) for n in image_info["image_shape"])
    if image_info.get("image_shape_source", "image") == "image":
        return rows, columns
    return max(rows, LARGEST_IMAGE[0]), max(columns, LARGEST_IMAGE[1])


def prediction_anno(prediction: dict, calib: Calibration, image_shape: np.ndarray, class_names: Sequence[str]) -> dict:
    """Predictions of one frame as an annotation in KITTI's form, without ``frame_id``."""
    boxes, scores, labels = prediction_arrays(prediction)
    boxes = boxes.reshape(-1, boxes.shape[-1] if boxes.size else 7)[:, :7]
    camera = boxes3d_lidar_to_kitti_camera(boxes.astype(np.float64), calib)
    return {
        "name": np.array(class_names)[labels - 1] if len(labels) else np.array([], dtype="<U1"),
        "truncated": np.zeros(len(boxes)),
        "occluded": np.zeros(len(boxes)),
        "alpha": -np.arctan2(-boxes[:, 1], boxes[:, 0]) + camera[:, 6],
        "bbox": boxes3d_kitti_camera_to_imageboxes(camera, calib, image_shape=image_shape),
        "dimensions": camera[:, 3:6],
        "location": camera[:, :3],
        "rotation_y": camera[:, 6],
        "score": scores,
        "boxes_lidar": boxes,
    }


if __name__ == "__main__":
    from pcdet.cli.create_kitti_infos import main

    raise SystemExit(main())
