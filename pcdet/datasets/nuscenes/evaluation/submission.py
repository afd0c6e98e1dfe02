"""Detections as the challenge takes them: boxes in the global frame with attributes, and their result file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcdet.datasets.errors import DataError
from pcdet.datasets.nuscenes.evaluation.boxes import Boxes
from pcdet.datasets.nuscenes.evaluation.frames import Frames
from pcdet.datasets.nuscenes.evaluation.results_file import too_many_boxes
from pcdet.datasets.nuscenes.evaluation.rules import ATTRIBUTE_NUMBER, ATTRIBUTES, CLASS_NUMBER, CLASSES, MOVING_SPEED
from pcdet.datasets.nuscenes.poses import yaw_of
from pcdet.datasets.results import in_frame_order
from pcdet.utils.safe_files import WriteError, replacing

LIDAR_ONLY = {"use_camera": False, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": False}
# Class -> its attribute when it moves and when it stands, by OpenPCDet's rule: where movement does not tell, the most
# common one of the class in the training split. Cones and barriers have none.
ATTRIBUTE_BY_SPEED = {
    **dict.fromkeys(
        ("car", "truck", "trailer", "construction_vehicle"), ("vehicle.moving", "vehicle.parked")
    ),
    "bus": ("vehicle.moving", "vehicle.stopped"),
    **dict.fromkeys(("bicycle", "motorcycle"), ("cycle.with_rider", "cycle.without_rider")),
    "pedestrian": ("pedestrian.moving", "pedestrian.standing"),
    **dict.fromkeys(("traffic_cone", "barrier"), ("", "")),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Submission:
    """Detections in all samples of a split.

    Attributes:
        tokens: S of the samples.
        boxes: N detections, sample by sample.
        rotation: (N, 4) quaternions [w, x, y, z] of the boxes.
    """

    tokens: Sequence[str]
    boxes: Boxes
    rotation: np.ndarray


def make_submission(det_annos: Sequence[dict], frames: Frames) -> Submission:
    """Detections in the LiDAR frame, brought into the global one.

    Args:
        det_annos: one a frame, with ``name`` (N,), ``score`` (N,), ``boxes_lidar`` (N, 7 or 9) and ``metadata`` with
            the sample's ``token``. Without velocities, objects stand still.
        frames: the same ones.

    Raises:
        DataError: frames are missing, repeated or unknown, boxes have classes of another data set or are not finite, or
            a frame has more boxes than the challenge allows; all are named.
    """
    tokens = list(frames.tokens)
    annos = in_frame_order([{**anno, "frame_id": _token_of(anno)} for anno in det_annos], tokens)
    counts = [len(anno["name"]) for anno in annos]
    boxes = np.concatenate([np.zeros((0, 9)), *(_with_velocity(anno["boxes_lidar"]) for anno in annos)])
    names = [str(name) for anno in annos for name in anno["name"]]
    sample = np.repeat(np.arange(len(annos)), counts)
    score = np.concatenate([np.zeros(0), *(np.asarray(anno["score"], dtype=np.float64) for anno in annos)])
    problems = too_many_boxes(dict(zip(tokens, counts, strict=True)))
    problems += _box_problems(tokens, sample, names, boxes, score)
    if problems:
        raise DataError(problems)
    class_id = np.array([CLASS_NUMBER[name] for name in names], dtype=np.int64)
    return _in_global_frame(frames, sample, class_id, boxes, score)


def _token_of(anno: Mapping) -> str:
    try:
        return anno["metadata"]["token"]
    except (KeyError, TypeError):
        raise DataError(
            f"the result of frame {anno.get('frame_id')} has no metadata with the sample's token; make it by "
            "NuScenesDataset.generate_prediction_dicts"
        ) from None


def _with_velocity(boxes: np.ndarray) -> np.ndarray:
    """(N, 9), with velocities of 0 where there are none."""
    boxes = np.asarray(boxes, dtype=np.float64)
    boxes = boxes.reshape(-1, boxes.shape[-1] if boxes.size else 9)
    return np.pad(boxes, ((0, 0), (0, 9 - boxes.shape[1])))


def _box_problems(
    tokens: Sequence[str], sample: np.ndarray, names: Sequence[str], boxes: np.ndarray, score: np.ndarray
) -> list[str]:
    problems = []
    if unknown := sorted(set(names) - set(CLASSES)):
        problems.append(f"nuScenes' evaluation has no class {', '.join(unknown)}; it has {', '.join(CLASSES)}")
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(score)
    for rule, broken in {
        "numbers must be finite": ~finite,
        "sizes must be above 0": (boxes[:, 3:6] <= 0).any(axis=1),
    }.items():
        if broken.any():
            row = int(np.flatnonzero(broken)[0])
            problems.append(
                f"{np.count_nonzero(broken)} detections are no boxes ({rule}), for instance a {names[row]} of sample "
                f"{tokens[sample[row]]}: {boxes[row].tolist()}, score {score[row]}; has the network diverged?"
            )
    return problems


def _in_global_frame(
    frames: Frames, sample: np.ndarray, class_id: np.ndarray, boxes: np.ndarray, score: np.ndarray
) -> Submission:
    pose = frames.global_from_lidar()
    turn = pose[sample, :3, :3]
    center = np.einsum("nij,nj->ni", turn, boxes[:, :3]) + pose[sample, :3, 3]
    velocity = np.einsum("nij,nj->ni", turn[:, :, :2], boxes[:, 7:9])[:, :2]
    half = boxes[:, 6] / 2
    rotation = _times_turn_about_z(_quaternions(pose[:, :3, :3])[sample], np.cos(half), np.sin(half))
    moving = np.hypot(*velocity.T) > MOVING_SPEED
    attributes = [[ATTRIBUTE_NUMBER[name] for name in ATTRIBUTE_BY_SPEED[of]] for of in CLASSES]
    table = Boxes(
        sample=sample,
        class_id=class_id,
        center=center,
        size=boxes[:, [4, 3, 5]],
        yaw=yaw_of(rotation),
        velocity=velocity,
        attribute=np.array(attributes)[class_id, np.where(moving, 0, 1)],
        score=score,
    )
    return Submission(tokens=frames.tokens, boxes=table, rotation=rotation)


def _quaternions(matrices: np.ndarray) -> np.ndarray:
    """(N, 4) [w, x, y, z] of rotations (N, 3, 3)."""
    from scipy.spatial.transform import Rotation

    if not len(matrices):
        return np.zeros((0, 4))
    return Rotation.from_matrix(matrices).as_quat()[:, [3, 0, 1, 2]]


def _times_turn_about_z(quaternions: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """(N, 4) products of quaternions and turns about z, whose half angles have these cosines and sines."""
    w, x, y, z = quaternions.T
    return np.stack([w * cos - z * sin, x * cos + y * sin, y * cos - x * sin, w * sin + z * cos], axis=1)


def write_results(file: str | Path, submission: Submission, meta: Mapping[str, bool] = LIDAR_ONLY) -> None:
    """Writes the result file of the challenge; its folder must exist.

    Raises:
        WriteError: it cannot be written; the old file, if there is one, stays.
    """
    boxes = submission.boxes
    ends = np.searchsorted(boxes.sample, np.arange(len(submission.tokens)), side="right")
    try:
        with replacing(file) as stream:
            stream.write(f'{{"meta": {json.dumps(dict(meta))}, "results": {{'.encode())
            begin = 0
            for number, (token, end) in enumerate(zip(submission.tokens, ends.tolist(), strict=True)):
                entries = _entries(token, boxes[begin:end], submission.rotation[begin:end])
                separator = ",\n" if number else "\n"
                stream.write(f"{separator}{json.dumps(token)}: {json.dumps(entries)}".encode())
                begin = end
            stream.write(b"\n}}\n")
    except OSError as error:
        reason = error.strerror or error
        raise WriteError(f"the results {file} cannot be written: {reason}; make room, and evaluate again") from error


def _entries(token: str, boxes: Boxes, rotation: np.ndarray) -> list[dict]:
    columns = (boxes.center, boxes.size, rotation, boxes.velocity, boxes.class_id, boxes.score, boxes.attribute)
    names = (*ATTRIBUTES, "")  # the last is that of the number -1
    return [
        {
            "sample_token": token,
            "translation": center,
            "size": size,
            "rotation": turn,
            "velocity": velocity,
            "detection_name": CLASSES[class_id],
            "detection_score": score,
            "attribute_name": names[attribute],
        }
        for center, size, turn, velocity, class_id, score, attribute in zip(
            *(column.tolist() for column in columns), strict=True
        )
    ]
