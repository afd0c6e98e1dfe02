import collections
import os
import pickle

import numpy as np
import pytest

from pcdet.utils import safe_pickle
from pcdet.utils.safe_pickle import UnsafePickleError

PLAIN = {
    "array": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "big endian": np.arange(3, dtype=">f4"),
    "names": np.array(["Car", "Pedestrian"]),
    "no names": np.array([], dtype="<U1"),
    "objects": np.array(["x", None, np.float32(3), [1]], dtype=object),
    "empty": np.zeros((0, 7)),
    "zero-dimensional": np.array(3),
    "bool": np.bool_(True),
    "float64": np.float64(2.5),
    "text": np.str_("Car"),
    "int": 5,
    "huge": 10**40,
    "bytes": b"abc",
    "no bytes": b"",
    "bytearray": bytearray(b"a\xff"),
    "list": [1, (2, 3), None, True],
    "set": {1, 2},
    "frozen": frozenset({3}),
    "complex": 1 + 2j,
    "ordered": collections.OrderedDict(a=1),
    np.str_("numpy key"): 1.5,
}


def same(a, b):
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and all(map(same_item, a.ravel(), b.ravel()))
    return a == b


def same_item(a, b):
    return a == b


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_back_from_every_protocol(protocol):
    read = safe_pickle.loads(pickle.dumps(PLAIN, protocol=protocol))
    assert list(read) == list(PLAIN)
    for key, value in PLAIN.items():
        assert type(read[key]) is type(value), key
        assert same(read[key], value), key
        if isinstance(value, np.ndarray):
            assert read[key].flags.writeable, key


def test_what_is_shared_stays_shared():
    array = np.arange(3)
    read = safe_pickle.loads(pickle.dumps([array, array]))
    assert read[0] is read[1]


def test_files_of_numpy_1_and_of_python_2_are_read():
    # by hand: what numpy 1.x writes is the same but for the module's name
    new = pickle.dumps(np.arange(3, dtype=np.int32), protocol=2)
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    np.testing.assert_array_equal(safe_pickle.loads(old), [0, 1, 2])
    # Python 2 wrote an array's bytes as a string
    python_2 = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\ntcnumpy\ndtype\n(S'i2'\nI0\n"
        b"I1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x01\\x00\\xff\\x00'\ntb."
    )
    np.testing.assert_array_equal(safe_pickle.loads(python_2), np.array([1, 255], dtype=np.int16))


def test_what_we_write_both_numpys_read(tmp_path):
    path = tmp_path / "infos.pkl"
    safe_pickle.dump(PLAIN, path)
    assert b"numpy._core" not in path.read_bytes()
    with open(path, "rb") as stream:
        assert list(pickle.load(stream)) == list(PLAIN)  # the ordinary reader, as OpenPCDet uses it
    assert list(safe_pickle.load(path)) == list(PLAIN)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["infos.pkl", "infos.pkl.sha256"]


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, eval, exec, open, print, np.load, pickle.loads])
def test_functions_are_refused_by_name(function, tmp_path):
    marker = tmp_path / "ran"
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"infos": [Attack(function, f"touch {marker}")]}))
    with pytest.raises(UnsafePickleError, match=rf"evil.pkl cannot be read safely: it asks for .*{function.__name__}"):
        safe_pickle.load(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(2, dtype=[("a", "O")]),  # a structured dtype could forge pointers
        np.zeros(2, dtype=[("a", "f4")]),
        np.datetime64("2020-01-01"),
        np.dtype("m8[s]"),
        pickle.PickleBuffer,
        Attack,
        np.float64,
        range(3),
    ],
)
def test_other_types_are_refused(value):
    with pytest.raises(UnsafePickleError):
        safe_pickle.loads(pickle.dumps(value))


def array_state(*state):
    """A pickle that makes an array of the given state, whatever it is."""

    class Forged:
        def __reduce__(self):
            reconstruct = np.array([1]).__reduce__()[0]
            return reconstruct, (np.ndarray, (0,), b"b"), state

    return pickle.dumps(Forged())


F8 = np.dtype("<f8")


