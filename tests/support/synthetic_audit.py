"""A small audit that nobody measured: a teacher, two controls and a student, every kind of error, scenes to look at.

``python -m support.synthetic_audit FILE``, run in ``tests``, writes the page of it, for looking and for pictures.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from pcdet.audit.report import (
    ALL,
    ERRORS,
    IGNORED,
    TRUE,
    Audit,
    Curve,
    ErrorCount,
    Group,
    GroupGain,
    Model,
    ObjectRow,
    Scene,
    SceneDetections,
)

MODELS = {"teacher": "teacher", "student": "control", "student+slices": "control", "student+slices+logits": "student"}
CLASSES = ("Car", "Cyclist")
DISTANCES = ("0-20 m", "20-40 m", "40 m and more")
STUDENT, CONTROL = "student+slices+logits", "student"
QUALITY = {name: 0.9 - 0.08 * i for i, name in enumerate(("teacher", STUDENT, "student+slices", "student"))}


def synthetic_audit(scenes: int = 3, points: int = 6000, objects: int = 120, losses: bool = True) -> Audit:
    """An audit with everything; the same call makes the same one.

    Args:
        scenes: how many.
        points: of each scene.
        objects: rows of the table.
        losses: whether cyclists far away are found less often than by the controls.
    """
    models = [
        Model(
            name=name,
            role=role,
            seeds=2,
            thresholds={c: 0.3 + 0.05 * i for c in CLASSES},
            first_thresholds={c: 0.3 + 0.05 * i for c in CLASSES},
        )
        for i, (name, role) in enumerate(MODELS.items())
    ]
    groups = _groups()
    return Audit(
        frames=200,
        rules={"Car": "3D overlap of at least 0.7", "Cyclist": "3D overlap of at least 0.5"},
        models=models,
        groups=groups,
        gains=_gains(groups, losses),
        errors=_errors(),
        curves=_curves(),
        objects=_objects(objects, scenes),
        scenes=[_scene(i, points) for i in range(scenes)],
    )


def _groups() -> list[Group]:
    found = []
    for i, name in enumerate((ALL, *CLASSES)):
        cells = [("class", name), *(("distance", d) for d in DISTANCES), ("occlusion", "largely occluded")]
        for j, (by, value) in enumerate(cells):
            recall = {model: round(quality - 0.07 * j - 0.03 * i, 4) for model, quality in QUALITY.items()}
            found.append(Group(by=by, value=value, class_name=name, objects=400 - 90 * j - 17 * i, recall=recall))
    return found


def _gains(groups: list[Group], losses: bool) -> list[GroupGain]:
    found = []
    for control in ("student", "student+slices"):
        for index, group in enumerate(groups):
            gain = group.recall[STUDENT] - group.recall[control]
            if losses and group.class_name == "Cyclist" and group.value == DISTANCES[-1]:
                gain = -0.123
            half = 0.03 + 0.02 * (index % 5)
            verdict = "gain" if gain > half else "loss" if gain < -half else "not shown"
            found.append(
                GroupGain(
                    student=STUDENT, control=control, group=index, gain=gain, interval=(gain - half, gain + half),
                    verdict=verdict, teacher_worse=control == "student",
                )
            )  # fmt: skip
    return found


def _errors() -> list[ErrorCount]:
    kinds = {TRUE: 3.0, **{kind: 0.1 * (k + 2) for k, kind in enumerate((*ERRORS, "missed"))}}
    return [
        ErrorCount(model=name, class_name=c, kind=kind, per_frame=round(count * quality / (1 + i), 4))
        for name, quality in QUALITY.items()
        for i, c in enumerate((ALL, *CLASSES))
        for kind, count in kinds.items()
    ]


def _curves() -> list[Curve]:
    scores = np.linspace(0.95, 0.05, 40)
    return [
        Curve(
            model=name, class_name=c, scores=scores.tolist(), recall=((quality - 0.1 * i) * (1 - scores**2)).tolist(),
            precision=(1 - (1 - scores) ** 3 * (1.4 - quality)).tolist(),
            false_positives=((6 - 2 * i) * (1 - scores) ** 3 * (1.5 - quality)).tolist(),
        )
        for name, quality in QUALITY.items()
        for i, c in enumerate(CLASSES)
    ]  # fmt: skip


def _objects(count: int, scenes: int) -> list[ObjectRow]:
    rng = np.random.default_rng(1)
    return [
        ObjectRow(
            frame=frame_name(i % (scenes + 2)), index=i % 4, class_name=CLASSES[i % 3 == 0],
            distance=float(np.round(rng.uniform(3, 70), 2)), points=None if i % 11 == 5 else int(rng.integers(0, 800)),
            attributes={"occlusion": ("fully visible", "partly occluded", "largely occluded")[i % 3]},
            found={name: float(rng.integers(0, 3)) / 2 for name in MODELS},
        )
        for i in range(count)
    ]  # fmt: skip


def frame_name(number: int) -> str:
    """As data sets name frames."""
    return f"{number:06d}"


def _scene(number: int, points: int) -> Scene:
    rng = np.random.default_rng(number)
    boxes = np.array(
        [[8.0 + 9 * i, (-1) ** i * (3.0 + i), -0.9, 4.0, 1.7, 1.5, 0.3 * i + 0.1 * number] for i in range(4)]
    )
    radius, angle = rng.uniform(2, 60, points) ** 0.9, rng.uniform(-1.2, 1.2, points)
    ground = np.stack([radius * np.cos(angle), radius * np.sin(angle), rng.normal(-1.7, 0.03, points)], axis=1)
    near = rng.integers(0, len(boxes), points // 8)  # some of the points lie on the objects
    ground[: len(near)] = boxes[near, :3] + rng.uniform(-0.7, 0.7, (len(near), 3))
    found = {name: _detections(boxes, i, rng) for i, name in enumerate(MODELS)}
    cells = ground[:: max(points // 400, 1)]
    importance = {STUDENT: np.concatenate([cells, rng.uniform(0, 1, (len(cells), 1))], axis=1)} if number != 1 else {}
    return Scene(
        frame=frame_name(number), points=ground, points_in_file=120_000, boxes=boxes,
        names=["Car", "Car", "Cyclist", "Car"], counted=np.array([True, True, True, False]), detections=found,
        importance=importance,
    )  # fmt: skip


def _detections(boxes: np.ndarray, model: int, rng: np.random.Generator) -> SceneDetections:
    """The first objects of a scene, nearly; one beside the last, which is not counted; and boxes where nothing is."""
    found = boxes + rng.normal(0, 0.15, boxes.shape) * [1, 1, 0.3, 1, 0.3, 0.3, 0.2]
    wrong = np.array([[20.0 + 5 * i, -8.0 + model, -0.9, 3.9, 1.6, 1.5, 0.0] for i in range(1 + model)])
    kinds = [TRUE, TRUE, ERRORS[model % 4], IGNORED, *["background"] * len(wrong)]
    scores = np.concatenate([[0.95, 0.8, 0.55, 0.5], np.linspace(0.7, 0.15, len(wrong))])
    names = ["Car", "Car", "Cyclist", "Car", *["Cyclist"] * len(wrong)]
    return SceneDetections(boxes=np.concatenate([found, wrong]), scores=scores, names=names, kinds=kinds)


def synthetic_comparison() -> dict:
    """A comparison's JSON: the audit's models, three seeds each, at mAPs that a reader can add up."""
    rows = {}
    for i, name in enumerate(MODELS):
        base = 60.0 if name == "teacher" else 40.0 + 4 * i
        by_difficulty = {"easy": 5.0, "moderate": 0.0, "hard": -3.0}
        scores = {
            metric: {
                d: [base + up + offset + s * (1 + 0.1 * i) for s in range(3)] for d, offset in by_difficulty.items()
            }
            for metric, up in (("3d", 0.0), ("bev", 6.0))
        }
        rows[name] = {
            **scores, "per_class": {c: scores for c in CLASSES}, "params": 4_830_000 if i == 0 else 1_220_000,
            "macs": 34_000_000_000 if i == 0 else 8_900_000_000, "sparse_macs": 0,
            "ms_per_frame": 43.1 if i == 0 else 22.7, "train_cpu_s": 280.0 if i == 0 else 110.0 + 30 * i,
            "train_cpu_s_per_seed": [280.0] * 3,
        }  # fmt: skip
    return {"rows": rows, "frames": 200}


def settings_plan() -> dict:
    """Results of a plan that varies K and N: three methods, each compared with the plain student."""
    from support.synthetic_results import comparison, results, run, teacher

    settings = {"small": {"K": 16, "N": 600}, "middle": {"K": 32, "N": 600}, "large": {"K": 32, "N": 1200}}
    runs = [teacher(), *(run("plain", 50.0 + s, seed=s) for s in range(3))]
    compared = []
    for i, method in enumerate(settings):
        runs += [run(method, 51.0 + i + 1.1 * s, seed=s) for s in range(3)]
        gains = [1.0 + i + 0.1 * s for s in range(3)]
        compared.append(comparison(method, "plain", gains, (gains[0] - 0.2, gains[-1] + 0.2)))
    plan = {"NAME": "settings", "TABLE": "sensitivity", "SETTINGS": settings}
    return results(runs, compared, plan=plan)


def main(path: str) -> None:
    """Writes the page of the synthetic audit, comparison and plan."""
    from pcdet.audit.page.assembly import write_page
    from pcdet.experiments.results.files import parse_results
    from support.synthetic_results import large_results

    write_page(
        Path(path),
        results=parse_results(json.loads(json.dumps(large_results(methods=5)))),
        comparison=synthetic_comparison(),
        audit=synthetic_audit(scenes=6, points=12000),
        title="A synthetic audit: numbers that nobody measured",
        facts={"data": "made by tests/support/synthetic_audit.py"},
    )


if __name__ == "__main__":
    main(sys.argv[1])
