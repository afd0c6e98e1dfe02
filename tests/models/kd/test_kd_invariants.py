"""What distillation promises, claim by claim, on a real PointPillars teacher and student of a few channels."""

import copy
import weakref

import pytest
import torch
from kd_pairs import FACTS, LOGITS, MAP, ON_MAP, PILLARS, detector, distil, kd_terms, pp, step, wide_detector

from pcdet.models.kd.features.feature import Feature
from pcdet.models.kd.features.grid import Geometry
from pcdet.models.kd.graphs.neighbours import GraphConfig, build_graphs
from pcdet.models.kd.graphs.sampling import SampleConfig
from pcdet.models.kd.model_outputs import ModelOutputs
from pcdet.models.kd.step import Step

SET_ON_MAP = {"FEATURE": "spatial_features_2d", "SAMPLE": {"NUM": 40}}
# Random heads are sure of nothing, and their boxes meet by chance.
BOXES = {"NAME": "BoxConsistency", "THRESHOLD": 0.001, "STUDENT_THRESHOLD": 0.001, "IOU": 0.2, "NUM": 400}
EVERYTHING = [
    [PILLARS],
    [PILLARS | {"PRESET": "official"}],
    [PILLARS | {"PRESET": "paper"}],
    [MAP],
    [MAP | {"PRESET": "official"}],
    [MAP | {"PRESET": "paper"}],
    [MAP | {"FEATURE": "backbone_2d.blocks.1"}],
    [LOGITS],
    [LOGITS | {"PIVOT": "both", "BY_SCORE": True, "THRESHOLD": 0.001, "NUM": 50}],
    [{"NAME": "FitNet", "FEATURE": "spatial_features_2d", "SAMPLE": {"BY": "score"}}],
    [{"NAME": "PKD", "FEATURE": "pillar_features", "SAMPLE": {"NUM": 40}}],
    [{"NAME": "PKD"} | ON_MAP],
    [{"NAME": "CWD", "TEMPERATURE": 0.3} | ON_MAP],
    [{"NAME": "MGD"} | ON_MAP],
    [{"NAME": "FGFI"} | ON_MAP],
    [{"NAME": "FGD"} | ON_MAP],
    [{"NAME": "DKD"}],
    [PILLARS, MAP, LOGITS],
    [{"NAME": "AttentionTransfer", "FEATURE": "spatial_features_2d"}],
    [SET_ON_MAP | {"NAME": "SimilarityPreserving"}],
    [SET_ON_MAP | {"NAME": "RKD"}],
    [SET_ON_MAP | {"NAME": "CRD"}],
    [SET_ON_MAP | {"NAME": "FeatureBased"}],
    [{"NAME": "FeatureBased", "FEATURE": "pillar_features", "SAMPLE": {"NUM": 40}}],
    [SET_ON_MAP | {"NAME": "Overhaul", "FEATURE": ["backbone_2d.deblocks.0.1", "backbone_2d.deblocks.1.1"]}],
    [BOXES],
    [PILLARS | {"GRAPH": {"EDGE": "none"}}],
    [MAP | {"GRAPH": {"EDGE": "none"}}],
]
every_kind_of_loss = pytest.mark.parametrize("losses", EVERYTHING, ids=range(len(EVERYTHING)))
WITHOUT_NORM = {"ADAPTER": {"TEACHER": "none", "STUDENT": "linear"}}


def reordered(batch, frames=None, seed=5):
    """The same batch with its voxels shuffled and, if given, its frames in another order."""
    order = torch.randperm(len(batch["voxels"]), generator=torch.Generator().manual_seed(seed))
    changed = {k: v[order] if k.startswith("voxel") else v for k, v in batch.items()}
    if frames is not None:
        coords = changed["voxel_coords"].clone()
        for new, old in enumerate(frames):
            coords[changed["voxel_coords"][:, 0] == old, 0] = new
        changed["voxel_coords"] = coords
        changed["gt_boxes"] = batch["gt_boxes"][list(frames)]
    return changed


# ---------------------------------------------------------------------------------------------- 1, 2: who owns what


