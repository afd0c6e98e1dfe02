"""Whole detectors: building, running, precision, devices, and the smallest batches."""

import copy
import pickle

import numpy as np
import pytest
import torch
from easydict import EasyDict
from models.pointpillars import SMALL_RANGE, dataset_facts, model_cfg, random_batch, tiny_model_cfg
from torch import nn

from pcdet.models import build_network, load_data_to_gpu, model_fn_decorator
from pcdet.models.description import SLOTS
from pcdet.models.detectors import Detector3DTemplate
from pcdet.registry import BACKBONES_2D, ConfigError, check_node

FACTS = dataset_facts(SMALL_RANGE)


def _model(seed=0, **changes):
    torch.manual_seed(seed)
    return build_network(tiny_model_cfg(**changes), 3, FACTS)


def test_the_slots_hold_the_modules_in_order():
    model = _model()
    assert [type(m).__name__ for m in model.module_list] == [
        "PillarVFE",
        "PointPillarScatter",
        "BaseBEVBackbone",
        "AnchorHeadSingle",
    ]
    assert model.module_list == [model.vfe, model.map_to_bev_module, model.backbone_2d, model.dense_head]
    assert model.backbone_3d is model.pfe is model.point_head is model.roi_head is None
    assert model.class_names == ["Car", "Pedestrian", "Cyclist"]
    assert (model.mode, model.eval().mode) == ("TRAIN", "TEST")


def test_batch_norms_take_the_momentum_of_the_block():
    """Of a running mean that starts at zero, momentum 1 leaves the last batch's mean, 0.25 a quarter of it."""
    batch, seen = random_batch(FACTS), {}
    for momentum in (1.0, 0.25):
        torch.manual_seed(0)
        model = build_network(EasyDict(tiny_model_cfg(), BN_MOMENTUM=momentum), 3, FACTS).train()
        model(dict(batch))
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        seen[momentum] = [m.running_mean.clone() for m in norms]
    for whole, quarter in zip(seen[1.0], seen[0.25], strict=True):
        torch.testing.assert_close(quarter, whole / 4, rtol=1e-4, atol=1e-6)
    assert {m.momentum for m in _model().modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)} == {0.01}


def test_training_returns_openpcdets_triple():
    model = _model().train()
    ret_dict, tb_dict, disp_dict = model(random_batch(FACTS))
    assert list(ret_dict) == ["loss"] and ret_dict["loss"].requires_grad
    assert list(tb_dict) == ["loss_rpn", "rpn_loss_cls", "rpn_loss_loc", "rpn_loss_dir", "rpn_loss"]
    assert all(isinstance(v, float) for v in tb_dict.values()) and disp_dict == {}
    assert tb_dict["loss_rpn"] == pytest.approx(ret_dict["loss"].item())


def test_evaluation_returns_boxes_and_recall():
    model = _model().eval()
    model.dense_head.conv_cls.bias.data += 4
    with torch.no_grad():
        pred_dicts, recall_dict = model(random_batch(FACTS))
    assert len(pred_dicts) == 2 and recall_dict["gt"] == 8
    for pred in pred_dicts:
        count = len(pred["pred_scores"])
        assert 0 < count <= 500 and pred["pred_boxes"].shape == (count, 7)
        assert pred["pred_labels"].dtype == torch.int64
        assert pred["pred_labels"].min() >= 1 and pred["pred_labels"].max() <= 3


