"""Simulated scenes in nuScenes' tables: they link, they count, they move as they say, and a seed fixes their bytes."""

import json
from pathlib import Path

import numpy as np
import pytest

from pcdet.cli.simulated import main
from pcdet.datasets.nuscenes.splits import samples_of_split
from pcdet.datasets.nuscenes.tables import TABLES, Tables
from pcdet.datasets.simulated import write_kitti, write_nuscenes
from pcdet.datasets.simulated.nuscenes.classes import CLASSES
from pcdet.datasets.simulated.nuscenes.world import Drive, draw_world
from pcdet.datasets.simulated.scene import Ground, Material, Scene, Sculptor
from pcdet.datasets.simulated.sensor import Lidar, cast

RELEASE, KEY_FRAMES, SWEEPS = "v1.0-mini", 4, 10
SMALL = dict(train_scenes=2, val_scenes=1, key_frames=KEY_FRAMES, azimuths=200, reach=25.0, progress=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_nuscenes(tmp_path_factory.mktemp("simulated") / "set", **SMALL, workers=1)


@pytest.fixture(scope="module")
def tables(folder):
    return Tables(folder / RELEASE, RELEASE)


def matrix(row) -> np.ndarray:
    """(4, 4) from a row's own frame to the one above, by the textbook's formula for a quaternion."""
    w, x, y, z = row["rotation"]
    out = np.eye(4)
    out[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    out[:3, 3] = row["translation"]
    return out


def global_points(tables: Tables, data) -> np.ndarray:
    """(N, 3) points of a sweep in the global frame."""
    points = np.fromfile(tables.dataroot / data["filename"], np.float32).reshape(-1, 5).astype(np.float64)
    calibration = tables.get("calibrated_sensor", data["calibrated_sensor_token"])
    pose = matrix(tables.get("ego_pose", data["ego_pose_token"])) @ matrix(calibration)
    return points[:, :3] @ pose[:3, :3].T + pose[:3, 3]


def inside(points: np.ndarray, annotation, margin: float = 0.0) -> np.ndarray:
    """(N,) whether points of the global frame lie in an annotated box, whose size is width, length, height."""
    width, length, height = annotation["size"]
    local = (points - annotation["translation"]) @ matrix(annotation)[:3, :3]
    return (np.abs(local) <= 0.5 * np.array([length, width, height]) + margin).all(1)


def annotations_of(tables: Tables, sample):
    return [row for row in tables.rows("sample_annotation") if row["sample_token"] == sample["token"]]


# --- tables ---------------------------------------------------------------------------------------------------------


def test_every_token_resolves(tables):
    targets = {table: {row["token"] for row in tables.rows(table)} for table in TABLES}
    for table in TABLES:
        assert len(targets[table]) == len(tables.rows(table)) > 0
        for row in tables.rows(table):
            for key, value in row.items():
                if key in ("prev", "next"):
                    assert value == "" or value in targets[table]
                elif key.endswith(("_token", "_tokens")):
                    name = key.removesuffix("s").removesuffix("_token")
                    name = {"first_sample": "sample", "last_sample": "sample"}.get(name, name)
                    name = "sample_annotation" if name.endswith("_annotation") else name
                    assert set(value if isinstance(value, list) else [value]) <= targets[name], (table, key)


def test_rows_have_the_fields_of_a_real_release(tables, nuscenes_root):
    for table in TABLES:
        real = json.loads((nuscenes_root / RELEASE / f"{table}.json").read_text())
        assert {frozenset(row) for row in tables.rows(table)} == {frozenset(row) for row in real}, table


def test_links_run_forwards_in_time_and_back(tables):
    for table in ("sample", "sample_data", "sample_annotation"):
        for row in tables.rows(table):
            if row["next"]:
                after = tables.get(table, row["next"])
                assert after["prev"] == row["token"]
                if table != "sample_annotation":
                    assert after["timestamp"] > row["timestamp"]
    for scene in tables.rows("scene"):
        assert tables.get("sample", scene["first_sample_token"])["prev"] == ""
        assert tables.get("sample", scene["last_sample_token"])["next"] == ""
        assert scene["nbr_samples"] == KEY_FRAMES
    for row in tables.rows("instance"):
        chain, token = [], row["first_annotation_token"]
        while token:
            chain.append(tables.get("sample_annotation", token))
            token = chain[-1]["next"]
        assert len(chain) == row["nbr_annotations"]
        assert chain[-1]["token"] == row["last_annotation_token"]
        assert {one["instance_token"] for one in chain} == {row["token"]}


def test_scenes_belong_to_the_splits_of_the_release(tables):
    assert len(samples_of_split(tables, "mini_train")) == 2 * KEY_FRAMES
    assert len(samples_of_split(tables, "mini_val")) == KEY_FRAMES


def test_ten_sweeps_lie_between_key_frames_half_a_second_apart(tables):
    for sample in tables.rows("sample"):
        data, back = tables.key_frames[sample["token"]], 0
        assert data["timestamp"] == sample["timestamp"]
        assert data["filename"].startswith("samples/LIDAR_TOP/")
        while data["prev"] and back < SWEEPS:
            before = tables.get("sample_data", data["prev"])
            assert data["timestamp"] - before["timestamp"] == 50_000
            data, back = before, back + 1
        assert back == (SWEEPS if sample["prev"] else 0)
        assert data["is_key_frame"]
        if sample["prev"]:
            assert data["sample_token"] == sample["prev"]
            assert tables.get("sample_data", data["next"])["filename"].startswith("sweeps/LIDAR_TOP/")


def test_sweeps_are_those_of_a_sensor_of_32_beams(tables):
    for data in tables.rows("sample_data")[:3]:
        file = tables.dataroot / data["filename"]
        points = np.fromfile(file, np.float32).reshape(-1, 5)
        ring, intensity = points[:, 4], points[:, 3]
        assert set(ring) == set(range(32))
        assert intensity.min() >= 0 and 60 < intensity.max() <= 255
        elevation = np.rad2deg(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])))
        np.testing.assert_allclose(elevation, -30.67 + ring * (10.67 + 30.67) / 31, atol=1e-3)
        around = np.histogram(np.arctan2(points[:, 1], points[:, 0]), 36, (-np.pi, np.pi))[0]
        assert around.min() > 0  # all the way around


