"""Augmentors that move the whole scene: flip, rotation, scaling, translation."""

from __future__ import annotations

import numpy as np

from pcdet.datasets.augmentor.scene import (
    check_limits,
    check_names,
    matrix_of,
    rotation_about_z,
    transform_scene,
    uniform,
)
from pcdet.registry import AUGMENTORS


@AUGMENTORS.register(name="random_world_flip")
class RandomWorldFlip:
    """Mirrors the scene at an axis, each with probability one half.

    Args:
        along_axis_list: "x" mirrors at the x axis (y changes its sign), "y" at the y axis.
    """

    def __init__(self, *, along_axis_list: list[str]):
        check_names(along_axis_list, ("x", "y"), "ALONG_AXIS_LIST")
        self.axes = along_axis_list

    def __call__(self, sample: dict, rng: np.random.Generator) -> dict:
        """Moves the scene. Added: ``flip_x`` and ``flip_y``, bool."""
        signs = {"x": [1.0, -1.0, 1.0], "y": [-1.0, 1.0, 1.0]}
        for axis in self.axes:
            sample[f"flip_{axis}"] = flipped = bool(rng.random() < 0.5)
            if flipped:
                sample = transform_scene(sample, matrix_of(np.diag(signs[axis])))
        return sample


@AUGMENTORS.register(name="random_world_rotation")
class RandomWorldRotation:
    """Turns the scene about the sensor's z axis.

    Args:
        world_rot_angle: [low, high] radians, counter-clockwise; one number stands for [-number, number].
    """

    def __init__(self, *, world_rot_angle: list[float] | float):
        self.limits = check_limits(world_rot_angle, "WORLD_ROT_ANGLE")

    def __call__(self, sample: dict, rng: np.random.Generator) -> dict:
        """Moves the scene. Added: ``noise_rot``, radians."""
        sample["noise_rot"] = angle = uniform(rng, self.limits)
        return transform_scene(sample, matrix_of(rotation_about_z(angle)))


@AUGMENTORS.register(name="random_world_scaling")
class RandomWorldScaling:
    """Scales the scene about the sensor: positions, sizes and velocities.

    Args:
        world_scale_range: [low, high].
    """

    def __init__(self, *, world_scale_range: list[float]):
        self.limits = check_limits(world_scale_range, "WORLD_SCALE_RANGE")

    def __call__(self, sample: dict, rng: np.random.Generator) -> dict:
        """Moves the scene. Added: ``noise_scale``."""
        sample["noise_scale"] = scale = uniform(rng, self.limits)
        return transform_scene(sample, matrix_of(np.diag([scale] * 3)))


@AUGMENTORS.register(name="random_world_translation")
class RandomWorldTranslation:
    """Shifts the scene by normally distributed steps.

    Args:
        noise_translate_std: standard deviations along x, y, z in metres; one number stands for all three.
    """

    def __init__(self, *, noise_translate_std: list[float] | float):
        self.std = np.broadcast_to(np.asarray(noise_translate_std, dtype=np.float64), (3,))
        if (self.std < 0).any():
            raise ValueError(f"NOISE_TRANSLATE_STD: must not be negative, got {noise_translate_std}")

    def __call__(self, sample: dict, rng: np.random.Generator) -> dict:
        """Moves the scene. Added: ``noise_translate`` (3,) metres."""
        shift = rng.normal(0.0, self.std)
        sample["noise_translate"] = shift.astype(np.float32)
        return transform_scene(sample, matrix_of(shift=shift))
