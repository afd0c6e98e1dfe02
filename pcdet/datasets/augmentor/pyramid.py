"""Shape-aware augmentation: a box is six pyramids, one per face, whose points are dropped, thinned or swapped.

After SE-SSD (Zheng et al., CVPR 2021, section 3.3). OpenPCDet's probabilities and limits are kept; every object takes
at most one of the three.
"""

from __future__ import annotations

import numpy as np

from pcdet.registry import AUGMENTORS
from pcdet.utils.box_utils import points_in_boxes_mask

NUM_FACES = 6


def faces_of(local: np.ndarray) -> np.ndarray:
    """Which pyramid a point lies in: 0..5 for the faces +x, -x, +y, -y, +z, -z.

    Args:
        local: (N, 3) in the box's frame, each coordinate divided by half the box's size there.
    """
    axis = np.abs(local).argmax(axis=1)
    return 2 * axis + (np.take_along_axis(local, axis[:, None], axis=1)[:, 0] < 0)


def to_local(points: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Points (N, 3) in the box's frame, divided by half its sizes."""
    offset = points - box[:3]
    cos, sin = np.cos(box[6]), np.sin(box[6])
    turned = np.stack(
        [offset[:, 0] * cos + offset[:, 1] * sin, offset[:, 1] * cos - offset[:, 0] * sin, offset[:, 2]], 1
    )
    return turned / (box[3:6] / 2)


def from_local(local: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The inverse of ``to_local``."""
    offset = local * (box[3:6] / 2)
    cos, sin = np.cos(box[6]), np.sin(box[6])
    x, y = offset[:, 0] * cos - offset[:, 1] * sin, offset[:, 0] * sin + offset[:, 1] * cos
    return np.stack([x, y, offset[:, 2]], axis=1) + box[:3]


@AUGMENTORS.register(name="random_local_pyramid_aug")
class RandomLocalPyramidAug:
    """Drops, thins or swaps the points behind one face of an object.

    Args:
        drop_prob: chance that a random face of an object loses its points.
        sparsify_prob: chance, for the others, that a face with too many points is thinned.
        sparsify_max_num: points that it keeps.
        swap_prob: chance, for the others, that a face's points change places with those of another object's same face.
        swap_max_num: least number of points that both faces must have.
    """

    def __init__(
        self,
        *,
        drop_prob: float = 0.25,
        sparsify_prob: float = 0.05,
        sparsify_max_num: int = 50,
        swap_prob: float = 0.1,
        swap_max_num: int = 50,
    ):
        self.drop_prob, self.sparsify_prob, self.swap_prob = drop_prob, sparsify_prob, swap_prob
        self.sparsify_max_num, self.swap_max_num = sparsify_max_num, swap_max_num

    def __call__(self, sample: dict, rng: np.random.Generator) -> dict:
        """Modified: ``points``; boxes stay."""
        points, boxes = sample["points"], sample["gt_boxes"].astype(np.float64)
        owner = np.full(len(points), -1)
        face = np.zeros(len(points), dtype=np.int64)
        for i, inside in enumerate(points_in_boxes_mask(points, boxes)):
            rows = np.flatnonzero(inside & (owner < 0))
            owner[rows], face[rows] = i, faces_of(to_local(points[rows, :3].astype(np.float64), boxes[i]))
        rows_of = [[np.flatnonzero((owner == i) & (face == f)) for f in range(NUM_FACES)] for i in range(len(boxes))]
        drops, thins = rng.random(len(boxes)) < self.drop_prob, rng.random(len(boxes)) < self.sparsify_prob
        swaps = rng.random(len(boxes)) < self.swap_prob
        gone = [rows_of[i][rng.integers(NUM_FACES)] for i in np.flatnonzero(drops)]
        gone += [self._excess(rows_of[i], rng) for i in np.flatnonzero(thins & ~drops)]
        points = self._swap(points, boxes, rows_of, np.flatnonzero(swaps & ~thins & ~drops), gone, rng)
        sample["points"] = points
        return sample

    def _excess(self, faces: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """The rows that a random face with too many points loses."""
        full = [rows for rows in faces if len(rows) > self.sparsify_max_num]
        if not full:
            return np.empty(0, dtype=np.int64)
        rows = full[rng.integers(len(full))]
        return rng.permutation(rows)[self.sparsify_max_num :]

    def _swap(self, points, boxes, rows_of, chosen, gone, rng) -> np.ndarray:
        """The points with faces swapped and the ``gone`` rows removed."""
        removed = np.zeros(len(points), dtype=bool)
        for rows in gone:
            removed[rows] = True
        added, busy = [], set()
        for i in chosen:
            pairs = [
                (j, f)
                for j in range(len(boxes))
                for f in range(NUM_FACES)
                if j != i and not {(i, f), (j, f)} & busy and self._may_swap(rows_of[i][f], rows_of[j][f], removed)
            ]
            if not pairs:
                continue
            j, f = pairs[rng.integers(len(pairs))]
            busy |= {(i, f), (j, f)}
            mine, theirs = points[rows_of[i][f]], points[rows_of[j][f]]
            added += [_moved(theirs, boxes[j], boxes[i], mine), _moved(mine, boxes[i], boxes[j], theirs)]
            removed[rows_of[i][f]] = removed[rows_of[j][f]] = True
        return np.concatenate([points[~removed], *added], axis=0)

    def _may_swap(self, mine: np.ndarray, theirs: np.ndarray, removed: np.ndarray) -> bool:
        enough = min(len(mine), len(theirs)) >= max(1, self.swap_max_num)
        return enough and not removed[mine].any() and not removed[theirs].any()


def _moved(points: np.ndarray, box: np.ndarray, new_box: np.ndarray, replaced: np.ndarray) -> np.ndarray:
    """Points carried from one box to the same place in another; the last feature gets the range it had there."""
    moved = points.copy()
    moved[:, :3] = from_local(to_local(points[:, :3].astype(np.float64), box), new_box)
    if points.shape[1] > 3:
        low, high = points[:, -1].min(), points[:, -1].max()
        new_low, new_high = replaced[:, -1].min(), replaced[:, -1].max()
        moved[:, -1] = (points[:, -1] - low) / max(high - low, 1e-6) * (new_high - new_low) + new_low
    return moved