# --- objects --------------------------------------------------------------------------------------------------------


def test_points_in_boxes_are_those_that_the_annotations_count(tables):
    total = 0
    for sample in tables.rows("sample"):
        points = global_points(tables, tables.key_frames[sample["token"]])
        for annotation in annotations_of(tables, sample):
            assert inside(points, annotation).sum() == annotation["num_lidar_pts"]
            total += annotation["num_lidar_pts"]
    assert total > 1000


def test_all_classes_appear_with_attributes_of_their_kind(tables):
    kinds = {
        "vehicle.car": "vehicle",
        "vehicle.truck": "vehicle",
        "vehicle.construction": "vehicle",
        "vehicle.bus.rigid": "vehicle",
        "vehicle.trailer": "vehicle",
        "human.pedestrian.adult": "pedestrian",
        "vehicle.bicycle": "cycle",
        "vehicle.motorcycle": "cycle",
        "movable_object.barrier": None,
        "movable_object.trafficcone": None,
    }
    seen = set()
    for annotation in tables.rows("sample_annotation"):
        instance = tables.get("instance", annotation["instance_token"])
        category = tables.get("category", instance["category_token"])["name"]
        names = [tables.get("attribute", one)["name"] for one in annotation["attribute_tokens"]]
        assert [name.partition(".")[0] for name in names] == ([kinds[category]] if kinds[category] else [])
        seen.add(category)
    assert seen == set(kinds)


def test_the_speed_of_an_object_is_the_difference_of_its_positions(tables):
    """By the attribute: what moves has moved in half a second, what is parked has not."""
    speeds = {}
    for annotation in tables.rows("sample_annotation"):
        if not annotation["next"] or not annotation["attribute_tokens"]:
            continue
        after = tables.get("sample_annotation", annotation["next"])
        way = np.subtract(after["translation"], annotation["translation"])
        times = [tables.get("sample", row["sample_token"])["timestamp"] for row in (annotation, after)]
        speed = np.linalg.norm(way) / (1e-6 * (times[1] - times[0]))
        name = tables.get("attribute", annotation["attribute_tokens"][0])["name"]
        speeds.setdefault(name, []).append(speed)
        if speed > 0.1:  # and along its heading
            ahead = matrix(annotation)[:3, 0]
            assert way @ ahead == pytest.approx(np.linalg.norm(way), rel=1e-4)
    for name in ("vehicle.parked", "vehicle.stopped", "pedestrian.standing", "cycle.without_rider"):
        assert max(speeds[name]) < 1e-9
    assert 2.0 <= min(speeds["vehicle.moving"]) and max(speeds["vehicle.moving"]) <= 9.01
    assert 0.59 <= min(speeds["pedestrian.moving"]) and max(speeds["pedestrian.moving"]) <= 1.81


