"""Annotations as KITTI's evaluation reads them, and the evaluation in one call."""

import numpy as np

CLASSES = ("Car", "Pedestrian", "Cyclist")
SIZES = {"Car": (3.9, 1.5, 1.6), "Van": (5.0, 2.2, 1.9), "Truck": (10.0, 3.2, 2.5), "Cyclist": (1.8, 1.7, 0.6)}


def anno(names, boxes=None, *, bbox=None, alpha=None, scores=None, occluded=0, truncated=0.0):
    """One frame; boxes (N, 7) l, h, w, x, y, z, rotation_y default to boxes side by side."""
    num = len(names)
    if boxes is None:
        boxes = np.array(
            [[*SIZES.get(name, (0.8, 1.7, 0.6)), 20.0 * i, 1.6, 20.0, 0.3] for i, name in enumerate(names)]
        )
    boxes = np.asarray(boxes, dtype=np.float64).reshape(num, 7)
    if bbox is None:
        bbox = [[100.0 * i, 100.0, 100.0 * i + 80, 180.0] for i in range(num)]
    frame = {
        "name": np.array(names, dtype=str),
        "truncated": np.full(num, truncated),
        "occluded": np.full(num, occluded),
        "alpha": np.zeros(num) if alpha is None else np.asarray(alpha, dtype=np.float64),
        "bbox": np.asarray(bbox, dtype=np.float64).reshape(num, 4),
        "dimensions": boxes[:, :3],
        "location": boxes[:, 3:6],
        "rotation_y": boxes[:, 6],
    }
    if scores is not None:
        frame["score"] = np.asarray(scores, dtype=np.float64)
    return frame


def run(gt, dt, classes=CLASSES):
    """Results of annotations and of detections, frame by frame."""
    from pcdet.datasets.kitti.kitti_object_eval_python.eval import evaluate  # the fake tools start without it
    from pcdet.datasets.kitti.kitti_object_eval_python.objects import Objects

    return evaluate(Objects.from_annos(gt, scored=False), Objects.from_annos(dt, scored=True), classes)


def random_frames(seed, frames=60):
    """Crowded frames: few places, many boxes at each, scores with ties, all classes, DontCare areas."""
    rng = np.random.default_rng(seed)
    names = ["Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "DontCare", "Tram"]

    def frame(num, scored):
        kinds = rng.choice(names[:6] if scored else names, num)
        place = rng.integers(0, 2, num)
        sizes = np.array([SIZES.get(name, (1.0, 1.7, 0.9)) for name in kinds]).reshape(num, 3)
        boxes = np.column_stack(
            [sizes * rng.uniform(0.9, 1.1, (num, 3)), 6.0 * place, np.full(num, 1.6), 20.0 + 0 * place, 0.4 * place]
        )
        boxes[:, 3:] += rng.normal(0, 0.15, (num, 4))
        top = rng.choice([138.0, 150.0, 156.0], num)
        bbox = np.column_stack([300.0 * place, top, 300.0 * place + 60, np.full(num, 180.0)]) + rng.integers(
            -3, 4, (num, 4)
        )
        made = anno(
            kinds,
            boxes,
            bbox=bbox,
            alpha=rng.uniform(-3, 3, num),
            scores=np.round(rng.random(num), 1) if scored else None,
        )
        if not scored:
            made["occluded"] = rng.choice([0, 0, 1, 2, 3], num)
            made["truncated"] = rng.choice([0, 0.15, 0.3, 0.5, 0.6], num)
        return made

    return [frame(rng.integers(0, 9), False) for _ in range(frames)], [
        frame(rng.integers(0, 15), True) for _ in range(frames)
    ]


def scattered_boxes(names, rng):
    """(N, 7) boxes of these classes anywhere in front of the camera."""
    num = len(names)
    sizes = np.array([SIZES.get(name, (0.8, 1.7, 0.6)) for name in names]).reshape(num, 3)
    place = np.column_stack([rng.uniform(-40, 40, num), np.full(num, 1.6), rng.uniform(5, 70, num)])
    return np.column_stack([sizes, place, rng.uniform(-3, 3, num)])


def labelled_frames(seed, frames, names=("Car", "Car", "Pedestrian", "Cyclist")):
    """Ground truth, all of it of moderate difficulty, with these objects in every frame."""
    rng = np.random.default_rng(seed)
    return [anno(names, scattered_boxes(names, rng)) for _ in range(frames)]


def detections(gt, seed, found=0.8, false_alarms=("Car", "Pedestrian", "Cyclist")):
    """Detections of a share of the objects, a little off, with the higher scores, among false alarms in every frame."""
    rng = np.random.default_rng(seed)
    frames = []
    for frame in gt:
        kept = rng.random(len(frame["name"])) < found
        boxes = np.column_stack([frame["dimensions"], frame["location"], frame["rotation_y"]])[kept]
        boxes = np.concatenate([boxes + rng.normal(0, 0.03, boxes.shape), scattered_boxes(false_alarms, rng)])
        scores = np.concatenate([rng.beta(4, 2, np.count_nonzero(kept)), rng.beta(2, 4, len(false_alarms))])
        frames.append(anno([*frame["name"][kept], *false_alarms], boxes, scores=scores))
    return frames
