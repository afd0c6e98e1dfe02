"""One simulated scene: its sweeps, one after the other, and the rows that the tables have of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pcdet.datasets.simulated.nuscenes.classes import CLASSES
from pcdet.datasets.simulated.nuscenes.sweeps import Sweep, lidar_with, points_in_boxes, take_sweep
from pcdet.datasets.simulated.nuscenes.tables import CALIBRATION, Row, instances, link, token, turn, visibility
from pcdet.datasets.simulated.nuscenes.world import World, draw_world

KEY_FRAME_US = 500_000  # microseconds from one key frame to the next
FIRST_US, SCENE_US = 1_600_000_000_000_000, 100_000_000  # when the first scene begins, and from one to the next
TABLES = ("log", "scene", "sample", "sample_data", "ego_pose", "sample_annotation", "instance")


@dataclass(frozen=True, kw_only=True)
class ScenePlan:
    """What a scene depends on.

    Attributes:
        name: as nuScenes names scenes, scene-0061.
        index: its number in the data set; another number, another scene.
        seed: of the data set.
        key_frames: how many, two a second.
        sweeps: from one key frame to the next, the key frame counted.
        azimuths: rays of a beam in a turn.
        reach: objects are annotated within so many metres of the ego vehicle.
    """

    name: str
    index: int
    seed: int
    key_frames: int
    sweeps: int
    azimuths: int
    reach: float


def make_scene(plan: ScenePlan, write: Callable[[str, bytes], None]) -> dict[str, list[Row]]:
    """The rows of a scene's tables, after its sweeps have been written.

    Args:
        plan: see :class:`ScenePlan`.
        write: gets the name of each sweep, as in ``sample_data``, and its bytes.

    Returns:
        Name of a table -> rows, for ``TABLES``.
    """
    return _Scene(plan, write).make()


@dataclass
class _Scene:
    plan: ScenePlan
    write: Callable[[str, bytes], None]
    rows: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in TABLES})

    def make(self) -> dict[str, list[Row]]:
        plan = self.plan
        duration = 1e-6 * KEY_FRAME_US * (plan.key_frames - 1)
        world = draw_world(self._rng(0), duration=duration, reach=plan.reach)
        lidar = lidar_with(plan.azimuths)
        for number in range((plan.key_frames - 1) * plan.sweeps + 1):
            after = round(number * KEY_FRAME_US / plan.sweeps)
            sweep = take_sweep(world, 1e-6 * after, lidar, self._rng(1 + number))
            is_key = number % plan.sweeps == 0
            self._add_sweep(sweep, world.drive.pose(1e-6 * after), after, -(-number // plan.sweeps), is_key)
            if is_key:
                self._annotate(world, sweep, after, number // plan.sweeps)
        self._close(world)
        return self.rows

    def _rng(self, number: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.plan.seed, self.plan.index, number]))

    def _token(self, *parts: object) -> str:
        return token(self.plan.seed, self.plan.name, *parts)

    def _time(self, after: int) -> int:
        return FIRST_US + self.plan.index * SCENE_US + after

    def _add_sweep(self, sweep: Sweep, ego, after: int, sample: int, is_key: bool) -> None:
        """Writes a sweep and adds its rows; between key frames it belongs to the next one."""
        own, time = self._token("sample_data", after), self._time(after)
        name = f"{'samples' if is_key else 'sweeps'}/LIDAR_TOP/{self.plan.name}__LIDAR_TOP__{time}.pcd.bin"
        self.write(name, sweep.points.tobytes())
        pose = {"token": own, "timestamp": time, "rotation": turn(ego[2]), "translation": [ego[0], ego[1], 0.0]}
        self.rows["ego_pose"].append(pose)
        self.rows["sample_data"].append(
            {
                "token": own,
                "sample_token": self._token("sample", sample),
                "ego_pose_token": own,
                "calibrated_sensor_token": token(CALIBRATION),
                "timestamp": time,
                "fileformat": "pcd",
                "is_key_frame": is_key,
                "height": 0,
                "width": 0,
                "filename": name,
            }
        )

    def _annotate(self, world: World, sweep: Sweep, after: int, sample: int) -> None:
        """Adds the sample and an annotation for each object within reach, also for one that no ray met."""
        ego, seconds = world.drive.pose(1e-6 * after), 1e-6 * after
        self.rows["sample"].append(
            {"token": self._token("sample", sample), "timestamp": self._time(after), "scene_token": self._token()}
        )
        near = []
        for index, actor in enumerate(world.actors):
            x, y = actor.place(seconds)
            if actor.name is not None and np.hypot(x - ego[0], y - ego[1]) <= self.plan.reach:
                shape = actor.shape
                box = [x, y, 0.5 * shape.height, shape.length, shape.width, shape.height]
                near.append((index, actor, np.array([*np.round(box, 3), actor.heading])))
        counts = points_in_boxes(sweep.points, ego, [box for _, _, box in near])
        for (index, actor, box), count in zip(near, counts, strict=True):
            attributes = [token("attribute", actor.attribute)] if actor.attribute else []
            self.rows["sample_annotation"].append(
                {
                    "token": self._token("sample_annotation", sample, index),
                    "sample_token": self._token("sample", sample),
                    "instance_token": self._token("instance", index),
                    "visibility_token": visibility(sweep.seen[index]),
                    "attribute_tokens": attributes,
                    "translation": box[:3].tolist(),
                    "size": box[[4, 3, 5]].tolist(),
                    "rotation": turn(actor.heading),
                    "num_lidar_pts": count,
                    "num_radar_pts": 0,
                }
            )

    def _close(self, world: World) -> None:
        """Adds the rows of the whole scene and the links between rows."""
        rows, plan = self.rows, self.plan
        link(rows["sample"])
        link(rows["sample_data"])
        categories = {
            self._token("instance", index): token("category", CLASSES[actor.name].category)
            for index, actor in enumerate(world.actors)
            if actor.name is not None
        }
        rows["instance"] = instances(rows["sample_annotation"], categories)
        log = {"token": self._token("log"), "logfile": f"simulated-{plan.name}", "vehicle": "simulated"}
        rows["log"].append({**log, "date_captured": "2020-09-13", "location": "simulated"})
        rows["scene"].append(
            {
                "token": self._token(),
                "log_token": self._token("log"),
                "nbr_samples": len(rows["sample"]),
                "first_sample_token": rows["sample"][0]["token"],
                "last_sample_token": rows["sample"][-1]["token"],
                "name": plan.name,
                "description": "simulated street",
            }
        )
