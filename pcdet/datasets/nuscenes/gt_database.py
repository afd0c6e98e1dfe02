"""The objects of a frame for gt_sampling: their points as files, and what the database says of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pcdet.datasets.nuscenes.categories import IGNORED
from pcdet.datasets.nuscenes.sweeps import load_sweeps
from pcdet.utils.box_utils import points_in_boxes_mask

MARGIN = 1e-5  # metres, as OpenPCDet assigns points to boxes on the GPU
POINT_BYTES = 20  # of five float32


@dataclass(frozen=True)
class ObjectsOfFrame:
    """A frame whose objects are to be written.

    Attributes:
        root: the release's folder, from which the info's paths count.
        folder: where the objects' points go.
        listed_as: the folder's name in the entries' paths.
        number: of the frame in its info file; the files' names begin with it.
        info: of the frame.
    """

    root: Path
    folder: Path
    listed_as: str
    number: int
    info: dict

    def signature(self) -> list[tuple[int, int]]:
        """Size and time of change of each cloud; with the info, whatever the objects' points depend on."""
        paths = [self.info["lidar_path"], *(sweep["lidar_path"] for sweep in self.info["sweeps"])]
        stats = [(self.root / path).stat() for path in paths]
        return [(stat.st_size, stat.st_mtime_ns) for stat in stats]


def write_objects(frame: ObjectsOfFrame) -> list[dict[str, Any]]:
    """Writes the points of each object of a class, relative to its box's centre, and returns the database's entries.

    A point that lies in several boxes belongs to the first. Objects without a point have no entry.

    Raises:
        DataError: a cloud is missing.
        BadFrameError: a cloud is damaged.
    """
    info = frame.info
    points = load_sweeps(frame.root, info["lidar_path"], info["sweeps"])
    inside = points_in_boxes_mask(points, info["gt_boxes"][:, :7], margin=MARGIN)
    inside &= np.cumsum(inside, axis=0, dtype=np.uint16) == 1  # the first box of each point
    entries = []
    for i, (name, box, own) in enumerate(zip(info["gt_names"].tolist(), info["gt_boxes"], inside, strict=True)):
        cloud = points[own]
        if name == IGNORED or not len(cloud):
            continue
        cloud[:, :3] -= box[:3].astype(np.float32)
        file = f"{frame.number}_{name}_{i}.bin"
        cloud.tofile(frame.folder / file)
        entries.append(
            {
                "name": name,
                "path": f"{frame.listed_as}/{file}",
                "image_idx": frame.number,
                "gt_idx": i,
                "box3d_lidar": box,
                "num_points_in_gt": len(cloud),
            }
        )
    return entries
