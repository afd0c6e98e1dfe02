"""A shaded picture of a scene from the left colour camera, and a PNG writer of twenty lines."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from pcdet.datasets.simulated import camera
from pcdet.datasets.simulated.primitives import Primitive, intersect, normals
from pcdet.datasets.simulated.scene import Scene

SUN = np.array([-0.5, 0.35, 0.79])  # unit vector towards the sun, LiDAR frame
AMBIENT = 0.45
SKY_TOP, SKY_LOW = np.array([105.0, 150.0, 205.0]), np.array([200.0, 215.0, 225.0])
ASPHALT, HAZE = np.array([105.0, 104.0, 102.0]), np.array([190.0, 200.0, 208.0])
HAZE_RANGE = 120.0  # metres at which 1 - 1/e of a colour is lost
STEP = 2  # every second pixel is cast and repeated: a picture costs a quarter


def render(scene: Scene) -> np.ndarray:
    """(375, 1242, 3) uint8 picture that agrees with the calibration to a pixel."""
    origin = camera.rect_to_lidar(np.array([[-camera.P[2][0, 3] / camera.FOCAL, 0.0, 0.0]]))[0]
    rays = _pixel_rays()
    depth, colour = _background(scene, origin, rays)
    for body in scene.bodies:
        for primitive in body.parts:
            _paint(primitive, origin, rays, depth, colour)
    haze = 1.0 - np.exp(-depth / HAZE_RANGE)[..., None]
    visible = np.isfinite(depth)[..., None]
    colour = np.where(visible, colour * (1 - haze) + HAZE * haze, colour)
    full = np.repeat(np.repeat(np.clip(colour, 0, 255).astype(np.uint8), STEP, axis=0), STEP, axis=1)
    return np.ascontiguousarray(full[: camera.IMAGE_HEIGHT, : camera.IMAGE_WIDTH])


def _pixel_rays() -> np.ndarray:
    """(H, W, 3) directions in the LiDAR frame through the middles of blocks of pixels, one metre deep each."""
    u = np.arange(0, camera.IMAGE_WIDTH, STEP) + 0.5 * (STEP - 1)
    v = np.arange(0, camera.IMAGE_HEIGHT, STEP) + 0.5 * (STEP - 1)
    u, v = np.meshgrid((u - camera.CENTRE_U) / camera.FOCAL, (v - camera.CENTRE_V) / camera.FOCAL)
    ends = camera.rect_to_lidar(np.stack([u, v, np.ones_like(u)], axis=-1).reshape(-1, 3))
    start = camera.rect_to_lidar(np.zeros((1, 3)))
    return (ends - start).reshape(*u.shape, 3)


def _background(scene: Scene, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) depth of the ground, inf for sky, and (H, W, 3) colours."""
    ground = scene.ground
    fall = ground.slope_x * rays[..., 0] + ground.slope_y * rays[..., 1] - rays[..., 2]
    above = origin[2] - ground.z(origin[0], origin[1])
    depth = np.where(fall > 1e-4, above / np.maximum(fall, 1e-4), np.inf)
    near = np.where(np.isfinite(depth), depth, 0.0)
    x, y = origin[0] + near * rays[..., 0], origin[1] + near * rays[..., 1]
    tiles = (np.floor(x / 4.0) + np.floor(y / 4.0)) % 2.0  # four-metre tiles show distance and perspective
    asphalt = ASPHALT * (1.0 + 0.08 * tiles[..., None])
    height = np.clip(rays[..., 2:] / 0.25, 0.0, 1.0)
    sky = SKY_LOW * (1 - height) + SKY_TOP * height
    return depth, np.where(np.isfinite(depth)[..., None], asphalt, sky)


def _paint(primitive: Primitive, origin: np.ndarray, rays: np.ndarray, depth: np.ndarray, colour: np.ndarray) -> None:
    """Draws one primitive into ``depth`` and ``colour`` where it is nearest."""
    window = _window(primitive, rays.shape[:2])
    d = rays[window]
    if d.size == 0:
        return
    hit = intersect(primitive, origin, d[..., 0], d[..., 1], d[..., 2])
    closer = hit < depth[window]
    if not closer.any():
        return
    points = origin + hit[closer][:, None] * d[closer]
    facing = normals(primitive, points) @ SUN
    light = AMBIENT + (1 - AMBIENT) * np.maximum(facing, 0.0)
    depth[window][closer] = hit[closer]
    colour[window][closer] = np.asarray(primitive.material.rgb, float) * light[:, None]


def _window(primitive: Primitive, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the picture that a primitive may cover."""
    cos, sin = np.cos(primitive.yaw), np.sin(primitive.yaw)
    along = np.array([1, 1, -1, -1]) * primitive.half_length
    across = np.array([1, -1, -1, 1]) * primitive.half_width
    x, y = primitive.x + cos * along - sin * across, primitive.y + sin * along + cos * across
    corners = [np.stack([x, y, np.full(4, z)], axis=1) for z in (primitive.z_lo, primitive.z_hi)]
    pixels, depth = camera.project(camera.lidar_to_rect(np.concatenate(corners)))
    if depth.max() < camera.NEAR_PLANE:
        return slice(0, 0), slice(0, 0)
    low = np.floor(pixels.min(axis=0) / STEP).astype(int) - 1
    high = np.ceil(pixels.max(axis=0) / STEP).astype(int) + 2
    (left, top), (right, bottom) = np.maximum(low, 0), np.minimum(high, [shape[1], shape[0]])
    return slice(top, max(top, bottom)), slice(left, max(left, right))


def png(image: np.ndarray) -> bytes:
    """An 8-bit RGB PNG file.

    Args:
        image: (H, W, 3) uint8.

    Returns:
        The bytes of the file; the same for the same picture and zlib.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be (H, W, 3) uint8, got {list(image.shape)} {image.dtype}")
    height, width = image.shape[:2]
    lines = np.zeros((height, 1 + 3 * width), np.uint8)  # each line starts with its filter type, 0 for none
    lines[:, 1:] = image.reshape(height, -1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(lines.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