def test_the_teacher_is_neither_trained_nor_changed_nor_stored(batch):
    distiller = distil(PILLARS, MAP, LOGITS)
    before = copy.deepcopy(distiller.teacher.state_dict())
    step(distiller, batch)
    assert all(p.grad is None and not p.requires_grad for p in distiller.teacher.parameters())
    for name, value in distiller.teacher.state_dict().items():
        assert torch.equal(value, before[name]), name
    owned = {id(p) for p in distiller.parameters()}
    assert not owned & {id(p) for p in distiller.teacher.parameters()}
    assert {name.split(".")[0] for name in distiller.state_dict()} == {"student", "losses"}
    assert not any(module.training for module in distiller.teacher.modules())


@every_kind_of_loss
def test_the_teachers_maps_are_not_held_while_the_student_runs(batch, losses):
    distiller, held, maps = distil(*losses), [], []
    tapped = {name for loss in distiller.losses.values() for name in loss.teacher_taps}

    def note(_module, _given, out):
        found = (
            out[name] for name in ("spatial_features", "spatial_features_2d") if name in out and name not in tapped
        )
        maps.extend(map(weakref.ref, found))

    for module in distiller.teacher.children():
        module.register_forward_hook(note)
    distiller.student.vfe.register_forward_hook(lambda *_: held.append([seen() for seen in maps if seen() is not None]))
    distiller(batch)
    assert held == [[]]


def test_the_teacher_follows_the_distiller_to_another_type():
    distiller = distil(PILLARS).double()
    assert {p.dtype for p in distiller.teacher.parameters()} == {torch.float64}


@pytest.mark.parametrize(
    "mode, norms, others", [("eval", False, False), ("train", True, True), ("bn_train", True, False)]
)
def test_the_teachers_mode_is_the_one_chosen(batch, mode, norms, others):
    distiller = distil(PILLARS, TEACHER={"MODE": mode})
    kinds = {isinstance(m, torch.nn.modules.batchnorm._BatchNorm): m.training for m in distiller.teacher.modules()}
    assert kinds == {True: norms, False: others}
    mean = distiller.teacher.vfe.pfn_layers[0].norm.running_mean.clone()
    step(distiller, batch)
    assert torch.equal(mean, distiller.teacher.vfe.pfn_layers[0].norm.running_mean) != norms
    assert not any(m.training for m in distiller.eval().teacher.modules())