@pytest.mark.parametrize(
    "state",
    [
        (1, (1000,), F8, False, b"12345678"),  # more elements than bytes
        (1, (-1,), F8, False, b"12345678"),
        (1, ("a",), F8, False, b"12345678"),
        (1, (1,), "f8", False, b"12345678"),
        (1, (1,), F8, False, [1.0]),
        (1, (2,), np.dtype(object), False, [1]),
        (1, (1,), np.dtype(object), False, b"12345678"),  # bytes as pointers
        (1, (1,), F8, False),
        "text",
    ],
)
def test_forged_arrays_are_refused(state):
    with pytest.raises(UnsafePickleError):
        safe_pickle.loads(array_state(*state) if isinstance(state, tuple) else array_state(state))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a pickle",
        pickle.dumps(list(range(1000)))[:-20],
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"c__builtin__\nbytes\n(I100000000000\ntR.",
        b"cnumpy\nndarray\n((I10\ntI00\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n)R.",
        b"cnumpy.core.multiarray\nscalar\n(I1\ntR.",
        b"cnumpy\ndtype\n(S'V8'\ntR.",
        b"c_codecs\nencode\n(V\x61\nS'zlib'\ntR.",
        b"Pabc\n.",
        b"0.",
    ],
)
def test_damaged_and_strange_files_end_in_one_kind_of_error(data):
    with pytest.raises(UnsafePickleError):
        safe_pickle.loads(data)


def test_endless_nesting_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(UnsafePickleError, match="nested deeper"):
        safe_pickle.loads(pickle.dumps(loop))


def test_a_stream_of_pickles_ends_with_eof(tmp_path):
    path = tmp_path / "stream"
    path.write_bytes(safe_pickle.dumps(1) + safe_pickle.dumps([2]))
    with open(path, "rb") as stream:
        assert safe_pickle.load(stream) == 1
        assert safe_pickle.load(stream) == [2]
        with pytest.raises(EOFError):
            safe_pickle.load(stream)


@pytest.mark.parametrize(
    "name",
    [
        "cnumpy\ndtype\n",
        "cnumpy.core.multiarray\nscalar\n",
        "cnumpy.core.multiarray\n_reconstruct\n",
        "cnumpy\nndarray\n",
    ]
    + [f"c__builtin__\n{name}\n" for name in ("set", "frozenset", "complex", "bytes", "bytearray")]
    + ["ccollections\nOrderedDict\n", "c_codecs\nencode\n"],
)
@pytest.mark.parametrize(
    "state", [b"}X\x07\0\0\0resolveNs", b"N}X\x07\0\0\0resolveNs\x86", b"N}X\x08\0\0\0__call__Ns\x86"]
)
def test_no_file_changes_how_the_next_one_is_read(name, state):
    """BUILD, the instruction that sets an object's state, on the names themselves."""
    sample = {"scalar": np.float32(3), "array": np.arange(3), "set": {1}, "ordered": collections.OrderedDict(a=1 + 2j)}
    with pytest.raises(UnsafePickleError, match="changes what it names"):
        safe_pickle.loads(b"\x80\x02" + name.encode() + state + b"b.")
    read = safe_pickle.loads(pickle.dumps(sample, protocol=2))
    assert all(same(read[key], value) and type(read[key]) is type(value) for key, value in sample.items())


@pytest.mark.parametrize(
    "key", ["text", b"bytes", 1, -(2**62), 1.5, True, None, (1, "a"), (), np.str_("a"), np.int64(3)]
)
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_flat_keys_are_read(key, protocol):
    for data in ({key: 1}, {key}, frozenset([key]), collections.OrderedDict([(key, 1)])):
        read = safe_pickle.loads(pickle.dumps(data, protocol=protocol))
        assert read == data and type(next(iter(read))) is type(key)


@pytest.mark.parametrize("key", [((1,), 2), frozenset([1]), 10**30, "a" * 2000, tuple(range(9)), 1j], ids=str)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_other_keys_are_refused_before_they_are_hashed(key, protocol):
    for data in ({key: 1}, {key}, frozenset([key])):
        with pytest.raises(UnsafePickleError, match="a key or an element of a set"):
            safe_pickle.loads(pickle.dumps(data, protocol=protocol))


