"""Small results of a plan that never ran: a results.json with every key, from mAPs that a test writes down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from random import Random

from pcdet.experiments.results.schema import Choices

CHOICES = [field.name for field in fields(Choices)]

CLASSES = ("Car", "Cyclist")
PLAIN_MACS = 1_000_000_000_000  # of the plain student's training of length 1
PLAIN_EPOCHS = 8
SLICES = "slices"
CONTROL_LENGTHS = {
    "plain": 1.0, "plain at equal compute": 1.5, "plain at its best length": 4.0, "slices": 1.0,
    "slices at equal compute": 1.5,
}  # fmt: skip


def report(map_3d: float) -> dict[str, float]:
    """An evaluation whose moderate mAP is ``map_3d`` in 3D and 5 more in BEV; easy is 3 above, hard 2 below.

    Cars score 4 points above the mean, cyclists 4 below.
    """
    offsets = {"easy": 3.0, "moderate": 0.0, "hard": -2.0}
    of_class, of_metric = {"Car": 4.0, "Cyclist": -4.0}, {"3d": 0.0, "bev": 5.0}
    return {
        f"{name}_{metric}/{difficulty}_R40": map_3d + of_metric[metric] + of_class[name] + offset
        for name in CLASSES
        for metric in ("3d", "bev")
        for difficulty, offset in offsets.items()
    }


def run(method: str, score: float | None, **changes) -> dict:
    """A run of student 4x at length 1, seed 0; ``changes`` overwrite keys. ``score`` is its 3D mAP."""
    length, seed = changes.get("length", 1.0), changes.get("seed", 0)
    student = changes.get("student", "4x")
    facts = {
        "command": ["train.py"], "config_digest": "0", "seed": seed, "git_commit": None,
        "versions": {"torch": "2"}, "device": {"type": "cpu"}, "dataset": None,
    }  # fmt: skip
    content = {
        "id": f"{student}/{method}/x{length:g}/seed{seed}", "teacher": "pp", "student": student, "method": method,
        "length": length, "epochs": max(1, round(PLAIN_EPOCHS * length)), "seed": seed, "factor": None,
        "stage": "finals", "folder": f"{student}/{method}", "run": facts,
        "training_macs": round(PLAIN_MACS * length), "train_cpu_s": 100.0 + seed, "train_wall_s": 120.0,
        "params": 1_220_000, "macs": 8_910_000_000,
        "search": None if score is None else {"mAP": score + 1.0},
        "report": None if score is None else report(score),
    }  # fmt: skip
    return content | changes


def teacher(score: float = 60.0, **changes) -> dict:
    """The teacher's run."""
    sizes = {"params": 4_830_000, "macs": 34_170_000_000, "training_macs": 9 * PLAIN_MACS}
    return run("teacher", score, **{"id": "pp", "student": None, "stage": "teacher", "epochs": 24, **sizes, **changes})


def comparison(method: str, control: str, gains: Sequence[float], interval: Sequence[float] | None, **changes) -> dict:
    """A comparison of student 4x at length 1 in 3D; ``changes`` overwrite keys."""
    exact = interval is not None and (interval[0] > 0 or interval[1] < 0)
    content = {
        "student": "4x", "method": method, "length": 1.0, "control": control, "control_length": 1.0, "metric": "3d",
        "seeds": len(gains), "gains": list(gains), "mean": sum(gains) / len(gains), "interval": interval,
        "bootstrap": None, "p": 0.25, "p_holm": None, "p_least": 2.0 ** (1 - len(gains)), "shown": exact, "cost": 1.0,
    }  # fmt: skip
    return content | changes


def results(runs: Sequence[Mapping], comparisons: Sequence[Mapping] = (), **changes) -> dict:
    """A results.json; ``changes`` overwrite its keys."""
    content = {
        "schema": 1, "name": "small", "title": "A small plan", "plan": {"NAME": "small", "TABLE": "overview"},
        "facts": {"torch": "2", "threads": 1}, "classes": list(CLASSES), "metric": "3d moderate R40 mAP",
        "frames": {"train": 400, "search": 100, "report": 200}, "runs": list(runs),
        "choices": dict.fromkeys(CHOICES, {}),
        "comparisons": list(comparisons),
    }  # fmt: skip
    return content | changes