def standing(tables: Tables, sample):
    kinds = ("vehicle.parked", "vehicle.stopped", "pedestrian.standing")
    wanted = {row["token"] for row in tables.rows("attribute") if row["name"] in kinds}
    return [row for row in annotations_of(tables, sample) if wanted & set(row["attribute_tokens"])]


def sweeps_before(tables: Tables, data):
    """The ten sweeps before a key frame."""
    found = []
    for _ in range(SWEEPS):
        data = tables.get("sample_data", data["prev"])
        found.append(data)
    return found


def above_ground(points: np.ndarray) -> np.ndarray:
    return points[points[:, 2] > 0.2]


def test_points_of_a_standing_object_fall_together_in_ten_sweeps_though_the_vehicle_drives(tables):
    """With the pose of each sweep they lie in its box; with that of the key frame, as if nothing drove, many do not."""
    together = around = without_drive = 0
    for scene in tables.rows("scene"):
        sample = tables.get("sample", scene["last_sample_token"])
        key = tables.key_frames[sample["token"]]
        sweeps = sweeps_before(tables, key)
        there, then = (tables.get("ego_pose", one["ego_pose_token"])["translation"] for one in (key, sweeps[-1]))
        if np.linalg.norm(np.subtract(there, then)) < 1.0:
            continue  # it stands
        right = above_ground(np.concatenate([global_points(tables, one) for one in sweeps]))
        still = [{**one, "ego_pose_token": key["ego_pose_token"]} for one in sweeps]
        wrong = above_ground(np.concatenate([global_points(tables, one) for one in still]))
        for annotation in standing(tables, sample):
            together += inside(right, annotation).sum()
            around += inside(right, annotation, margin=0.2).sum()  # others keep 0.3 m away
            without_drive += inside(wrong, annotation).sum()
    assert together > 500
    assert together > 0.995 * around
    assert without_drive < 0.8 * together


def test_visibility_is_high_where_many_points_are_and_low_where_none(tables):
    rows = tables.rows("sample_annotation")
    levels = [int(row["visibility_token"]) for row in rows]
    points = [row["num_lidar_pts"] for row in rows]
    assert {level for level, count in zip(levels, points, strict=True) if count == 0} & {1}
    means = [np.mean([p for p, one in zip(points, levels, strict=True) if one == level]) for level in (1, 4)]
    assert means[0] < means[1]


# --- the world ------------------------------------------------------------------------------------------------------


def test_a_drive_goes_where_its_heading_points():
    drive, step = Drive(100.0, 50.0, 0.4, 6.0, 0.3), 1e-4
    for seconds in (0.0, 1.0, 7.5):
        x, y, heading = drive.pose(seconds)
        after = drive.pose(seconds + step)
        np.testing.assert_allclose(
            [(after[0] - x) / step, (after[1] - y) / step], [6 * np.cos(heading), 6 * np.sin(heading)], atol=1e-3
        )
        assert heading == pytest.approx(0.4 + 0.3 * seconds)
    assert Drive(1.0, 2.0, 0.0, 5.0, 0.0).pose(2.0) == (11.0, 2.0, 0.0)


def test_nothing_runs_into_anything():
    world = draw_world(np.random.default_rng(3), duration=4.0, reach=25.0)
    for seconds in np.arange(0.0, 4.01, 0.25):
        places = np.array([actor.place(seconds) for actor in world.actors])
        halves = np.array([0.5 * min(a.shape.width, a.shape.length) for a in world.actors])
        apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
        np.fill_diagonal(apart, np.inf)
        assert (apart > halves[:, None] + halves[None]).all()
        ego = world.drive.pose(seconds)
        assert (np.linalg.norm(places - ego[:2], axis=1) > halves + 0.95).all()


