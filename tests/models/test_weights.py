"""Loading checkpoints: what fits, what is refused, OpenPCDet's files and the layouts of sparse convolutions."""

import logging

import numpy as np
import pytest
import torch
from models.pointpillars import CLASS_NAMES, SMALL_RANGE, dataset_facts, tiny_model_cfg
from torch import nn

from pcdet.models import build_network
from pcdet.utils import weights
from pcdet.utils.checkpoint_reader import CheckpointError

FACTS = dataset_facts(SMALL_RANGE)


def _model(seed=0, num_class=3, **changes):
    torch.manual_seed(seed)
    names = CLASS_NAMES[:num_class]
    cfg = tiny_model_cfg(**changes)
    cfg.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG = cfg.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[:num_class]
    return build_network(cfg, num_class, dataset_facts(SMALL_RANGE, class_names=names))


def _save(model, path, **extra):
    torch.save({"epoch": 3, "it": 7, "model_state": model.state_dict(), "version": "pcdet+0.6.0", **extra}, path)
    return path


def _equal(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


class _Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines, self.warnings = [], []

    def emit(self, record):
        self.lines.append(record.getMessage())
        if record.levelno >= logging.WARNING:
            self.warnings.append(record.getMessage())


@pytest.fixture
def logger():
    log, handler = logging.Logger("test"), _Lines()
    log.addHandler(handler)
    log.lines, log.warnings = handler.lines, handler.warnings
    return log


def test_a_checkpoint_of_the_same_model_loads_whole(tmp_path, logger):
    source, model = _model(1), _model(2)
    model.load_params_from_file(_save(source, tmp_path / "a.pth"), logger, to_cpu=True)
    assert _equal(source, model)
    total = len(model.state_dict())
    assert logger.lines[0].startswith("==> Loading parameters from checkpoint")
    assert logger.lines[1] == "==> Checkpoint trained from version: pcdet+0.6.0"
    assert logger.lines[-1] == f"==> Done (loaded {total}/{total})"


@pytest.mark.parametrize("legacy", [True, False])
def test_openpcdets_files_load(tmp_path, legacy):
    """Saved in the old format, with numpy numbers in the optimizer's state."""
    source, model = _model(1), _model(2)
    state = {"param_groups": [{"lr": np.float64(0.003), "betas": (np.float64(0.95), 0.99)}], "state": {}}
    checkpoint = {"model_state": source.state_dict(), "optimizer_state": state, "epoch": 80, "it": 1}
    torch.save(checkpoint, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    model.load_params_from_file(tmp_path / "a.pth")
    assert _equal(source, model)


def test_a_bare_state_dict_loads(tmp_path):
    source, model = _model(1), _model(2)
    torch.save(source.state_dict(), tmp_path / "a.pth")
    model.load_params_from_file(tmp_path / "a.pth")
    assert _equal(source, model)


def test_a_wrong_class_count_is_refused_with_what_differs(tmp_path):
    path, model = _save(_model(1, num_class=2), tmp_path / "a.pth"), _model(2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        model.load_params_from_file(path)
    message = str(error.value)
    assert "dense_head.conv_cls.weight: shape [8, 24, 1, 1] in the file, [18, 24, 1, 1] in the model" in message
    assert "dense_head.conv_box.bias: shape [28] in the file, [42] in the model" in message
    assert "backbone_2d" not in message
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()), "the model must be untouched"


def test_a_wrong_width_is_refused(tmp_path):
    path = _save(_model(1, VFE={"NUM_FILTERS": [16]}, MAP_TO_BEV={"NUM_BEV_FEATURES": 16}), tmp_path / "a.pth")
    with pytest.raises(
        CheckpointError, match=r"vfe.pfn_layers.0.linear.weight: shape \[16, 10\] in the file, \[8, 10\]"
    ):
        _model(2).load_params_from_file(path)


def test_a_file_of_another_kind_of_model_is_refused_without_hundreds_of_lines(tmp_path):
    """The heads differ in nearly every entry: the first are named, the others counted by module."""
    branches = [{"HEAD_CLS_NAME": [name]} for name in CLASS_NAMES]
    separate = {"NUM_MIDDLE_CONV": 1, "NUM_MIDDLE_FILTER": 8, "REG_LIST": ["reg:2", "height:1", "size:3", "angle:1"]}
    head = {"NAME": "AnchorHeadMulti", "RPN_HEAD_CFGS": branches, "SEPARATE_REG_CONFIG": separate}
    path = _save(_model(1, DENSE_HEAD=head), tmp_path / "a.pth")
    with pytest.raises(weights.MisfitError) as error:
        _model(2).load_params_from_file(path)
    lines = str(error.value).splitlines()
    named = weights.NAMED_IN_AN_ERROR
    assert lines[1:3] == [f"  dense_head.conv_cls.{part}: not in the file" for part in ("weight", "bias")]
    assert len(lines) == 1 + named + 1
    # of each branch: an int buffer; conv_dir_cls (2); five convolutions before and after (1 + 5 + 2 entries) each
    total = 6 + 3 * (1 + 2 + 5 * (1 + 5 + 2))
    assert lines[-1] == f"  and {total - named} more: {total - named} in dense_head"


def test_missing_and_foreign_entries_are_refused(tmp_path):
    source, model = _model(1), _model(2, DENSE_HEAD={"USE_DIRECTION_CLASSIFIER": False})
    with pytest.raises(CheckpointError, match="dense_head.conv_dir_cls.weight: not in the model"):
        model.load_params_from_file(_save(source, tmp_path / "a.pth"))
    with pytest.raises(CheckpointError, match="dense_head.conv_dir_cls.bias: not in the file"):
        source.load_params_from_file(_save(model, tmp_path / "b.pth"))


def test_what_fits_is_taken_on_request(tmp_path, logger):
    source, model = _model(1, num_class=2), _model(2)
    own_head = model.dense_head.conv_cls.weight.clone()
    report = model.load_params_from_file(_save(source, tmp_path / "a.pth"), logger, allow_partial=True)
    assert torch.equal(model.backbone_2d.blocks[0][1].weight, source.backbone_2d.blocks[0][1].weight)
    assert torch.equal(model.dense_head.conv_cls.weight, own_head)
    assert "Not updated weight dense_head.conv_cls.weight: (18, 24, 1, 1); the file has (8, 24, 1, 1)" in logger.lines
    total = len(model.state_dict())
    assert logger.lines[-1] == f"==> Done (loaded {total - 6}/{total})"
    assert set(report.wrong_shape) == {
        f"dense_head.conv_{k}.{p}" for k in ("cls", "box", "dir_cls") for p in ("weight", "bias")
    }


def test_what_is_missing_is_told_from_what_has_another_shape(tmp_path, logger):
    source, model = _model(1, DENSE_HEAD={"USE_DIRECTION_CLASSIFIER": False}), _model(2)
    model.load_params_from_file(_save(source, tmp_path / "a.pth"), logger, allow_partial=True)
    assert "Not updated weight dense_head.conv_dir_cls.bias: (12,); the file has none" in logger.lines
    assert not logger.warnings, "nearly all of it fits"


def test_a_file_that_fills_less_than_half_of_the_parameters_is_warned_of(tmp_path, logger):
    source, model = _model(1), _model(2)
    sizes = {name: value.numel() for name, value in source.named_parameters()}
    head = {name: value for name, value in source.state_dict().items() if not name.startswith("backbone_2d")}
    torch.save(head, tmp_path / "head.pth")
    share = sum(size for name, size in sizes.items() if name in head) / sum(sizes.values())
    assert 0 < share < 0.5
    model.load_params_from_file(tmp_path / "head.pth", logger, allow_partial=True)
    (said,) = logger.warnings
    assert said == f"{tmp_path / 'head.pth'} fills {share:.1%} of the model's parameters; the others stay as they were"
    assert logger.lines[-1] == f"==> Done (loaded {len(head)}/{len(model.state_dict())})"


@pytest.mark.parametrize("kept", ["nothing", "counters and buffers", "parameters of another model"])
def test_a_file_of_which_nothing_fits_is_refused_even_where_a_part_would_do(tmp_path, kept):
    source, model = _model(1), _model(2)
    state = {
        "nothing": {},
        "counters and buffers": dict(source.named_buffers()),
        "parameters of another model": {f"roi_head.{k}": v for k, v in source.named_parameters()},
    }[kept]
    torch.save({"model_state": state}, tmp_path / "a.pth")
    with pytest.raises(
        weights.MisfitError, match=r"a.pth is not for this PointPillar: \d+ of \d+ entries fit; class count"
    ):
        model.load_params_from_file(tmp_path / "a.pth", allow_partial=True)


def test_a_refusal_names_every_file_that_it_is_about(tmp_path):
    model = _model(1)
    first, second = _save(model, tmp_path / "a.pth"), _save(_model(2, num_class=2), tmp_path / "b.pth")
    with pytest.raises(weights.MisfitError, match=f"^{first} with {second} is not for this PointPillar: "):
        model.load_params_from_file(first, pre_trained_path=second)


def test_counters_may_be_missing(tmp_path):
    source, model = _model(1), _model(2)
    state = {k: v for k, v in source.state_dict().items() if "num_batches" not in k and k != "global_step"}
    torch.save({"model_state": state}, tmp_path / "a.pth")
    model.load_params_from_file(tmp_path / "a.pth")
    assert torch.equal(model.dense_head.conv_cls.weight, source.dense_head.conv_cls.weight)


def test_a_second_checkpoint_takes_precedence(tmp_path):
    first, second, model = _model(1), _model(2), _model(3)
    only_head = {k: v for k, v in second.state_dict().items() if k.startswith("dense_head")}
    torch.save({"model_state": only_head}, tmp_path / "head.pth")
    model.load_params_from_file(_save(first, tmp_path / "a.pth"), pre_trained_path=tmp_path / "head.pth")
    assert torch.equal(model.dense_head.conv_cls.weight, second.dense_head.conv_cls.weight)
    assert torch.equal(model.vfe.pfn_layers[0].linear.weight, first.vfe.pfn_layers[0].linear.weight)


def test_files_that_are_no_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        _model().load_params_from_file(tmp_path / "none.pth")
    torch.save({"epoch": 3, "it": 5}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="has no model_state; its keys are epoch, it"):
        _model().load_params_from_file(tmp_path / "a.pth")


# -------------------------------------------------------------------------------------------------------------- spconv


class SparseConv(nn.Module):
    """Stands for one of spconv's."""

    def __init__(self, out_channels, in_channels, kernel=3):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, kernel, kernel, kernel, in_channels))


