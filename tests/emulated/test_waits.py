"""What makes a GPU's host wait in a training step, counted on the emulated device."""

import copy
import re
from collections import Counter

import pytest
import trainings

from pcdet.engine.evaluate import _clock
from pcdet.engine.trainer import Hook

pytestmark = pytest.mark.gpu

# The shipped distillation of PointPillars: pcdet's own configuration of a map (docs/benchmarks/quickstart.md).
SHIPPED = {"NAME": "PointDistiller", "FEATURE": "spatial_features_2d", "WEIGHT": 5.0}
# Numbers that are logged: of the head, of distillation, of the step and the norm of its gradient.
LOGGED = {"get_loss", "_to_floats", "to_floats", "train_step", "explained_variance"}
SMALL = 1024  # bytes, more than any table of constants


class StepsAlone(Hook):
    """Records the second iteration, in which nothing is done for the first time."""

    def __init__(self, emulator):
        self.emulator, self.recording, self.events = emulator, None, None

    def after_iteration(self, trainer):
        if trainer.it == 1:
            self.recording = self.emulator.waits()
            self.events = self.recording.__enter__()
        elif trainer.it == 2:
            self.recording.__exit__(None, None, None)


def step(model, batches, gpu, emulator):
    """The events of one step."""
    hook = StepsAlone(emulator)
    trainings.train(model, batches, gpu, hooks=(hook,))
    return hook.events


def functions(events):
    """How often each function waited."""
    return Counter(event.line.split()[-1] for event in events.waits)


def distilled(*losses):
    model = trainings.pointpillars_distilled(*losses)
    model.log_every = 0
    return model


def test_the_shipped_distillation_waits_at_most_twelve_times_beside_its_logs(gpu, emulator):
    events = step(distilled(SHIPPED), trainings.pillar_batches(2), gpu, emulator)
    unlogged = [event for event in events.waits if event.line.split()[-1] not in LOGGED]
    assert 0 < len(unlogged) <= 12, events.table()
    assert len(events.waits) - len(unlogged) <= 4, events.table()


@pytest.mark.parametrize("build", [trainings.pointpillars_alone, distilled], ids=["alone", "distilled"])
def test_waits_of_pointpillars_do_not_grow_with_the_batch(build, gpu, emulator):
    counts = [
        functions(step(build(), trainings.pillar_batches(2, frames=frames, points=200), gpu, emulator))
        for frames in (1, 3)
    ]
    assert counts[0] == counts[1]


def test_waits_of_pointrcnn_grow_with_the_batch_by_its_nms_alone(gpu, emulator):
    one, three = (
        functions(step(trainings.pointrcnn_alone(), trainings.point_batches(2, frames=frames), gpu, emulator))
        for frames in (1, 3)
    )
    assert three - one == {"_nms": 2}
    assert one - three == {}


def test_times_of_an_evaluation_are_taken_when_the_gpu_is_done(gpu, emulator):
    with emulator.waits() as events:
        _clock(gpu)
    assert [(event.op, event.cause) for event in events] == [("device", "synchronize")]


def test_waits_of_pointpillars_do_not_grow_with_the_classes(gpu, emulator):
    batches = trainings.pillar_batches(2, points=200)
    single = copy.deepcopy(batches)
    for batch in single:
        batch["gt_boxes"][..., -1] = (batch["gt_boxes"][..., -1] > 0) * 1.0
    counts = [
        functions(step(model, part, gpu, emulator))
        for model, part in ((trainings.pointpillars_of_one_class(), single), (trainings.pointpillars_alone(), batches))
    ]
    assert counts[0] == counts[1]


def test_only_batches_go_to_the_device_and_only_numbers_come_back(gpu, emulator):
    batches = trainings.pillar_batches(2)
    events = step(distilled(), batches, gpu, emulator)
    arrays = sorted(v.size * 4 for v in batches[1].values() if getattr(v, "dtype", None) == "float32")
    large = sorted(event.bytes for event in events if event.transfer == "to device" and event.bytes > SMALL)
    assert large == [size for size in arrays if size > SMALL]
    assert all(event.bytes <= SMALL for event in events if event.transfer == "to host")


def test_the_table_in_the_docs_names_every_wait(gpu, emulator, repo_root):
    page = (repo_root / "docs/ADDING_AN_OP.md").read_text(encoding="utf-8")
    section = page.split("## Waits for the GPU in a training step")[1].split("\n## ")[0]
    told = {name for row in re.findall(r"^\| (`.+?) \|", section, re.M) for name in re.findall(r"`(\w+)`", row)}
    found = set()
    for build, batches in (
        (distilled, trainings.pillar_batches(2)),
        (trainings.pointrcnn_distilled, trainings.point_batches(2)),
        (trainings.pointrcnn_alone, trainings.point_batches(2)),
    ):
        found |= {event.line.split()[-1] for event in step(build(), batches, gpu, emulator).waits}
    assert found - told == set()