def small_results() -> dict:
    """A teacher, a plain student, its control at equal compute, slices and FitNets, two seeds each; every choice made.

    FitNets has 52.4 and 54.6 against 50 and 52 plain and 53 and 55 at equal compute, at 1.5 times the cost. Differences
    of 0.2 between two gains make 95 % intervals of 12.7062 * 0.1 to both sides.
    """
    scores = {("plain", 1.0): (50.0, 52.0), ("plain", 1.5): (53.0, 55.0), (SLICES, 1.0): (56.0, 58.2)}
    runs = [teacher()]
    runs += [run(m, s, length=x, seed=i) for (m, x), pair in scores.items() for i, s in enumerate(pair)]
    fitnet = {"training_macs": 1_500_000_000_000, "factor": 3.0, "stage": "screening"}
    runs += [run("fitnet", s, seed=i, **fitnet) for i, s in enumerate((52.4, 54.6))]
    comparisons = [
        comparison("fitnet", "plain", [2.4, 2.6], (1.22938, 3.77062), cost=1.5, bootstrap=(0.5, 4.0), p_holm=0.5),
        comparison("fitnet", "plain at equal compute", [-0.6, -0.4], (-1.77062, 0.77062), control_length=1.5),
        comparison("fitnet", "plain", [2.4, 2.6], (1.22938, 3.77062), cost=1.5, metric="bev"),
        comparison(SLICES, "plain", [6.0, 6.2], (4.82938, 7.37062)),
    ]
    choices = {
        "teachers": {
            "pp": {
                "lengths": [{"epochs": 12, "search": 58.0}, {"epochs": 24, "search": 61.0}], "chosen": 24,
                "stopped_improving": False, "above_student": 6.5, "enough": False,
            }
        },
        "weights": {"4x": {"fitnet": {"base": 10.0, "trials": [{"factor": 3.0, "search": 50.0}], "chosen": 3.0}}},
        "finalists": {"4x": ["fitnet"]},
        "best_length": {"4x": {"lengths": [{"length": 1.0, "search": 52.2}], "chosen": 1.0}},
        "slices_best_length": {},
        "equal_length": {},
    }  # fmt: skip
    plan = {"NAME": "small", "TABLE": "overview", "TITLES": {"fitnet": "FitNets [26]"}}
    return results(runs, comparisons, choices=choices, plan=plan)


def large_results(methods: int = 12, seeds: int = 8) -> dict:
    """Two students of one teacher, ``methods`` methods with long titles, every control, three lengths; seeded numbers.

    Plans of this size fill tables and pictures.
    """
    names = [f"method{i}" for i in range(methods)]
    runs, comparisons = [teacher()], []
    for student in ("quarter", "sixteenth"):
        levels = {"plain": 50.0, SLICES: 53.0} | {name: 51.0 + index / 3 for index, name in enumerate(names)}
        random, scores = Random(student), {}
        for method, level in levels.items():
            cost = 1.0 if method in ("plain", SLICES) else 1.5
            for length in (1.0, 1.5, 2.0, 4.0) if cost == 1.0 else (1.0, 2.0, 4.0) if method in names[:4] else (1.0,):
                count = seeds if length <= 1.5 else 3
                scores[method, length] = [round(level + 2 * length + random.gauss(0, 1.5), 2) for _ in range(count)]
                runs += [
                    run(method, score, student=student, length=length, seed=seed,
                        training_macs=round(PLAIN_MACS * cost * length))
                    for seed, score in enumerate(scores[method, length])
                ]  # fmt: skip
        comparisons += [_paired(student, name, control, scores) for name in names for control in CONTROL_LENGTHS]
    titles = {name: f"A method with a long title [{index}]" for index, name in enumerate(names)}
    best = {"lengths": [{"length": x, "search": 50.0 + x} for x in (1.0, 2.0, 4.0)], "chosen": 4.0}
    choices = {**dict.fromkeys(CHOICES, {}), "best_length": {"quarter": best, "sixteenth": best}}
    return results(runs, comparisons, choices=choices, plan={"TABLE": "overview", "TITLES": titles})


def _paired(student: str, method: str, control: str, scores: Mapping[tuple, Sequence[float]]) -> dict:
    base, length = (SLICES if control.startswith(SLICES) else "plain"), CONTROL_LENGTHS[control]
    gains = [a - b for a, b in zip(scores[method, 1.0], scores[base, length], strict=False)]
    mean, half = sum(gains) / len(gains), (max(gains) - min(gains)) / 2
    return comparison(
        method, control, gains, (mean - half, mean + half), student=student, control_length=length, cost=1.5 / length
    )
