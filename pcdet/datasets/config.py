"""The keys of DATA_CONFIG: what a data set's part of a YAML file may hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pcdet.datasets.pseudo_labels import PseudoLabelsConfig
from pcdet.registry import AUGMENTORS, POINT_ENCODERS, PROCESSORS, ConfigError, check_node

ITEMS = ("points", "images", "calib_matricies", "gt_boxes2d")  # the third is spelt as in OpenPCDet's files
Item = Literal["points", "images", "calib_matricies", "gt_boxes2d"]


@dataclass(frozen=True, kw_only=True)
class AugmentorConfig:
    """DATA_AUGMENTOR.

    Attributes:
        disable_aug_list: names of augmentors to leave out; a name that is in no list does nothing.
        aug_config_list: augmentors in the order they run.
    """

    disable_aug_list: list[str] = field(default_factory=list)
    aug_config_list: list[Annotated[dict, AUGMENTORS]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """DATA_CONFIG of a KITTI-like data set.

    Attributes:
        dataset: class of the data set.
        data_path: its folder; a relative path counts from the working directory, else from ``tools/``.
        point_cloud_range: [x_min, y_min, z_min, x_max, y_max, z_max], metres, LiDAR frame.
        data_split: "train" and "test" -> name of the split that is trained or evaluated on; "unlabelled" -> that of the
            frames of ``info_path.unlabelled``, the training's if left out. Frames of the split "test" lie in testing/
            (nuScenes: in the release v1.0-test).
        info_path: "train" and "test" -> info files, relative to ``data_path``; "unlabelled", if there, those of further
            frames that a student trains on without their labels, if they have any. Its teacher labels them.
        pseudo_labels: boxes found before the training as their labels; see ``PseudoLabelsConfig``.
        get_item_list: what a sample holds.
        fov_points_only: keep only the points that the camera sees.
        skip_bad_frames: leave out frames whose cloud is damaged, and count them, instead of stopping.
        data_augmentor: what happens to training samples; a plain list is one without DISABLE_AUG_LIST.
        point_feature_encoding: which features the points have, and which the model gets.
        data_processor: what happens to every sample, in this order.
        class_names: classes of a custom data set whose file lists them; the model file's CLASS_NAMES count.
        map_class_to_kitti: class -> KITTI's class, by which labels and results are renamed for KITTI's evaluation.
    """

    dataset: str
    data_path: str
    point_cloud_range: list[float]
    data_split: dict[str, str]
    info_path: dict[str, list[str]]
    pseudo_labels: PseudoLabelsConfig | None = None
    get_item_list: list[Item] = field(default_factory=lambda: ["points"])
    fov_points_only: bool = False
    skip_bad_frames: bool = False
    data_augmentor: AugmentorConfig | list[Annotated[dict, AUGMENTORS]] = field(default_factory=AugmentorConfig)
    point_feature_encoding: dict
    data_processor: list[Annotated[dict, PROCESSORS]]
    class_names: list[str] | None = None
    map_class_to_kitti: dict[str, str] | None = None

    def __post_init__(self):
        """Checks what one key alone cannot show; ConfigError with every problem."""
        path = "POINT_FEATURE_ENCODING"
        problems = check_node(encoder_node(self.point_feature_encoding), POINT_ENCODERS, path=path)
        problems = [p.replace(f"{path}.NAME:", f"{path}.encoding_type:") for p in problems]
        low, high = self.point_cloud_range[:3], self.point_cloud_range[3:]
        if len(self.point_cloud_range) != 6 or any(a >= b for a, b in zip(low, high, strict=False)):
            problems.append(
                "POINT_CLOUD_RANGE: must be [x_min, y_min, z_min, x_max, y_max, z_max] with each minimum below its "
                f"maximum, got {self.point_cloud_range}"
            )
        problems += [
            f"{key}: needs the entries train and test, got {sorted(entries)}"
            for key, entries in (("DATA_SPLIT", self.data_split), ("INFO_PATH", self.info_path))
            if not {"train", "test"} <= set(entries)
        ]
        if self.pseudo_labels is not None and not self.info_path.get("unlabelled"):
            problems.append("PSEUDO_LABELS: of no frames; name their info files in INFO_PATH.unlabelled")
        if problems:
            raise ConfigError(problems)

    def enabled_augmentors(self) -> list[dict]:
        """The nodes of the augmentors that run, in order."""
        if not isinstance(self.data_augmentor, AugmentorConfig):
            return list(self.data_augmentor)
        config = self.data_augmentor
        return [node for node in config.aug_config_list if node["NAME"] not in config.disable_aug_list]


def encoder_node(config: dict) -> dict:
    """POINT_FEATURE_ENCODING as a component node: its ``encoding_type`` is the name."""
    rest = {key: value for key, value in config.items() if key.lower() != "encoding_type"}
    kind = next((value for key, value in config.items() if key.lower() == "encoding_type"), None)
    return rest if kind is None else {"NAME": kind, **rest}
