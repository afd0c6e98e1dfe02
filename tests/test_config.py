"""Loading, --set and checking of configurations: OpenPCDet's files load unchanged, and slips are told all at once."""

from __future__ import annotations

import copy
import logging
import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from easydict import EasyDict
from openpcdet_files import NOT_COVERED, write_files

from pcdet import registry as R
from pcdet.config import (
    cfg,
    cfg_from_list,
    cfg_from_yaml_file,
    find_config_file,
    log_config_to_file,
    merge_new_config,
    require_sections,
    validate_config,
)
from pcdet.config.check import RULES, find_problems
from pcdet.registry import ConfigError

REPO_ROOT = Path(__file__).resolve().parent.parent
CFGS = REPO_ROOT / "tools" / "cfgs"
FILES = sorted(str(p.relative_to(CFGS)) for p in CFGS.rglob("*.yaml"))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def load(path: Path | str) -> EasyDict:
    return cfg_from_yaml_file(path, EasyDict())


@pytest.fixture(scope="module")
def loaded() -> EasyDict:
    config = load(CFGS / "kitti_models/kd/pointpillar_4x_paper.yaml")
    config.KD.LOSSES[0].update(
        WEIGHT=1.0,
        SAMPLE={"NUM": 1000, "BY": "num_points"},
        GRAPH={"K": 16, "SPACE": "xyz", "EDGE": "concat", "POOL": "none", "PER_FRAME": True},
        REWEIGHT={"BY": "num_points", "TEMPERATURE": 5.0},
        ADAPTER={"TEACHER": "none", "STUDENT": "linear"},
    )
    config.KD.TEACHER.CKPT = None
    config.KD.LOSSES.append(EasyDict(NAME="PivotalLogit", CLS_WEIGHT=15.0, REG_WEIGHT=0.2))
    return config


@pytest.fixture
def pillars(loaded) -> EasyDict:
    """A PointPillars student's configuration, the test's own."""
    return copy.deepcopy(loaded)


def problems_of(config) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate_config(config)
    return caught.value.problems


def node_at(config, path: str):
    """Container and last key of a path such as ``A.B[2].C``."""
    *parents, last = [int(p) if p.isdigit() else p for p in path.replace("[", ".").replace("]", "").split(".")]
    for part in parents:
        config = config[part]
    return config, last


# ------------------------------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize("name", FILES)
def test_every_shipped_file_loads_from_any_directory(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = load(CFGS / name)
    monkeypatch.chdir(REPO_ROOT / "tools")
    assert load(f"cfgs/{name}") == first


def test_pointpillar_has_openpcdets_values(monkeypatch):
    monkeypatch.chdir(REPO_ROOT / "tools")
    config = load("cfgs/kitti_models/pointpillar.yaml")
    assert config.DATA_CONFIG.POINT_CLOUD_RANGE == [0, -39.68, -3, 69.12, 39.68, 1]
    assert config.DATA_CONFIG.DATA_PROCESSOR[2].VOXEL_SIZE == [0.16, 0.16, 4]
    groups = config.DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST[0].SAMPLE_GROUPS
    assert groups == ["Car:15", "Pedestrian:15", "Cyclist:15"]
    assert config.DATA_CONFIG._BASE_CONFIG_ == "cfgs/dataset_configs/kitti_dataset.yaml"  # stays, as in OpenPCDet
    assert config.DATA_CONFIG.FOV_POINTS_ONLY is True  # from the base
    assert config.OPTIMIZATION.LR_CLIP == 1e-7


@pytest.fixture(scope="module")
def openpcdets_folder(tmp_path_factory) -> Path:
    """``tools/cfgs`` of an OpenPCDet checkout, far from this one."""
    return write_files(tmp_path_factory.mktemp("openpcdet"))


@pytest.mark.parametrize("name", ["pointpillar", "second", "second_multihead", "pointrcnn"])
def test_openpcdets_files_load_as_they_are_and_the_shipped_ones_say_the_same(name, openpcdets_folder):
    theirs = load(openpcdets_folder / f"kitti_models/{name}.yaml")
    assert load(CFGS / f"kitti_models/{name}.yaml") == theirs


@pytest.mark.parametrize("name", NOT_COVERED)
def test_a_file_of_a_detector_that_is_not_covered_names_what_is(name, openpcdets_folder):
    with pytest.raises(ConfigError) as caught:
        load(openpcdets_folder / f"{name}.yaml")
    told = {problem.partition(": ")[0]: problem for problem in caught.value.problems}
    assert told.keys() == NOT_COVERED[name].keys()
    for key, module in NOT_COVERED[name].items():
        assert f"{module!r} is not covered; covered: " in told[key]
        assert "docs/COMPATIBILITY.md" in told[key]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("kitti_models/pointpillar", 4_834_888),  # OpenPCDet's
        ("kitti_models/kd/pointpillar_4x", 1_217_352),  # PointDistiller, section 4.1: 1.3 M and 0.3 M
        ("kitti_models/kd/pointpillar_16x", 308_680),
        ("simulated_models/kd/pointpillar_student", 96_680),
    ],
)
def test_models_have_the_parameters_that_their_files_promise(name, parameters):
    from pcdet.models import build_network

    config = load(CFGS / f"{name}.yaml")
    data = config.DATA_CONFIG
    low, high = np.split(np.array(data.POINT_CLOUD_RANGE, np.float32), 2)
    dataset = SimpleNamespace(
        class_names=config.CLASS_NAMES,
        grid_size=np.round((high - low) / data.DATA_PROCESSOR[2].VOXEL_SIZE).astype(np.int64),
        voxel_size=data.DATA_PROCESSOR[2].VOXEL_SIZE,
        point_cloud_range=np.concatenate([low, high]),
        point_feature_encoder=SimpleNamespace(num_point_features=4),
    )
    model = build_network(config.MODEL, len(config.CLASS_NAMES), dataset)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_key_order_and_flow_style_do_not_matter(tmp_path):
    original = load(CFGS / "kitti_models/pointpillar.yaml")
    plain = yaml.safe_load((CFGS / "kitti_models/pointpillar.yaml").read_text())
    text = yaml.safe_dump(plain, default_flow_style=True, sort_keys=True)
    assert load(write(tmp_path / "a.yaml", text)) == original


