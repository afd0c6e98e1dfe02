"""Targets: info, database and result pickles, journals and sums."""

from __future__ import annotations

import collections
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fuzz.programs import program
from fuzz.target import Target
from pcdet.datasets.progress_log import ProgressLog
from pcdet.utils import safe_pickle
from pcdet.utils.safe_files import DamagedFileError, sha256_of, verify

PLAIN = (str, bytes, bytearray, bool, int, float, complex, type(None), np.generic, np.dtype)
OPCODES = [value.encode("latin1") for name, value in vars(pickle).items() if name.isupper() and isinstance(value, str)]
OPCODES += [value for name, value in vars(pickle).items() if name.isupper() and isinstance(value, bytes)]
GLOBALS = (
    *("numpy ndarray", "numpy dtype", "numpy.core.multiarray _reconstruct", "numpy._core.multiarray scalar"),
    *(
        "numpy._core.numeric _frombuffer",
        "collections OrderedDict",
        "_codecs encode",
        "builtins bytearray",
        "os system",
    ),
    *("builtins set", "builtins complex", "builtins bytes", "builtins getattr", "numpy.core.multiarray scalar"),
)
TOKENS = (
    *OPCODES,
    *(b"c" + name.replace(" ", "\n").encode() + b"\n" for name in GLOBALS),
    *(
        b"r\xff\xff\xff\xff",
        b"r\xff\xff\xff\x7f",
        b"B\xff\xff\xff\x7f",
        b"X\xff\xff\xff\xff",
        b"\x8a\x08" + 8 * b"\xff",
    ),
    *(b"(tR", b"(dR", b"}b", b"Nb", b"\x80\x02", b"\x80\x05", b"q\x00h\x00", b"0", b"2", b"."),
)


def infos() -> list[dict]:
    """Infos of two frames, as ``create_kitti_infos`` makes them."""
    names = np.array(["Car", "DontCare"])
    annos = {"name": names, "bbox": np.zeros((2, 4), np.float32), "location": np.ones((2, 3)), "score": np.zeros(2)}
    calib = {"P2": np.eye(4), "R0_rect": np.eye(4), "Tr_velo_to_cam": np.eye(4)}
    image = {"image_idx": "000000", "image_shape": np.array([370, 1224], np.int32), "image_shape_source": "image"}
    frame = {"point_cloud": {"num_features": 4, "lidar_idx": "000000"}, "image": image, "calib": calib, "annos": annos}
    return [frame, {**frame, "annos": {"name": np.array([], "<U1"), "score": np.float64(1.5)}}]


def _values():
    arrays = st.one_of(
        hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, min_side=0, max_side=4)),
        hnp.arrays(hnp.unicode_string_dtypes(), hnp.array_shapes(min_dims=0, max_dims=1)),
        st.lists(st.one_of(st.none(), st.integers()), max_size=3).map(lambda v: np.array(v, dtype=object)),
    )
    leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), arrays)
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.tuples(inner, inner),
            st.dictionaries(st.text(max_size=4), inner, max_size=3),
            st.dictionaries(st.text(max_size=4), inner, max_size=3).map(collections.OrderedDict),
            st.frozensets(st.integers(), max_size=3),
        ),
        max_leaves=8,
    )


def _pickles():
    return st.tuples(_values(), st.integers(0, pickle.HIGHEST_PROTOCOL)).map(lambda pair: pickle.dumps(*pair))


def require_plain(value: Any, depth: int = 0) -> None:
    """AssertionError where something is not plain data."""
    assert depth < 200, "containers are nested too deeply to walk"
    if type(value) in (list, tuple, set, frozenset):
        for item in value:
            require_plain(item, depth + 1)
    elif type(value) in (dict, collections.OrderedDict):
        for key, item in value.items():
            require_plain(key, depth + 1)
            require_plain(item, depth + 1)
    elif type(value) is np.ndarray:
        assert value.flags.writeable, "an array cannot be written to"
        if value.dtype.hasobject:
            require_plain(value.ravel().tolist(), depth + 1)
        else:
            value.tobytes()  # touches all of it
    else:
        assert isinstance(value, PLAIN), f"it holds a {type(value).__name__}"
        assert not type(value).__module__.startswith(("pcdet", "fuzz")), f"it holds a {type(value).__name__}"


def _check_pickle(value: Any, path: Path) -> None:
    require_plain(value)


