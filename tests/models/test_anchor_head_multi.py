"""The multi-head anchor head: targets, losses against a plain restatement, branches of their own, and refusals."""

import math

import pytest
import torch
from models.pointpillars import SMALL_RANGE, dataset_facts, random_batch, tiny_model_cfg

from pcdet.models import build_network
from pcdet.registry import ConfigError
from pcdet.utils import loss_utils

FACTS = dataset_facts(SMALL_RANGE)
BRANCHES = [{"HEAD_CLS_NAME": ["Car"]}, {"HEAD_CLS_NAME": ["Pedestrian", "Cyclist"]}]
SEPARATE = {"NUM_MIDDLE_CONV": 1, "NUM_MIDDLE_FILTER": 8, "REG_LIST": ["reg:2", "height:1", "size:3", "angle:1"]}


def _cfg(**head):
    cfg = tiny_model_cfg()
    cfg.POST_PROCESSING.NMS_CONFIG.MULTI_CLASSES_NMS = True
    cfg.DENSE_HEAD.update(
        {"NAME": "AnchorHeadMulti", "SEPARATE_MULTIHEAD": True, "SHARED_CONV_NUM_FILTER": 8, "RPN_HEAD_CFGS": BRANCHES}
    )
    cfg.DENSE_HEAD.update(head)
    return cfg


def _model(seed=0, **head):
    torch.manual_seed(seed)
    return build_network(_cfg(**head), 3, FACTS)


def _by_cell(head, flat):
    """(B, N, ...) in the order of the multi-head's anchors -> class by class (B, ny, nx, S * R, ...)."""
    sizes = [a[0, ..., 0].numel() for a in head.anchors]
    for part, anchors in zip(flat.split(sizes, dim=1), head.anchors, strict=True):
        ny, nx, *per_cell = anchors.shape[1:5]
        yield part.unflatten(1, (per_cell[0] * per_cell[1], ny, nx)).movedim(1, 3)


@pytest.mark.parametrize(
    ("branches", "order"), [(BRANCHES, [0, 1, 2]), (BRANCHES[::-1], [2, 0, 1])], ids=["as listed", "reversed"]
)
def test_anchors_and_targets_are_those_of_the_single_head(branches, order):
    multi = _model(RPN_HEAD_CFGS=branches).train().dense_head
    single = build_network(tiny_model_cfg(), 3, FACTS).train().dense_head
    batch = random_batch(FACTS)
    for place, other in zip(order, single.anchors, strict=True):
        assert torch.equal(multi.anchors[place], other)
    own, other = (head.assign_targets(batch["gt_boxes"]) for head in (multi, single))
    assert (own["box_cls_labels"] > 0).sum() > 5
    for key, value in own.items():
        parts = list(_by_cell(multi, value))
        assert torch.equal(torch.cat([parts[k] for k in order], dim=3).flatten(1, 3), other[key]), key


def _in_the_other_order(model, **head):
    """The model with its two branches listed the other way round, weights and all."""
    other = _model(RPN_HEAD_CFGS=BRANCHES[::-1], **head)
    renamed = str.maketrans("01", "10")
    state = {
        name.translate(renamed) if "rpn_heads" in name else name: value for name, value in model.state_dict().items()
    }
    other.load_state_dict(state)
    return other