def test_augmentors_may_be_a_plain_list_as_in_older_files(pillars):
    pillars.DATA_CONFIG.DATA_AUGMENTOR = pillars.DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST
    assert find_problems(pillars) == []
    pillars.DATA_CONFIG.DATA_AUGMENTOR[1].ALONG_AXES = ["x"]
    assert problems_of(pillars)[0].startswith("DATA_CONFIG.DATA_AUGMENTOR[1].ALONG_AXES: ")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("MODEL.BACKBONE_2D.USE_CONV_FOR_NO_STRIDE", False),
        ("MODEL.POST_PROCESSING.NMS_CONFIG.NMS_TYPE", "nms_normal_gpu"),
        ("OPTIMIZATION.USE_AMP", True),
        ("OPTIMIZATION.BETAS", [0.9, 0.99]),
        ("OPTIMIZATION.WARMUP_ITER", 100),
        ("DATA_CONFIG.POINT_FEATURE_ENCODING.filter_sweeps", True),
        ("DATA_CONFIG.POINT_FEATURE_ENCODING.max_sweeps", 1),
        ("DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST[0].USE_SHARED_MEMORY", False),
        ("MODEL.DENSE_HEAD.TARGET_ASSIGNER_CONFIG.BOX_CODER_CONFIG", {"code_size": 7}),
        ("HOOK", {"DisableAugmentationHook": {"DISABLE_AUG_LIST": ["gt_sampling"], "NUM_LAST_EPOCHS": 5}}),
    ],
)
def test_keys_of_openpcdets_other_files_are_known(pillars, path, value):
    node, key = node_at(pillars, path)
    node[key] = value
    assert find_problems(pillars) == []


def test_mappings_merge_and_lists_replace(tmp_path):
    write(tmp_path / "base.yaml", "A: {x: 1, y: {z: 2, w: 3}}\nL: [1, 2]\nE: {f: 1}")
    top = write(tmp_path / "top.yaml", "_BASE_CONFIG_: base.yaml\nA: {y: {z: 5}}\nL: [3]\nE: [{f: 2}]\nN: 1")
    config = load(top)
    assert config == {
        "A": {"x": 1, "y": {"z": 5, "w": 3}},
        "L": [3],
        "E": [{"f": 2}],
        "N": 1,
        "_BASE_CONFIG_": "base.yaml",
    }
    assert config.E[0].f == 2 and config.A.y.z == 5  # attributes all the way down


def test_a_base_may_have_a_base_and_stand_at_any_level(tmp_path):
    write(tmp_path / "one.yaml", "P: 1\nQ: 1\nR: 1")
    write(tmp_path / "two.yaml", "_BASE_CONFIG_: one.yaml\nQ: 2\nR: 2")
    top = write(tmp_path / "top.yaml", "X: {Y: {_BASE_CONFIG_: two.yaml, R: 3}}")
    assert {k: load(top).X.Y[k] for k in "PQR"} == {"P": 1, "Q": 2, "R": 3}


def test_a_base_is_looked_for_beside_the_file_then_here_then_above_then_in_tools(tmp_path, monkeypatch):
    top = write(tmp_path / "mine/tools/cfgs/models/top.yaml", "_BASE_CONFIG_: cfgs/base.yaml")
    with pytest.raises(ConfigError, match="_BASE_CONFIG_: configuration file 'cfgs/base.yaml' not found; looked for"):
        load(top)
    write(tmp_path / "mine/tools/cfgs/base.yaml", "FROM: above")
    assert load(top).FROM == "above"
    write(tmp_path / "elsewhere/cfgs/base.yaml", "FROM: here")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load(top).FROM == "here"
    write(top.parent / "cfgs/base.yaml", "FROM: beside")
    assert load(top).FROM == "beside"
    assert find_config_file("cfgs/kitti_models/pointpillar.yaml") == CFGS / "kitti_models/pointpillar.yaml"


def test_a_circle_of_bases_is_named(tmp_path):
    write(tmp_path / "a.yaml", "_BASE_CONFIG_: b.yaml")
    write(tmp_path / "b.yaml", "_BASE_CONFIG_: a.yaml")
    with pytest.raises(ConfigError, match="is a circle"):
        load(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A: [1", "is not valid YAML"),
        ("A: {1: x}", "the key 1 must be text"),
        ("- 1", "expected a mapping of sections, got list"),
        ("_BASE_CONFIG_: 3", "expected the path of a file, got 3"),
    ],
)
def test_a_broken_file_is_a_config_error(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load(write(tmp_path / "broken.yaml", text))


def test_a_missing_file_names_where_it_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="looked for .*none.yaml"):
        load(tmp_path / "none.yaml")
    with pytest.raises(FileNotFoundError, match=r"'none.yaml' not found; looked for none.yaml, .*tools/none.yaml"):
        load("none.yaml")


def test_a_key_that_stands_there_twice_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="a.yaml, line 3: the key 'x' stands in line 2 already; remove one"):
        load(write(tmp_path / "a.yaml", "A:\n  x: 1\n  x: 2"))
    merged = "A: &a {<<: &b {x: 1, y: 1}, x: 2}\nC: {D: *a}\nE: {<<: *a, x: 3}"  # a merge is meant to be overridden
    config = load(write(tmp_path / "b.yaml", merged))
    assert config.A == {"x": 2, "y": 1} and config.E == {"x": 3, "y": 1}


REGRESSIONS = REPO_ROOT / "tests" / "regressions" / "yaml"


