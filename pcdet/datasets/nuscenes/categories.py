"""nuScenes' categories and the ten classes of its detection task."""

from __future__ import annotations

from pcdet.datasets.errors import DataError

# In the order in which OpenPCDet's models number them.
DETECTION_CLASSES = (
    *("car", "truck", "construction_vehicle", "bus", "trailer"),
    *("barrier", "motorcycle", "bicycle", "pedestrian", "traffic_cone"),
)
IGNORED = "ignore"  # the name of objects that no class of the task covers
BICYCLE_RACK = "static_object.bicycle_rack"
_OF_CATEGORY = {
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "human.pedestrian.personal_mobility": IGNORED,
    "human.pedestrian.stroller": IGNORED,
    "human.pedestrian.wheelchair": IGNORED,
    "animal": IGNORED,
    "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.emergency.ambulance": IGNORED,
    "vehicle.emergency.police": IGNORED,
    "vehicle.motorcycle": "motorcycle",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
    "vehicle.ego": IGNORED,
    "movable_object.barrier": "barrier",
    "movable_object.debris": IGNORED,
    "movable_object.pushable_pullable": IGNORED,
    "movable_object.trafficcone": "traffic_cone",
    BICYCLE_RACK: IGNORED,
}


def detection_class(category: str) -> str:
    """The class of the detection task that a category belongs to, ``ignore`` if it belongs to none.

    Raises:
        DataError: nuScenes has no such category.
    """
    try:
        return _OF_CATEGORY[category]
    except KeyError:
        raise DataError(
            f"there is no category {category!r} in nuScenes; its categories are {', '.join(_OF_CATEGORY)}"
        ) from None
