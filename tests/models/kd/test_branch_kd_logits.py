"""Losses on the predictions of heads with branches, restated from the maps that the branches' last layers put out.

Which channel of which cell belongs to an anchor is found by where the anchor stands and how large it is.
"""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from easydict import EasyDict
from kd_pairs import FACTS, detector, pp
from support.detectors import network
from test_nuscenes_kd_anchor_heads import Pair

from pcdet.models.kd import build_distiller
from pcdet.models.kd.heads import read_head
from pcdet.registry import ConfigError

COARSE = {  # on a map of half the cells a side
    "HEAD_CLS_NAME": ["Cyclist"], "LAYER_NUMS": [1], "LAYER_STRIDES": [2], "NUM_FILTERS": [8], "UPSAMPLE_STRIDES": [1],
    "NUM_UPSAMPLE_FILTERS": [8],
}  # fmt: skip
TWO = [{"HEAD_CLS_NAME": ["Car"]}, {"HEAD_CLS_NAME": ["Pedestrian", "Cyclist"]}]
LOGITS = {"NAME": "PivotalLogit"}


class Kitti:
    """A PointPillars whose branches tell all classes apart and half turns by a classifier; one map is coarser."""

    facts, batch = FACTS, pp.random_batch(FACTS, frames=2, points=300, seed=3)
    batch["gt_boxes"][1, 3:] = 0

    def __init__(self, branches=({"HEAD_CLS_NAME": ["Car"]}, {"HEAD_CLS_NAME": ["Pedestrian"]}, COARSE), **head):
        self.cfg = pp.tiny_model_cfg()
        self.cfg.DENSE_HEAD.update(NAME="AnchorHeadMulti", RPN_HEAD_CFGS=list(branches), **head)
        if COARSE in branches:
            self.cfg.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[2]["feature_map_stride"] *= 2

    def network(self, width, seed):
        return network(EasyDict(self.cfg, WIDTH=width), self.facts, seed)


CASES = {"nuscenes": lambda: Pair("cbgs_pp_multihead"), "kitti": Kitti}


