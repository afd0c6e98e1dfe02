"""The registry: signatures are schemas, and every problem of a node is reported at once."""

from __future__ import annotations

import dataclasses
import pickle
import sys
import types
from typing import Annotated, Literal

import pytest

from pcdet.registry import ConfigError, Registry, build_from_cfg, check_node, known_keys, parse_node


def make_registry(monkeypatch, name="thing", **kwargs) -> Registry:
    """A registry whose provider is an empty module."""
    monkeypatch.setitem(sys.modules, "fake_provider", types.ModuleType("fake_provider"))
    return Registry(name, "fake_provider", **kwargs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Anchor:
    class_name: str
    sizes: list[list[float]]
    stride: int = 2

    def __post_init__(self):
        if self.stride < 1:
            raise ValueError(f"STRIDE: must be positive, got {self.stride}")
        if self.stride > 90:
            raise ConfigError(["STRIDE.X[0]: too much", "far too much: really"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    anchors: list[Anchor]
    lr: float = 0.1
    steps: list[int] | None = None
    mode: Literal["train", "test"] = "train"
    sizes: tuple[float, float] = (1.0, 2.0)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    assigner: Annotated[dict, Registry("assigner", "json")] | None = None


class Backbone:
    INJECTED = ("input_channels",)

    def __init__(self, *, layer_nums: list[int], num_filters: list[int], input_channels: int, dropout: float = 0.0):
        self.arguments = {
            "layer_nums": layer_nums,
            "num_filters": num_filters,
            "input_channels": input_channels,
            "dropout": dropout,
        }


class UsersOwn:
    def __init__(self, model_cfg, input_channels, **kwargs):
        self.model_cfg, self.input_channels, self.kwargs = model_cfg, input_channels, kwargs


@pytest.fixture
def registry(monkeypatch):
    registry = make_registry(monkeypatch, "backbone", injected=("input_channels", "grid_size"))
    registry.register(Backbone)
    registry.register(UsersOwn, name="users_own")
    return registry


def test_a_node_is_built_with_its_keys_and_only_the_given_values_of_its_signature(registry):
    node = {"NAME": "Backbone", "LAYER_NUMS": [3], "num_filters": [64], "DROPOUT": 1}
    built = build_from_cfg(node, registry, input_channels=4, grid_size=(1, 2, 3))
    assert built.arguments == {"layer_nums": [3], "num_filters": [64], "input_channels": 4, "dropout": 1.0}


def test_code_supplies_only_what_is_declared(registry):
    node = {"NAME": "Backbone", "LAYER_NUMS": [3], "NUM_FILTERS": [64]}
    with pytest.raises(TypeError, match=r"backbone Backbone is given \['dropout'\], which neither its registry nor"):
        build_from_cfg(node, registry, input_channels=4, dropout=0.5)


class Wide(Backbone):
    def __init__(self, *, width: float = 1.0, **common):
        super().__init__(**common)
        self.arguments["width"] = width


def test_a_constructor_with_common_has_the_keys_of_its_base_class(registry):
    registry.register(Wide)
    assert list(known_keys(Wide)) == ["LAYER_NUMS", "NUM_FILTERS", "DROPOUT", "WIDTH"]
    node = {"NAME": "Wide", "LAYER_NUMS": [3], "NUM_FILTERS": [64], "WIDTH": 2}
    built = build_from_cfg(node, registry, input_channels=4)
    assert built.arguments["width"] == 2.0 and built.arguments["num_filters"] == [64]
    assert check_node({**node, "WIDHT": 1}, registry) == ["WIDHT: Wide has no such key; did you mean WIDTH?"]


class Unresolvable:
    def __init__(self, *, size: NoSuchType):  # noqa: F821
        pass


def test_an_annotation_that_cannot_be_resolved_is_an_error(registry):
    registry.register(Unresolvable)
    with pytest.raises(TypeError, match="the annotation 'NoSuchType' of Unresolvable.size cannot be resolved"):
        check_node({"NAME": "Unresolvable", "SIZE": 3}, registry)


def test_all_problems_of_a_node_are_reported_at_once_with_path_and_nearest_key(registry):
    node = {"NAME": "Backbone", "NUM_FILTER": [64], "DROPOUT": "0.1x", "INPUT_CHANNELS": 3}
    assert check_node(node, registry, path="MODEL.BACKBONE_2D") == [
        "MODEL.BACKBONE_2D.NUM_FILTER: Backbone has no such key; did you mean NUM_FILTERS?",
        "MODEL.BACKBONE_2D.INPUT_CHANNELS: Backbone gets this from the code; remove it from the file",
        "MODEL.BACKBONE_2D.DROPOUT: expected float, got '0.1x' (str)",
        "MODEL.BACKBONE_2D.LAYER_NUMS: missing; Backbone needs it (list[int])",
        "MODEL.BACKBONE_2D.NUM_FILTERS: missing; Backbone needs it (list[int])",
    ]
    with pytest.raises(ConfigError) as caught:
        build_from_cfg(node, registry, path="MODEL.BACKBONE_2D", input_channels=3)
    assert len(caught.value.problems) == 5
    assert str(caught.value) == "\n".join(caught.value.problems)


def test_a_class_with_model_cfg_gets_its_raw_node_and_is_not_checked(registry):
    node = {"NAME": "users_own", "ANYTHING": 1}
    assert check_node(node, registry) == []
    built = build_from_cfg(node, registry, input_channels=4, grid_size=2)
    assert built.model_cfg is node and built.input_channels == 4 and built.kwargs == {"grid_size": 2}


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        ({"NAME": "Backbon"}, "A.NAME: unknown backbone 'Backbon'; did you mean Backbone?"),
        ({"NAME": "zzz"}, "A.NAME: unknown backbone 'zzz'; known: Backbone, users_own"),
        ({"NAME": 3}, "A.NAME: the backbone must be a name, got 3"),
        ({}, "A.NAME: missing; it says which backbone to build"),
        ([1], "A: expected a backbone node with NAME, got [1] (list)"),
        (None, "A: expected a backbone node with NAME, got null"),
    ],
)
def test_a_wrong_name_is_a_problem_with_its_path(registry, node, problem):
    assert check_node(node, registry, path="A") == [problem]


def test_given_of_the_registry_and_of_the_call_are_not_asked_of_the_file(monkeypatch):
    registry = make_registry(monkeypatch, injected=("layer_nums",))
    registry.register(Backbone)
    assert check_node({"NAME": "Backbone"}, registry, injected=("num_filters",)) == []


def test_the_provider_is_imported_at_the_first_unknown_name_only(monkeypatch):
    registry = Registry("thing", "a_provider_that_does_not_exist")
    registry.register(Backbone)
    assert registry.get("Backbone") is Backbone
    with pytest.raises(ModuleNotFoundError):
        registry.get("Other")


def test_names_are_sorted(registry):
    assert registry.names() == ["Backbone", "users_own"]
    assert "Backbone" in repr(registry)


def test_two_classes_of_one_name_are_refused_except_for_a_module_run_as_main(registry):
    other = type("Backbone", (), {"__module__": "somewhere.else"})
    with pytest.raises(ValueError, match="registered twice: .*somewhere.else.Backbone"):
        registry.register(other)
    registry.register(type("Backbone", (), {"__module__": "__main__"}))
    assert registry.get("Backbone") is Backbone


def test_a_schema_is_filled_recursively():
    node = {
        "ANCHORS": [{"class_name": "Car", "sizes": [[1, 2, 3]]}],
        "LR": 1,
        "STEPS": [1, 2],
        "MODE": "test",
        "SIZES": [1, 2],
        "COUNTS": {"Car": 15},
        "_BASE_CONFIG_": "kept by OpenPCDet",
    }
    section = parse_node(node, Section, path="S")
    assert section.anchors == [Anchor(class_name="Car", sizes=[[1.0, 2.0, 3.0]])]
    assert isinstance(section.lr, float) and section.sizes == (1.0, 2.0) and section.counts == {"Car": 15}
    assert parse_node({"ANCHORS": [], "STEPS": None}, Section).steps is None


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        ({"ANCHORS": [{"class_name": "Car"}]}, "S.ANCHORS[0].sizes: missing; Anchor needs it (list[list[float]])"),
        (
            {"ANCHORS": [{"class_name": "Car", "sizes": [[1, "x"]]}]},
            "S.ANCHORS[0].sizes[0][1]: expected float, got 'x' (str)",
        ),
        (
            {"ANCHORS": [{"class_name": "Car", "sizes": [], "size": []}]},
            "S.ANCHORS[0].size: Anchor has no such key; did you mean sizes?",
        ),
        (
            {"ANCHORS": [{"class_name": "Car", "sizes": [], "stride": 0}]},
            "S.ANCHORS[0].STRIDE: must be positive, got 0",
        ),
        ({"ANCHORS": [3]}, "S.ANCHORS[0]: expected a mapping with the keys of Anchor, got 3 (int)"),
        ({"ANCHORS": 3}, "S.ANCHORS: expected list[Anchor], got 3 (int)"),
        ({"ANCHORS": [], "LR": True}, "S.LR: expected float, got True (bool)"),
        (
            {"ANCHORS": [], "LR": "1e-7"},
            "S.LR: expected float, got '1e-7' (str); YAML reads this as text, write 1.0e-07",
        ),
        ({"ANCHORS": [], "LR": None}, "S.LR: expected float, got null"),
        ({"ANCHORS": [], "LR": "3"}, "S.LR: expected float, got '3' (str); YAML reads this as text, write 3.0"),
        (
            {"ANCHORS": [], "COUNTS": {"Car": "16"}},
            "S.COUNTS.Car: expected int, got '16' (str); YAML reads this as text, write 16",
        ),
        ({"ANCHORS": [], "COUNTS": {"Car": "1.5"}}, "S.COUNTS.Car: expected int, got '1.5' (str)"),
        ({"ANCHORS": [], "COUNTS": {"Car": "inf"}}, "S.COUNTS.Car: expected int, got 'inf' (str)"),
        ({"ANCHORS": [], "STEPS": 3}, "S.STEPS: expected list[int] or null, got 3 (int)"),
        ({"ANCHORS": [], "STEPS": [1.5]}, "S.STEPS[0]: expected int, got 1.5 (float)"),
        ({"ANCHORS": [], "MODE": "tst"}, "S.MODE: must be one of 'train', 'test'; got 'tst' (str)"),
        ({"ANCHORS": [], "SIZES": [1]}, "S.SIZES: expected 2 items (tuple[float, float]), got [1] (list)"),
        ({"ANCHORS": [], "COUNTS": {"Car": "x"}}, "S.COUNTS.Car: expected int, got 'x' (str)"),
        ({"ANCHORS": [], "COUNTS": 1}, "S.COUNTS: expected dict[str, int], got 1 (int)"),
        ({"ANCHORS": [], "LR": 1, "lr": 2}, "S.lr: given twice, in different spellings"),
        ({"ANCHORS": [], "ASSIGNER": {"NAME": "a"}}, "S.ASSIGNER.NAME: unknown assigner 'a'; none are known"),
    ],
)
def test_a_schema_names_what_is_wrong(node, problem):
    with pytest.raises(ConfigError) as caught:
        parse_node(node, Section, path="S")
    assert caught.value.problems == [problem]


def test_a_schemas_own_rules_are_checked_beside_unknown_keys():
    with pytest.raises(ConfigError) as caught:
        parse_node({"class_name": "Car", "sizes": [], "stride": 0, "x": 1}, Anchor, path="A")
    assert [p.split(":")[0] for p in caught.value.problems] == ["A.x", "A.STRIDE"]


def test_a_schemas_own_complaint_may_begin_with_a_path():
    with pytest.raises(ConfigError) as caught:
        parse_node({"class_name": "Car", "sizes": [], "stride": 99}, Anchor, path="A")
    assert caught.value.problems == ["A.STRIDE.X[0]: too much", "A: far too much: really"]


def test_an_absent_node_lacks_the_required_keys():
    with pytest.raises(ConfigError, match="ANCHORS: missing"):
        parse_node(None, Section)


def test_known_keys_are_those_of_the_file():
    assert known_keys(Backbone) == {"LAYER_NUMS": "list[int]", "NUM_FILTERS": "list[int]", "DROPOUT": "float"}


def test_a_config_error_survives_pickling():
    error = pickle.loads(pickle.dumps(ConfigError(["a: 1", "b: 2"])))
    assert error.problems == ["a: 1", "b: 2"]