@pytest.mark.parametrize("path", sorted(REGRESSIONS.iterdir()), ids=lambda p: p.stem)
def test_every_bad_file_is_refused_by_name_within_a_second(path):
    begun = time.process_time()
    with pytest.raises(ConfigError, match=path.name):
        load(path)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A: &a [1, *a]", "line 1: the anchor contains itself"),
        ("A: &a {x: {y: *a}}", "line 1: the anchor contains itself"),
        ("a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 500)), "nested deeper than 100"),
        ("A: " + "[" * 5000 + "]" * 5000, "nested deeper than 100"),
        ("A: " + "9" * 5000, "a.yaml.*line 1|too large"),
        ("A: 0x" + "f" * 5000, "too large a number"),
        ("A: 2026-13-45", "'2026-13-45' cannot be read as .*timestamp"),
        ("A: !!bool maybe", "'maybe' cannot be read as .*bool"),
        ("A:\n\t- 1", r"a.yaml is not valid YAML(.|\n)*line 2"),
        ("A: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("# nothing\n", "a.yaml is empty"),
        ("A: 1\n---\nB: 2", "expected a single document"),
        ("#" * (1 << 20) + "\nA: 1", "has 1048581 bytes, a configuration file may have 1048576"),
    ],
)
def test_content_that_cannot_be_taken_is_named(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load(write(tmp_path / "a.yaml", text))


def test_a_byte_order_mark_changes_nothing(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfA: {x: 1}\r\n")
    assert load(tmp_path / "a.yaml") == {"A": {"x": 1}}


def test_yaml_anchors_and_merge_keys_work(tmp_path):
    config = load(write(tmp_path / "a.yaml", "A: &a {x: 1}\nB: {<<: *a, y: 2}"))
    assert config.B == {"x": 1, "y": 2}


def test_a_load_replaces_an_earlier_one_but_for_what_programs_set(tmp_path):
    one, two = write(tmp_path / "1.yaml", "A: {x: 1}\nKD: 1"), write(tmp_path / "2.yaml", "A: {y: 2}")
    config = EasyDict(ROOT_DIR="here", TAG="mine", LOCAL_RANK=3)
    assert cfg_from_yaml_file(one, config) is config
    once = copy.deepcopy(config)
    cfg_from_yaml_file(two, config)
    assert not hasattr(config, "KD")
    assert config == {"ROOT_DIR": "here", "TAG": "mine", "LOCAL_RANK": 3, "A": {"y": 2}}
    cfg_from_yaml_file(one, config)
    assert config == once
    assert cfg_from_yaml_file(one, config) == once


def test_two_loads_share_nothing(tmp_path):
    path = write(tmp_path / "a.yaml", "L: [{x: 1}]")
    first, second = load(path), load(path)
    first.L[0].x = 2
    assert second.L[0].x == 1


def test_merge_new_config_lays_over_what_is_there(tmp_path):
    write(tmp_path / "base.yaml", "x: 0\ny: 0")
    config = EasyDict({"A": {"k": 1}, "L": [1]})
    merged = merge_new_config(config, {"A": {"_BASE_CONFIG_": "base.yaml", "y": 1}, "L": [2]}, tmp_path)
    assert merged is config and config.A == {"k": 1, "x": 0, "y": 1, "_BASE_CONFIG_": "base.yaml"} and config.L == [2]


def test_the_global_configuration_knows_root_and_rank():
    assert cfg.ROOT_DIR == REPO_ROOT and cfg.LOCAL_RANK == 0


def test_a_file_of_dataset_configs_is_checked_with_paths_of_its_own(tmp_path):
    text = (CFGS / "dataset_configs/kitti_dataset.yaml").read_text()
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path / "data.yaml", text.replace("VOXEL_SIZE: [0.05,", "VOXEL_SIZE: [0.06,")))
    assert caught.value.problems[0].startswith("POINT_CLOUD_RANGE: 70.4 m along x are 1173.33 voxels of 0.06 m")


def test_a_file_of_dataset_configs_loads_where_programs_have_set_their_keys():
    config = EasyDict(ROOT_DIR=REPO_ROOT, LOCAL_RANK=0)
    assert cfg_from_yaml_file(CFGS / "dataset_configs/kitti_dataset.yaml", config).DATASET == "KittiDataset"


def test_a_program_names_all_sections_that_it_misses(pillars):
    require_sections(pillars, ("CLASS_NAMES", "DATA_CONFIG", "MODEL", "OPTIMIZATION"))
    pillars.pop("DATA_CONFIG"), pillars.pop("OPTIMIZATION")
    validate_config(pillars)  # what is not there has no wrong keys
    with pytest.raises(ConfigError, match=r"^DATA_CONFIG: missing; a model file .*\nOPTIMIZATION: missing"):
        require_sections(pillars, ("CLASS_NAMES", "DATA_CONFIG", "MODEL", "OPTIMIZATION"))


def test_every_entry_is_logged(caplog):
    with caplog.at_level(logging.INFO, logger="pcdet.config"):  # whatever a tool has set the package's to
        log_config_to_file(EasyDict({"A": {"B": 1, "C": {"D": [1, 2]}}, "E": "x"}))
    lines = [record.getMessage() for record in caplog.records]
    dashes = "-" * 11
    assert lines == [f"{dashes} A {dashes}", "cfg.A.B: 1", f"{dashes} C {dashes}", "cfg.A.C.D: [1, 2]", "cfg.E: x"]


def test_logging_goes_to_the_logger_that_is_given(caplog):
    with caplog.at_level(logging.INFO, logger="mine"):
        log_config_to_file({"A": 1}, pre="c", logger=logging.getLogger("mine"))
    assert caplog.record_tuples == [("mine", logging.INFO, "c.A: 1")]


