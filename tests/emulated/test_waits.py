"""What makes a GPU's host wait in a training step and in an evaluation, counted on the emulated device."""

import copy
import dataclasses
import re
from collections import Counter

import pytest
import torch
import trainings

from pcdet.engine.evaluate import _clock
from pcdet.engine.trainer import Hook
from pcdet.utils.common_utils import batch_to_device
from pcdet.utils.transfer import on_host

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


def test_waits_of_pointrcnn_do_not_grow_with_the_batch(gpu, emulator):
    counts = [
        functions(step(trainings.pointrcnn_alone(), trainings.point_batches(2, frames=frames), gpu, emulator))
        for frames in (1, 3)
    ]
    assert counts[0] == counts[1]
    assert counts[0]["kept_counts"] == 1


def first_stage():
    model = trainings.pointrcnn_alone()
    model.roi_head = None
    return model


def pillars_within_classes(model):
    nms = dataclasses.replace(model.post_processing_cfg.nms_config, multi_classes_nms=True)
    model.post_processing_cfg = dataclasses.replace(model.post_processing_cfg, nms_config=nms)
    return model


def detection(model, batch, gpu, emulator):
    """The events of one batch's evaluation, from the batch on the device to its boxes on the host."""
    model, batch = trainings.with_even_scores(model).to(gpu).eval(), batch_to_device(dict(batch), gpu)
    with torch.no_grad():
        model(dict(batch))  # what is done for the first time
        with emulator.waits() as events:
            predictions, recall = model(dict(batch))
            on_host(predictions)
    assert sum(len(frame["pred_boxes"]) for frame in predictions) > 0 and recall["gt"] > 0
    return events


EVALUATIONS = {
    "pointpillars": (trainings.pointpillars_alone, trainings.pillar_batches),
    "pointpillars, within classes": (
        lambda: pillars_within_classes(trainings.pointpillars_alone()),
        trainings.pillar_batches,
    ),
    "pointrcnn": (trainings.pointrcnn_alone, trainings.point_batches),
    "pointrcnn's first stage": (first_stage, trainings.point_batches),
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_waits_of_an_evaluation_do_not_grow_with_the_batch(name, gpu, emulator):
    build, batches_of = EVALUATIONS[name]
    one, three = (detection(build(), batches_of(1, frames=frames)[0], gpu, emulator) for frames in (1, 3))
    assert functions(one) == functions(three), three.table()
    assert functions(one)["kept_counts"] == 1 + (name == "pointrcnn")


def test_waits_of_an_evaluation_do_not_grow_with_the_classes(gpu, emulator):
    (batch,) = trainings.pillar_batches(1)
    counts = [
        functions(detection(pillars_within_classes(build()), batch, gpu, emulator))
        for build in (trainings.pointpillars_of_one_class, trainings.pointpillars_alone)
    ]
    assert counts[0] == counts[1]


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


def told(repo_root, heading):
    """The functions in the table of a section of the page about waits."""
    page = (repo_root / "docs/ADDING_AN_OP.md").read_text(encoding="utf-8")
    section = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    return {name for row in re.findall(r"^\| (`.+?) \|", section, re.M) for name in re.findall(r"`(\w+)`", row)}


def test_the_table_in_the_docs_names_every_wait_of_a_step(gpu, emulator, repo_root):
    found = set()
    for build, batches in (
        (distilled, trainings.pillar_batches(2)),
        (trainings.pointrcnn_distilled, trainings.point_batches(2)),
        (trainings.pointrcnn_alone, trainings.point_batches(2)),
    ):
        found |= set(functions(step(build(), batches, gpu, emulator)))
    assert found - told(repo_root, "Waits for the GPU in a training step") == set()


def test_the_table_in_the_docs_names_every_wait_of_an_evaluation(gpu, emulator, repo_root):
    found = set()
    for build, batches_of in EVALUATIONS.values():
        found |= set(functions(detection(build(), batches_of(1)[0], gpu, emulator)))
    assert found == told(repo_root, "Waits for the GPU in evaluation")
