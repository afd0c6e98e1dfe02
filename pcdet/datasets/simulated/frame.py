"""One simulated frame: scene, scan cut to the camera's view, labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pcdet.datasets.simulated import camera
from pcdet.datasets.simulated.labels import Label, make_labels
from pcdet.datasets.simulated.layout import SceneSettings, draw_scene
from pcdet.datasets.simulated.scene import Scene
from pcdet.datasets.simulated.sensor import Lidar, Scan, scan


class Frame(NamedTuple):
    """A scene, what the lidar returned of it inside the camera's view, and its labels."""

    scene: Scene
    scan: Scan
    labels: list[Label]


def make_frame(seed: int, index: int, *, settings: SceneSettings | None = None, lidar: Lidar | None = None) -> Frame:
    """Frame ``index`` of the data set with this seed.

    It depends on nothing else: each frame has a generator of its own, seeded by ``SeedSequence([seed, index])``.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    return observe(draw_scene(rng, settings), lidar or Lidar(), rng)


def observe(scene: Scene, lidar: Lidar, rng: np.random.Generator) -> Frame:
    """Scans a scene, cuts the cloud to the camera's view and labels it."""
    full = scan(scene, lidar, rng)
    keep = camera.in_view(full.points[:, :3].astype(np.float64))
    cut = full._replace(points=full.points[keep], owner=full.owner[keep], ring=full.ring[keep])
    return Frame(scene, cut, make_labels(scene, cut))
