"""The constants of nuScenes' detection challenge, ``detection_cvpr_2019``: classes, attributes, ranges, thresholds."""

from __future__ import annotations

from pcdet.datasets.errors import DataError

CLASS_RANGE = {  # metres from the ego vehicle over the ground, exclusive
    "car": 50, "truck": 50, "bus": 50, "trailer": 50, "construction_vehicle": 50, "pedestrian": 40, "motorcycle": 40,
    "bicycle": 40, "traffic_cone": 30, "barrier": 30,
}  # fmt: skip
CLASSES = tuple(CLASS_RANGE)  # a class's number is its place here; models number them otherwise

# An attribute's number is its place here.
ATTRIBUTES = (
    "pedestrian.moving", "pedestrian.sitting_lying_down", "pedestrian.standing", "cycle.with_rider",
    "cycle.without_rider", "vehicle.moving", "vehicle.parked", "vehicle.stopped",
)  # fmt: skip
NO_ATTRIBUTE = -1

IN_RACKS = ("bicycle", "motorcycle")  # which are not labelled one by one there
MOVING_SPEED = 0.2  # m/s, exclusive

DISTANCE_THRESHOLDS = (0.5, 1.0, 2.0, 4.0)  # metres between centres over the ground, exclusive
ERROR_THRESHOLD = 2.0  # at which true positives are those whose errors count
RECALL_POINTS = 101
MIN_RECALL = 0.1
MIN_PRECISION = 0.1
MAX_BOXES = 500  # of a sample
AP_WEIGHT = 5  # of mAP in NDS, beside 1 for each error

ERRORS = ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")
# A cone has no direction, and neither it nor a barrier moves.
UNDEFINED = {"traffic_cone": ("orient_err", "vel_err", "attr_err"), "barrier": ("vel_err", "attr_err")}
HALF_TURN_ALIKE = ("barrier",)  # turned by pi, they are the same

SPLIT_OF_VERSION = {"v1.0-trainval": "val", "v1.0-mini": "mini_val"}  # that the challenge evaluates

CLASS_NUMBER = {name: number for number, name in enumerate(CLASSES)}
ATTRIBUTE_NUMBER = {"": NO_ATTRIBUTE, **{name: number for number, name in enumerate(ATTRIBUTES)}}


def challenge_config() -> dict:
    """The rules in the devkit's form, as its ``metrics_summary.json`` repeats them."""
    return {
        "class_range": dict(CLASS_RANGE),
        "dist_fcn": "center_distance",
        "dist_ths": list(DISTANCE_THRESHOLDS),
        "dist_th_tp": ERROR_THRESHOLD,
        "min_recall": MIN_RECALL,
        "min_precision": MIN_PRECISION,
        "max_boxes_per_sample": MAX_BOXES,
        "mean_ap_weight": AP_WEIGHT,
    }


def split_to_evaluate(version: str) -> str:
    """The split of a release that the challenge evaluates.

    Raises:
        DataError: the release has none with labels, or is not one of nuScenes'.
    """
    if version not in SPLIT_OF_VERSION:
        known = ", ".join(f"{split} of {of}" for of, split in SPLIT_OF_VERSION.items())
        raise DataError(f"version {version} has no split that the challenge evaluates by itself ({known}); name one")
    return SPLIT_OF_VERSION[version]