def test_shapes_stay_inside_their_boxes():
    for name, kind in CLASSES.items():
        for number, look in enumerate((*kind.standing, *kind.moving)):
            for seed in range(5):
                shape = look.build(np.random.default_rng([seed, number]))
                for _, forward, left, z, half_length, half_width, _, turn in shape.parts:
                    assert turn == 0.0
                    assert half_length > 0 and half_width > 0 and z[1] > z[0], name
                    assert abs(forward) + half_length <= 0.5 * shape.length - 0.049, name
                    assert abs(left) + half_width <= 0.5 * shape.width - 0.049, name
                    assert z[0] >= 0 and z[1] <= shape.height - 0.049, name


def test_a_body_straight_behind_the_sensor_is_seen_whole():
    """Its rays lie at both ends of the turn."""
    shape = Sculptor(2.0, 4.0, 3.0)
    shape.box(0, 0, (0, 3.0), 1.0, 2.0, Material())
    lidar = Lidar(azimuths=np.deg2rad(np.arange(-179.5, 180.0, 1.0)))
    ahead, behind = (cast(Scene(Ground(), (shape.place("Car", x, 0.0, -1.73, 0.0),)), lidar) for x in (10.0, -10.0))
    assert ahead.seen[0] == behind.seen[0] > 100


# --- the folder -----------------------------------------------------------------------------------------------------


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_and_an_interrupted_run_goes_on(folder, tmp_path, monkeypatch):
    from pcdet.datasets.simulated.nuscenes import writer

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_write_tables", stop)
        with pytest.raises(KeyboardInterrupt):
            write_nuscenes(tmp_path / "set", **SMALL, workers=1)
    root = tmp_path / "set" / RELEASE
    assert not (root / RELEASE).exists()  # tables are there as a whole or not at all
    lost = next((root / "sweeps/LIDAR_TOP").iterdir())
    lost.unlink()
    write_nuscenes(tmp_path / "set", **SMALL, workers=1)
    assert files_of(tmp_path / "set") == files_of(folder)


def test_another_seed_gives_other_sweeps_and_a_scene_does_not_depend_on_their_number(folder, tmp_path):
    few = {**SMALL, "train_scenes": 1, "key_frames": 2}
    one = files_of(write_nuscenes(tmp_path / "one", **{**few, "key_frames": KEY_FRAMES}, workers=1))
    scene = {name: data for name, data in one.items() if "LIDAR_TOP" in name}
    assert scene.items() <= files_of(folder).items()
    other = files_of(write_nuscenes(tmp_path / "other", **few, seed=1, workers=1))
    name = next(name for name in other if "samples" in name)
    assert other[name] != scene[name]


def test_impossible_settings_of_a_release_are_named(tmp_path, folder):
    with pytest.raises(ValueError, match=r"val_scenes must be within 1 and the 2 of mini_val, got 3"):
        write_nuscenes(tmp_path / "set", val_scenes=3)
    with pytest.raises(ValueError, match="release must be one of v1.0-mini, v1.0-trainval, got v1.0-test"):
        write_nuscenes(tmp_path / "set", release="v1.0-test")
    with pytest.raises(ValueError, match="reach must be within 15.0 and 70.0 metres, got 5.0"):
        write_nuscenes(tmp_path / "set", reach=5)
    assert not (tmp_path / "set").exists()
    with pytest.raises(ValueError, match="azimuths: 200 there, 100 asked for"):
        write_nuscenes(folder, **{**SMALL, "azimuths": 100})
    with pytest.raises(ValueError, match="format: nuscenes there, None asked for"):
        write_kitti(folder, frames=1, progress=False)


def test_the_command_line_writes_the_set_and_refuses_flags_of_the_other_format(tmp_path, capsys):
    args = ["--out", str(tmp_path / "set"), "--workers", "1", "--quiet", "--format", "nuscenes"]
    small = ["--train-scenes", "1", "--val-scenes", "1", "--key-frames", "2", "--azimuths", "40", "--sweeps", "2"]
    assert main([*args, *small, "--release", "v1.0-trainval"]) == 0
    tables = Tables(tmp_path / "set" / "v1.0-trainval", "v1.0-trainval")
    assert len(samples_of_split(tables, "train")) == len(samples_of_split(tables, "val")) == 2
    assert (tmp_path / "set/README.txt").read_text().startswith("SIMULATED DATA, NOT NUSCENES.")
    with pytest.raises(SystemExit):
        main([*args, "--frames", "3"])
    assert "--format nuscenes has no --frames" in capsys.readouterr().err