@pytest.mark.parametrize("size", [10, 1 << 16, 3 << 16])
def test_a_stream_is_left_behind_each_record_however_long(tmp_path, size):
    path = tmp_path / "stream"
    path.write_bytes(b"".join(safe_pickle.dumps([i, b"x" * size]) for i in range(3)))
    with open(path, "rb") as stream:
        for i in range(3):
            assert safe_pickle.load(stream) == [i, b"x" * size]
        with pytest.raises(EOFError):
            safe_pickle.load(stream)
    with open(path, "ab") as stream:
        stream.truncate(path.stat().st_size - 5)
    with open(path, "rb") as stream:
        safe_pickle.load(stream), safe_pickle.load(stream)
        with pytest.raises(UnsafePickleError, match="stream is cut short"):
            safe_pickle.load(stream)


def test_a_file_is_checked_against_the_sum_that_was_written_with_it(tmp_path):
    path = tmp_path / "infos.pkl"
    safe_pickle.dump([1, 2], path)
    first = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    safe_pickle.dump([1, 2], path)
    assert first == {file.name: file.read_bytes() for file in tmp_path.iterdir()}  # equal data, equal bytes
    path.write_bytes(pickle.dumps([1, 3]))
    with pytest.raises(UnsafePickleError, match=r"infos.pkl .* is damaged: its SHA-256 .* delete .*infos.pkl.sha256"):
        safe_pickle.load(path)
    (tmp_path / "infos.pkl.sha256").unlink()
    assert safe_pickle.load(path) == [1, 3]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_that_are_read_in_one_step_are_read_as_others_and_cut_ones_are_refused(protocol):
    shapes = [(4, 4), (4, 4), (3,), (300,), (2, 0), (2, 3, 4), (4, 4)]
    arrays = [np.arange(np.prod(shape), dtype=np.float64).reshape(shape) for shape in shapes]
    frames = [{"a": arrays[0], "b": arrays}, {"a": arrays[0] * 2, "b": arrays[1:], "c": "text"}]
    written = pickle.dumps(frames, protocol=protocol)
    read = safe_pickle.loads(written)
    for got, expected in zip(read, frames, strict=True):
        np.testing.assert_array_equal(got["a"], expected["a"])
        for ours, theirs in zip(got["b"], expected["b"], strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.shape == theirs.shape
    assert read[0]["a"] is read[0]["b"][0]
    for end in range(0, len(written), 7):
        with pytest.raises(safe_pickle.UnsafePickleError):
            safe_pickle.loads(written[:end])


def test_numbers_of_the_memo_that_stand_for_nothing_are_refused():
    array = pickle.dumps([np.eye(4), np.eye(4)], protocol=4)
    again = array.rindex(b"h\x03h\x06K\x00\x85\x94")  # the second array refers to the first one's names
    for forged in (b"h\xf0h\x06", b"h\x03h\xf0"):
        with pytest.raises(safe_pickle.UnsafePickleError):
            safe_pickle.loads(array[:again] + forged + array[again + 4 :])
    assert safe_pickle.loads(b"\x80\x02]q\x05h\x05.") == []  # a gap before the fifth does no harm
    with pytest.raises(safe_pickle.UnsafePickleError):
        safe_pickle.loads(b"\x80\x02]q\x05h\x04.")


FORMS = {"ours": safe_pickle.dumps, **{f"protocol {p}": lambda v, p=p: pickle.dumps(v, protocol=p) for p in range(6)}}


@pytest.mark.parametrize("form", FORMS)
def test_many_arrays_of_a_form_come_back_one_by_one(form):
    rng = np.random.default_rng(0)
    kinds = ("<f8", ">f8", "<f4", "<i8", "|b1", "<U3", "|S2", "<c16")
    frames = []
    for number in range(40):
        arrays = [np.frombuffer(rng.bytes(36 * 64), dtype=kind)[:12].reshape(4, 3) for kind in kinds if kind != "<U3"]
        arrays += [np.array(["a", "bcd", str(number % 10)]), np.asfortranarray(rng.normal(size=(2, 3)))]
        arrays += [np.zeros((0, 7)), np.array([None, number], dtype=object), rng.normal(size=(2, 3, 4))]
        frames.append({"number": number, "arrays": arrays, "again": arrays[0]})
    for got, expected in zip(safe_pickle.loads(FORMS[form](frames)), frames, strict=True):
        assert got["number"] == expected["number"] and len(got["arrays"]) == len(expected["arrays"])
        for ours, theirs in zip([*got["arrays"], got["again"]], [*expected["arrays"], expected["again"]], strict=True):
            assert ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.flags.writeable
            assert ours.tobytes("A") == theirs.tobytes("A") if ours.dtype != object else same(ours, theirs)
            assert ours.flags.f_contiguous == theirs.flags.f_contiguous
        assert (got["again"] is got["arrays"][0]) == (form != "ours")


def test_a_change_of_one_array_leaves_the_others():
    read = safe_pickle.loads(safe_pickle.dumps([np.zeros(3), np.zeros(3), np.zeros(3)]))
    read[1] += 1
    assert [array.tolist() for array in read] == [[0] * 3, [1] * 3, [0] * 3]


ARRAY = safe_pickle.dumps(np.zeros(3))[2:-1]  # its instructions alone


@pytest.mark.parametrize(
    ("instructions", "problem"),
    [
        (ARRAY + b"}b", "changes a value"),  # BUILD: numpy's own __setstate__ would read any state
        (ARRAY + b"(K\x01K\x02\x85Ntb", "changes a value"),
        (ARRAY + b"q\x05h\x05}b", "changes a value"),
        (ARRAY + b"K\x00K\x01s", "changes a value"),
        (ARRAY + b"(K\x00K\x01u", "changes a value"),
        (b"}" + ARRAY + b"K\x01s", "a key"),
        (b"\x8f(" + ARRAY + b"\x90", "a key"),
        (b"}" + ARRAY + b"\x85K\x01s", "a key"),
        (ARRAY + b"K\x01a", "no attribute"),
        (ARRAY + b")R", "not callable"),
        (b"J\0\0\0\0Q", "outside the file"),  # what stands for an array that was taken out
        (ARRAY + b"J\0\0\0\0Q\x86", "outside the file"),
    ],
)
def test_arrays_that_are_made_together_cannot_be_used_for_more_than_arrays(instructions, problem):
    with pytest.raises(UnsafePickleError, match=problem):
        safe_pickle.loads(b"\x80\x04" + ARRAY + instructions + b"\x86.")


@pytest.mark.parametrize("where", [0, 1])
def test_an_array_with_too_little_data_is_refused_among_sound_ones(where):
    assert ARRAY[-28:] == b"C\x18" + bytes(24) + b"tb"
    short = ARRAY[:-28] + b"C\x17" + bytes(23) + b"tb"
    with pytest.raises(UnsafePickleError):
        safe_pickle.loads(b"\x80\x04" + ARRAY * (1 - where) + short + ARRAY * where + b"\x86.")


def test_a_file_that_uses_an_arrays_parts_apart_from_it_is_read_one_by_one():
    pair = pickle.dumps([np.arange(3.0), np.arange(1, 4.0)], protocol=4)
    of_its_bytes = pair.count(b"\x94") - 2  # the last but one that is remembered
    read = safe_pickle.loads(pair[:-2] + b"h" + bytes([of_its_bytes]) + pair[-2:])
    assert read[2] == np.arange(1, 4.0).tobytes()
    assert [array.tolist() for array in read[:2]] == [[0, 1, 2], [1, 2, 3]]


def test_a_pickle_that_ends_within_a_frame_is_refused():
    sound = pickle.dumps([np.zeros(3)] * 2, protocol=4)
    assert sound[2:3] == b"\x95"
    with pytest.raises(UnsafePickleError, match="within a frame"):
        safe_pickle.loads(sound[:3] + (len(sound) - 10).to_bytes(8, "little") + sound[11:] + b"..")
