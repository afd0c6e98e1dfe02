"""The shipped files: a student's says what differs from its base, its presets and defaults, and what it leaves out."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from easydict import EasyDict

from pcdet.config import merge_new_config
from pcdet.models.description import describe
from pcdet.models.kd import schema
from pcdet.registry import BASE_KEY, DENSE_HEADS, ConfigError

CFGS = Path(__file__).resolve().parents[3] / "tools" / "cfgs"
# The detectors and data sets that repeat OpenPCDet's files key by key are no part of this: they mirror those files.
FILES = sorted([*CFGS.glob("*/kd/*.yaml"), *CFGS.glob("*/*_small.yaml"), *CFGS.glob("simulated_models/*.yaml")])
OF_THE_PAPER = [path for path in FILES if path.stem.endswith(("_official", "_paper"))]
# A block without a loss says so, which a reader who looks for one should see.
SEEN_ON_PURPOSE = {("LOSSES",): []}


def text_of(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def places(node: object, path: tuple = ()) -> Iterator[tuple[tuple, object]]:
    """The path and value of every key, within lists of mappings too."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if isinstance(node, Mapping):
            yield (*path, key), value
        yield from places(value, (*path, key))


def without(node: Mapping, path: tuple) -> dict:
    """A copy that lacks one key."""
    *parents, last = path
    left = inner = copy.deepcopy(node)
    for part in parents:
        inner = inner[part]
    del inner[last]
    return left


def bases_of(node: Mapping) -> dict:
    """A file with nothing but its bases."""
    found = {key: bases_of(value) for key, value in node.items() if isinstance(value, Mapping)}
    return {key: value for key, value in found.items() if value} | {k: v for k, v in node.items() if k == BASE_KEY}


def repeated(node: Mapping, base: Mapping, path: str = "") -> Iterator[str]:
    """The keys that have the value of the base already."""
    for key, value in node.items():
        if key == BASE_KEY or key not in base:
            continue
        if isinstance(value, Mapping) and isinstance(base[key], Mapping):
            yield from repeated(value, base[key], f"{path}{key}.")
        elif value == base[key]:
            yield f"{path}{key}"


@functools.cache
def merged(path: Path, *left_out: str) -> EasyDict:
    """A file upon its bases, unchecked; ``left_out`` are sections of its own that do not count."""
    return merge_new_config(EasyDict(), {k: v for k, v in text_of(path).items() if k not in left_out}, path.parent)


def resolver(model_cfg: Mapping) -> Callable[[Mapping], dict]:
    """Writes out the presets and defaults of a ``KD`` block for such a student."""
    described = describe(model_cfg)
    head = DENSE_HEADS.get(model_cfg.DENSE_HEAD.NAME).PREDICTS if "DENSE_HEAD" in model_cfg else ""
    return lambda block: schema.resolve(block, lambda tap: described.find(tap).kind if tap else head)[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_shipped_file_repeats_its_base(path):
    text = text_of(path)
    base = merge_new_config(EasyDict(), bases_of(text), path.parent)
    assert list(repeated(text, base)) == []


@pytest.mark.parametrize("path", [p for p in FILES if "\nKD:\n" in p.read_text()], ids=lambda path: path.stem)
def test_no_shipped_block_repeats_its_presets_and_defaults(path):
    own, base = text_of(path)["KD"], merged(path, "KD")
    resolve = resolver(base.MODEL)

    def block(node):
        return resolve(merge_new_config(copy.deepcopy(base.get("KD", EasyDict())), node))

    whole = block(own)
    repetitions = []
    for key, value in places(own):
        if SEEN_ON_PURPOSE.get(key, ...) == value:
            continue
        try:
            same = block(without(own, key)) == whole
        except ConfigError:  # it must be there
            continue
        if same:
            repetitions.append(key)
    assert repetitions == []


@pytest.mark.parametrize("path", OF_THE_PAPER, ids=lambda path: path.stem)
def test_a_file_of_the_paper_or_its_code_begins_with_what_it_is_and_leaves_out(path):
    lines = path.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if not line.startswith("# "))
    stands_for, leaves_out = "\n".join(lines[:first]).split("\n# Left out: ")
    source = "PointDistiller's released code" if path.stem.endswith("_official") else "PointDistiller's paper"
    assert source in stands_for
    assert leaves_out.endswith(".")


