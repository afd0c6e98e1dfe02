"""Detects objects in point clouds and writes pictures and boxes; needs no labels and no display."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from pcdet import api
from pcdet.cli.ending import naming_allow_partial, run
from pcdet.cli.flags import add_set_flag
from pcdet.cli.session import read_config
from pcdet.config import ConfigError, cfg, find_config_file
from pcdet.datasets.point_folder import PointFolder, name_of_cloud
from pcdet.engine.runtime import select_device, set_threads
from pcdet.utils.calibration_kitti import Calibration
from pcdet.utils.common_utils import create_logger
from pcdet.utils.object3d_kitti import get_objects_from_label
from pcdet.utils.visualize import Boxes, boxes_of_labels, draw_bev, draw_image, read_image

COLUMNS = "x y z dx dy dz heading: LiDAR frame, metres and radians, centre of the box"
VELOCITY = "vx vy: metres a second over the ground"


def main(argv: Sequence[str] | None = None) -> None:
    """The command; its arguments are those of the process if None."""
    run(lambda: detect_and_write(parse_args(argv)))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--cfg_file", default="cfgs/kitti_models/pointpillar.yaml", help="model file")
    add("--data_path", default="demo_data", help="a point cloud, or a folder of them")
    add("--ckpt", required=True, help="weights of the model")
    add("--allow_partial", action="store_true", help="take what fits of a checkpoint of another model, and say what")
    add("--ext", default=".bin", choices=(".bin", ".npy"), help="which files of a folder")
    add("--out", help="where <frame>.json and <frame>_bev.png go; output/demo/<config> if left out")
    add("--score_thresh", type=float, default=0.3, help="draw and write boxes from this score on")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--threads", type=int, help="CPU threads; all CPUs if left out")
    add("--no_pictures", action="store_true", help="write the boxes only")
    add_set_flag(parser)
    return parser.parse_args(argv)


def detect_and_write(args: argparse.Namespace) -> None:
    """Boxes, and pictures unless ``--no_pictures``, of every cloud."""
    logger = create_logger()
    read_config(args, ("CLASS_NAMES", "DATA_CONFIG", "MODEL"))
    device = chosen_device(args)
    out = Path(args.out or Path(cfg.ROOT_DIR) / "output" / "demo" / find_config_file(args.cfg_file).stem)
    out.mkdir(parents=True, exist_ok=True)
    clouds = PointFolder(cfg.DATA_CONFIG, cfg.CLASS_NAMES, args.data_path, args.ext, logger)
    with naming_allow_partial(args.allow_partial):
        model = api.build_detector(cfg, clouds, ckpt=args.ckpt, allow_partial=args.allow_partial, logger=logger)
    detector = api.Detector(model, clouds, device)

    logger.info(f"{len(clouds)} point clouds from {args.data_path}, device {device}")
    total = 0
    for index in tqdm(range(len(clouds)), desc="demo", unit="cloud"):
        found = detector.detect(clouds[index], args.score_thresh)
        total += len(found.boxes)
        write_boxes(found, clouds.files[index], out)
        if not args.no_pictures:
            write_pictures(found, clouds, index, out)
    logger.info(f"{total} boxes with a score of at least {args.score_thresh}; results are in {out}")


def chosen_device(args: argparse.Namespace) -> torch.device:
    """The device of ``--device``, with the threads of ``--threads``; ConfigError for a flag that cannot be followed."""
    try:
        set_threads(args.threads)
        return select_device(args.device)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def write_boxes(found: Boxes, cloud: Path, out: Path) -> None:
    """``<cloud>.json``."""
    rows = zip(found.names, found.scores.tolist(), found.boxes.tolist(), strict=True)
    boxes = [{"name": name, "score": round(score, 4), "box": np.round(box, 4).tolist()} for name, score, box in rows]
    columns = f"{COLUMNS}; {VELOCITY}" if found.boxes.shape[1] == 9 else COLUMNS
    content = {"frame_id": name_of_cloud(cloud), "file": str(cloud), "columns": columns, "boxes": boxes}
    (out / f"{name_of_cloud(cloud)}.json").write_text(json.dumps(content, indent=1) + "\n")


def write_pictures(found: Boxes, clouds: PointFolder, index: int, out: Path) -> None:
    """The view from above, and the camera's where the cloud lies in a KITTI folder that has pictures."""
    cloud = clouds.files[index]
    name = name_of_cloud(cloud)
    calib, truth, picture = None, None, cloud.parent.parent / "image_2" / f"{name}.png"
    calib_file, label_file = (cloud.parent.parent / kind / f"{name}.txt" for kind in ("calib", "label_2"))
    if calib_file.is_file():
        calib = Calibration(calib_file)
        if label_file.is_file():
            truth = boxes_of_labels(get_objects_from_label(label_file), calib, clouds.class_names)
    points, limits = clouds.read_cloud(cloud), clouds.point_cloud_range
    draw_bev(points, truth, found, out / f"{name}_bev.png", limits=limits, title=name)
    if calib is not None and picture.is_file():
        draw_image(read_image(picture), calib, truth, found, out / f"{name}_image.png")