# --------------------------------------------------------------------------------------------------------------- --set


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("OPTIMIZATION.LR", "1", 1.0),
        ("OPTIMIZATION.LR", "1e-3", 1e-3),
        ("OPTIMIZATION.NUM_EPOCHS", "5", 5),
        ("OPTIMIZATION.NUM_EPOCHS", "5.0", 5),
        ("OPTIMIZATION.GRAD_NORM_CLIP", "7.5", 7.5),
        ("OPTIMIZATION.LR_WARMUP", "true", True),
        ("OPTIMIZATION.LR_WARMUP", "True", True),
        ("OPTIMIZATION.USE_AMP", "True", True),  # not in the file
        ("DATA_CONFIG.SKIP_BAD_FRAMES", "true", True),  # nor this; as YAML writes it
        ("OPTIMIZATION.DECAY_STEP_LIST", "10,20", [10, 20]),
        ("OPTIMIZATION.DECAY_STEP_LIST", "[10,20]", [10, 20]),
        ("OPTIMIZATION.DECAY_STEP_LIST", "(10,20)", [10, 20]),
        ("OPTIMIZATION.DECAY_STEP_LIST", "10", [10]),
        ("DATA_CONFIG.DATA_PATH", "../data/123", "../data/123"),
        ("DATA_CONFIG.DATA_PATH", "123", "123"),
        ("DATA_CONFIG.DATA_PATH", "'../x'", "../x"),
        ("DATA_CONFIG.DATA_SPLIT.train", "trainval", "trainval"),
        ("DATA_CONFIG.DATA_SPLIT", "train:a,test:b", {"train": "a", "test": "b"}),
        ("DATA_CONFIG.DATA_SPLIT", "{train: c}", {"train": "c", "test": "val"}),
        ("DATA_CONFIG.DATA_PROCESSOR[2].VOXEL_SIZE", "0.32,0.32,4", [0.32, 0.32, 4.0]),
        ("DATA_CONFIG.DATA_PROCESSOR.2.VOXEL_SIZE", "[0.32,0.32,4]", [0.32, 0.32, 4.0]),
        ("DATA_CONFIG.DATA_PROCESSOR[-1].MAX_POINTS_PER_VOXEL", "16", 16),
        ("DATA_CONFIG.DATA_PROCESSOR.transform_points_to_voxels.MAX_NUMBER_OF_VOXELS.train", "8000", 8000),
        ("DATA_CONFIG.DATA_PROCESSOR[2].MAX_NUMBER_OF_VOXELS", "train:1,test:2", {"train": 1, "test": 2}),
        ("DATA_CONFIG.DATA_PROCESSOR[2].VOXEL_SIZE[2]", "4", 4),
        ("DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST.gt_sampling.SAMPLE_GROUPS", "Car:3,Cyclist:4", None),
        ("DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST.gt_sampling.SAMPLE_GROUPS", "[Car:3,Cyclist:4]", None),
        ("DATA_CONFIG.DATA_AUGMENTOR.DISABLE_AUG_LIST", "gt_sampling", ["gt_sampling"]),
        ("MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG.Car.matched_threshold", "0.55", 0.55),
        ("MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[0].anchor_sizes", "[[4, 2, 1.5]]", [[4.0, 2.0, 1.5]]),
        ("MODEL.WIDTH", "1", 1.0),
        ("KD.LOSSES[1].CLS_WEIGHT", "5", 5.0),
        ("KD.LOSSES.PivotalLogit.REG_WEIGHT", "1", 1.0),
        ("KD.TEACHER.CKPT", "a/b.pth", "a/b.pth"),
        ("KD.TEACHER.MODE", "None", None),
    ],
)
def test_set_takes_the_type_of_the_old_value(pillars, key, text, value):
    value = ["Car:3", "Cyclist:4"] if key.endswith("SAMPLE_GROUPS") else value
    before = copy.deepcopy(pillars)
    assert cfg_from_list([key, text], pillars) is pillars
    path = key
    for name, index in (
        ("transform_points_to_voxels", "2"),
        ("gt_sampling", "0"),
        ("Car", "0"),
        ("PivotalLogit", "1"),
    ):
        path = path.replace(f".{name}.", f"[{index}].")
    path = path.replace("[-1]", "[2]")
    node, last = node_at(pillars, path)
    assert node[last] == value
    if isinstance(value, float):
        assert isinstance(node[last], float)
    node, last = node_at(before, path)  # nothing else has changed
    node[last] = value
    assert before == pillars


def test_set_takes_values_that_are_no_text(pillars):
    cfg_from_list(["OPTIMIZATION.LR", 1, "OPTIMIZATION.DECAY_STEP_LIST", [3, 4]], pillars)
    assert pillars.OPTIMIZATION.LR == 1.0 and pillars.OPTIMIZATION.DECAY_STEP_LIST == [3, 4]


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["OPTIMIZATION.LRR", "1"], "OPTIMIZATION.LRR: "),
        (["OPTIMIZATIN.LR", "1"], "OPTIMIZATIN: "),
        (["OPTIMIZATIN.LR", "1"], "did you mean OPTIMIZATION?"),
        (["A.LR", "1"], "A: --set found no such key; known: "),
        (["OPTIMIZATION.LR.x", "1"], "OPTIMIZATION.LR: has no key 'x', it is 0.003"),
        (["OPTIMIZATION.LR.x.y", "1"], "OPTIMIZATION.LR.x: --set found no such key; OPTIMIZATION.LR is 0.003"),
        (["OPTIMIZATION.LR", "fast"], "OPTIMIZATION.LR: expected a number like 0.003, got 'fast'"),
        (["OPTIMIZATION.NUM_EPOCHS", "inf"], "OPTIMIZATION.NUM_EPOCHS: "),
        (["OPTIMIZATION.NUM_EPOCHS", "2.5"], "OPTIMIZATION.NUM_EPOCHS: expected int, got 2.5 (float)"),
        (["OPTIMIZATION.LR_WARMUP", "3"], "OPTIMIZATION.LR_WARMUP: expected True or False, got '3'"),
        (["DATA_CONFIG.DATA_PROCESSOR[3].NAME", "x"], "DATA_CONFIG.DATA_PROCESSOR[3]: --set found no such item"),
        (["DATA_CONFIG.DATA_PROCESSOR.shuffle_point.A", "x"], "did you mean shuffle_points?"),
        (["DATA_CONFIG.DATA_SPLIT", "trian:x"], "DATA_CONFIG.DATA_SPLIT.trian: --set found no such key; did you mean"),
        (["DATA_CONFIG.DATA_SPLIT", "x"], "DATA_CONFIG.DATA_SPLIT: expected entries like {a: 1, b: 2} or a:1,b:2"),
        (["DATA_CONFIG.DATA_PROCESSOR[2].VOXEL_SIZE", "a,b,c"], "VOXEL_SIZE[0]: expected a number like 0.16, got 'a'"),
        (["MODEL.BACKBONE_2D.NUM_FILTER", "64"], "MODEL.BACKBONE_2D.NUM_FILTER: "),
        (["OPTIMIZATION.LR"], "--set takes pairs of key and value, got 1 items"),
    ],
)
def test_set_names_what_is_wrong(pillars, pairs, said):
    with pytest.raises(ConfigError) as caught:
        cfg_from_list(pairs, pillars)
    assert said in str(caught.value)


