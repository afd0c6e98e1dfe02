"""Rays that meet shapes, the shapes of objects and clutter, and pictures of a scene."""

import importlib.util
import zlib
from pathlib import Path

import numpy as np
import pytest

from pcdet.datasets.simulated import camera, clutter, objects, rays
from pcdet.datasets.simulated.layout import draw_scene
from pcdet.datasets.simulated.primitives import Material, Primitive, intersect, normals
from pcdet.datasets.simulated.render import png, render
from pcdet.datasets.simulated.scene import Ground, Scene, Sculptor
from pcdet.datasets.simulated.sensor import NOTHING, Lidar, cast


def test_a_ray_meets_a_box_at_its_near_face_and_leaves_a_miss_at_infinity():
    box = Primitive(False, 10.0, 0.0, -1.0, 1.0, 2.0, 1.0, 0.0, Material())
    t = intersect(box, (0, 0, 0), np.array([1.0, 1.0, -1.0]), np.array([0.0, 1.0, 0.0]), np.zeros(3))
    np.testing.assert_allclose(t, [8.0, np.inf, np.inf])


def test_a_turned_box_shows_its_long_side():
    box = Primitive(False, 10.0, 0.0, -1.0, 1.0, 2.0, 1.0, np.pi / 2, Material())
    np.testing.assert_allclose(intersect(box, (0, 0, 0), np.ones(1), np.zeros(1), np.zeros(1)), [9.0])


def test_a_ray_from_above_meets_the_top():
    drum = Primitive(True, 4.0, 0.0, -2.0, -1.0, 0.5, 0.5, 0.0, Material())
    t = intersect(drum, (0, 0, 1.0), np.ones(1), np.zeros(1), np.array([-0.5]))
    np.testing.assert_allclose(t, [4.0])  # the middle of the top, two metres below the origin


@pytest.mark.parametrize("is_round", [False, True])
def test_hits_of_random_rays_lie_on_the_surface_and_normals_face_the_origin(is_round):
    rng = np.random.default_rng(0)
    shape = Primitive(is_round, 6.0, 2.0, -1.5, 0.7, 1.4, 0.6, 0.4, Material())
    d = rng.normal(size=(20000, 3)) * 0.3 + [6.0, 2.0, -0.4]
    t = intersect(shape, (0, 0, 0), *d.T)
    hit = np.isfinite(t)
    assert hit.sum() > 1000
    points = t[hit, None] * d[hit]
    cos, sin = np.cos(0.4), np.sin(0.4)
    rel = points - [6.0, 2.0, -0.4]
    u, v, w = (cos * rel[:, 0] + sin * rel[:, 1]) / 1.4, (cos * rel[:, 1] - sin * rel[:, 0]) / 0.6, rel[:, 2] / 1.1
    rim = np.hypot(u, v) if is_round else np.maximum(abs(u), abs(v))
    np.testing.assert_allclose(np.maximum(rim, abs(w)), 1.0, atol=1e-9)
    n = normals(shape, points)
    np.testing.assert_allclose(np.linalg.norm(n, axis=1), 1.0)
    assert ((n * d[hit]).sum(1) < 1e-9).all()


def test_windowed_casting_equals_casting_every_ray_at_every_primitive():
    scene, lidar = draw_scene(np.random.default_rng(5)), Lidar()
    hits = cast(scene, lidar)
    dx, dy, slope = np.cos(lidar.azimuths)[None], np.sin(lidar.azimuths)[None], np.tan(lidar.elevations)[:, None]
    fall = scene.ground.slope_x * dx + scene.ground.slope_y * dy - slope
    nearest = np.where(fall > 1e-6, scene.ground.height / np.maximum(fall, 1e-6), np.inf)
    for body in scene.bodies:
        for primitive in body.parts:
            nearest = np.minimum(nearest, intersect(primitive, (0, 0, 0), dx, dy, slope))
    nearest[nearest >= lidar.max_range * np.cos(lidar.elevations)[:, None]] = np.inf
    np.testing.assert_array_equal(hits.distance, nearest)
    assert (hits.owner == NOTHING).sum() == np.isinf(nearest).sum()


