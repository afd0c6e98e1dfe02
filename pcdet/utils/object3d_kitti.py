"""KITTI's label lines: one object each, with its difficulty level."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pcdet.utils.text_files import TextFileError, read_text

LARGEST_NUMBER = float(np.finfo(np.float32).max)
CLASS_IDS = {"Car": 1, "Pedestrian": 2, "Cyclist": 3, "Van": 4}
NUM_FIELDS = 15  # type truncated occluded alpha bbox(4) dimensions(3) location(3) rotation_y; a 16th is the score
LEVELS = (  # least height of the image box in pixels, most truncation, most occlusion
    (40, 0.15, 0, "Easy"),
    (25, 0.3, 1, "Moderate"),
    (25, 0.5, 2, "Hard"),
)


class LabelError(ValueError):
    """Malformed lines of a label file; the message names the file and each line.

    Attributes:
        problems: one sentence each.
    """

    def __init__(self, problems: str | list[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self):
        return type(self), (self.problems,)


def cls_type_to_id(cls_type: str) -> int:
    """1-based number of KITTI's main classes, -1 for any other."""
    return CLASS_IDS.get(cls_type, -1)


class Object3d:
    """One object of a label file.

    Args:
        line: 15 fields, or 16 with a score.

    Attributes:
        cls_type: class name as written.
        truncation: 0..1, -1 for DontCare.
        occlusion: 0..3, -1 for DontCare.
        alpha: observation angle, radians.
        box2d: (4,) float32 [x1, y1, x2, y2] pixels.
        h: height in metres; ``w`` the width, ``l`` the length.
        loc: (3,) float32 centre of the bottom face, rectified camera frame.
        ry: rotation about the camera's y axis, radians.
        score: of a detection; -1 where the line has none.
        level: difficulty, 0 easy, 1 moderate, 2 hard, -1 none of them.
        level_str: the same as a word.

    Raises:
        ValueError: the line is malformed.
    """

    def __init__(self, line: str):
        fields = line.split()
        if len(fields) not in (NUM_FIELDS, NUM_FIELDS + 1):
            raise ValueError(f"expected {NUM_FIELDS} fields (16 with a score), got {len(fields)}")
        try:
            values = [float(field) for field in fields[1:]]
        except ValueError:
            wrong = next(i for i, field in enumerate(fields[1:], start=2) if not _is_number(field))
            raise ValueError(f"field {wrong} must be a number, got {fields[wrong - 1]!r}") from None
        if not all(abs(value) <= LARGEST_NUMBER for value in values):  # false for NaN
            raise ValueError(f"every number must be finite, in float32 too: at most {LARGEST_NUMBER:.2e}")
        self.src = line
        self.cls_type = fields[0]
        self.cls_id = cls_type_to_id(self.cls_type)
        self.truncation = values[0]
        self.occlusion = values[1]
        self.alpha = values[2]
        self.box2d = np.array(values[3:7], dtype=np.float32)
        self.h, self.w, self.l = values[7:10]
        self.loc = np.array(values[10:13], dtype=np.float32)
        self.dis_to_cam = float(np.linalg.norm(self.loc))
        self.ry = values[13]
        self.score = values[14] if len(values) > 14 else -1.0
        self.level, self.level_str = self._difficulty(values[6] - values[4] + 1)

    def get_kitti_obj_level(self) -> int:
        """0 easy, 1 moderate, 2 hard, -1 none of them."""
        return self.level

    def _difficulty(self, height: float) -> tuple[int, str]:
        for level, (least_height, most_truncation, most_occlusion, name) in enumerate(LEVELS):
            if height >= least_height and self.truncation <= most_truncation and self.occlusion <= most_occlusion:
                return level, name
        return -1, "UnKnown"

    def generate_corners3d(self) -> np.ndarray:
        """(8, 3) corners in the rectified camera frame, the bottom face first."""
        from pcdet.utils.box_utils import boxes3d_to_corners3d_kitti_camera

        box = np.array([[*self.loc, self.l, self.h, self.w, self.ry]], dtype=np.float64)
        return boxes3d_to_corners3d_kitti_camera(box)[0]

    def to_str_object(self) -> str:
        """A line for people."""
        return (
            f"{self.cls_type} {self.truncation:.3f} {self.occlusion:.3f} {self.alpha:.3f} box2d: {self.box2d} "
            f"hwl: [{self.h:.3f} {self.w:.3f} {self.l:.3f}] pos: {self.loc} ry: {self.ry:.3f}"
        )

    def to_kitti_format(self) -> str:
        """The object as a line of a label file (without a score)."""
        state = f"{self.cls_type} {self.truncation:.2f} {int(self.occlusion)} {self.alpha:.2f}"
        before, behind = ((f"{number:.2f}" for number in part) for part in (self.box2d, (*self.loc, self.ry)))
        sizes = (f"{size:.2f}" if not 0 < size < 0.005 else f"{size:g}" for size in (self.h, self.w, self.l))
        return " ".join([state, *before, *sizes, *behind])  # a size of 0.00 would be refused when it is read again


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def check_size(item: Object3d) -> None:
    """Raises ValueError for a labelled object without a box in space; DontCare areas have none (-1 -1 -1)."""
    if item.cls_type != "DontCare" and not min(item.h, item.w, item.l) > 0:
        raise ValueError(
            f"height, width and length of {item.cls_type} must be above 0, got {item.h:g} {item.w:g} {item.l:g}; "
            "correct it, or name the object DontCare"
        )


def get_objects_from_label(label_file: str | Path) -> list[Object3d]:
    """The objects of a label file in its order; none for an empty file.

    Raises:
        LabelError: every malformed line and object without a size, as ``<file>, line <number>: <what is wrong>``.
    """
    objects, problems = [], []
    try:
        lines = read_text(label_file).splitlines()
    except TextFileError as error:
        raise LabelError(str(error)) from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            objects.append(Object3d(line))
            check_size(objects[-1])
        except ValueError as error:
            problems.append(f"{label_file}, line {number}: {error}")
    if problems:
        raise LabelError(problems)
    return objects