def test_set_reports_all_its_problems_and_those_of_the_result_at_once(pillars):
    with pytest.raises(ConfigError) as caught:
        cfg_from_list(["A.B", "1", "OPTIMIZATION.LR", "x", "MODEL.BACKBONE_2D.LAYER_STRIDES", "1,2,2"], pillars)
    paths = [p.split(":")[0] for p in caught.value.problems]
    assert paths[:2] == ["A", "OPTIMIZATION.LR"] and "MODEL.BACKBONE_2D.UPSAMPLE_STRIDES" not in paths
    assert "MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[0].feature_map_stride" in paths


def test_set_on_an_unchecked_configuration_wants_existing_keys():
    config = EasyDict({"A": {"B": 1}, "L": [{"NAME": "x"}, {"NAME": "x"}]})
    cfg_from_list(["A.B", "2"], config)
    assert config.A.B == 2
    for key in ("A.C", "L.x.y", "L[0].q"):
        with pytest.raises(ConfigError):
            cfg_from_list([key, "2"], config)


# ------------------------------------------------------------------------------------------------------------ checking


FREE_KEYS = (".train", ".test", ".encoding_type")


def places(node, path="", key=None):
    """(path, is a leaf) of everything in a configuration that a schema knows by name."""
    if isinstance(node, dict):
        for name, child in node.items():
            if name not in ("NAME", "_BASE_CONFIG_"):
                yield from places(child, f"{path}.{name}" if path else name, name)
    elif isinstance(node, list) and node and isinstance(node[0], dict):
        for i, child in enumerate(node):
            yield from places(child, f"{path}[{i}]", key)
    if key is not None:
        yield path, not isinstance(node, dict)


def paths_with(problems: list[str], path: str) -> list[str]:
    lowered = path.lower()
    return [p for p in problems if p.split(": ")[0].lower().startswith(lowered)]


def test_a_misspelt_key_is_found_wherever_it_is(loaded):
    for path, _ in places(loaded):
        config = copy.deepcopy(loaded)
        node, key = node_at(config, path)
        if isinstance(key, int):
            continue
        node[f"{key}_"] = node.pop(key)
        problems = find_problems(config)
        if path.endswith(FREE_KEYS):  # entries of a mapping: it tells which ones it needs
            assert paths_with(problems, path.rpartition(".")[0]), f"{path}_ was not noticed"
        else:
            told = paths_with(problems, f"{path}_")
            assert told and key in told[0], f"{path}_ was not noticed: {problems}"


def test_a_value_of_the_wrong_type_is_found_wherever_it_is(loaded):
    for path, _ in places(loaded):
        config = copy.deepcopy(loaded)
        node, key = node_at(config, path)
        node[key] = 3.25 if isinstance(node[key], (str, dict)) else EasyDict(no="type")
        assert paths_with(find_problems(config), path.split("[")[0]), f"{path}: {node[key]} was not noticed"


@pytest.mark.parametrize("junk", [None, -1, "", [], {}, [[1]], {"NAME": 3}, float("nan"), float("inf"), [0, 0, 0]])
def test_no_value_whatever_breaks_the_check(loaded, junk):
    for path, _ in list(places(loaded))[::4]:
        config = copy.deepcopy(loaded)
        node, key = node_at(config, path)
        node[key] = EasyDict(junk) if isinstance(junk, dict) else junk
        assert all(isinstance(problem, str) for problem in find_problems(config))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("MODEL.BACKBONE_2D.NUM_FILTER", [1], "BaseBEVBackbone has no such key; did you mean NUM_FILTERS?"),
        ("MODEL.BACKBONE_3DD", {"NAME": "x"}, "PointPillar has no such part; did you mean BACKBONE_3D?"),
        ("MODEL.NAME", "PointPilar", "unknown detector 'PointPilar'; did you mean PointPillar?"),
        ("MODEL.VFE.NAME", "PilarVFE", "unknown VFE 'PilarVFE'; did you mean PillarVFE?"),
        ("MODEL.WIDTH", 0, "must be a factor above 0 (0.5 halves every layer), got 0"),
        ("MODEL.BN_MOMENTUM", 0, "must be above 0 and at most 1 (a new batch's share), got 0"),
        ("MODEL.WIDTH", True, "must be a factor above 0 (0.5 halves every layer), got True"),
        ("CLASS_NAME", ["Car"], "there is no such section; did you mean CLASS_NAMES?"),
        ("CLASS_NAMES", "Car", "expected a list of class names, got 'Car'"),
        ("CLASS_NAMES", ["Car", "Car"], "every class may stand there once, got ['Car', 'Car']"),
        ("DATA_CONFIG", 3, "expected a mapping, got 3"),
        ("OPTIMIZATION.WEIGHT_DECAY", float("nan"), "must be finite, got nan"),
        ("MODEL.BACKBONE_2D.LAYER_STRIDES[1]", 0, "must be at least 1, got 0"),
        ("MODEL.BACKBONE_2D.LAYER_NUMS[1]", -1, "must not be negative, got -1"),
        ("MODEL.BACKBONE_2D.UPSAMPLE_STRIDES[2]", 0, "must be above 0, got 0"),
        ("MODEL.VFE.NUM_FILTERS", [], "must name the channels of at least one layer, got []"),
        ("DATA_CONFIG.DATA_PROCESSOR[2].MAX_NUMBER_OF_VOXELS.train", 0, "must be at least 1, got 0"),
        ("DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST[3].WORLD_SCALE_RANGE", [1.05, 0.95], "[low, high] with low <="),
        ("DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST[1].ALONG_AXIS_LIST", ["w"], "'w' is none of x, y, z"),
        ("MODEL.POST_PROCESSING.NMS_CONFIG", None, "missing; an anchor head's boxes overlap"),
        ("MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG", [], "'Car' of CLASS_NAMES has no anchors"),
        ("KD.LOSSES[0].SAMPLE.NAME", "x", "SampleConfig has no such key"),
        ("KD.TEACHER.CFG", "cfgs/none.yaml", "configuration file 'cfgs/none.yaml' not found; looked for"),
        ("DATA_CONFIG.DATASET", "KitiDataset", "unknown dataset 'KitiDataset'; did you mean KittiDataset?"),
        ("OPTIMIZATION.OPTIMIZER", "adam_oncycle", "unknown optimizer 'adam_oncycle'; did you mean adam_onecycle?"),
        ("OPTIMIZATION.LR_CLIP", "1e-7", "YAML reads this as text, write 1.0e-07"),
        ("HOOK", {"DisableAugmentationHok": None}, "HookConfig has no such key; did you mean"),
        ("KD.LOSSES[0].SAMPLE.NUMBER", 3, "SampleConfig has no such key; did you mean NUM?"),
        ("DATA_CONFIG.POINT_FEATURE_ENCODING.used_feature_list[3]", "intensty", "'intensty'"),
        (
            "DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST[0].SAMPLE_GROUPS[1]",
            "Pedestrian=3",
            "expected 'Class:number', got 'Pedestrian=3'",
        ),
        (
            "DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST[0].PREPARE.filter_by_points",
            ["Car:5"],
            "there is no such filter; did you mean filter_by_min_points?",
        ),
        (
            "DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST[0].NUM_POINT_FEATURES",
            3,
            "the points have 4 features, got 3",
        ),
        (
            "MODEL.DENSE_HEAD.TARGET_ASSIGNER_CONFIG.BOX_CODER",
            "ResidualCode",
            "unknown box coder 'ResidualCode'; did you mean ResidualCoder?",
        ),
        (
            "MODEL.DENSE_HEAD.TARGET_ASSIGNER_CONFIG.BOX_CODER",
            "PointResidualCoder",  # there is one, but not for anchors
            "unknown box coder 'PointResidualCoder'; did you mean ResidualCoder?",
        ),
        (
            "MODEL.DENSE_HEAD.LOSS_CONFIG.LOSS_WEIGHTS.code_weights",
            [1.0] * 8,
            "ResidualCoder makes 7 codes, got 8 weights",
        ),
    ],
)
def test_a_slip_is_told_at_its_path(pillars, path, value, said):
    node, key = node_at(pillars, path)
    node[key] = value
    told = paths_with(problems_of(pillars), path)
    assert told and said in told[0], told


