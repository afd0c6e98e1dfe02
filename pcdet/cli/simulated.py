"""Writes a folder of simulated lidar frames, in KITTI's or nuScenes' layout: ``python -m pcdet.datasets.simulated``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pcdet.datasets.simulated import write_kitti, write_nuscenes

PURPOSE = (
    "Writes a folder of simulated lidar frames in KITTI's or nuScenes' layout. The same seed gives the same bytes."
)
FORMATS = {"kitti": write_kitti, "nuscenes": write_nuscenes}
# Flags of one format: name -> type and help; the writers have the defaults.
KITTI = {
    "frames": (int, "default: 400"),
    "val-frames": (int, "frames in the val split; default: a quarter"),
    "far": (float, "labelled objects stand up to so many metres ahead; default: 39.5"),
}
NUSCENES = {
    "release": (str, "v1.0-mini (up to 8 + 2 scenes, the default) or v1.0-trainval (700 + 150)"),
    "train-scenes": (int, "default: 8"),
    "val-scenes": (int, "default: 2"),
    "key-frames": (int, "of a scene, two a second; default: 10"),
    "sweeps": (int, "from one key frame to the next, the key frame counted; default: 10, which is 20 a second"),
    "azimuths": (int, "rays of each of the 32 beams in a turn; default: 720; 1450 for nuScenes' 34,000 points a sweep"),
    "reach": (float, "objects are annotated up to so many metres from the vehicle; default: 40"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the arguments and writes the folder; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pcdet.datasets.simulated", description=PURPOSE)
    parser.add_argument("--format", choices=FORMATS, default="kitti", help="layout of the folder; default: kitti")
    parser.add_argument("--out", required=True, help="folder to write; an interrupted run goes on there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=None, help="processes; default: one per core")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    kitti, nuscenes = parser.add_argument_group("--format kitti"), parser.add_argument_group("--format nuscenes")
    for group, flags in ((kitti, KITTI), (nuscenes, NUSCENES)):
        for name, (kind, text) in flags.items():
            group.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS, help=text)
    kitti.add_argument("--images", action="store_true", default=argparse.SUPPRESS, help="render image_2 as well")
    options = vars(parser.parse_args(argv))
    layout = options.pop("format")
    others = {"nuscenes": [*KITTI, "images"], "kitti": list(NUSCENES)}[layout]
    if strange := [f"--{name}" for name in others if name.replace("-", "_") in options]:
        parser.error(f"--format {layout} has no {', '.join(strange)}")
    try:
        FORMATS[layout](options.pop("out"), progress=not options.pop("quiet"), **options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
