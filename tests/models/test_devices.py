"""A detector predicts the same and learns the same on every device."""

import copy

import pytest
import torch
from models import centerpoints, pointpillars, pointrcnn, seconds
from support.gpu import skip_where_spconv_cannot_run

from pcdet.models import build_network

SIZES = {"rtol": 1e-3, "atol": 1e-3}  # float32 sums in another order, through some twenty layers


def to(batch, device):
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


def built(name, device):
    """(model, batch of two frames, what to compare in evaluation)."""
    torch.manual_seed(0)
    if name == "pointrcnn":
        model = build_network(pointrcnn.tiny_model_cfg(), 3, pointrcnn.dataset_facts())
        return model, pointrcnn.random_batch(), ("point_features", "point_cls_scores")
    if name == "centerpoint":
        model = build_network(centerpoints.center_cfg(velocity=True), 3, centerpoints.FACTS)
        return model, centerpoints.center_batch(velocity=True), ("spatial_features_2d",)
    compared = ("spatial_features_2d", "batch_cls_preds", "batch_box_preds")
    if name == "pointpillar":
        facts = pointpillars.dataset_facts()
        return build_network(pointpillars.tiny_model_cfg(), 3, facts), pointpillars.random_batch(facts), compared
    pytest.importorskip("spconv")
    skip_where_spconv_cannot_run(device)
    return build_network(seconds.model_cfg(), 3, seconds.facts()), seconds.batch(), compared


@pytest.mark.parametrize("name", ["pointpillar", "centerpoint", "second", "pointrcnn"])
def test_predictions_do_not_depend_on_the_device(name, device):
    model, batch, compared = built(name, device)
    model.eval()
    moved = copy.deepcopy(model).to(device)
    with torch.no_grad():
        expected = model.forward_features(to(batch, "cpu"), decode_boxes=True)
        found = moved.forward_features(to(batch, device), decode_boxes=True)
    for key in compared:
        assert found[key].device.type == device.type
        torch.testing.assert_close(found[key].cpu(), expected[key], **SIZES)


@pytest.mark.parametrize("name", ["pointpillar", "centerpoint", "second", "pointrcnn"])
def test_a_training_step_does_not_depend_on_the_device(name, device):
    model, batch, _ = built(name, device)
    if name == "pointrcnn":
        model.roi_head = None  # it draws its proposals, from another generator on each device
    model.train()
    moved = copy.deepcopy(model).to(device)
    losses = []
    for one, where in ((model, "cpu"), (moved, device)):
        ret_dict, _, _ = one(to(batch, where))
        ret_dict["loss"].backward()
        losses.append(ret_dict["loss"].item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    for (path, expected), found in zip(model.named_parameters(), moved.parameters(), strict=True):
        if expected.grad is not None:
            scale = expected.grad.abs().max()
            torch.testing.assert_close(found.grad.cpu(), expected.grad, rtol=1e-2, atol=float(1e-2 * scale), msg=path)
