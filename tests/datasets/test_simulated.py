"""Simulated scans, their labels, and the folders that hold them."""

import json

import numpy as np
import pytest

from pcdet.cli.simulated import main
from pcdet.datasets.simulated import camera, objects, write_kitti
from pcdet.datasets.simulated.frame import make_frame, observe
from pcdet.datasets.simulated.labels import MIN_POINTS, image_box, occlusion_level, road_plane, wrap
from pcdet.datasets.simulated.layout import SceneSettings, draw_scene
from pcdet.datasets.simulated.primitives import Material
from pcdet.datasets.simulated.scene import Body, Ground, Scene, Sculptor
from pcdet.datasets.simulated.sensor import GROUND, Lidar, cast
from pcdet.datasets.simulated.writer import val_indices
from pcdet.testing import tiny_kitti
from pcdet.utils import box_utils
from pcdet.utils.calibration_kitti import Calibration
from pcdet.utils.object3d_kitti import get_objects_from_label

FRAMES = 12
IMAGE_SHAPE = (camera.IMAGE_HEIGHT, camera.IMAGE_WIDTH)


@pytest.fixture(scope="module")
def frames():
    return [make_frame(0, index) for index in range(FRAMES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_kitti(tmp_path_factory.mktemp("simulated") / "set", frames=FRAMES, workers=1, progress=False)


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def box_body(label, x, y, length, width, height, heading=0.0):
    shape = Sculptor(length, width, height)
    shape.box(0, 0, (0, height), length / 2, width / 2, Material())
    return shape.place(label, x, y, -1.73, heading)


# --- scans and labels -----------------------------------------------------------------------------------------------


def test_points_of_an_object_lie_inside_its_label_box(frames):
    inside = total = 0
    for frame in frames:
        for index, body in enumerate(frame.scene.bodies):
            if body.label is None:
                continue
            local = frame.scan.points[frame.scan.owner == index, :3] - body.box[:3]
            cos, sin = np.cos(body.box[6]), np.sin(body.box[6])
            along, across = local[:, 0] * cos + local[:, 1] * sin, local[:, 1] * cos - local[:, 0] * sin
            ok = (np.abs(np.stack([along, across, local[:, 2]], 1)) <= body.box[3:6] / 2).all(1)
            inside, total = inside + ok.sum(), total + len(ok)
    assert total > 10000
    assert inside / total > 0.999


def test_a_written_label_gives_back_the_lidar_box(folder, frames):
    for index, frame in enumerate(frames):
        calib = Calibration(folder / "training/calib" / f"{index:06d}.txt")
        found = get_objects_from_label(folder / "training/label_2" / f"{index:06d}.txt")
        found = [o for o in found if o.cls_type != "DontCare"]
        camera_boxes = np.array([[*o.loc, o.l, o.h, o.w, o.ry] for o in found])
        boxes = box_utils.boxes3d_kitti_camera_to_lidar(camera_boxes, calib)
        truth = np.stack([b.box for b in frame.scene.bodies if b.label])
        nearest = np.linalg.norm(boxes[:, None, :3] - truth[None, :, :3], axis=-1).argmin(1)
        error = boxes - truth[nearest]
        error[:, 6] = (error[:, 6] + np.pi) % (2 * np.pi) - np.pi
        assert np.abs(error).max() < 0.02  # two decimals in the file
        names = [body.label for body in frame.scene.bodies if body.label]
        assert [o.cls_type for o in found] == [names[i] for i in nearest]


def test_image_boxes_are_those_of_the_kitti_tools(folder, frames):
    for index in range(len(frames)):
        calib = Calibration(folder / "training/calib" / f"{index:06d}.txt")
        found = get_objects_from_label(folder / "training/label_2" / f"{index:06d}.txt")
        found = [o for o in found if o.cls_type != "DontCare"]
        boxes = np.array([[*o.loc, o.l, o.h, o.w, o.ry] for o in found])
        expected = box_utils.boxes3d_kitti_camera_to_imageboxes(boxes, calib, image_shape=IMAGE_SHAPE)
        depth, size = boxes[:, 2] - boxes[:, 3] / 2, np.array([o.box2d for o in found])
        # half a centimetre of rounding in the file, seen from the nearest corner
        assert (np.abs(expected - size).max(1) < 0.02 * camera.FOCAL / np.maximum(depth, 1.0)).all()


def test_points_of_visible_objects_project_into_their_image_box(frames):
    for frame in frames:
        middles = np.stack([body.box[:3] for body in frame.scene.bodies])
        for label in frame.labels:
            if label.name == "DontCare":
                continue
            centre = camera.rect_to_lidar(label.location[None])[0] + [0, 0, label.dimensions[0] / 2]
            owner = np.linalg.norm(middles - centre, axis=1).argmin()
            pixels, _ = camera.project(camera.lidar_to_rect(frame.scan.points[frame.scan.owner == owner, :3]))
            assert len(pixels) >= MIN_POINTS
            assert (pixels >= label.bbox[:2] - 1.5).all() and (pixels <= label.bbox[2:] + 1.5).all()


def test_field_of_view_cropping_keeps_every_point(folder, frames):
    calib = Calibration(folder / "training/calib/000000.txt")
    for frame in frames:
        uv, depth = calib.lidar_to_img(frame.scan.points[:, :3])
        keep = (uv >= 0).all(1) & (uv[:, 0] < camera.IMAGE_WIDTH) & (uv[:, 1] < camera.IMAGE_HEIGHT) & (depth >= 0)
        assert keep.mean() > 0.9995  # float32 there, float64 here


def test_a_wall_in_front_raises_the_occlusion_level():
    car = box_body("Car", 20.0, 0.0, 4.0, 1.7, 1.5)
    levels = []
    for height in (None, 0.5, 0.9, 1.25, 1.45):
        wall = () if height is None else (box_body(None, 12.0, 0.0, 0.3, 8.0, height),)
        frame = observe(Scene(Ground(), (car, *wall)), Lidar(), np.random.default_rng(0))
        levels.append(frame.labels[0].occluded if frame.labels[0].name == "Car" else 4)
    assert levels == sorted(levels)
    assert levels[0] == 0 and levels[-1] >= 3


def test_rays_alone_do_not_depend_on_what_stands_around():
    car, wall = box_body("Car", 20.0, 1.0, 4.0, 1.7, 1.5), box_body(None, 10.0, 1.0, 0.3, 2.0, 2.0)
    free, hidden = cast(Scene(Ground(), (car,)), Lidar()), cast(Scene(Ground(), (car, wall)), Lidar())
    assert free.alone[0] == free.seen[0] == hidden.alone[0] > hidden.seen[0]
    assert (free.owner == GROUND).any()


def test_occlusion_levels_fall_with_the_visible_share():
    assert [occlusion_level(seen, 100) for seen in (100, 80, 79, 45, 44, 15, 14, 0)] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_what_is_hidden_becomes_dont_care_and_what_is_out_of_view_is_left_out():
    hidden = box_body("Car", 30.0, 0.0, 4.0, 1.7, 1.5)
    wall = box_body(None, 12.0, 0.0, 0.3, 8.0, 3.0)
    beside = box_body("Car", 5.0, 15.0, 4.0, 1.7, 1.5)
    labels = observe(Scene(Ground(), (hidden, wall, beside)), Lidar(), np.random.default_rng(0)).labels
    assert [label.name for label in labels] == ["DontCare"]
    assert labels[0].line().startswith("DontCare -1 -1 -10 ")
    assert labels[0].line().endswith(" -1 -1 -1 -1000 -1000 -1000 -10")


def test_truncation_is_the_share_of_the_box_beyond_the_image_border():
    depth, half = 10.0, 0.5
    x = (camera.IMAGE_WIDTH - 1 - camera.CENTRE_U) / camera.FOCAL * depth - camera.P[2][0, 3] / camera.FOCAL
    corners = np.array([[x + a * half, b * half, depth] for a in (-1, 1) for b in (-1, 1)] * 2)
    box, truncation = image_box(corners)
    assert truncation == pytest.approx(0.5)
    assert box[2] == camera.IMAGE_WIDTH - 1


def test_alpha_is_the_heading_seen_from_the_camera(frames):
    for frame in frames:
        for label in frame.labels:
            difference = label.rotation_y - np.arctan2(label.location[0], label.location[2]) - label.alpha
            assert wrap(difference) == pytest.approx(0.0, abs=1e-9)


def test_the_road_plane_passes_below_every_body(folder, frames):
    for frame in frames:
        plane = road_plane(frame.scene.ground)
        assert plane[1] < 0 and np.linalg.norm(plane[:3]) == pytest.approx(1.0)
        bottoms = np.stack([b.box[:3] - [0, 0, b.box[5] / 2] for b in frame.scene.bodies])
        np.testing.assert_allclose(camera.lidar_to_rect(bottoms) @ plane[:3] + plane[3], 0.0, atol=1e-9)
    last = (folder / "training/planes/000000.txt").read_text().splitlines()[3]
    np.testing.assert_allclose([float(v) for v in last.split()], road_plane(frames[0].scene.ground), rtol=1e-5)


def test_scenes_are_as_full_as_intended(frames):
    frames = frames + [make_frame(0, index) for index in range(FRAMES, 40)]
    points = np.array([len(f.scan.points) for f in frames])
    assert 14000 < points.min() and points.max() < 21000
    found = {name: np.mean([sum(x.name == name for x in f.labels) for f in frames]) for name in objects.BUILDERS}
    assert 5 < found["Car"] < 8 and 4 < found["Pedestrian"] < 7 and 4 < found["Cyclist"] < 6
    assert 0.5 < found["Van"] < 2 and 0.1 < found["Truck"] < 1
    centres = np.concatenate([[x.location for x in f.labels if x.name != "DontCare"] for f in frames])
    near = (centres[:, 2] > 2.5) & (centres[:, 2] < 40) & (np.abs(centres[:, 0]) < 20)
    assert near.mean() > 0.9
    level_0 = np.mean([x.occluded == 0 for f in frames for x in f.labels if x.name in ("Car", "Pedestrian", "Cyclist")])
    assert 0.35 < level_0 < 0.75  # hidden often enough to be hard


def test_intensity_has_kittis_range_and_steps(frames):
    intensity = frames[0].scan.points[:, 3]
    assert frames[0].scan.points.dtype == np.float32
    assert intensity.min() >= 0 and intensity.max() <= 0.99 + 1e-6
    np.testing.assert_allclose(intensity * 100, np.round(intensity * 100), atol=1e-4)


def test_direction_shows_in_the_shape_of_a_car():
    car = objects.car(np.random.default_rng(0)).place("Car", 0.0, 0.0, 0.0, 0.0)
    body, cabin = car.parts
    assert cabin.x < body.x - 0.1  # the cabin sits behind the middle


def test_counts_of_bodies_obey_the_settings():
    none = dict.fromkeys(
        ["pedestrians", "cyclists", "vans", "trucks", "distant", "poles", "posts", "bushes", "trees", "crates"]
        + ["parked_bicycles", "low_walls", "facades", "occluders"],
        (0, 0),
    )
    scene = draw_scene(np.random.default_rng(0), SceneSettings(cars=(3, 3), **none))
    assert [body.label for body in scene.bodies] == ["Car"] * 3
    assert isinstance(scene.bodies[0], Body)


def test_bodies_do_not_stand_in_one_another(frames):
    for frame in frames:
        boxes = [b.box for b in frame.scene.bodies if b.label]
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                assert np.hypot(*(a[:2] - b[:2])) > (a[4] + b[4]) / 2


# --- folders --------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_workers(folder, tmp_path):
    frames = 16  # two processes need eight frames each
    one = write_kitti(tmp_path / "one", frames=frames, workers=1, progress=False)
    two = write_kitti(tmp_path / "two", frames=frames, workers=2, progress=False)
    assert files_of(one) == files_of(two)
    short = {k: v for k, v in files_of(folder).items() if k.startswith("training")}
    assert short.items() <= files_of(one).items()  # frame i does not depend on how many there are


def test_another_seed_gives_other_scenes(tmp_path):
    first, other = tiny_kitti(tmp_path / "a", frames=2), tiny_kitti(tmp_path / "b", frames=2, seed=1)
    name = "training/velodyne/000000.bin"
    assert files_of(first)[name] != files_of(other)[name]


def test_a_finished_folder_is_left_alone_and_a_broken_one_completed(tmp_path):
    root = tiny_kitti(tmp_path / "set", frames=4)
    before = files_of(root)
    stamp = (root / "training/velodyne/000001.bin").stat().st_mtime_ns
    (root / "training/label_2/000002.txt").unlink()
    (root / "ImageSets/val.txt").unlink()
    tiny_kitti(root, frames=4)
    assert files_of(root) == before
    assert (root / "training/velodyne/000001.bin").stat().st_mtime_ns == stamp


def test_other_settings_in_the_same_folder_are_refused_with_the_fix(tmp_path):
    root = tiny_kitti(tmp_path / "set", frames=2)
    with pytest.raises(ValueError, match=r"seed: 0 there, 3 asked for.*Give another --out, delete the folder"):
        tiny_kitti(root, frames=2, seed=3)


def test_labelled_objects_reach_as_far_as_asked(tmp_path):
    folder = write_kitti(tmp_path / "near", frames=2, far=20.0, workers=1, progress=False)
    lines = [line.split() for path in (folder / "training/label_2").iterdir() for line in path.read_text().splitlines()]
    places = [(float(line[13]), float(line[11])) for line in lines if line[0] in ("Car", "Pedestrian", "Cyclist")]
    near = [(ahead, aside) for ahead, aside in places if ahead < 50]  # those beyond are there to be left out
    assert near and all(ahead < 21 and abs(aside) < 11 for ahead, aside in near)
    with pytest.raises(ValueError, match="far: 20.0 there, 39.5 asked for"):
        write_kitti(folder, frames=2, progress=False)


def test_a_folder_of_before_there_was_a_choice_of_reach_goes_on(tmp_path):
    folder = write_kitti(tmp_path / "old", frames=1, workers=1, progress=False)
    record = json.loads((folder / "simulated.json").read_text())
    del record["far"]
    (folder / "simulated.json").write_text(json.dumps(record))
    assert write_kitti(folder, frames=1, workers=1, progress=False) == folder


def test_a_folder_of_other_data_is_not_written_to(tmp_path):
    (tmp_path / "training").mkdir()
    with pytest.raises(ValueError, match="did not write; give another --out"):
        tiny_kitti(tmp_path)
    assert not (tmp_path / "simulated.json").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"frames": 0}, "frames must be at least 1, got 0"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"frames": 3, "val_frames": 4}, "val_frames must be within 0 and frames=3, got 4"),
    ],
)
def test_impossible_settings_are_named(tmp_path, setting, message):
    with pytest.raises(ValueError, match=message):
        write_kitti(tmp_path / "set", progress=False, **setting)
    assert not (tmp_path / "set").exists()