CONTROL = safe_pickle.dumps({"scalar": np.float64(1.5), "array": np.arange(3), "order": collections.OrderedDict(a=1)})


def _load(path: Path) -> Any:
    """Reads a file, then one of known content: no file may change how the next one is read."""
    try:
        return safe_pickle.load(path)
    finally:
        again = safe_pickle.loads(CONTROL)
        sound = again["scalar"] == 1.5 and again["array"].tolist() == [0, 1, 2] and again["order"]["a"] == 1
        if not sound:
            raise RuntimeError(f"the file has changed how others are read: {again}")


# ------------------------------------------------------------------------------------------------- journals and sums


def _journal() -> bytes:
    record = {"version": 1, "signature": [(1, 2)], "info": infos()[0], "objects": []}
    return b"".join(safe_pickle.dumps({**record, "frame": f"{i:06d}"}) for i in range(2))


def _journals():
    """Streams of records, of which some are others than a journal has."""
    entries = st.fixed_dictionaries(
        {}, optional={"version": st.just(1), "frame": st.one_of(st.just("000000"), _values())}
    )
    record = st.one_of(entries, entries, _values()).map(lambda value: pickle.dumps(value, 3))
    return st.lists(record, max_size=3).map(lambda records: _journal() + b"".join(records))


def _check_journal(records: dict, path: Path) -> None:
    assert isinstance(records, dict), f"records are a {type(records).__name__}"
    for frame, record in records.items():
        require_plain(record)
        assert record["frame"] == frame, "a record stands under another frame's name"
    assert list(ProgressLog(path, 1).read()) == list(records), "read again after the cut, the records differ"


def _sum(folder: Path, name: str) -> Path:
    (folder / "model.pth").write_bytes(b"abc")
    return folder / "model.pth.sha256"


def _seed_sum() -> list[bytes]:
    return [f"{sha256_of_text()}  model.pth\n".encode(), b"0" * 64 + b"  model.pth\n"]


def sha256_of_text() -> str:
    """The sum of the file that lies beside the fuzzed one."""
    import hashlib

    return hashlib.sha256(b"abc").hexdigest()


def _check_sum(found: bool, path: Path) -> None:
    assert found and sha256_of(path.with_suffix("")) in path.read_text(errors="replace").lower(), (
        "a sum that does not match is accepted"
    )


PICKLE = {"folder": "pickles", "suffix": ".pkl", "refusals": (safe_pickle.UnsafePickleError,), "check": _check_pickle}
MODULES = tuple(f"pcdet.utils.{name}" for name in ("safe_pickle", "pickle_scan", "pickle_arrays", "pickle_values"))
PICKLE |= {"read": _load, "tokens": TOKENS, "modules": MODULES, "memory": 512}
TARGETS = [
    Target(
        name="info_pickle",
        seeds=lambda: [safe_pickle.dumps(infos()), *(pickle.dumps(infos(), protocol) for protocol in (0, 2, 4, 5))],
        structure=_pickles,
        draw=lambda rng: program(rng, GLOBALS),
        **PICKLE,
    ),
    Target(
        name="database_pickle",
        seeds=lambda: [
            safe_pickle.dumps({"Car": [{"name": "Car", "box3d_lidar": np.zeros(7), "num_points_in_gt": 5}]})
        ],
        **PICKLE,
    ),
    Target(
        name="result_pickle",
        seeds=lambda: [pickle.dumps([{**infos()[0]["annos"], "frame_id": "000000", "boxes_lidar": np.zeros((2, 7))}])],
        **PICKLE,
    ),
    Target(
        name="info_journal",
        folder="journals",
        suffix=".journal",
        read=lambda path: ProgressLog(path, 1).read(),
        refusals=(),
        seeds=lambda: [_journal()],
        structure=_journals,
        check=_check_journal,
        tokens=TOKENS,
        modules=("pcdet.datasets.progress_log", *MODULES),
        memory=512,
    ),
    Target(
        name="sha256_sum",
        folder="sums",
        suffix=".sha256",
        read=lambda path: verify(path.with_suffix("")),
        place=_sum,
        refusals=(DamagedFileError,),
        seeds=_seed_sum,
        check=_check_sum,
        tokens=(b"\\", b"  ", b" *", b"\n", b"\xef\xbb\xbf"),
        modules=("pcdet.utils.safe_files",),
        text=True,
    ),
]
