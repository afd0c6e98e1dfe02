"""Casts a lidar's rays at boxes and cylinders, one at a time, compiled by numba.

Why numba: a shape fills few of the 20,000 rays, so that NumPy spends its time on starting some 15 operations for each
of a scene's hundreds of shapes. Compiled loops do the same arithmetic in the same order, and give the same bits as
:func:`pcdet.datasets.simulated.primitives.intersect`, ten times as fast (``docs/benchmarks/cpu.md``). That function
stays: pictures cast at whole grids of pixels, where arrays are at their best, and the tests hold the two against each
other. Equal bits need ``fastmath`` to stay off.

Import this file where rays are cast, not at the head of a file: numba takes 0.4 s. The first process that casts
compiles for seconds and leaves the code in ``NUMBA_CACHE_DIR``, else beside this file, else in the user's cache folder.
Array operations in compiled functions (``windows.min()``, ``near[...] = inf``) would make that half as long again.
"""

from __future__ import annotations

import logging
import math

import numpy as np
from numba import njit

PARALLEL = 1e-12  # as in primitives.py; not imported: the compiled code would outlive a change in another file


def can_keep_code() -> bool:
    """Whether numba finds a folder to keep compiled code in; where it finds none, ``njit(cache=True)`` raises."""
    try:
        njit(cache=True)(can_keep_code)  # looks for the folder; compiles nothing before a call
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        logging.getLogger("pcdet").warning(
            "the simulator's rays are compiled anew in every process, which takes seconds: neither the package's nor "
            "the user's cache folder can be written to. Set NUMBA_CACHE_DIR to a folder that can."
        )
        return False
    return True


@njit(cache=can_keep_code(), error_model="numpy")
def cast_bodies(is_round, solids, windows, first, dx, dy, slope, limit, ground, distance, owner, part):
    """Puts what each ray meets first into ``distance``, ``owner`` and ``part``; counts the rays a body fills alone.

    Args:
        is_round: (P,) bool, True for a cylinder. The shapes of a body follow one another.
        solids: (P, 8) [x, y, cos(yaw), sin(yaw), half_length, half_width, middle height, half height].
        windows: (P, 4) [top, bottom, left, right] of the rays that can meet a shape; bottom and right are excluded.
        first: (M + 1,) index of each body's first shape, then P.
        dx: (A,) cosine of each azimuth.
        dy: (A,) sine.
        slope: (R,) rise of each elevation over a horizontal metre.
        limit: (R,) horizontal distance at which the sensor's range ends, metres.
        ground: (R, A) horizontal distance to the ground, metres.
        distance: (R, A) as in ``sensor.Hits``, changed in place, as are the next two.
        owner: (R, A).
        part: (R, A).

    Returns:
        (M,) int64, rays that would meet each body if it stood alone on the ground.
    """
    near, which = np.empty(ground.shape), np.empty(ground.shape, np.int64)  # a body's own hits, valid in its window
    alone = np.zeros(first.size - 1, np.int64)
    for body in range(alone.size):
        begin, end = first[body], first[body + 1]
        top, bottom, left, right = _bounds(windows[begin:end])
        for r in range(top, bottom):
            for c in range(left, right):
                near[r, c] = np.inf
        for shape in range(begin, end):
            _cast_shape(is_round[shape], solids[shape], windows[shape], dx, dy, slope, shape - begin, near, which)
        for r in range(top, bottom):
            for c in range(left, right):
                t = near[r, c]
                alone[body] += t < min(ground[r, c], limit[r])
                if t < min(distance[r, c], limit[r]):
                    distance[r, c], owner[r, c], part[r, c] = t, body, which[r, c]
    return alone


@njit(error_model="numpy")
def _bounds(windows):
    """The window around windows."""
    top, bottom, left, right = windows[0]
    for window in windows[1:]:
        top, bottom = min(top, window[0]), max(bottom, window[1])
        left, right = min(left, window[2]), max(right, window[3])
    return top, bottom, left, right


@njit(error_model="numpy")
def _cast_shape(is_round, solid, window, dx, dy, slope, number, near, which):
    """Writes the hits of shape ``number`` of a body into ``near`` and ``which``, where they are the nearest so far."""
    x, y, cos, sin, half_length, half_width, middle, half_height = solid
    top, bottom, left, right = window
    ox, oy = (cos * -x + sin * -y) / half_length, (cos * -y - sin * -x) / half_width
    for c in range(left, right):
        ux, uy = (cos * dx[c] + sin * dy[c]) / half_length, (cos * dy[c] - sin * dx[c]) / half_width
        t_in, t_out = _unit_circle(ox, oy, ux, uy) if is_round else _unit_square(ox, oy, ux, uy)
        if t_in > t_out:
            continue
        for r in range(top, bottom):
            z_in, z_out = _slab(-middle, slope[r], half_height)
            t = max(t_in, z_in)
            if 0.0 < t < near[r, c] and t <= min(t_out, z_out):
                near[r, c], which[r, c] = t, number


@njit(error_model="numpy")
def _slab(o, d, half):
    """Where a ray enters and leaves -half..half on one axis."""
    d = PARALLEL if abs(d) < PARALLEL else d
    a, b = (-half - o) / d, (half - o) / d
    return min(a, b), max(a, b)


@njit(error_model="numpy")
def _unit_square(ox, oy, ux, uy):
    """Where a ray enters and leaves the square -1..1."""
    x_in, x_out = _slab(ox, ux, 1.0)
    y_in, y_out = _slab(oy, uy, 1.0)
    return max(x_in, y_in), min(x_out, y_out)


@njit(error_model="numpy")
def _unit_circle(ox, oy, ux, uy):
    """Where a ray enters and leaves the unit circle; it enters at infinity when it misses."""
    a = max(ux * ux + uy * uy, PARALLEL)
    b = ox * ux + oy * uy
    disc = b * b - a * (ox * ox + oy * oy - 1.0)
    if disc < 0.0:
        return np.inf, -np.inf
    root = math.sqrt(disc)
    return (-b - root) / a, (-b + root) / a