def test_splits_are_disjoint_and_cover_all_frames(folder):
    train, val, both = ((folder / f"ImageSets/{s}.txt").read_text().split() for s in ("train", "val", "trainval"))
    assert sorted(train + val) == both == [f"{i:06d}" for i in range(FRAMES)]
    assert len(val) == 3


@pytest.mark.parametrize(("frames", "val"), [(400, 100), (400, 150), (7, 3), (5, 0), (5, 5)])
def test_val_frames_are_spread_evenly(frames, val):
    chosen = sorted(val_indices(frames, val))
    assert len(chosen) == val
    if val > 1:
        assert np.ptp(np.diff(chosen)) <= 1


def test_the_folder_says_that_it_is_simulated_and_how_it_was_made(folder):
    note = (folder / "README.txt").read_text()
    assert note.startswith("SIMULATED DATA, NOT KITTI.")
    assert f"--frames {FRAMES} --seed 0" in note
    assert json.loads((folder / "simulated.json").read_text())["command"] in note


def test_the_command_line_writes_a_folder_and_reports_errors(tmp_path, capsys):
    out = tmp_path / "set"
    args = ["--out", str(out), "--frames", "2", "--workers", "1", "--quiet", "--val-frames", "1"]
    assert main([*args, "--images"]) == 0
    assert len(list((out / "training/image_2").glob("*.png"))) == 2
    assert main(args) == 2
    assert "images: True there, False asked for" in capsys.readouterr().err