@pytest.mark.parametrize("path", OF_THE_PAPER, ids=lambda path: path.stem)
def test_the_taps_of_such_a_file_with_its_preset_are_nothing_but_the_preset(path):
    """So ``_official`` is what the goldens check, and ``KD.PRESET: paper`` restores what ``_paper`` leaves out."""
    cfg, preset = merged(path), path.stem.rpartition("_")[2]
    resolve = resolver(cfg.MODEL)
    taps = [{"NAME": loss.NAME, "FEATURE": loss.FEATURE, "PRESET": preset} for loss in cfg.KD.LOSSES]
    pure = resolve({"TEACHER": {"CFG": cfg.KD.TEACHER.CFG}, "LOSSES": taps})
    assert resolve(cfg.KD | {"PRESET": preset}) == pure
    if preset == "official":
        assert resolve(cfg.KD) == pure
        assert pure["TEACHER"]["MODE"] == "train"  # the released code never calls eval()


PILLARS = {
    "SAMPLE": {"NUM": 1000, "BY": "num_points"},  # of 5000 pillars in a frame; the released 6000 are a batch of six
    "GRAPH": {"K": 16, "SPACE": "xyz", "CANDIDATES": None, "PER_FRAME": True},
    "REWEIGHT": {"BY": "num_points", "TEMPERATURE": 5.0},
    "ADAPTER": {"TEACHER": "none", "STUDENT": "linear"},
}
FROZEN = {"TEACHER": "frozen", "STUDENT": "linear_bn_relu"}
ON_MAPS = {
    "GRAPH": {"K": 16, "SPACE": "feature", "CANDIDATES": 1024, "PER_FRAME": True},
    "ADAPTER": {**FROZEN, "DIM": 32},
}
STAGES = {
    **ON_MAPS,
    "SAMPLE": {"NUM": 256, "BY": "num_points"},
    "REWEIGHT": {"BY": "log_points", "TEMPERATURE": 1.0},
}
HEADS_MAP = {**ON_MAPS, "WEIGHT": 5.0, "SAMPLE": {"NUM": 256, "BY": "score"}, "REWEIGHT": None}
POINTS = {
    "SAMPLE": {"NUM": 6000, "BY": "channel_max"},
    "GRAPH": {"K": 16, "SPACE": "xyz", "CANDIDATES": None, "PER_FRAME": True},
    "REWEIGHT": {"BY": "graph_max", "TEMPERATURE": 1.0},
    "ADAPTER": FROZEN,
}
POINTS_IN_OBJECTS = {
    **POINTS,
    "WEIGHT": 20.0,
    "SAMPLE": {"NUM": 512, "BY": "foreground"},
    "REWEIGHT": None,
    "ADAPTER": {**FROZEN, "DIM": 32},
}
# The tables of docs/KD.md (the shipped files) and what docs/benchmarks/quickstart.md measured.
RECIPES = {
    "kitti_models/kd/pointpillar_4x_paper": PILLARS,
    "kitti_models/kd/pointpillar_16x_paper": PILLARS,
    "kitti_models/kd/second_4x_paper": STAGES,
    "kitti_models/kd/pointrcnn_8x_paper": POINTS,
    "kitti_models/kd/pointpillar_small_4x": HEADS_MAP,
    "simulated_models/kd/pointpillar_pointdistiller": HEADS_MAP,
    "simulated_models/kd/second_pointdistiller": HEADS_MAP,
    "simulated_models/kd/pointrcnn_pointdistiller": POINTS_IN_OBJECTS,
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_is_what_the_guide_says(name):
    cfg = merged(CFGS / f"{name}.yaml")
    losses = [loss for loss in resolver(cfg.MODEL)(cfg.KD)["LOSSES"] if loss["NAME"] == "PointDistiller"]
    assert losses
    for loss in losses:
        for key, expected in ({"WEIGHT": 1.0} | RECIPES[name]).items():
            found = loss[key]
            assert ({k: found[k] for k in expected} if isinstance(expected, dict) else found) == expected, key
