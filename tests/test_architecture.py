"""docs/ARCHITECTURE.md is true: its files exist, its floors are the layer test's, its walks are those of a step."""

import logging
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

import pytest
from easydict import EasyDict
from models.kd.kd_pairs import FACTS, distil, pp
from support.tracing import Trace, code_of
from test_layers import ALLOWED, is_below

from pcdet.api import build_detector
from pcdet.config import cfg_from_yaml_file
from pcdet.datasets import build_dataloader
from pcdet.datasets.kitti.kitti_infos import CLASS_NAMES, create_kitti_infos
from pcdet.engine.optim import build_optimizer, build_scheduler
from pcdet.engine.trainer import Trainer, TrainSettings
from pcdet.testing import tiny_kitti

REPO_ROOT = Path(__file__).resolve().parent.parent
PAGE = REPO_ROOT / "docs" / "ARCHITECTURE.md"
PICTURE = REPO_ROOT / "docs" / "images" / "architecture.svg"
CONFIGS = REPO_ROOT / "tools" / "cfgs" / "simulated_models"
BATCH, FEATURE, CONFIGURATION = "A batch from loader", "A teacher's feature", "A configuration from"


class Stop(NamedTuple):
    """A row of a walk."""

    file: str
    entry_point: str


def section(title: str) -> str:
    return PAGE.read_text(encoding="utf-8").partition(f"\n## {title}")[2].partition("\n## ")[0]


def table(title: str) -> list[list[str]]:
    """Cells of a section's table, without its heading."""
    rows = [line.strip("|").split("|") for line in section(title).splitlines() if line.startswith("|")]
    assert len(rows) > 2, f"{PAGE} has no table under {title!r}"
    return [[cell.strip() for cell in row] for row in rows[2:]]


def walk(title: str) -> list[Stop]:
    return [Stop(file.strip("`"), entry.strip("`")) for file, entry, _ in table(title)]


def set_aside(title: str) -> list[str]:
    """Files and folders of the dispatchers and helpers that a section names outside of its table."""
    return re.findall(r"`(pcdet/[\w/.]+)`", section(title).partition("Dispatchers")[2])


def is_of(file: str, places: list[str]) -> bool:
    return any(file == place or (place.endswith("/") and file.startswith(place)) for place in places)


# ------------------------------------------------------------------------------------------------------ the page


def test_the_page_has_at_most_120_lines():
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) <= 120


def test_every_file_that_the_page_names_exists():
    text = PAGE.read_text(encoding="utf-8")
    named = re.findall(r"`((?:pcdet|tests|tools|docs)/[\w/.]*)`", text)
    linked = [f"docs/{link}" for link in re.findall(r"\]\(([\w/.]+)(?:#[\w-]+)?\)", text)]
    assert len(named) > 40 and len(linked) > 4
    missing = [name for name in (*named, *linked) if not (REPO_ROOT / name).exists()]
    assert not missing