def test_the_students_state_is_a_plain_detectors():
    student = distil(PILLARS, MAP, LOGITS).student
    plain = detector(seed=4)
    assert list(student.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(student.state_dict())
    assert not any(module._forward_hooks for module in student.modules())


def test_in_evaluation_it_is_the_student(batch):
    distiller = distil(PILLARS).eval()
    with torch.no_grad():
        ours, theirs = distiller(dict(batch)), distiller.student(dict(batch))
    for a, b in zip(ours[0], theirs[0], strict=True):
        assert torch.equal(a["pred_boxes"], b["pred_boxes"])


def test_a_step_leaves_the_batch_as_it_was(batch):
    before = {key: value.clone() if torch.is_tensor(value) else value for key, value in batch.items()}
    step(distil(PILLARS, MAP, LOGITS), batch)
    assert set(batch) == set(before)
    for key, value in before.items():
        assert torch.equal(value, batch[key]) if torch.is_tensor(value) else value == batch[key]


# ------------------------------------------------------------------------------------------ 3, 4: order and frames


@every_kind_of_loss
def test_the_order_of_voxels_and_frames_does_not_matter(batch, losses):
    distiller = distil(*losses, TEACHER={"MODE": "eval"})
    expected = kd_terms(step(distiller, batch))
    others = [reordered(batch)]
    if losses[0].get("PRESET") != "official":  # which mixes frames, so that their order breaks ties
        others.append(reordered(batch, frames=(1, 0)))
    for other in others:
        given = kd_terms(step(distiller, other))
        for key, value in expected.items():
            if not key.endswith("explained"):
                assert given[key] == pytest.approx(value, rel=2e-4, abs=1e-6), key


def add_frame(batch, other):
    """``batch`` and the first frame of ``other`` behind it."""
    frames = batch["batch_size"]
    rows = other["voxel_coords"][:, 0] == 0
    extra = {k: other[k][rows].clone() for k in ("voxels", "voxel_coords", "voxel_num_points")}
    extra["voxel_coords"][:, 0] = frames
    joined = {k: torch.cat([batch[k], v]) for k, v in extra.items()}
    joined["gt_boxes"] = torch.cat([batch["gt_boxes"], other["gt_boxes"][:1]])
    return {**joined, "batch_size": frames + 1}


def frozen_pair():
    """Student and teacher without batch statistics, so that only the distillation could couple frames."""
    return detector().eval(), wide_detector().eval()


def per_frame_terms(loss_node, batches):
    """The value of one loss, with the same weights, on each batch; the student's norms use running statistics."""
    student, teacher = frozen_pair()
    distiller = distil(loss_node, student=student, teacher=teacher)
    distiller.student.eval()
    values = []
    for batch in batches:
        outputs = []
        for model in (distiller.student, distiller.teacher):
            out = model.forward_features(dict(batch))
            taps = {k: out[k] for k in ("pillar_features", "spatial_features_2d")}
            outputs.append(ModelOutputs(model, out, taps, distiller.geometry))
        with torch.no_grad():
            values.append(float(distiller.losses[loss_node["NAME"]](Step(*outputs, batch))[0]))
    return values


@pytest.mark.parametrize(
    "node", [PILLARS | WITHOUT_NORM, MAP | WITHOUT_NORM | {"SAMPLE": {"NUM": 30, "BY": "channel_l2"}}]
)
def test_another_frame_does_not_change_a_frames_own_terms(batch, node):
    alone = {k: v[batch["voxel_coords"][:, 0] == 0] for k, v in batch.items() if k.startswith("voxel")}
    alone |= {"gt_boxes": batch["gt_boxes"][:1], "batch_size": 1}
    other = pp.random_batch(FACTS, frames=1, points=90, seed=11)
    first, second, both = per_frame_terms(node, [alone, other, add_frame(alone, other)])
    assert both == pytest.approx((first + second) / 2, rel=1e-5)


def test_batch_flat_sampling_lets_frames_compete_and_per_frame_sampling_does_not():
    coords = torch.tensor([[0, 0, 0, i] for i in range(6)] + [[1, 0, 0, i] for i in range(6)]).float()
    count = torch.tensor([9.0] * 6 + [1.0] * 6)
    geometry = Geometry(point_cloud_range=(0, 0, 0, 8, 8, 1), grid_size=(8, 8, 1))
    feature = Feature.from_voxels(torch.randn(12, 4), coords, geometry, 2, count)
    sampling, graph = SampleConfig(num=4), GraphConfig(k=6, space="feature")
    assert build_graphs(feature, feature.count, sampling, graph).sizes == [4, 4]
    flat = build_graphs(feature.as_one_frame(), feature.count, sampling, graph)
    assert flat.sizes == [4] and int(flat.centres.max()) < 6  # all from the dense frame
    per_frame = build_graphs(feature, feature.count, sampling, graph)
    assert torch.equal(feature.batch_idx[per_frame.idx], feature.batch_idx[per_frame.centres][:, None].expand(-1, 6))


# ------------------------------------------------------------------------------------- 5, 6, 8: values and gradients


@pytest.mark.parametrize(
    "node",
    [
        PILLARS | {"ADAPTER": {"TEACHER": "none", "STUDENT": "none"}},
        MAP | {"ADAPTER": {"TEACHER": "none", "STUDENT": "none"}},
        LOGITS,
        {"NAME": "PKD"} | ON_MAP,
        {"NAME": "CWD"} | ON_MAP,
        {"NAME": "FGFI"} | ON_MAP,
        {"NAME": "FGD", "RELATION": 0.0} | ON_MAP,  # whose two blocks of global context begin differently
        {"NAME": "DKD"},
    ],
)
def test_a_teacher_that_is_its_own_student_has_nothing_to_teach(batch, node):
    distiller = distil(node, student=detector(seed=2), teacher=detector(seed=2), TEACHER={"MODE": "train"})
    assert step(distiller, batch)["kd/total"] == pytest.approx(0, abs=1e-10)


def test_a_shuffled_student_differs_from_its_teacher(batch):
    distiller = distil(
        PILLARS | {"ADAPTER": {"TEACHER": "none", "STUDENT": "none"}}, student=detector(), teacher=detector()
    )
    out = distiller.teacher.forward_features(dict(batch))
    shuffled = out["pillar_features"][torch.randperm(len(out["pillar_features"]))]
    outputs = [
        ModelOutputs(distiller.student, out, {"pillar_features": x}, distiller.geometry)
        for x in (shuffled, out["pillar_features"])
    ]
    assert float(distiller.losses["PointDistiller"](Step(*outputs, batch))[0].detach()) > 1e-3


def test_weights_have_a_mean_of_one_and_the_effective_size_is_logged(batch):
    distiller = distil(PILLARS)
    seen = []
    loss = distiller.losses["PointDistiller"]
    original = loss._weights
    loss._weights = lambda *args: seen.append(original(*args)) or seen[-1]
    tb_dict = step(distiller, batch)
    (weight,) = seen
    for frame in weight.split(40):
        assert float(frame.mean()) == pytest.approx(1, rel=1e-5)
    assert 1 <= tb_dict["kd/PointDistiller/ess"] <= tb_dict["kd/PointDistiller/nodes"] == 40


def test_a_small_temperature_leaves_few_effective_rows(batch):
    """B3: with the released temperature all the weight is on the pillars with the most points."""
    sizes = {}
    for temperature in (0.01, 5.0):
        node = PILLARS | {"REWEIGHT": {"BY": "num_points", "TEMPERATURE": temperature}}
        sizes[temperature] = step(distil(node), batch)["kd/PointDistiller/ess"]
    assert sizes[0.01] < 0.9 * sizes[5.0]


@every_kind_of_loss
def test_gradient_of_the_kd_loss_alone_reaches_the_student_and_every_adapter(batch, losses):
    distiller = distil(*losses)
    ret_dict, _, _ = distiller(batch)
    plain = distiller.student.get_training_loss()[0]
    (ret_dict["loss"] - plain).backward()
    gradients = [p.grad for n, p in distiller.student.named_parameters() if n.startswith("vfe") and p.grad is not None]
    assert sum(float(g.abs().sum()) for g in gradients) > 0
    for name, parameter in distiller.losses.named_parameters():
        assert not parameter.requires_grad or float(parameter.grad.abs().sum()) > 0, name


# --------------------------------------------------------------------------------------------- 7: few rows and none


def empty_batch():
    """A batch whose frames hold no point and no box."""
    return {
        "voxels": torch.zeros(0, 32, 4),
        "voxel_coords": torch.zeros(0, 4),
        "voxel_num_points": torch.zeros(0),
        "gt_boxes": torch.zeros(2, 1, 8),
        "batch_size": 2,
    }


@every_kind_of_loss
@pytest.mark.parametrize("points", [0, 1, 5])
def test_few_rows_or_none_give_finite_losses_and_all_gradients(losses, points):
    sparse = empty_batch()
    if points:
        sparse = add_frame({**empty_batch(), "batch_size": 1, "gt_boxes": torch.zeros(1, 4, 8)}, few_points(points))
    distiller = distil(*losses)
    tb_dict = step(distiller, sparse)
    assert all(torch.tensor(v).isfinite() for v in tb_dict.values()), tb_dict
    for name, parameter in distiller.losses.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name


def few_points(points):
    batch = pp.random_batch(FACTS, frames=1, points=400, seed=2)
    rows = {k: v[:points] for k, v in batch.items() if k.startswith("voxel")}
    return {**batch, **rows}


def test_more_neighbours_and_centres_than_rows_are_clamped(batch):
    node = PILLARS | {"SAMPLE": {"NUM": 10_000}, "GRAPH": {"K": 2000}}
    tb_dict = step(distil(node), batch)
    assert tb_dict["kd/PointDistiller/nodes"] == len(batch["voxels"]) / 2
