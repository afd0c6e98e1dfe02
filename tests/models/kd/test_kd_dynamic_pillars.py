"""Pillars that a detector makes itself are distilled like those of a loader."""

import pytest
import torch
from kd_detectors import voxel_batch
from kd_pairs import FACTS, PILLARS, detector, distil, kd_terms, step, wide_detector

DYNAMIC = {"NAME": "DynPillarVFE", "NUM_FILTERS": [8, 8]}
FEATURES = {"NAME": "FeatureBased", "FEATURE": "pillar_features", "SAMPLE": {"NUM": 40}}


def _without_last_frame(batch):
    """The same batch, whose last frame has neither points nor voxels."""
    last = batch["batch_size"] - 1
    rows, points = batch["voxel_coords"][:, 0] < last, batch["points"][:, 0] < last
    voxels = {key: value[rows] for key, value in batch.items() if key.startswith("voxel")}
    return {**batch, **voxels, "points": batch["points"][points]}


@pytest.mark.parametrize("loss", [PILLARS, FEATURES])
@pytest.mark.parametrize("dynamic_teacher", [False, True])
@pytest.mark.parametrize("empty_frame", [False, True])
def test_pillars_of_dynamic_encoders_can_be_distilled(loss, dynamic_teacher, empty_frame):
    batch = voxel_batch(FACTS)
    batch = _without_last_frame(batch) if empty_frame else batch
    teacher = detector(1, VFE=DYNAMIC) if dynamic_teacher else wide_detector()
    distiller = distil(loss, student=detector(VFE=DYNAMIC), teacher=teacher)
    terms = kd_terms(step(distiller, batch))
    assert terms["kd/total"] > 0 and all(torch.isfinite(torch.tensor(value)) for value in terms.values())
    assert all(p.grad.any() for name, p in distiller.student.named_parameters() if name.startswith("vfe"))


@pytest.mark.parametrize("feature", ["pillar_features", "spatial_features_2d"])
def test_without_voxels_of_the_loader_the_teachers_rows_count_their_points(feature):
    batch = {key: value for key, value in voxel_batch(FACTS).items() if not key.startswith("voxel")}
    loss = {"NAME": "PointDistiller", "FEATURE": feature, "SAMPLE": {"BY": "num_points", "NUM": 40}}
    distiller = distil(loss, student=detector(VFE=DYNAMIC), teacher=detector(1, VFE=DYNAMIC))
    assert kd_terms(step(distiller, batch))["kd/total"] > 0


def test_a_dynamic_teacher_and_its_copy_agree_on_every_pillar():
    correlated = {"NAME": "PKD", "FEATURE": "pillar_features", "SAMPLE": {"NUM": 40}}  # has no layers of its own
    distiller = distil(correlated, student=detector(1, VFE=DYNAMIC), teacher=detector(1, VFE=DYNAMIC))
    distiller.student.vfe.eval()  # so that both normalise with the running statistics
    assert kd_terms(step(distiller, voxel_batch(FACTS)))["kd/total"] == pytest.approx(0, abs=1e-6)