@pytest.mark.parametrize("separate", [True, False])
def test_the_order_of_the_branches_changes_neither_losses_nor_gradients_nor_boxes(separate):
    model = _model(SEPARATE_MULTIHEAD=separate)
    other = _in_the_other_order(model, SEPARATE_MULTIHEAD=separate)
    batch, losses, boxes = random_batch(FACTS), [], []
    for network in (model, other):
        loss, parts, _ = network.train()(dict(batch))
        loss["loss"].backward()
        losses.append(parts)
        with torch.no_grad():
            boxes.append(network.eval()(dict(batch))[0])
    assert losses[0]["rpn_loss_cls"] > 0 and losses[0]["rpn_loss_loc"] > 0 and losses[0]["rpn_loss_dir"] > 0
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    torch.testing.assert_close(other.vfe.pfn_layers[0].linear.weight.grad, model.vfe.pfn_layers[0].linear.weight.grad)
    for head, same in zip(model.dense_head.rpn_heads, reversed(other.dense_head.rpn_heads), strict=True):
        for (name, parameter), twin in zip(head.named_parameters(), same.parameters(), strict=True):
            torch.testing.assert_close(twin.grad, parameter.grad, rtol=1e-4, atol=1e-6, msg=name)
    for one, two in zip(*boxes, strict=True):
        assert one["pred_labels"].bincount().tolist() == two["pred_labels"].bincount().tolist()
        torch.testing.assert_close(one["pred_scores"].sort().values, two["pred_scores"].sort().values)


def _plain_cls_loss(head, positive, negative):
    """OpenPCDet's class loss: a weight for every anchor, branches compared with the columns of their classes."""
    out = head.forward_ret_dict
    labels = out["box_cls_labels"]
    weights = negative * (labels == 0) + positive * (labels > 0)
    weights = weights / (labels > 0).sum(1, keepdim=True).clamp(min=1)
    target = torch.nn.functional.one_hot(labels.clamp(min=0).long(), 4)[..., 1:].float()
    focal, total, start = loss_utils.SigmoidFocalClassificationLoss(), 0.0, 0
    parts = out["cls_preds"] if isinstance(out["cls_preds"], list) else [out["cls_preds"]]
    columns = [[0], [1, 2]] if len(parts) > 1 else [[0, 1, 2]]
    for logits, classes in zip(parts, columns, strict=True):
        rows = slice(start, start + logits.shape[1])
        start = rows.stop
        total = total + focal(logits, target[:, rows, classes], weights[:, rows]).sum()
    return total / len(labels)


@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize(("positive", "negative"), [(1.0, 1.0), (1.0, 2.0), (3.0, 0.5)])
def test_the_class_loss_weighs_positive_and_background_anchors(separate, positive, negative):
    weights = dict(_cfg().DENSE_HEAD.LOSS_CONFIG.LOSS_WEIGHTS, pos_cls_weight=positive, neg_cls_weight=negative)
    model = _model(SEPARATE_MULTIHEAD=separate, LOSS_CONFIG={"LOSS_WEIGHTS": weights}).train()
    model.forward_features(random_batch(FACTS))
    loss, tb_dict = model.dense_head.get_loss()
    expected = _plain_cls_loss(model.dense_head, positive, negative)
    assert tb_dict["rpn_loss_cls"] == pytest.approx(expected.item(), rel=1e-5)
    heads = model.dense_head.rpn_heads
    wanted = torch.autograd.grad(expected, [head.conv_cls.weight for head in heads], retain_graph=True)
    own = torch.autograd.grad(loss, [head.conv_cls.weight for head in heads])
    for a, b in zip(own, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("classifier", "cost"), [(True, 0.0), (False, math.pi - 0.5 / 9)])
def test_a_heading_may_be_reversed_only_if_a_classifier_tells_the_two_apart(classifier, cost):
    """As in OpenPCDet's multi-head: sin(pred - target) with a direction classifier, the plain difference without."""
    head = _model(USE_DIRECTION_CLASSIFIER=classifier).dense_head
    codes, targets = torch.zeros(1, 7), torch.zeros(1, 7)
    codes[0, 6] = math.pi
    assert head._box_loss(codes, targets, torch.ones(1)).item() == pytest.approx(cost, abs=1e-5)


