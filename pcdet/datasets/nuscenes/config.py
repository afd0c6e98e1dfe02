"""The keys of a nuScenes data set's DATA_CONFIG."""

from __future__ import annotations

from dataclasses import dataclass

from pcdet.datasets.config import DataConfig
from pcdet.registry import ConfigError, Count


@dataclass(frozen=True, kw_only=True)
class NuScenesConfig(DataConfig):
    """DATA_CONFIG of nuScenes: the keys that all data sets share, and these.

    Attributes:
        version: of the release: v1.0-trainval, v1.0-mini or v1.0-test. The data lie in ``data_path/version``, or in
            ``data_path`` as nuScenes' own archives unpack.
        max_sweeps: clouds in a sample: its key frame and ``max_sweeps - 1`` sweeps before it.
        pred_velocity: boxes end with [vx, vy]; without it they have seven columns.
        set_nan_velocity_to_zeros: a velocity that nobody knows is 0; without it, it stays NaN.
        filter_min_points_in_gt: boxes with fewer LiDAR points in the key frame are left out; 0 keeps all.
        balanced_resampling: in training, frames with rare classes are repeated and others left out, so that each class
            stands in equally many (Zhu et al. 2019). Frames of ``info_path.unlabelled`` are not counted, and stand in
            each epoch once.
        camera_config: OpenPCDet's key; cameras are not read, so its USE_CAMERA must be False.
    """

    version: str
    max_sweeps: Count = 10
    pred_velocity: bool = True
    set_nan_velocity_to_zeros: bool = True
    filter_min_points_in_gt: int = 0
    balanced_resampling: bool = False
    camera_config: dict | None = None

    def __post_init__(self):
        """Checks what one key alone cannot show; ConfigError with every problem."""
        problems = []
        try:
            super().__post_init__()
        except ConfigError as error:
            problems += error.problems
        problems += [f"{key}: {NOT_READ}; remove it" for key in self._kitti_keys()]
        if self.camera_config is not None and self.camera_config.get("USE_CAMERA", True):  # OpenPCDet's default
            problems.append("CAMERA_CONFIG.USE_CAMERA: images are not read by this data set; set it to False")
        names = self.point_feature_encoding.get("src_feature_list")
        if names is not None and list(names) != POINT_FEATURES:
            problems.append(f"POINT_FEATURE_ENCODING.src_feature_list: must be {POINT_FEATURES}, got {list(names)}")
        if problems:
            raise ConfigError(problems)

    def _kitti_keys(self) -> list[str]:
        """Keys that are set and that only data in KITTI's layout know what to do with."""
        is_set = {
            "FOV_POINTS_ONLY": self.fov_points_only,
            "SKIP_BAD_FRAMES": self.skip_bad_frames,
            "MAP_CLASS_TO_KITTI": self.map_class_to_kitti,
            "GET_ITEM_LIST": list(self.get_item_list) != ["points"],
        }
        return [key for key, value in is_set.items() if value]


NOT_READ = "this data set does nothing with it"
POINT_FEATURES = ["x", "y", "z", "intensity", "timestamp"]  # of a sample's cloud; the time counts back from now
