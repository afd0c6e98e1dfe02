"""The data sets that a quickstart simulates: their scenes, and the models that are trained on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pcdet.experiments.quickstart.meaning import DISTILLED, LONGER, SLICES, STUDENT

LOGITS, SLICES_DISTILLED = f"{SLICES}+logits", f"{SLICES}+pointdistiller"


@dataclass(frozen=True, kw_only=True)
class SimulatedData:
    """What a quickstart has of one data set.

    Attributes:
        folder: its name in ``data``.
        output: its name in ``output/quickstart``; the other data set's detectors are folders there themselves.
        scenes: flags of ``python -m pcdet.datasets.simulated`` and their values, without the dashes.
        frames: how many scenes, or key frames, are there, in words.
        unseen: those that nobody trained on, in words.
        models: folder of the model files, from ``tools``.
        detectors: name -> row of the table -> how long its training takes against the teacher's. The model file is
            ``DETECTOR.yaml`` or ``kd/DETECTOR_WHAT.yaml``, WHAT being what is added to the student, with _ for +. The
            order is the table's; students that need no teacher train beside it.
        note: what its numbers are not.
    """

    folder: str
    output: str
    scenes: Mapping
    frames: str
    unseen: str
    models: Path
    detectors: Mapping[str, Mapping[str, float]]
    note: str


_FIRST = {STUDENT: 0.4, LONGER: 0.7, SLICES: 0.4, DISTILLED: 0.7}
KITTI = SimulatedData(
    folder="quickstart",
    output="",
    scenes={"frames": 600, "val-frames": 200, "seed": 0, "far": 29.5},
    frames="600",
    unseen="200 scenes",
    models=Path("cfgs/simulated_models"),
    detectors={
        "pointpillar": {STUDENT: 0.4, LONGER: 0.6, SLICES: 0.4, DISTILLED: 0.7, LOGITS: 0.6},
        "second": {**_FIRST, SLICES_DISTILLED: 0.7},
        "pointrcnn": {**_FIRST, SLICES_DISTILLED: 0.7},
        "centerpoint_pillar": {**_FIRST, LOGITS: 0.6},
    },
    note="Simulated scenes, for learning and testing the pipeline: no number here is a KITTI result.",
)
NUSCENES = SimulatedData(
    folder="quickstart_nuscenes",
    output="nuscenes",
    scenes={
        "format": "nuscenes",
        "release": "v1.0-trainval",
        "train-scenes": 80,
        "val-scenes": 40,
        "key-frames": 5,
        "sweeps": 4,
        "azimuths": 400,
        "reach": 22.0,
        "seed": 0,
    },
    frames="120 of 5 key frames",
    unseen="200 key frames",
    models=Path("cfgs/simulated_nuscenes_models"),
    detectors={"centerpoint_pillar": {**_FIRST, LOGITS: 0.6}},
    note="Simulated scenes, for learning and testing the pipeline: no number here is a nuScenes result.",
)
DATA_SETS = {"kitti": KITTI, "nuscenes": NUSCENES}
# What may be typed for a detector's name.
SHORT_NAMES = {"centerpoint": "centerpoint_pillar"}