@pytest.mark.parametrize(
    ("changes", "path", "said"),
    [
        (
            {"DATA_CONFIG.POINT_CLOUD_RANGE": [0, -39.68, -3, 69.0, 39.68, 1]},
            "DATA_CONFIG.POINT_CLOUD_RANGE",
            "69 m along x are 431.25 voxels of 0.16 m (DATA_CONFIG.DATA_PROCESSOR[2].VOXEL_SIZE), not a whole number; "
            "68.96 or 69.12 m would fit",
        ),
        (
            {"DATA_CONFIG.POINT_CLOUD_RANGE": [0, -40, -3, 70.4, 40, 1]},
            "DATA_CONFIG.POINT_CLOUD_RANGE",
            "the grid has 500 voxels along y, which the strides of the backbones (8 in all) do not divide; "
            "496 (79.36 m) or 504 (80.64 m) would fit",
        ),
        ({"DATA_CONFIG.POINT_CLOUD_RANGE": [0, 1, 2]}, "DATA_CONFIG.POINT_CLOUD_RANGE", "[0.0, 1.0, 2.0]"),
        ({"DATA_CONFIG.POINT_CLOUD_RANGE": [9, -1, -3, 0, 1, 1]}, "DATA_CONFIG.POINT_CLOUD_RANGE", "[9"),
        (
            {"DATA_CONFIG.DATA_PROCESSOR[2].VOXEL_SIZE": [0.16, 0.16, 0.5]},
            "DATA_CONFIG.DATA_PROCESSOR[2].VOXEL_SIZE",
            "PointPillarScatter needs one voxel over the whole height of 4 m, got 8 of 0.5 m",
        ),
        (
            {"DATA_CONFIG.DATA_PROCESSOR[2].VOXEL_SIZE": [0.16, 0, 4]},
            "DATA_CONFIG.DATA_PROCESSOR[2].VOXEL_SIZE",
            "[0.16, 0, 4]",
        ),
        (
            {"MODEL.BACKBONE_2D.UPSAMPLE_STRIDES": [1, 2, 2]},
            "MODEL.BACKBONE_2D.UPSAMPLE_STRIDES",
            "the stages must meet at one stride, but LAYER_STRIDES [2, 2, 2] and [1, 2, 2] end at 2, 2, 4",
        ),
        (
            {"MODEL.BACKBONE_2D.UPSAMPLE_STRIDES": [1, 2, 4.5]},
            "MODEL.BACKBONE_2D.UPSAMPLE_STRIDES[2]",
            "must be a whole number or one over a whole number, got 4.5",
        ),
        (
            {"MODEL.BACKBONE_2D.UPSAMPLE_STRIDES": [1]},
            "MODEL.BACKBONE_2D.UPSAMPLE_STRIDES",
            "an item for each of the 3 stages is needed, got [1]",
        ),
        (
            {"MODEL.BACKBONE_2D.NUM_UPSAMPLE_FILTERS": [128]},
            "MODEL.BACKBONE_2D.NUM_UPSAMPLE_FILTERS",
            "has 1 items, UPSAMPLE_STRIDES has 3",
        ),
        (
            {"MODEL.BACKBONE_2D.NUM_FILTERS": [64, 128]},
            "MODEL.BACKBONE_2D",
            "an item for each stage is needed in LAYER_NUMS (3), LAYER_STRIDES (3), NUM_FILTERS (2)",
        ),
        (
            {"MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[1].feature_map_stride": 4},
            "MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[1].feature_map_stride",
            "the map that the head reads has stride 2 (from MODEL.BACKBONE_2D), got 4",
        ),
        (
            {
                "MODEL.BACKBONE_2D.UPSAMPLE_STRIDES": [1, 2, 4, 2],
                "MODEL.BACKBONE_2D.NUM_UPSAMPLE_FILTERS": [1, 1, 1, 1],
            },
            "MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[0].feature_map_stride",
            "has stride 1",
        ),
        (
            {"MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[1].class_name": "Pedestrain"},
            "MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[1].class_name",
            "'Pedestrain' is not among CLASS_NAMES; did you mean Pedestrian?",
        ),
        (
            {"CLASS_NAMES": ["Car", "Pedestrian", "Cyclist", "Van"]},
            "MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG",
            "'Van' of CLASS_NAMES has no anchors",
        ),
        (
            {"MODEL.MAP_TO_BEV.NUM_BEV_FEATURES": 32},
            "MODEL.MAP_TO_BEV.NUM_BEV_FEATURES",
            "must equal the last of MODEL.VFE.NUM_FILTERS, 64, got 32",
        ),
        (
            {"DATA_CONFIG.DATA_PROCESSOR[2].NAME": "calculate_grid_size"},
            "DATA_CONFIG.DATA_PROCESSOR",
            "PillarVFE reads voxels; add transform_points_to_voxels to",
        ),
        (
            {"DATA_CONFIG.POINT_FEATURE_ENCODING.used_feature_list": ["y", "x", "z"]},
            "DATA_CONFIG.POINT_FEATURE_ENCODING",
            "x",
        ),
    ],
)
def test_an_impossible_geometry_is_told(pillars, changes, path, said):
    for where, value in changes.items():
        node, key = node_at(pillars, where)
        node[key] = value
    told = paths_with(problems_of(pillars), path)
    assert told and any(said in t for t in told), told