def test_every_heading_that_the_page_links_to_exists():
    for page, anchor in re.findall(r"\]\(([\w/.]+)#([\w-]+)\)", PAGE.read_text(encoding="utf-8")):
        headings = re.findall(r"^#+ (.*)$", (PAGE.parent / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert anchor in [re.sub(r"[^\w\- ]", "", h).lower().replace(" ", "-") for h in headings], anchor


def test_the_floors_are_those_of_the_layer_test():
    told = {}
    for floor, _, may_import in table("The floors"):
        names = re.findall(r"`([\w.]+)`", may_import)
        told[f"pcdet.{floor.strip('`')}"] = {"pcdet"} if may_import == "everything" else {f"pcdet.{n}" for n in names}
        assert names or may_import in ("everything", "nothing"), f"{floor}: {may_import}"
    assert told == {floor: set(others) - {floor} for floor, others in ALLOWED.items()}


def test_the_pictures_arrows_are_imports_that_are_allowed_and_point_down():
    arrows = []
    for path in ET.parse(PICTURE).iter("{http://www.w3.org/2000/svg}path"):
        for title in path.iter("{http://www.w3.org/2000/svg}title"):
            importer, imported = title.text.split(" imports ")
            top, bottom = re.fullmatch(r"M \d+ (\d+) V (\d+)", path.get("d")).groups()
            assert int(top) < int(bottom), title.text
            arrows.append((importer, imported))
    assert ("tools", "cli") in arrows
    for importer, imported in arrows:
        allowed = ("pcdet",) if importer == "tools" else ALLOWED[f"pcdet.{importer}"]
        assert is_below(f"pcdet.{imported}", allowed), f"{importer} may not import {imported}"


def test_the_picture_shows_every_floor():
    texts = {text.text for text in ET.parse(PICTURE).iter("{http://www.w3.org/2000/svg}text")}
    assert {floor.removeprefix("pcdet.") for floor in ALLOWED} <= texts


# ----------------------------------------------------------------------------------------------------- the walks


@pytest.fixture(scope="module")
def batch_trace(tmp_path_factory):
    """A training of PointPillars on two simulated frames: one step."""
    root = tiny_kitti(tmp_path_factory.mktemp("architecture") / "kitti", frames=3)
    cfg = cfg_from_yaml_file(CONFIGS / "pointpillar.yaml", EasyDict())
    create_kitti_infos(cfg.DATA_CONFIG, CLASS_NAMES, root, workers=1, logger=logging.getLogger("pcdet"))
    dataset, loader, _ = build_dataloader(
        dataset_cfg=cfg.DATA_CONFIG, class_names=cfg.CLASS_NAMES, batch_size=2, dist=False, root_path=root, workers=0,
        seed=0,
    )  # fmt: skip
    model = build_detector(cfg, dataset)
    node = {**cfg.OPTIMIZATION, "NUM_EPOCHS": 1}
    optimizer = build_optimizer(model, node)
    scheduler = build_scheduler(optimizer, len(loader), 1, -1, node)
    trainer = Trainer(model, loader, optimizer, scheduler, settings=TrainSettings(epochs=1, seed=0))
    with Trace() as trace:
        trainer.run()
    assert trainer.it == 1
    return trace


@pytest.fixture(scope="module")
def feature_trace():
    """A step of the smallest distillation of rows."""
    distiller = distil({"NAME": "FitNet", "FEATURE": "spatial_features_2d", "SAMPLE": {"NUM": 20}})
    batch = pp.random_batch(FACTS, frames=2, points=300, seed=3)
    with Trace() as trace:
        distiller(batch)
    return trace


@pytest.fixture(scope="module")
def configuration_trace():
    """A student's file loaded, and its detector built."""
    with Trace() as trace:
        cfg = cfg_from_yaml_file(CONFIGS / "kd" / "pointpillar_student.yaml", EasyDict())
        build_detector(cfg, pp.dataset_facts(cfg.DATA_CONFIG.POINT_CLOUD_RANGE, (0.32, 0.32, 4)))
    return trace


def in_order(stops: list[Stop], order: dict) -> list[Stop]:
    """These stops, sorted by when their entry points were called or returned."""
    codes = {stop: code_of(*stop) for stop in stops}
    missed = [stop for stop, code in codes.items() if code not in order]
    assert not missed, "these were not run"
    return sorted(stops, key=lambda stop: order[codes[stop]])


def test_a_batch_goes_from_loader_to_loss_as_the_page_says(batch_trace):
    stops = walk(BATCH)
    files = [stop.file for stop in stops]
    assert len(set(files)) == len(files), "each file once"
    aside = [place for place in set_aside(BATCH) if place not in files]
    assert [file for file in batch_trace.files() if file in files or not is_of(file, aside)] == files
    in_order(stops, batch_trace.entered)


def test_a_teachers_feature_goes_from_its_module_to_its_loss_as_the_page_says(feature_trace):
    stops = walk(FEATURE)
    files = [stop.file for stop in stops]
    assert len(set(files)) == len(files), "each file once"
    assert in_order(stops, feature_trace.left) == stops
    of_kd = {file for file in feature_trace.files() if file.startswith("pcdet/models/kd/")}
    assert {file for file in of_kd if file in files or not is_of(file, set_aside(FEATURE))} == set(files)


def test_a_configuration_becomes_a_detector_as_the_page_says(configuration_trace):
    stops = walk(CONFIGURATION)
    assert in_order(stops, configuration_trace.entered) == stops


@pytest.mark.parametrize(("title", "trace"), [(BATCH, "batch_trace"), (FEATURE, "feature_trace")])
def test_the_step_enters_all_dispatchers_and_helpers_that_the_page_names(title, trace, request):
    visited = request.getfixturevalue(trace).files()
    places = set_aside(title)
    assert places
    assert [place for place in places if not any(is_of(file, [place]) for file in visited)] == []