SparseConv.__module__ = "spconv.pytorch.conv"
ORDERS = {"spconv 1.x (k, k, k, in, out)": (1, 2, 3, 4, 0), "spconv 2.0 native (k, k, k, out, in)": (1, 2, 3, 0, 4)}


def _sparse_model(seed):
    torch.manual_seed(seed)
    return nn.Sequential(SparseConv(8, 4), SparseConv(16, 8), SparseConv(3, 3), nn.Conv3d(3, 3, 3))


@pytest.mark.parametrize("layout", list(weights.SPCONV_LAYOUTS))
def test_every_sparse_layout_loads(layout):
    source, model = _sparse_model(1), _sparse_model(2)
    state = dict(source.state_dict())
    for i in range(3):  # the third has one shape in all layouts: the others decide
        order = ORDERS.get(layout)
        state[f"{i}.weight"] = state[f"{i}.weight"].permute(order) if order else state[f"{i}.weight"]
    report = weights.load_weights(model, state)
    assert report.layout == layout
    assert _equal(source, model)


SQUARE, CUBE = [(4, 4), (4, 4)], [(3, 3)]  # as wide as they are narrow; as wide as their kernels too
V2, V1, NATIVE = weights.SPCONV_LAYOUTS


@pytest.mark.parametrize(
    ("layers", "written", "read", "rivals"),
    [
        (SQUARE, V2, V2, ()),
        (SQUARE, V1, V1, (NATIVE,)),
        (SQUARE, NATIVE, V1, (NATIVE,)),
        (CUBE, V1, V2, (V1, NATIVE)),
    ],
)
def test_a_layout_that_the_shapes_leave_open_is_told(layers, written, read, rivals):
    torch.manual_seed(0)
    model = nn.Sequential(*(SparseConv(*layer) for layer in layers))
    order = ORDERS.get(written, (0, 1, 2, 3, 4))
    state = {name: torch.randn(value.shape).permute(order) for name, value in model.state_dict().items()}
    (layout,) = weights.load_weights(model, state).layouts
    assert layout == weights.SparseLayout(read, rivals)
    if rivals:
        assert layout.doubts() == (
            f"its sparse convolutions fit in {' and '.join(rivals)} as well as in {read}; they are read as the latter"
        )
    else:
        assert layout.doubts() is None