class Run:
    """One step of a distillation: its logs, and what the last layers of both sides put out, by anchor and by cell."""

    def __init__(self, case, *losses, student=None, teacher=None, batch=None):
        self.cfg = case.cfg.DENSE_HEAD
        self.student, self.teacher = (
            given or loud(case.network(0.25, seed)) for given, seed in ((student, 1), (teacher, 2))
        )
        self.maps = [self._listen(model.dense_head) for model in (self.student, self.teacher)]
        distiller = distil(case, self.student, self.teacher, *losses)
        returned, self.logs, _ = distiller(dict(case.batch if batch is None else batch))
        returned["loss"].backward()
        self.frames = case.batch["batch_size"]
        self.labels = self.student.dense_head.forward_ret_dict["box_cls_labels"].numpy()
        self._by_slot = {}
        self.places = self._places(self.student.dense_head.anchor_table.double().numpy())

    def _listen(self, head):
        """Of each branch the maps of its classes and, side by side, of its box codes, once they are there."""
        heard = [{"cls": [], "box": []} for _ in head.rpn_heads]
        for branch, maps in zip(head.rpn_heads, heard, strict=True):
            boxes = branch.conv_box.values() if isinstance(branch.conv_box, torch.nn.ModuleDict) else [branch.conv_box]
            for kind, layers in (("cls", [branch.conv_cls]), ("box", boxes)):
                for layer in layers:
                    layer.register_forward_hook(lambda _m, _a, out, to=maps[kind]: to.append(out.detach().double()))
        return heard

    def map(self, side, branch, kind):
        """(B, channels, H, W) of the student (0) or the teacher (1)."""
        return torch.cat(self.maps[side][branch][kind], dim=1).numpy()

    def _places(self, table):
        """(branch, anchor of its cell, row, column) of each anchor of the table, by size, heading and place."""
        kinds, strides = {}, {}
        by_name = {config["class_name"]: config for config in self.cfg.ANCHOR_GENERATOR_CONFIG}
        for branch, entry in enumerate(self.cfg.RPN_HEAD_CFGS):
            slot = 0
            for name in entry["HEAD_CLS_NAME"]:
                for size in by_name[name]["anchor_sizes"]:
                    for turn in by_name[name]["anchor_rotations"]:
                        kinds[(*np.round(size, 2), round(turn, 2))] = branch, slot
                        slot += 1
        found = [kinds[tuple(np.round(anchor[[3, 4, 5, 6]], 2))] for anchor in table]
        branches = np.array([branch for branch, _ in found])
        for branch in set(branches):
            own = table[branches == branch]
            strides[branch] = np.unique(own[:, 0].round(4)), np.unique(own[:, 1].round(4))
        return [
            (b, slot, *(int(np.argmin(abs(line - p))) for line, p in zip(strides[b][::-1], (a[1], a[0]), strict=True)))
            for (b, slot), a in zip(found, table, strict=True)
        ]

    def columns(self, side, kind, frame, place):
        """The class logits or the box code of an anchor."""
        branch, slot, y, x = self.places[place]
        if (side, kind, branch) not in self._by_slot:
            per_cell = 1 + max(other for b, other, *_ in self.places if b == branch)
            found = self.map(side, branch, kind)
            self._by_slot[side, kind, branch] = found.reshape(len(found), per_cell, -1, *found.shape[2:])
        return self._by_slot[side, kind, branch][frame, slot, :, y, x]

    def positives(self):
        """(frame, anchor) of each anchor of an object."""
        return list(zip(*np.nonzero(self.labels > 0), strict=True))

    def code_distance(self, frame, place):
        """Smooth-L1 of turning point 1/9 between both codes, weighed as the head's own loss does, summed."""
        far = self.columns(0, "box", frame, place) - self.columns(1, "box", frame, place)
        if self.cfg.get("USE_DIRECTION_CLASSIFIER"):
            far[6] = math.sin(far[6])
        near = abs(far) < 1 / 9
        weights = np.array(self.cfg.LOSS_CONFIG.LOSS_WEIGHTS.code_weights)
        return (weights * np.where(near, far**2 * 9 / 2, abs(far) - 1 / 18)).sum()


def distil(case, student, teacher, *losses):
    """A distiller in training mode."""
    block = EasyDict(KD={"TEACHER": {"CFG": "unused"}, "LOSSES": list(losses)})
    return build_distiller(block, student, case.facts, teacher=teacher).train()


def loud(model, std=1.0):
    """Scores all over [0, 1], so that no difference is lost."""
    for branch in model.dense_head.rpn_heads:
        last = branch.conv_cls[-1] if isinstance(branch.conv_cls, torch.nn.Sequential) else branch.conv_cls
        torch.nn.init.normal_(last.weight, std=std)
        torch.nn.init.zeros_(last.bias)
    return model


def score(logits):
    return 1 / (1 + np.exp(-logits))


cases = pytest.mark.parametrize("case", CASES)


@cases
def test_pivotal_logits_are_those_of_the_cells_and_anchors_of_objects_in_all_branches(case):
    run = Run(CASES[case](), LOGITS)
    cells = {(frame, b, y, x) for frame, place in run.positives() for b, _, y, x in [run.places[place]]}
    assert len({b for _, b, *_ in cells}) == 3
    cls = np.mean(
        [
            ((score(run.map(0, b, "cls")[f, :, y, x]) - score(run.map(1, b, "cls")[f, :, y, x])) ** 2).sum()
            for f, b, y, x in cells
        ]
    )
    by_frame = [[run.code_distance(f, place) for f, place in run.positives() if f == i] for i in range(run.frames)]
    assert len(by_frame[0]) != len(by_frame[1])
    reg = np.mean([np.mean(of_frame) for of_frame in by_frame])
    assert run.logs["kd/PivotalLogit/pivots"] == len(run.positives()) / run.frames
    assert run.logs["kd/PivotalLogit/cls"] == pytest.approx(15 * cls, rel=1e-4)
    assert run.logs["kd/PivotalLogit/reg"] == pytest.approx(0.2 * reg, rel=1e-4)