def test_boxes_decoded_late_are_those_decoded_early():
    model, batch = _model().eval(), random_batch(FACTS)
    with torch.no_grad():
        out = model.forward_features(dict(batch))
        rows = torch.tensor([0, 5, 12288, 18431])
        assert torch.equal(model.dense_head.decode_rows(1, rows), out["batch_box_preds"][1, rows])
        early = model.post_processing(out)[0]
        late = model(dict(batch))[0]
    assert [x.tolist() for x in out["multihead_label_mapping"]] == [[1], [2, 3]]
    for a, b in zip(early, late, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_suppression_within_classes_gives_the_classes_of_the_branches():
    model, batch = _model().eval(), random_batch(FACTS)
    for head, bias in zip(model.dense_head.rpn_heads, (0.0, 1.0), strict=True):
        torch.nn.init.constant_(head.conv_cls.bias, bias)  # every anchor passes; the second branch scores higher
    with torch.no_grad():
        (pred_dict, _), _ = model(batch)
    labels, scores = pred_dict["pred_labels"], pred_dict["pred_scores"]
    assert labels.unique().tolist() == [1, 2, 3]
    sizes = {1: 3.9, 2: 0.8, 3: 1.76}
    for label, length in sizes.items():  # untrained codes leave the anchors' sizes nearly alone
        assert abs(pred_dict["pred_boxes"][labels == label, 3].median() / length - 1) < 0.5
    assert scores[labels == 1].max() < scores[labels == 2].min()


def test_branches_with_stages_of_their_own_may_differ_in_stride():
    anchors = _cfg().DENSE_HEAD.ANCHOR_GENERATOR_CONFIG
    for entry in anchors[1:]:
        entry.feature_map_stride = 1
    own = {"LAYER_NUMS": [1], "LAYER_STRIDES": [1], "NUM_FILTERS": [8], "NUM_UPSAMPLE_FILTERS": [8]}
    branches = [{**BRANCHES[0], **own, "UPSAMPLE_STRIDES": [1]}, {**BRANCHES[1], **own, "UPSAMPLE_STRIDES": [2]}]
    model = _model(RPN_HEAD_CFGS=branches, ANCHOR_GENERATOR_CONFIG=anchors, SEPARATE_REG_CONFIG=SEPARATE).train()
    ret_dict, _, _ = model(random_batch(FACTS))
    ret_dict["loss"].backward()
    assert [x.shape[1] for x in model.dense_head.forward_ret_dict["cls_preds"]] == [48 * 64 * 2, 96 * 128 * 4]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    with torch.no_grad():
        assert len(model.eval()(random_batch(FACTS))[0]) == 2


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"USE_MULTIHEAD": False}, "USE_MULTIHEAD must be True"),
        ({"RPN_HEAD_CFGS": BRANCHES[:1]}, r"must name each of CLASS_NAMES .* once, got \['Car'\]"),
        ({"RPN_HEAD_CFGS": [*BRANCHES, BRANCHES[0]]}, "must name each of CLASS_NAMES"),
        ({"SEPARATE_REG_CONFIG": {**SEPARATE, "REG_LIST": ["reg:2", "size:3"]}}, "must have the 7 columns .* got 5"),
        ({"SEPARATE_REG_CONFIG": {**SEPARATE, "REG_LIST": ["reg"]}}, "must be entries like 'size:3'"),
        ({"RPN_HEAD_CFGS": [{"HEAD_CLS_NAME": []}]}, "HEAD_CLS_NAME: must name at least one class"),
        ({"ANCHOR_GENERATOR_CONFIG": _cfg().DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[:2]}, r"no anchors for \['Cyclist'\]"),
    ],
)
def test_what_cannot_be_meant_is_refused(head, message):
    with pytest.raises(ConfigError, match=message):
        _model(**head)


def test_a_branch_whose_map_is_not_its_anchors_is_refused():
    anchors = _cfg().DENSE_HEAD.ANCHOR_GENERATOR_CONFIG
    for entry in anchors:
        entry.feature_map_stride = 4
    model = _model(ANCHOR_GENERATOR_CONFIG=anchors).eval()
    with pytest.raises(ValueError, match=r"map of a branch has \(48, 64\) cells .* its anchors \(24, 32\)"):
        model(random_batch(FACTS))