def test_everything_wrong_is_told_at_once(pillars):
    pillars.MODEL.BACKBONE_2D.NUM_FILTER = pillars.MODEL.BACKBONE_2D.pop("NUM_FILTERS")
    pillars.DATA_CONFIG.pop("INFO_PATH")
    pillars.OPTIMIZATION.LR = -1
    pillars.OPTIMIZATION.LRR = 1
    pillars.MODEL.POST_PROCESSING.NMS_CONFIG.NMS_TRESH = 0.1
    pillars.DATA_CONFIG.POINT_CLOUD_RANGE = [0, -39.68, -3, 69.0, 39.68, 1]
    pillars.MODEL.pop("DENSE_HEAD")
    paths = [p.split(": ")[0] for p in problems_of(pillars)]
    for path in (
        "MODEL.BACKBONE_2D.NUM_FILTER",
        "DATA_CONFIG.INFO_PATH",
        "OPTIMIZATION.LR",
        "OPTIMIZATION.LRR",
        "MODEL.POST_PROCESSING.NMS_CONFIG.NMS_TRESH",
        "DATA_CONFIG.POINT_CLOUD_RANGE",
        "MODEL.DENSE_HEAD",
    ):
        assert path in paths, (path, paths)


def test_a_model_without_a_name_is_told(pillars):
    pillars.MODEL.pop("NAME")
    assert any(p.startswith("MODEL.NAME: missing") for p in problems_of(pillars))


class OpenPCDetStyleBackbone:
    """What a user brings along: takes its node as it is."""

    def __init__(self, model_cfg, input_channels):
        self.model_cfg = model_cfg


class UsersDetector:
    def __init__(self, model_cfg, num_class, dataset):
        self.model_cfg = model_cfg


@pytest.fixture
def users_classes(monkeypatch):
    """Classes of a user's, registered for one test."""
    R.BACKBONES_2D.names(), R.BACKBONES_3D.names(), R.DETECTORS.names()
    monkeypatch.setattr(R.BACKBONES_2D, "_classes", {**R.BACKBONES_2D._classes, "MyBackbone": OpenPCDetStyleBackbone})
    monkeypatch.setattr(R.DETECTORS, "_classes", {**R.DETECTORS._classes, "MyDetector": UsersDetector})
    features = {**R.BACKBONES_3D._classes, "MyPointFeatures": OpenPCDetStyleBackbone}
    monkeypatch.setattr(R.BACKBONES_3D, "_classes", features)


def test_users_own_modules_are_left_alone(pillars, users_classes):
    pillars.MODEL.BACKBONE_2D = EasyDict(NAME="MyBackbone", ANYTHING={"x": [1]}, LAYER_STRIDES="none of ours")
    (told,) = find_problems(pillars)
    assert told.startswith("MODEL.WIDTH: cannot scale MODEL.BACKBONE_2D, since MyBackbone is not described: ")
    pillars.MODEL.pop("WIDTH")
    assert find_problems(pillars) == []
    pillars.MODEL.NAME = "MyDetector"
    pillars.MODEL.MY_PART = EasyDict(y=1)
    assert find_problems(pillars) == []


def test_set_wants_existing_keys_in_users_own_modules(pillars, users_classes):
    pillars.MODEL.pop("WIDTH")
    pillars.MODEL.BACKBONE_2D = EasyDict(NAME="MyBackbone", DEPTH=3)
    cfg_from_list(["MODEL.BACKBONE_2D.DEPTH", "4"], pillars)
    assert pillars.MODEL.BACKBONE_2D.DEPTH == 4
    with pytest.raises(ConfigError, match=r"MODEL.BACKBONE_2D.DEPHT: --set found no such key; did you mean DEPTH\?"):
        cfg_from_list(["MODEL.BACKBONE_2D.DEPHT", "4"], pillars)


def second_like(pillars: EasyDict) -> EasyDict:
    """The geometry of SECOND's file laid over PointPillars', for the rules alone."""
    pillars.DATA_CONFIG.POINT_CLOUD_RANGE = [0, -40, -3, 70.4, 40, 1]
    pillars.DATA_CONFIG.DATA_PROCESSOR[2].VOXEL_SIZE = [0.05, 0.05, 0.1]
    pillars.MODEL.pop("WIDTH")
    pillars.MODEL.VFE = EasyDict(NAME="MeanVFE")
    pillars.MODEL.BACKBONE_3D = EasyDict(NAME="VoxelBackBone8x")
    pillars.MODEL.MAP_TO_BEV = EasyDict(NAME="HeightCompression", NUM_BEV_FEATURES=256)
    pillars.MODEL.BACKBONE_2D.update(
        LAYER_NUMS=[5, 5],
        LAYER_STRIDES=[1, 2],
        NUM_FILTERS=[128, 256],
        UPSAMPLE_STRIDES=[1, 2],
        NUM_UPSAMPLE_FILTERS=[256, 256],
    )
    for anchor in pillars.MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG:
        anchor.feature_map_stride = 8
    return pillars


