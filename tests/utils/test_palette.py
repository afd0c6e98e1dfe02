"""Colours are told apart by readers who see two primaries instead of three."""

from itertools import combinations

import numpy as np
import pytest

from pcdet.utils import palette

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
SIGHT = {
    "all three": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
WHITE = [0.9505, 1.0, 1.089]
TOLD_APART = 15  # CIE76; 2.3 is just noticeable side by side


def lab(colour, sight):
    """CIE L*a*b* of a hexadecimal colour, as it is seen."""
    rgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(np.maximum(TO_XYZ @ np.clip(SIGHT[sight] @ linear, 0, 1) / WHITE, 216 / 24389))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(
    "together",
    [
        {"truth": palette.TRUTH, **palette.CLASSES},
        {"truth": palette.TRUTH, "missed": palette.MISSED, "false": palette.FALSE, "found": palette.FOUND},
    ],
    ids=["classes", "verdicts"],
)
def test_boxes_of_one_picture_are_told_apart(together, sight):
    seen = {name: lab(colour, sight) for name, colour in together.items()}
    distances = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in combinations(seen, 2)}
    assert min(distances.values()) > TOLD_APART, distances


def test_red_and_green_that_are_not_told_apart_are_found():
    assert np.linalg.norm(lab("#d73027", "no green") - lab("#7a7a00", "no green")) < TOLD_APART


def test_controls_and_methods_share_no_colour():
    fixed = {style.colour for style in palette.FIXED.values()}
    assert len(fixed) == len(palette.FIXED) and not fixed & {style.colour for style in palette.METHODS}


def test_styles_do_not_depend_on_which_controls_are_there():
    few, many = ["teacher", "a", "b"], ["teacher", "student", "a", "student+slices", "b"]
    of_few, of_many = palette.styles_of(few), palette.styles_of(many)
    assert all(of_few[name] == of_many[name] for name in few)
    assert of_many["student+slices"] is palette.FIXED["slices"]


def test_the_teacher_comes_first_then_controls_then_methods_as_they_come():
    names = ["student+fitnet", "student+slices", "teacher", "student+at", "student+longer", "student"]
    expected = ["teacher", "student", "student+longer", "student+slices", "student+fitnet", "student+at"]
    assert palette.in_order(names) == expected
