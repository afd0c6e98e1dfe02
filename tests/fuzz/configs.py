"""Target: YAML configurations."""

from __future__ import annotations

from pathlib import Path

import openpcdet_files
import yaml
from easydict import EasyDict
from hypothesis import strategies as st

from fuzz.target import Target
from pcdet.config import ConfigError, cfg_from_yaml_file

KEYS = (
    *("CLASS_NAMES", "DATA_CONFIG", "MODEL", "OPTIMIZATION", "_BASE_CONFIG_", "NAME", "DATA_PROCESSOR", "VOXEL_SIZE"),
    *("POINT_CLOUD_RANGE", "DENSE_HEAD", "BACKBONE_2D", "NUM_FILTERS", "LAYER_STRIDES", "KD", "DATASET", "WIDTH"),
)


def _whole(config: dict) -> bytes:
    """A model's configuration with its data set's in it, so that it needs no other file."""
    config["DATA_CONFIG"] = {**openpcdet_files._kitti(), **config["DATA_CONFIG"]}
    config["DATA_CONFIG"].pop("_BASE_CONFIG_", None)
    return yaml.safe_dump(config, sort_keys=False).encode()


def _seeds() -> list[bytes]:
    """Short ones: PyYAML reads a kilobyte in some milliseconds."""
    return [yaml.safe_dump(openpcdet_files._kitti()).encode(), _whole(openpcdet_files._pointpillar())]


def _odd_values():
    leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(KEYS))
    keys = st.one_of(st.sampled_from(KEYS), st.text(max_size=3))
    return st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


def _nodes(tree, path=()):
    """Every key and index of a configuration, as paths."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from _nodes(value, (*path, key))


def _structure():
    """Valid configurations of which one to three nodes have another value, are gone, or are called otherwise."""
    texts = [*_seeds(), _whole(openpcdet_files._second_multihead()), _whole(openpcdet_files._pointrcnn())]
    paths = [list(_nodes(yaml.safe_load(text))) for text in texts]

    @st.composite
    def changed(draw):
        i = draw(st.integers(0, len(texts) - 1))
        config = yaml.safe_load(texts[i])
        for path in draw(st.lists(st.sampled_from(paths[i]), min_size=1, max_size=3)):
            node = config
            for key in path[:-1]:
                node = node[key] if isinstance(node, (dict, list)) and _has(node, key) else None
            if not isinstance(node, (dict, list)) or not _has(node, path[-1]):
                continue
            how = draw(st.sampled_from(["value", "value", "value", "gone", "renamed"]))
            if how == "value":
                node[path[-1]] = draw(_odd_values())
            else:
                value = node.pop(path[-1])
                if how == "renamed" and isinstance(node, dict):
                    node[draw(st.one_of(st.sampled_from(KEYS), st.text(max_size=4)))] = value
        return yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode()

    return changed()


def _has(node, key) -> bool:
    return key in node if isinstance(node, dict) else isinstance(key, int) and key < len(node)


def _read(path: Path) -> EasyDict:
    return cfg_from_yaml_file(path, EasyDict())


def _check(config: EasyDict, path: Path) -> None:
    assert repr(_read(path)) == repr(config), "a second reading differs"


TARGETS = [
    Target(
        name="yaml_config",
        folder="configs",
        suffix=".yaml",
        read=_read,
        refusals=(ConfigError,),  # its problems begin with the path of the key; who opened the file puts it before them
        names_file=False,
        seeds=_seeds,
        structure=_structure,
        check=_check,
        tokens=(
            *(
                b"&a ",
                b"*a",
                b"<<: ",
                b"!!python/object:os.system",
                b"!!binary ",
                b"!!set ",
                b"? ",
                b": ",
                b"- ",
                b"|\n",
            ),
            *(b"{", b"}", b"[", b"]", b"---\n", b"null", b"~", b".nan", b".inf", b"2001-01-01", b"0o7", b"1:30", b"\t"),
            *(key.encode() + b": " for key in KEYS),
            b"\xef\xbb\xbf",
        ),
        modules=("pcdet.config.yaml_files", "yaml.scanner", "yaml.composer"),
        text=True,
    )
]