def test_a_tie_between_equal_weights_is_none():
    model = nn.Sequential(SparseConv(1, 1, kernel=1), SparseConv(2, 2, kernel=2))
    state = {"0.weight": torch.ones(1, 1, 1, 1, 1), "1.weight": torch.ones(2, 2, 2, 2, 2)}
    assert weights.load_weights(model, state).layouts == (weights.SparseLayout(V2),)


def test_where_nothing_fits_the_layout_is_unknown():
    model, state = _sparse_model(1), dict(_sparse_model(2).state_dict())
    for i, (inner, outer) in enumerate([(9, 8), (8, 17), (3, 4)]):
        state[f"{i}.weight"] = torch.randn(3, 3, 3, inner, outer)
    report = weights.compare_weights(model, state)
    assert report.layout is None and report.layouts == (weights.SparseLayout(None),)
    with pytest.raises(
        weights.MisfitError, match="2 of 5 entries fit; its sparse convolutions fit in none of spconv's"
    ):
        weights.load_weights(model, state)


def test_every_file_has_a_layout_of_its_own():
    source, other, model = _sparse_model(1), _sparse_model(2), _sparse_model(3)
    older = {"1.weight": other.state_dict()["1.weight"].permute(ORDERS[V1])}
    report = weights.load_weights(model, source.state_dict(), older)
    assert [layout.name for layout in report.layouts] == [V2, V1]
    assert torch.equal(model[1].weight, other[1].weight) and torch.equal(model[0].weight, source[0].weight)