@pytest.mark.parametrize(("case", "least"), [("nuscenes", 0.6), ("kitti", 0.52)], ids=CASES)
def test_pivots_by_score_are_weighed_one_by_one(case, least):
    keys = {"PIVOT": "score", "THRESHOLD": least, "NUM": 9999, "CLS_OVER": "anchor", "REG_OVER": "batch"}
    run = Run(CASES[case](), LOGITS | keys | {"BY_SCORE": True})
    weight, cls, reg = [], [], []
    for frame in range(run.frames):
        for place in range(len(run.places)):
            ours, theirs = (score(run.columns(side, "cls", frame, place)) for side in (0, 1))
            if theirs.max() >= least:
                weight.append(theirs.max())
                cls.append(((ours - theirs) ** 2).sum())
                reg.append(run.code_distance(frame, place))
    assert 0.1 < len(weight) / (run.frames * len(run.places)) < 0.9
    assert run.logs["kd/PivotalLogit/pivots"] == len(weight) / run.frames
    assert run.logs["kd/PivotalLogit/cls"] == pytest.approx(15 * np.average(cls, weights=weight), rel=1e-4)
    assert run.logs["kd/PivotalLogit/reg"] == pytest.approx(0.2 * np.average(reg, weights=weight), rel=1e-4)


@cases
def test_dkd_weighs_the_class_of_the_object_and_the_others_of_its_branch_apart(case):
    run = Run(CASES[case](), {"NAME": "DKD"})
    names = [config["class_name"] for config in run.cfg.ANCHOR_GENERATOR_CONFIG]
    parts = [[[], []] for _ in range(run.frames)]
    for frame, place in run.positives():
        ours, theirs = (score(run.columns(side, "cls", frame, place)) for side in (0, 1))
        coins = theirs * np.log(theirs / ours) + (1 - theirs) * np.log((1 - theirs) / (1 - ours))
        branch = run.cfg.RPN_HEAD_CFGS[run.places[place][0]]["HEAD_CLS_NAME"]
        told_apart = branch if run.cfg.get("SEPARATE_MULTIHEAD") else names
        own = np.array(told_apart) == names[run.labels[frame, place] - 1]
        assert len(own) == len(coins) and own.sum() == 1
        parts[frame][0].append(coins[own].sum())
        parts[frame][1].append(coins[~own].sum())
    target, others = (np.mean([np.mean(frame[i]) for frame in parts]) for i in (0, 1))
    assert run.logs["kd/DKD/target"] == pytest.approx(target, rel=1e-3)
    assert run.logs["kd/DKD/others"] == pytest.approx(0.5 * others, rel=1e-3)


def test_higher_boxes_differ_by_their_height_and_pair_as_before():
    """A third in the code is a third of the anchor's height; from above the boxes are the same, and so are scores."""
    case = CASES["nuscenes"]()
    student = loud(case.network(0.25, 3))
    teacher = copy.deepcopy(student)
    for model in (student, teacher):
        for branch in model.dense_head.rpn_heads:
            layers = [layers[-1] for layers in branch.conv_box.values()]
            raised = (
                torch.arange(sum(len(layer.bias) for layer in layers)) % branch.code_size == 2
            )  # z, anchor by anchor
            for layer, own in zip(layers, raised.split([len(layer.bias) for layer in layers]), strict=True):
                layer.weight.data *= 0.01  # boxes of the size of their anchors
                layer.bias.data[own] += (model is teacher) / 3
    node = {"NAME": "BoxConsistency", "NUM": 60, "THRESHOLD": 0.0, "STUDENT_THRESHOLD": 0.0}
    for module in student.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.train = lambda mode=True: None  # the teacher's, too, has its running statistics
            module.training = False
    run = Run(case, node, student=student, teacher=teacher)
    heights = student.dense_head.anchor_table[:, 5].double().numpy()
    by_frame = []
    for frame in range(run.frames):
        best = [run.columns(0, "cls", frame, place).max() for place in range(len(run.places))]
        chosen = heights[np.argsort(best)[-60:]] / 3
        by_frame.append(np.mean(np.where(chosen < 1 / 9, chosen**2 * 9 / 2, chosen - 1 / 18) / 7))
    assert run.logs["kd/BoxConsistency/pairs"] == 60
    assert run.logs["kd/BoxConsistency"] == pytest.approx(np.mean(by_frame), rel=1e-4)


