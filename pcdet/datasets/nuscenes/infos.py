"""The info of a sample, in OpenPCDet's form, from the tables of a release. Clouds are not read."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import Any

import numpy as np

from pcdet.datasets.errors import DataError
from pcdet.datasets.nuscenes.categories import detection_class
from pcdet.datasets.nuscenes.poses import inverse, matrices_of, pose_of
from pcdet.datasets.nuscenes.table_rows import MATRIX, Row, column, field_problems
from pcdet.datasets.nuscenes.tables import Tables
from pcdet.datasets.nuscenes.velocities import SECONDS, velocities_of


class InfoMaker:
    """Makes infos of samples.

    Args:
        tables: of the release.
        max_sweeps: clouds in a sample, the key frame among them.
        labelled: whether the samples have labels; a test split has none.
    """

    def __init__(self, tables: Tables, max_sweeps: int, labelled: bool):
        self.tables, self.max_sweeps, self.labelled = tables, max_sweeps, labelled
        self._sensor_poses: dict[str, np.ndarray] = {}  # a release has a few sensors, and poses without end

    def make(self, sample: Row) -> dict[str, Any]:
        """The info of a sample; ``docs/NUSCENES.md`` says what its keys are.

        Raises:
            DataError: a row is missing, or a category is unknown; the sample is named.
        """
        try:
            return self._make(sample)
        except DataError as error:
            raise DataError([f"sample {sample['token']}: {problem}" for problem in error.problems]) from None

    def _make(self, sample: Row) -> dict[str, Any]:
        key_frame = self.tables.key_frames.get(sample["token"])
        if key_frame is None:
            raise DataError("sample_data.json has no key frame of LIDAR_TOP for it; copy the table again")
        ref_from_car = inverse(self._sensor_pose(key_frame))
        car_from_global = inverse(self._car_pose(key_frame))
        info = {
            "lidar_path": key_frame["filename"],
            "token": sample["token"],
            "sweeps": self._sweeps(key_frame, ref_from_car @ car_from_global),
            "ref_from_car": ref_from_car,
            "car_from_global": car_from_global,
            "timestamp": key_frame["timestamp"] * SECONDS,
        }
        info.update(self._camera(sample["token"]))
        if self.labelled:
            info.update(self._labels(sample["token"], ref_from_car @ car_from_global))
        return info

    def _sensor_pose(self, data: Row) -> np.ndarray:
        token = data["calibrated_sensor_token"]
        if token not in self._sensor_poses:
            self._sensor_poses[token] = pose_of(self.tables.get("calibrated_sensor", token))
        return self._sensor_poses[token]

    def _car_pose(self, data: Row) -> np.ndarray:
        return pose_of(self.tables.get("ego_pose", data["ego_pose_token"]))

    # ------------------------------------------------------------------------------------------------------ sweeps

    def _sweeps(self, key_frame: Row, ref_from_global: np.ndarray) -> list[dict[str, Any]]:
        """The clouds before a key frame, the latest first; at a scene's start the earliest is repeated."""
        sweeps: list[dict[str, Any]] = []
        data = key_frame
        while len(sweeps) < self.max_sweeps - 1:
            if data["prev"]:
                data = self.tables.get("sample_data", data["prev"])
                sweeps.append(self._sweep(data, key_frame, ref_from_global))
            else:
                sweeps.append(sweeps[-1] if sweeps else _itself(key_frame))
        return sweeps

    def _sweep(self, data: Row, key_frame: Row, ref_from_global: np.ndarray) -> dict[str, Any]:
        global_from_car, car_from_current = self._car_pose(data), self._sensor_pose(data)
        return {
            "lidar_path": data["filename"],
            "sample_data_token": data["token"],
            "transform_matrix": ref_from_global @ global_from_car @ car_from_current,
            "global_from_car": global_from_car,
            "car_from_current": car_from_current,
            "time_lag": (key_frame["timestamp"] - data["timestamp"]) * SECONDS,
        }

    # ------------------------------------------------------------------------------------------------------ camera

    @cached_property
    def _front_images(self) -> dict[str, Row]:
        """Token of a sample -> the row of its front camera's key frame; releases without images have none."""
        return self.tables.key_frames_of("CAM_FRONT")

    def _camera(self, sample_token: str) -> dict[str, Any]:
        data = self._front_images.get(sample_token)
        if data is None:
            return {}
        sensor = self.tables.get("calibrated_sensor", data["calibrated_sensor_token"])
        if problems := field_problems(
            self.tables.folder / "calibrated_sensor.json", [sensor], "camera_intrinsic", MATRIX
        ):
            raise DataError(problems)
        intrinsic = np.array(sensor["camera_intrinsic"], dtype=np.float64)
        return {"cam_front_path": data["filename"], "cam_intrinsic": intrinsic}

    # ------------------------------------------------------------------------------------------------------ labels

    @cached_property
    def _annotations(self) -> dict[str, list[Row]]:
        """Token of a sample -> its labels, in the order of the table."""
        found = defaultdict(list)
        for row in self.tables.rows("sample_annotation"):
            found[row["sample_token"]].append(row)
        return found

    def _labels(self, sample_token: str, ref_from_global: np.ndarray) -> dict[str, Any]:
        """Boxes, velocities and names of the objects that a LiDAR or radar point has hit."""
        rows = self._annotations.get(sample_token, [])
        rows = [row for row in rows if row["num_lidar_pts"] + row["num_radar_pts"] > 0]
        names = [detection_class(self.tables.category_of(row)) for row in rows]
        boxes, velocity = self._boxes(rows, ref_from_global)
        return {
            "gt_boxes": np.concatenate([boxes, velocity[:, :2]], axis=1),
            "gt_boxes_velocity": velocity,
            "gt_names": np.array(names, dtype=str if names else "<U1"),
            "gt_boxes_token": np.array([row["token"] for row in rows], dtype=str if rows else "<U1"),
            "num_lidar_pts": np.array([row["num_lidar_pts"] for row in rows], dtype=np.int64),
            "num_radar_pts": np.array([row["num_radar_pts"] for row in rows], dtype=np.int64),
        }

    def _boxes(self, rows: list[Row], ref_from_global: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 7) boxes and (N, 3) velocities in the LiDAR frame."""
        turn, shift = ref_from_global[:3, :3], ref_from_global[:3, 3]
        centers = column(rows, "translation", 3) @ turn.T + shift
        ahead = turn @ matrices_of(column(rows, "rotation", 4))[:, :, 0, None]  # the box's x axis
        yaws = np.arctan2(ahead[:, 1], ahead[:, 0])
        width, length, height = column(rows, "size", 3).T[:, :, None]
        velocity = velocities_of(self.tables, rows) @ turn.T
        return np.concatenate([centers, length, width, height, yaws], axis=1), velocity


def _itself(key_frame: Row) -> dict[str, Any]:
    """The key frame as its own sweep, where nothing was recorded before it."""
    return {
        "lidar_path": key_frame["filename"],
        "sample_data_token": key_frame["token"],
        "transform_matrix": None,
        "time_lag": 0.0,
    }