def test_boxes_are_those_of_the_full_decoding():
    model = _model().eval()
    model.dense_head.conv_cls.bias.data += 4
    with torch.no_grad():
        lazy, _ = model(random_batch(FACTS))
        full, _ = model.post_processing(model.forward_features(random_batch(FACTS)))
    for a, b in zip(lazy, full, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_both_kinds_of_suppression_work_with_one_head():
    for multi in (False, True):
        cfg = tiny_model_cfg()
        cfg.POST_PROCESSING.NMS_CONFIG.MULTI_CLASSES_NMS = multi
        torch.manual_seed(0)
        model = build_network(cfg, 3, FACTS).eval()
        model.dense_head.conv_cls.bias.data += 4
        with torch.no_grad():
            pred_dicts, _ = model(random_batch(FACTS))
        assert set(pred_dicts[0]["pred_labels"].tolist()) == {1, 2, 3}


def test_evaluation_without_objects_records_nothing():
    batch = random_batch(FACTS)
    del batch["gt_boxes"]
    with torch.no_grad():
        _, recall_dict = _model().eval()(batch)
    assert recall_dict == {}


def test_predictions_flat_over_the_batch():
    """A point head's: rows of all frames after each other, with the frame beside them and labels of a first stage."""
    model = _model()
    boxes = torch.tensor([[0, 0, 0, 4, 2, 1.5, 0], [10, 0, 0, 4, 2, 1.5, 0], [20, 0, 0, 4, 2, 1.5, 0]]).float()
    batch = {
        "batch_size": 2,
        "batch_index": torch.tensor([0, 1, 1]),
        "batch_cls_preds": torch.tensor([[0.9], [0.8], [0.7]]),
        "batch_box_preds": boxes,
        "cls_preds_normalized": True,
        "has_class_labels": True,
        "roi_labels": [torch.tensor([2]), torch.tensor([3, 1])],
        "rois": [boxes[:1], boxes[1:]],
        "gt_boxes": torch.cat((boxes[:2], torch.ones(2, 1)), dim=1)[:, None],
    }
    pred_dicts, recall_dict = model.post_processing(batch)
    assert torch.equal(pred_dicts[1]["pred_boxes"], boxes[1:])
    assert [p["pred_labels"].tolist() for p in pred_dicts] == [[2], [3, 1]]
    assert recall_dict["gt"] == 2 and recall_dict["roi_0.7"] == 2 and recall_dict["rcnn_0.7"] == 2


def test_features_stop_where_asked():
    batch = _model().eval().forward_features(random_batch(FACTS), last="backbone_2d")
    assert "spatial_features_2d" in batch and "batch_cls_preds" not in batch
    with pytest.raises(ValueError, match="last must be one of vfe, backbone_3d, .* got 'neck'"):
        _model().eval().forward_features(random_batch(FACTS), last="neck")


def test_predictions_are_kept_in_any_mode():
    for training in (True, False):
        model = _model().train(training)
        model.forward_features(random_batch(FACTS))
        kept = model.dense_head.forward_ret_dict
        assert kept["cls_preds"].shape == (2, 48, 64, 18) and kept["box_preds"].shape == (2, 48, 64, 42)
        assert ("box_cls_labels" in kept) == training


@pytest.mark.parametrize("frames_empty", ["first", "last", "all"])
def test_frames_without_points(frames_empty):
    batch = random_batch(FACTS)
    keep = {"first": batch["voxel_coords"][:, 0] == 1, "last": batch["voxel_coords"][:, 0] == 0}
    keep = keep.get(frames_empty, torch.zeros(len(batch["voxel_coords"]), dtype=torch.bool))
    for key in ("voxels", "voxel_coords", "voxel_num_points"):
        batch[key] = batch[key][keep]
    ret_dict, _, _ = _model().train()(dict(batch))
    ret_dict["loss"].backward()
    assert ret_dict["loss"].isfinite()
    with torch.no_grad():
        pred_dicts, _ = _model().eval()(dict(batch))
    assert len(pred_dicts) == 2


def test_a_few_steps_lower_the_loss():
    model, batch = _model().train(), random_batch(FACTS)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        ret_dict, _, _ = model(dict(batch))
        optimizer.zero_grad()
        ret_dict["loss"].backward()
        optimizer.step()
        losses.append(ret_dict["loss"].item())
    assert losses[-1] < 0.7 * losses[0]


def test_frames_do_not_touch_each_other_in_evaluation():
    model, batch = _model().eval(), random_batch(FACTS)
    first = {k: v[batch["voxel_coords"][:, 0] == 0] for k, v in batch.items() if str(k).startswith("voxel")}
    with torch.no_grad():
        both = model.forward_features(dict(batch))["batch_cls_preds"]
        alone = model.forward_features({**first, "gt_boxes": batch["gt_boxes"][:1], "batch_size": 1})["batch_cls_preds"]
    torch.testing.assert_close(both[:1], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels_last", [False, True])
def test_bfloat16_autocast_trains_and_predicts_alike(channels_last):
    model = _model().train()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    batch = random_batch(FACTS)
    with torch.no_grad():
        exact, _, _ = copy.deepcopy(model)(dict(batch))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ret_dict, _, _ = model(dict(batch))
    assert ret_dict["loss"].dtype == torch.float32
    assert ret_dict["loss"].item() == pytest.approx(exact["loss"].item(), rel=0.03)
    assert model.dense_head.forward_ret_dict["cls_preds"].dtype == torch.bfloat16
    ret_dict["loss"].backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    with torch.no_grad():
        exact = model.forward_features(dict(batch))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            batch_dict = model.forward_features(dict(batch))
    for key in ("batch_cls_preds", "batch_box_preds"):
        own, wanted = batch_dict[key][..., :6], exact[key][..., :6]  # a heading may turn where directions nearly tie
        assert (own - wanted).abs().max() <= 0.01 * wanted.abs().max(), key
    assert batch_dict["batch_box_preds"].dtype == batch_dict["batch_cls_preds"].dtype == torch.float32


def test_a_detector_can_be_copied_and_pickled_after_a_forward():
    model = _model().train()
    model(random_batch(FACTS))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(torch.equal(a, b) for a, b in zip(model.buffers(), twin.buffers(), strict=True))
        assert twin.module_list[0] is twin.vfe


def test_synchronised_norms_can_replace_the_plain_ones():
    model = nn.SyncBatchNorm.convert_sync_batchnorm(_model())
    assert list(model.state_dict()) == list(_model().state_dict())
    with torch.no_grad():
        model.eval()(random_batch(FACTS))


def test_a_gpu_predicts_as_the_cpu_does(device):
    model, batch = _model().eval(), random_batch(FACTS)
    with torch.no_grad():
        expected = model.forward_features(dict(batch))["batch_cls_preds"]
        moved = {k: v.to(device) if torch.is_tensor(v) else v for k, v in batch.items()}
        out = model.to(device).forward_features(moved)["batch_cls_preds"]
        model(dict(moved))
    torch.testing.assert_close(out.cpu(), expected, rtol=1e-3, atol=1e-3)
    ret_dict, _, _ = model.train()(moved)
    ret_dict["loss"].backward()
    assert ret_dict["loss"].isfinite()


# --------------------------------------------------------------------------------------------------------------- build


def test_wrong_keys_are_named_with_their_path():
    cfg = tiny_model_cfg(BACKBONE_2D={"LAYER_NUM": [1]})
    with pytest.raises(ConfigError, match="MODEL.BACKBONE_2D.LAYER_NUM: .* did you mean LAYER_NUMS"):
        build_network(cfg, 3, FACTS)
    cfg = tiny_model_cfg(DENSE_HEAD={"NUM_DIR_BINS": "two"})
    with pytest.raises(ConfigError, match="MODEL.DENSE_HEAD.NUM_DIR_BINS: expected int, got 'two'"):
        build_network(cfg, 3, FACTS)
    cfg = tiny_model_cfg()
    cfg.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[2].matched_treshold = 0.5
    with pytest.raises(ConfigError, match=r"ANCHOR_GENERATOR_CONFIG\[2\].matched_treshold: .* did you mean"):
        build_network(cfg, 3, FACTS)
    cfg = tiny_model_cfg()
    cfg.POST_PROCESSING.NMS_CONFIG.NMS_TRESH = 0.5
    with pytest.raises(ConfigError, match="MODEL.POST_PROCESSING.NMS_CONFIG.NMS_TRESH: .* did you mean NMS_THRESH"):
        build_network(cfg, 3, FACTS)


def test_a_missing_part_is_named():
    cfg = tiny_model_cfg()
    del cfg["VFE"], cfg["DENSE_HEAD"]
    with pytest.raises(ConfigError) as error:
        build_network(cfg, 3, FACTS)
    assert error.value.problems == [
        "MODEL.VFE: missing; PointPillar needs it",
        "MODEL.DENSE_HEAD: missing; PointPillar needs it",
    ]


def test_an_unknown_detector_is_named():
    with pytest.raises(ConfigError, match="MODEL.NAME: unknown detector 'PointPillars'; did you mean PointPillar"):
        build_network(EasyDict(tiny_model_cfg(), NAME="PointPillars"), 3, FACTS)


def test_channels_that_do_not_fit_are_named():
    with pytest.raises(ConfigError, match="MODEL.MAP_TO_BEV: NUM_BEV_FEATURES must equal .* got 64; set 8"):
        build_network(tiny_model_cfg(MAP_TO_BEV={"NUM_BEV_FEATURES": 64}), 3, FACTS)


def test_openpcdets_blocks_pass_the_check():
    cfg = model_cfg()
    for slot in SLOTS:
        if slot.key in cfg:
            assert check_node(cfg[slot.key], slot.registry, path=f"MODEL.{slot.key}") == [], slot.attribute


def test_a_users_module_in_openpcdets_manner():
    @BACKBONES_2D.register(name="UsersBackbone")
    class UsersBackbone(nn.Module):
        def __init__(self, model_cfg, input_channels, **kwargs):
            super().__init__()
            self.num_bev_features = model_cfg.CHANNELS
            self.conv = nn.Conv2d(input_channels, model_cfg.CHANNELS, 3, stride=2, padding=1)

        def forward(self, data_dict):
            data_dict["spatial_features_2d"] = self.conv(data_dict["spatial_features"])
            return data_dict

    cfg = tiny_model_cfg()
    cfg.BACKBONE_2D = EasyDict(NAME="UsersBackbone", CHANNELS=12)
    ret_dict, _, _ = build_network(cfg, 3, FACTS).train()(random_batch(FACTS))
    assert ret_dict["loss"].isfinite()


def test_losses_of_several_heads_add_up():
    class Head(nn.Module):
        def get_loss(self, tb_dict):
            return torch.tensor(2.0), {**tb_dict, "point_loss": 2.0}

    model = _model().train()
    model.point_head = Head()
    model.forward_features = lambda batch_dict, **_: type(model).forward_features(model, batch_dict, last="dense_head")
    ret_dict, tb_dict, _ = model(random_batch(FACTS))
    assert ret_dict["loss"].item() == pytest.approx(tb_dict["loss_rpn"] + 2.0)
    assert tb_dict["point_loss"] == 2.0


def test_openpcdets_helpers():
    batch = {"voxels": np.ones((2, 3), dtype=np.float64), "frame_id": np.array(["a"]), "batch_size": 1}
    moved = load_data_to_gpu(batch)
    assert moved["voxels"].dtype == torch.float32 and isinstance(moved["frame_id"], np.ndarray)

    model = _model().train()
    arrays = {k: v.numpy() if torch.is_tensor(v) else v for k, v in random_batch(FACTS).items()}
    loss, tb_dict, disp_dict = model_fn_decorator()(model, arrays)
    assert loss.isfinite() and "rpn_loss" in tb_dict and disp_dict == {}
    assert model.global_step.item() == 1
    assert isinstance(model, Detector3DTemplate)
