"""The constants of the official KITTI evaluation: classes, difficulties, overlaps."""

from __future__ import annotations

import difflib

CLASS_NAMES = ("Car", "Pedestrian", "Cyclist", "Van", "Person_sitting", "Truck")
DONT_CARE = "DontCare"
LABELS = (*CLASS_NAMES, DONT_CARE)  # a label's code is its place here
OTHER = -1  # the code of any other name

# Ground truth of a neighbour class can be matched, and then counts neither as right nor as wrong.
NEIGHBOURS = {"Car": "Van", "Pedestrian": "Person_sitting"}

DIFFICULTIES = ("easy", "moderate", "hard")
MIN_HEIGHT = (40, 25, 25)  # pixels; ground truth of exactly this height is ignored, a detection of it is not
MAX_OCCLUSION = (0, 1, 2)
MAX_TRUNCATION = (0.15, 0.3, 0.5)

METRICS = ("bbox", "bev", "3d")

# Overlaps that a match must exceed, for (bbox, bev, 3d). The devkit knows the strict ones of the first three classes;
# the rest is OpenPCDet's.
_VEHICLE, _PERSON = (0.7, 0.7, 0.7), (0.5, 0.5, 0.5)
_LOOSE_VEHICLE, _LOOSE_PERSON = (0.7, 0.5, 0.5), (0.5, 0.25, 0.25)
OVERLAPS = {
    "strict": {
        "Car": _VEHICLE,
        "Pedestrian": _PERSON,
        "Cyclist": _PERSON,
        "Van": _VEHICLE,
        "Person_sitting": _PERSON,
        "Truck": _VEHICLE,
    },
    "loose": {
        "Car": _LOOSE_VEHICLE,
        "Pedestrian": _LOOSE_PERSON,
        "Cyclist": _LOOSE_PERSON,
        "Van": _LOOSE_VEHICLE,
        "Person_sitting": _LOOSE_PERSON,
        "Truck": (0.5, 0.5, 0.5),
    },
}

NO_SCORE = -1e7  # a detection with a score at or below this matches nothing while thresholds are chosen
NO_ALPHA = -10  # one detection with this observation angle disables the orientation similarity of every class
NO_LOCATION = -1000
NUM_RECALL_POINTS = 41

_CODES = {name.lower(): code for code, name in enumerate(LABELS)}


class _LabelCodes(dict):
    """Code of a label's name, whatever its case; names are looked up once."""

    def __missing__(self, name: str) -> int:
        self[name] = code = _CODES.get(str(name).lower(), OTHER)
        return code


def label_codes(names) -> list[int]:
    """The code of every name: its place in ``LABELS``, or ``OTHER``."""
    codes = _LabelCodes()
    return [codes[name] for name in names]


def resolve_classes(classes) -> tuple[str, ...]:
    """The official spelling of class names (any case) or of OpenPCDet's class numbers; one or a list of them.

    Raises:
        ValueError: a class that the evaluation does not know.
    """
    names = []
    for given in [classes] if isinstance(classes, (str, int)) else classes:
        if isinstance(given, str):
            code = _CODES.get(given.lower(), OTHER)
        else:
            code = int(given)
        if not 0 <= code < len(CLASS_NAMES):
            close = difflib.get_close_matches(str(given), CLASS_NAMES, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"the KITTI evaluation has no class {given!r}.{hint} Known: {', '.join(CLASS_NAMES)}")
        names.append(CLASS_NAMES[code])
    return tuple(names)
