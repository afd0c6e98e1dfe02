"""Real frames ($PCDET_KITTI_ROOT): infos for all of them, and independent counts."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import Delaunay
from support import kitti_files

from pcdet.datasets.kitti.kitti_dataset import KittiDataset, calibration_of, fov_shape
from pcdet.datasets.kitti.kitti_infos import CLASS_NAMES, create_kitti_infos
from pcdet.datasets.kitti.kitti_utils import image_shape_of_calibration, lidar_fov_flag, read_png_size
from pcdet.utils import safe_pickle
from pcdet.utils.box_utils import boxes_to_corners_3d
from pcdet.utils.calibration_kitti import Calibration

CUT_WIDER = {"002155", "007347"}  # clouds cut some 30 pixels wider than their images


@pytest.fixture(scope="module")
def real(kitti_real, tmp_path_factory) -> Path:
    """The real folder with infos, beside links to its data."""
    root = tmp_path_factory.mktemp("kitti_real")
    for name in ("training", "ImageSets"):
        os.symlink((kitti_real / name).resolve(), root / name)
    create_kitti_infos(kitti_files.dataset_cfg(), CLASS_NAMES, root, workers=2)
    return root


@pytest.fixture(scope="module")
def infos(real):
    return safe_pickle.load(real / "kitti_infos_trainval.pkl")


def cloud_of(real, info):
    path = real / "training" / "velodyne" / f"{info['point_cloud']['lidar_idx']}.bin"
    return np.fromfile(path, dtype=np.float32).reshape(-1, 4)


def label_rows(real, info):
    path = real / "training" / "label_2" / f"{info['point_cloud']['lidar_idx']}.txt"
    return [line.split() for line in path.read_text().splitlines()]


def test_every_frame_has_an_info(real, infos):
    listed = [n for s in ("train", "val") for n in (real / "ImageSets" / f"{s}.txt").read_text().split()]
    assert [i["point_cloud"]["lidar_idx"] for i in infos] == listed
    assert len(listed) == 186


def test_infos_hold_every_label_with_dont_care_last(real, infos):
    for info in infos:
        rows, annos = label_rows(real, info), info["annos"]
        rows = [r for r in rows if r[0] != "DontCare"] + [r for r in rows if r[0] == "DontCare"]
        assert annos["name"].tolist() == [r[0] for r in rows]
        numbers = np.array([[float(x) for x in r[1:15]] for r in rows]).reshape(-1, 14)
        np.testing.assert_allclose(annos["bbox"], numbers[:, 3:7], rtol=1e-6)
        np.testing.assert_allclose(annos["dimensions"], numbers[:, [9, 7, 8]])  # file: h w l
        np.testing.assert_allclose(annos["location"], numbers[:, 10:13], rtol=1e-6)
        np.testing.assert_array_equal(annos["rotation_y"], numbers[:, 13])
        cared = sum(r[0] != "DontCare" for r in rows)
        assert annos["index"].tolist() == [*range(cared), *[-1] * (len(rows) - cared)]
        assert (annos["num_points_in_gt"][cared:] == -1).all() and len(annos["gt_boxes_lidar"]) == cared


def test_points_in_boxes_equal_an_independent_count(real, infos):
    """Convex hull of the corners, on the points that an independent projection sees."""
    checked = 0
    for info in infos[::4]:
        cloud, boxes = cloud_of(real, info), info["annos"]["gt_boxes_lidar"]
        calib = {key: info["calib"][key] for key in ("P2", "R0_rect", "Tr_velo_to_cam")}
        projection = calib["P2"] @ calib["R0_rect"] @ calib["Tr_velo_to_cam"]
        uvw = np.column_stack([cloud[:, :3].astype(float), np.ones(len(cloud))]) @ projection[:3].T
        rows, columns = fov_shape(info["image"])
        seen = uvw[:, 2] > 0
        seen &= (uvw[:, :2] >= 0).all(axis=1)
        seen &= (uvw[:, 0] < columns * uvw[:, 2]) & (uvw[:, 1] < rows * uvw[:, 2])
        points = cloud[seen, :3].astype(float)
        for corners, count in zip(boxes_to_corners_3d(boxes), info["annos"]["num_points_in_gt"], strict=False):
            assert (Delaunay(corners).find_simplex(points) >= 0).sum() == count
            checked += 1
    assert checked > 150


def test_the_database_counts_equal_an_independent_count(real, infos):
    by_frame = {i["point_cloud"]["lidar_idx"]: i for i in infos}
    entries = [e for group in safe_pickle.load(real / "kitti_dbinfos_train.pkl").values() for e in group]
    assert len(entries) == sum(len(i["annos"]["gt_boxes_lidar"]) for i in infos[:177])
    for entry in entries[::5]:
        cloud, box = cloud_of(real, by_frame[entry["image_idx"]]).astype(float), entry["box3d_lidar"]
        corners = boxes_to_corners_3d(box[None] + [[0, 0, 0, 0.02, 0.02, 0, 0]])[0]  # a margin of 1 cm in x and y
        inside = Delaunay(corners).find_simplex(cloud[:, :3]) >= 0
        assert inside.sum() == entry["num_points_in_gt"]
        points = np.fromfile(real / entry["path"], dtype=np.float32).reshape(-1, 4)
        np.testing.assert_allclose(points[:, :3] + box[:3], cloud[inside, :3], atol=1e-5)


def test_cutting_a_cut_cloud_again_keeps_every_row(real, infos):
    full = 0
    for info in infos:
        frame = info["point_cloud"]["lidar_idx"]
        cloud = cloud_of(real, info)
        seen = lidar_fov_flag(cloud, fov_shape(info["image"]), calibration_of(info))
        if frame <= "000010":
            full += 1
            assert 0.1 < seen.mean() < 0.25
        elif frame not in CUT_WIDER:
            assert seen.all(), f"{frame} loses {(~seen).sum()} rows"
    assert full == 11


def test_the_cut_clouds_reach_the_images_edges(real, infos):
    """A rule that keeps everything would pass the test above: one pixel less must lose rows."""
    for info in infos[23:60:6]:
        cloud, calib = cloud_of(real, info), calibration_of(info)
        rows, columns = info["image"]["image_shape"]
        for shape in ((rows - 1, columns), (rows, columns - 1)):
            assert not lidar_fov_flag(cloud, shape, calib).all()


def test_the_calibration_tells_the_size_of_every_image_there_is(real):
    images = sorted((real / "training" / "image_2").glob("*.png"))
    assert len(images) == 17
    for image in images:
        calib = Calibration(real / "training" / "calib" / f"{image.stem}.txt")
        assert image_shape_of_calibration(calib) == (read_png_size(image), True)


def test_labels_lie_where_their_image_boxes_are(real, infos):
    """Frames, units and signs as a whole: projected boxes overlap the drawn ones."""
    from pcdet.utils.box_utils import boxes3d_kitti_camera_to_imageboxes, boxes3d_lidar_to_kitti_camera

    overlaps = []
    for info in infos[:32]:
        annos, calib = info["annos"], calibration_of(info)
        whole = np.flatnonzero((annos["truncated"] == 0) & (annos["name"] == "Car"))
        boxes = boxes3d_lidar_to_kitti_camera(annos["gt_boxes_lidar"][whole], calib)
        ours = boxes3d_kitti_camera_to_imageboxes(boxes, calib, info["image"]["image_shape"])
        for a, b in zip(ours, annos["bbox"][whole], strict=True):
            low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
            shared = np.prod(np.clip(high - low, 0, None))
            overlaps.append(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))
    assert len(overlaps) > 30 and np.median(overlaps) > 0.8


def test_every_real_frame_loads_with_the_default_augmentors(real):
    augmentors = json.loads(json.dumps(kitti_files.AUGMENTORS))
    augmentors[0].update(USE_ROAD_PLANE=True, SAMPLE_GROUPS=["Car:15", "Pedestrian:10", "Cyclist:10"])
    config = kitti_files.dataset_cfg(DATA_AUGMENTOR={"DISABLE_AUG_LIST": [], "AUG_CONFIG_LIST": augmentors})
    dataset = KittiDataset(config, list(CLASS_NAMES), training=True, root_path=real)
    dataset.set_seed(0)
    samples = [dataset[i] for i in range(0, 177, 8)]
    batch = dataset.collate_batch(samples)
    assert batch["gt_boxes"].shape[1] > 15 and np.isfinite(batch["points"]).all()