@cases
def test_the_score_of_a_cell_is_the_best_of_all_branches_and_a_coarse_cell_covers_the_fine_ones(case):
    run = Run(CASES[case](), LOGITS)
    branches = [score(run.map(0, b, "cls").max(axis=1)) for b in range(len(run.cfg.RPN_HEAD_CFGS))]
    size = max(m.shape[1] for m in branches)
    fine = [np.kron(m, np.ones((1, size // m.shape[1], size // m.shape[1]))) for m in branches]
    found = read_head(run.student.dense_head, {}).score_map
    np.testing.assert_allclose(found.numpy(), np.max(fine, axis=0), rtol=1e-5)


def imitated(model, cells):
    """(B, cells) which cells of a map FGFI takes for a student."""
    loss = distil(Kitti, model, model, {"NAME": "FGFI", "FEATURE": "spatial_features_2d"}).losses["FGFI"]
    step = SimpleNamespace(student=SimpleNamespace(detector=model), batch=Kitti.batch)
    return loss.imitated(step, SimpleNamespace(source=torch.zeros(2, 1, *cells)))


def test_fgfi_imitates_the_cells_that_a_head_with_one_map_and_these_anchors_does():
    branches, one_map = (imitated(model, (32, 32)) for model in (Kitti(TWO).network(1, 1), detector()))
    assert branches.any() and torch.equal(branches, one_map)
    with pytest.raises(ValueError, match=r"FGFI takes cells by the head's anchors, which stand on \(16, 16\) cells"):
        imitated(Kitti().network(1, 1), (32, 32))


@pytest.mark.parametrize("name", ["PivotalLogit", "DKD"])
def test_without_an_object_nothing_is_compared_and_gradients_are_there(name):
    case = Kitti()
    run = Run(case, {"NAME": name}, batch={**case.batch, "gt_boxes": torch.zeros_like(case.batch["gt_boxes"])})
    assert run.logs[f"kd/{name}"] == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in run.student.parameters())


OTHER = [{"HEAD_CLS_NAME": ["Car", "Pedestrian"]}, {"HEAD_CLS_NAME": ["Cyclist"]}]


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (detector, "heads of one kind, but the student has a AnchorHeadMulti and the teacher a AnchorHeadSingle"),
        (
            lambda: Kitti(OTHER, SEPARATE_MULTIHEAD=True).network(1, 2),
            r"branches tell the classes \[\[1, 2\], \[3\]\] apart and the student's \[\[1\], \[2, 3\]\]",
        ),
        (
            lambda: Kitti(TWO).network(1, 2),
            r"the classes \[\[1, 2, 3\], \[1, 2, 3\]\] apart .* the same RPN_HEAD_CFGS and SEPARATE_MULTIHEAD",
        ),
        (
            lambda: Kitti(TWO[::-1], SEPARATE_MULTIHEAD=True).network(1, 2),
            "compares anchor by anchor, but the teacher's",
        ),
    ],
    ids=["one map", "other groups", "all classes", "other order"],
)
def test_branches_that_cannot_be_compared_are_refused_before_the_first_step(teacher, message):
    with pytest.raises(ConfigError, match=message):
        distil(Kitti, Kitti(TWO, SEPARATE_MULTIHEAD=True).network(1, 1), teacher(), LOGITS)