def geometry_problems(config) -> list[str]:
    """What the modules and the data set have against where they stand; without the check of every key."""
    return [problem for rule in RULES for problem in rule(config)]


def test_the_rules_know_seconds_geometry(pillars):
    config = second_like(pillars)
    assert geometry_problems(config) == []
    config.MODEL.MAP_TO_BEV.NUM_BEV_FEATURES = 128
    config.MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG[0].feature_map_stride = 4
    config.DATA_CONFIG.POINT_CLOUD_RANGE[3] = 70.2
    told = geometry_problems(config)
    assert any("128 channels in 2 layers of height make 256, got 128" in t for t in told)
    assert any("has stride 8 (from MODEL.BACKBONE_2D), got 4" in t for t in told)
    assert any("has 1404 voxels along x" in t and "16 in all" in t for t in told)


@pytest.mark.parametrize(
    ("backbone", "width", "channels", "said"),
    [
        ({}, 0.5, 256, None),
        ({"OUT_CHANNELS": 32}, None, 64, None),
        ({"OUT_CHANNELS": 32, "NUM_FILTERS": [4, 4, 8, 8]}, 0.5, 64, None),
        ({"WIDTH": 0.25}, None, 64, None),
        ({"WIDTH": 0.5}, 0.5, 128, None),
        ({"last_pad": 1}, None, 384, None),  # 5 layers and one at either end, 3 apart: (5 + 2 - 3) // 2 + 1 = 3
        ({"last_pad": [1, 0, 0]}, None, 384, None),
        ({}, 0.5, 128, "128 channels in 2 layers of height make 256, got 128"),
        ({"OUT_CHANNELS": 32}, None, 256, "32 channels in 2 layers of height make 64, got 256"),
        ({"WIDTH": 0.5}, None, 256, "64 channels in 2 layers of height make 128, got 256"),
        ({"NUM_FILTERS": [4, 4, 8, 8]}, None, 64, "128 channels in 2 layers of height make 256, got 64"),
        # 0.357 * 128 is cut to 45, and the map has twice that
        ({}, 0.357, 256, None),
        ({}, 0.357, 253, None),  # as files had it to be cut to 90
        ({}, 0.357, 128, "128 channels in 2 layers of height make 256, got 128"),
    ],
)
def test_a_students_map_has_the_channels_that_its_volume_fills(pillars, backbone, width, channels, said):
    config = second_like(pillars)
    config.MODEL.BACKBONE_3D.update(backbone)
    config.MODEL.MAP_TO_BEV.NUM_BEV_FEATURES = channels
    if width is not None:
        config.MODEL.WIDTH = width
    told = geometry_problems(config)
    assert [t.partition("backbone's ")[2] for t in told] == ([] if said is None else [said])


def test_a_point_network_without_equally_many_points_is_told():
    config = load(CFGS / "kitti_models/pointrcnn.yaml")
    steps = config.DATA_CONFIG.DATA_PROCESSOR
    config.DATA_CONFIG.DATA_PROCESSOR = [step for step in steps if step.NAME != "sample_points"]
    (told,) = problems_of(config)
    assert told.startswith("DATA_CONFIG.DATA_PROCESSOR: PointNet2MSG reads equally many points of every frame; add")


def test_features_before_a_fusion_that_nothing_makes_are_told(users_classes):
    config = load(CFGS / "kitti_models/pointrcnn.yaml")
    config.MODEL.POINT_HEAD.USE_POINT_FEATURES_BEFORE_FUSION = True
    (told,) = problems_of(config)
    assert told.startswith("MODEL.POINT_HEAD.USE_POINT_FEATURES_BEFORE_FUSION: nothing makes such features here")
    config.MODEL.PFE = EasyDict(NAME="MyPointFeatures")  # which may
    assert find_problems(config) == []


def test_the_rules_know_multi_heads(pillars):
    head = pillars.MODEL.DENSE_HEAD
    head.NAME = "AnchorHeadMulti"
    branches = [{"HEAD_CLS_NAME": ["Car"]}, {"HEAD_CLS_NAME": ["Pedestrian", "Cyclist"]}]
    for head.RPN_HEAD_CFGS in (branches, branches[::-1], [{"HEAD_CLS_NAME": ["Cyclist", "Car", "Pedestrian"]}]):
        assert geometry_problems(pillars) == []
    own = {"HEAD_CLS_NAME": ["Pedestrian"], "LAYER_STRIDES": [2]}
    head.ANCHOR_GENERATOR_CONFIG[1].feature_map_stride = 4  # its head brings a stride of its own
    head.RPN_HEAD_CFGS = [{"HEAD_CLS_NAME": ["Cyclist", "Car"]}, own]
    assert geometry_problems(pillars) == []
    head.RPN_HEAD_CFGS = [{"HEAD_CLS_NAME": ["Car"]}, own]
    (told,) = geometry_problems(pillars)
    assert "must stand in one HEAD_CLS_NAME, in any order, got ['Car', 'Pedestrian']" in told
    head.RPN_HEAD_CFGS = [{"HEAD_CLS_NAME": ["Cyclist", "Car", "Car"]}, own]
    (told,) = geometry_problems(pillars)
    assert "got ['Cyclist', 'Car', 'Car', 'Pedestrian']" in told


def test_downsampling_by_a_fraction_meets_too(pillars):
    # OpenPCDet's cbgs_pp_multihead.yaml: strides 2, 4, 8 meet at 4
    pillars.MODEL.BACKBONE_2D.UPSAMPLE_STRIDES = [0.5, 1, 2]
    for anchor in pillars.MODEL.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG:
        anchor.feature_map_stride = 4
    assert find_problems(pillars) == []


def test_loading_needs_no_file_of_the_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load(CFGS / "kitti_models/pointpillar.yaml")
    assert os.listdir(tmp_path) == []