def test_the_owner_and_part_of_a_ray_are_the_shape_that_intersect_finds_nearest():
    scene, lidar = draw_scene(np.random.default_rng(6)), Lidar()
    hits = cast(scene, lidar)
    dx, dy, slope = np.cos(lidar.azimuths)[None], np.sin(lidar.azimuths)[None], np.tan(lidar.elevations)[:, None]
    for index, body in enumerate(scene.bodies):
        own = np.stack([intersect(primitive, (0, 0, 0), dx, dy, slope) for primitive in body.parts])
        mine = hits.owner == index
        np.testing.assert_array_equal(hits.part[mine], own.argmin(0)[mine])
        np.testing.assert_array_equal(hits.distance[mine], own.min(0)[mine])
        assert hits.seen[index] == mine.sum() <= hits.alone[index]


def test_a_shape_around_the_sensor_is_cast_at_every_azimuth():
    shape = Sculptor(4.0, 4.0, 1.0)
    shape.cylinder(0, 0, (0.0, 1.5), 2.0, 2.0, Material())
    hits = cast(Scene(Ground(), (shape.place(None, 0.0, 0.0, -1.73, 0.0),)), Lidar())
    steep = np.tan(Lidar().elevations) < -0.23 / 2.0  # meets the top, 0.23 m below the sensor, before its rim
    assert hits.alone[0] == steep.sum() * len(Lidar().azimuths) > 0


def test_rays_are_compiled_anew_and_it_is_said_where_no_folder_can_keep_them(tmp_path, monkeypatch, caplog):
    (tmp_path / "rays.py").write_bytes(Path(rays.__file__).read_bytes())
    (tmp_path / "__pycache__").write_text("a file where numba would make its folder; holds for root too")
    monkeypatch.setattr("numba.config.CACHE_DIR", "")
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "__pycache__"))
    spec = importlib.util.spec_from_file_location("rays_elsewhere", tmp_path / "rays.py")
    with caplog.at_level("WARNING", "pcdet"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert "Set NUMBA_CACHE_DIR to a folder that can" in caplog.text


@pytest.mark.parametrize("name", sorted(objects.BUILDERS) + sorted(clutter.BUILDERS))
def test_every_shape_can_be_built_and_labelled_ones_stay_inside_their_box(name):
    build = (objects.BUILDERS | clutter.BUILDERS)[name]
    for seed in range(30):
        shape = build(np.random.default_rng(seed))
        body = shape.place(None, 0.0, 0.0, 0.0, 0.0)
        for p in body.parts:
            assert p.z_hi > p.z_lo and p.half_length > 0 and p.half_width > 0
            if name in objects.BUILDERS:
                assert abs(p.x) + p.half_length <= shape.length / 2 - objects.MARGIN + 1e-9
                assert abs(p.y) + p.half_width <= shape.width / 2 - objects.MARGIN + 1e-9
                assert p.z_lo >= 0 and p.z_hi <= shape.height - objects.MARGIN + 1e-9


def test_a_picture_agrees_with_the_calibration():
    red = Material(rgb=(250, 0, 0))
    shape = Sculptor(0.5, 0.5, 0.5)
    shape.box(0, 0, (0.0, 0.5), 0.25, 0.25, red)
    body = shape.place(None, 12.0, 2.0, -1.0, 0.3)
    image = render(Scene(Ground(), (body,))).astype(int)
    assert image.shape == (camera.IMAGE_HEIGHT, camera.IMAGE_WIDTH, 3)
    v, u = np.nonzero(image[..., 0] > image[..., 1] + 40)
    corners = np.array([[p.x, p.y, p.z_lo + 0.25] for p in body.parts])
    centre = camera.project(camera.lidar_to_rect(corners))[0][0]
    assert abs((u.min() + u.max()) / 2 - centre[0]) < 2.5 and abs((v.min() + v.max()) / 2 - centre[1]) < 2.5


def test_a_png_file_holds_the_picture(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    data = png(image)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    start = data.index(b"IDAT") + 4
    lines = np.frombuffer(zlib.decompress(data[start : data.index(b"IEND") - 8]), np.uint8).reshape(5, 22)
    np.testing.assert_array_equal(lines[:, 1:].reshape(5, 7, 3), image)


def test_a_picture_of_another_type_is_refused():
    with pytest.raises(ValueError, match=r"image must be \(H, W, 3\) uint8, got \[4, 4\] float64"):
        png(np.zeros((4, 4)))
