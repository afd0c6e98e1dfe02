"""A little folder in KITTI's layout, written line by line, so that tests know what must come out."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

# The camera looks along the LiDAR's x axis from its origin; no rotation but the exchange of axes.
P2 = np.array([[700.0, 0, 600.0, 0], [0, 700.0, 180.0, 0], [0, 0, 1.0, 0]])
R0 = np.eye(3)
VELO_TO_CAM = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0]])


def calib_text(p2=P2, r0=R0, velo_to_cam=VELO_TO_CAM) -> str:
    rows = [("P0", p2), ("P1", p2), ("P2", p2), ("P3", p2), ("R0_rect", r0), ("Tr_velo_to_cam", velo_to_cam)]
    return "".join(f"{name}: {' '.join(f'{x:.12e}' for x in matrix.ravel())}\n" for name, matrix in rows)


def label_line(name, box, truncated=0.0, occluded=0, image_box=(100, 100, 200, 200)) -> str:
    """The line of a LiDAR box under the camera above."""
    x, y, z, dx, dy, dz, heading = box
    ry = -heading - np.pi / 2
    numbers = [truncated, occluded, 0.0, *image_box, dz, dy, dx, -y, -(z - dz / 2), x, ry]
    return name + " " + " ".join(f"{n:.6f}" for n in numbers) + "\n"


DONT_CARE = "DontCare -1 -1 -10 1 2 3 4 -1 -1 -1 -1000 -1000 -1000 -10\n"


def png(rows: int, columns: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + bytes(3 * columns) for _ in range(rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def grid_inside(box, n=3) -> np.ndarray:
    """n**3 points well inside a box, (n**3, 4)."""
    t = np.linspace(-0.4, 0.4, n)
    local = np.stack(np.meshgrid(t, t, t, indexing="ij"), -1).reshape(-1, 3) * np.array(box[3:6])
    cos, sin = np.cos(box[6]), np.sin(box[6])
    x, y = local[:, 0] * cos - local[:, 1] * sin, local[:, 0] * sin + local[:, 1] * cos
    points = np.stack([x, y, local[:, 2]], 1) + np.array(box[:3])
    return np.concatenate([points, np.full((len(points), 1), 0.5)], 1).astype(np.float32)


CAR = (20.0, 2.0, -1.0, 4.0, 1.8, 1.5, 0.3)
PEDESTRIAN = (10.0, -3.0, -0.9, 0.8, 0.6, 1.7, -1.2)
CYCLIST = (15.0, 6.0, -0.9, 1.8, 0.6, 1.7, 2.0)
VAN = (30.0, -8.0, -0.8, 5.0, 2.0, 2.2, 0.0)


def write_frame(folder: Path, frame: str, labels: str | None, boxes=(), seed=0, image=True, background=400) -> None:
    for name in ("velodyne", "calib", "label_2", "image_2"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    ground = np.column_stack(
        [
            rng.uniform(-20, 60, background),
            rng.uniform(-30, 30, background),
            rng.normal(-1.9, 0.01, background),
            rng.uniform(0, 1, background),
        ]
    )
    cloud = np.concatenate([*[grid_inside(box) for box in boxes], ground.astype(np.float32)]).astype(np.float32)
    cloud.tofile(folder / "velodyne" / f"{frame}.bin")
    (folder / "calib" / f"{frame}.txt").write_text(calib_text())
    if labels is not None:
        (folder / "label_2" / f"{frame}.txt").write_text(labels)
    if image:
        (folder / "image_2" / f"{frame}.png").write_bytes(png(360, 1200))


def write_folder(root: Path) -> Path:
    """Four train frames (one without objects), two val frames, no test split."""
    training = root / "training"
    lines = {"Car": CAR, "Pedestrian": PEDESTRIAN, "Cyclist": CYCLIST, "Van": VAN}
    full = "".join(label_line(name, box) for name, box in lines.items())
    write_frame(training, "000000", DONT_CARE + full, lines.values(), seed=0)
    write_frame(training, "000001", label_line("Car", CAR), [CAR], seed=1)
    write_frame(training, "000002", "", seed=2)
    write_frame(training, "000003", label_line("Cyclist", CYCLIST) + label_line("Car", VAN), [CYCLIST, VAN], seed=3)
    write_frame(training, "000004", full, lines.values(), seed=4)
    write_frame(training, "000005", label_line("Pedestrian", PEDESTRIAN), [PEDESTRIAN], seed=5)
    (root / "ImageSets").mkdir()
    (root / "ImageSets" / "train.txt").write_text("000000\n000001\n000002\n000003\n")
    (root / "ImageSets" / "val.txt").write_text("000004\n000005\n")
    return root


def dataset_cfg(**changes) -> dict:
    """DATA_CONFIG for the folder above, without augmentors; keyword arguments replace keys."""
    config = {
        "DATASET": "KittiDataset",
        "DATA_PATH": "../data/kitti",
        "POINT_CLOUD_RANGE": [0, -40, -3, 70.4, 40, 1],
        "DATA_SPLIT": {"train": "train", "test": "val"},
        "INFO_PATH": {"train": ["kitti_infos_train.pkl"], "test": ["kitti_infos_val.pkl"]},
        "GET_ITEM_LIST": ["points"],
        "FOV_POINTS_ONLY": True,
        "DATA_AUGMENTOR": {"DISABLE_AUG_LIST": ["placeholder"], "AUG_CONFIG_LIST": []},
        "POINT_FEATURE_ENCODING": {
            "encoding_type": "absolute_coordinates_encoding",
            "used_feature_list": ["x", "y", "z", "intensity"],
            "src_feature_list": ["x", "y", "z", "intensity"],
        },
        "DATA_PROCESSOR": [
            {"NAME": "mask_points_and_boxes_outside_range", "REMOVE_OUTSIDE_BOXES": True},
            {"NAME": "shuffle_points", "SHUFFLE_ENABLED": {"train": True, "test": False}},
            {
                "NAME": "transform_points_to_voxels",
                "VOXEL_SIZE": [0.4, 0.4, 4],
                "MAX_POINTS_PER_VOXEL": 8,
                "MAX_NUMBER_OF_VOXELS": {"train": 2000, "test": 4000},
            },
        ],
    }
    return {**config, **changes}


AUGMENTORS = [
    {
        "NAME": "gt_sampling",
        "USE_ROAD_PLANE": False,
        "DB_INFO_PATH": ["kitti_dbinfos_train.pkl"],
        "PREPARE": {"filter_by_min_points": ["Car:5"], "filter_by_difficulty": [-1]},
        "SAMPLE_GROUPS": ["Car:3", "Pedestrian:2", "Cyclist:2"],
        "NUM_POINT_FEATURES": 4,
        "REMOVE_EXTRA_WIDTH": [0.0, 0.0, 0.0],
        "LIMIT_WHOLE_SCENE": False,
    },
    {"NAME": "random_world_flip", "ALONG_AXIS_LIST": ["x"]},
    {"NAME": "random_world_rotation", "WORLD_ROT_ANGLE": [-0.78539816, 0.78539816]},
    {"NAME": "random_world_scaling", "WORLD_SCALE_RANGE": [0.95, 1.05]},
]