def test_two_dimensional_sparse_weights():
    weight = torch.randn(3, 3, 4, 8)
    converted = weights.to_spconv2(weight, "spconv 1.x (k, k, k, in, out)")
    assert torch.equal(converted, weight.permute(3, 0, 1, 2))


def test_dense_weights_are_never_rearranged():
    report = weights.compare_weights(nn.Conv3d(3, 3, 3), nn.Conv3d(3, 3, 3).state_dict())
    assert report.layout is None and not report.problems()


def test_a_sparse_layer_of_another_width_is_refused():
    model, state = _sparse_model(1), dict(_sparse_model(2).state_dict())
    state["1.weight"] = torch.randn(3, 3, 3, 8, 32)
    with pytest.raises(CheckpointError, match=r"1.weight: shape \[3, 3, 3, 8, 32\] in the file, \[16, 3, 3, 3, 8\]"):
        weights.load_weights(model, state)


def _in_spconv1(path, in_channels, out_channels):
    """(a model, one with the weights that are written to ``path`` in the layout of spconv 1.x)."""
    model, source = _model(1), _model(2)
    for one in (model, source):
        one.backbone_3d = SparseConv(in_channels, out_channels)
    state = source.state_dict()
    state["backbone_3d.weight"] = state["backbone_3d.weight"].permute(1, 2, 3, 4, 0)
    torch.save({"model_state": state}, path)
    return model, source


def test_the_layout_is_logged(tmp_path, logger):
    model, source = _in_spconv1(tmp_path / "a.pth", 8, 4)
    model.load_params_from_file(tmp_path / "a.pth", logger)
    assert "==> Sparse convolution weights are laid out as in spconv 1.x (k, k, k, in, out)" in logger.lines
    assert torch.equal(model.backbone_3d.weight, source.backbone_3d.weight)


def test_an_open_layout_is_a_warning_that_names_the_file(tmp_path, logger):
    model, _ = _in_spconv1(tmp_path / "a.pth", 8, 8)
    model.load_params_from_file(tmp_path / "a.pth", logger)
    (said,) = logger.warnings
    assert said.startswith(f"==> {tmp_path / 'a.pth'}: its sparse convolutions fit in {NATIVE} as well as in {V1}")
