"""Loading configurations: OpenPCDet's files load unchanged, bases and places, and files that cannot be taken."""

from __future__ import annotations

import copy
import logging
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from easydict import EasyDict
from openpcdet_files import NOT_COVERED, write_files
from support.configs import CFGS, FILES, REPO_ROOT, load, node_at, problems_of, write

from pcdet.config import (
    cfg,
    cfg_from_yaml_file,
    find_config_file,
    log_config_to_file,
    merge_new_config,
    require_sections,
    validate_config,
)
from pcdet.config.check import find_problems
from pcdet.registry import ConfigError


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


def test_the_shipped_nuscenes_data_set_says_the_same_as_openpcdets(openpcdets_folder):
    name = "dataset_configs/nuscenes_dataset.yaml"
    assert load(CFGS / name) == load(openpcdets_folder / name)


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
