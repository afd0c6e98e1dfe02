"""The two forms of checkpoint files: zip archives, and what PyTorch wrote before 1.6.

Either is read without PyTorch's own readers, which trust sizes and offsets and leave the archive's sums unchecked.
"""

from __future__ import annotations

import os
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import torch

from pcdet.utils.checkpoint_tensors import StorageSet, read_tree
from pcdet.utils.pickle_scan import UnsafePickleError
from pcdet.utils.safe_pickle import parse_pickle

ZIP_START = b"PK\x03\x04"
LOCAL_HEADER = struct.Struct("<4s5H3I2H")
ENCRYPTED = 1  # bit of a header's flags
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
PICKLE = "data.pkl"


def read_zip(path: Path, device: torch.device) -> Any:
    """The content of a zip checkpoint.

    Raises:
        UnsafePickleError: a record is damaged, lies outside the file, is compressed, or holds what it should not.
        zipfile.BadZipFile: it is no zip archive, or its directory is damaged.
    """
    with open(path, "rb") as stream, zipfile.ZipFile(stream) as archive:
        records = _read_records(stream, archive)
    pickles = [name for name in records if name.count("/") == 1 and name.endswith(f"/{PICKLE}")]
    if len(pickles) != 1:
        raise UnsafePickleError(f"a checkpoint's archive has one {PICKLE}, this one has {len(pickles)}")
    folder = pickles[0].removesuffix(PICKLE)
    if f"{folder}constants.pkl" in records:
        raise UnsafePickleError("it is a TorchScript archive; save the model's state_dict instead")
    _check_byteorder(records.get(f"{folder}byteorder"))

    def fill(storages: StorageSet, _: int) -> None:
        for key, storage in storages.by_key.items():
            name = f"{folder}data/{key}"
            if name not in records:
                raise UnsafePickleError(f"its record {name} is missing")
            storage.fill(records[name], device)

    return read_tree(records[pickles[0]].numpy().tobytes(), 0, fill)


def _read_records(stream: BinaryIO, archive: zipfile.ZipFile) -> dict[str, torch.Tensor]:
    """The records of an archive, each (n,) uint8, once their sums are checked."""
    entries = archive.infolist()
    names = {entry.filename for entry in entries}
    if len(names) != len(entries):
        raise UnsafePickleError("two of its records have one name")
    if sum(entry.file_size for entry in entries) > os.fstat(stream.fileno()).st_size:
        raise UnsafePickleError("its records are announced larger than the file")
    # PyTorch can be told to leave the sums out; they are zero then, all of them.
    summed = any(entry.CRC for entry in entries)
    return {entry.filename: _read_record(stream, entry, archive.start_dir, summed) for entry in entries}


def _read_record(stream: BinaryIO, entry: zipfile.ZipInfo, end: int, summed: bool) -> torch.Tensor:
    name = entry.filename
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise UnsafePickleError(f"its record {name} is compressed, which PyTorch's are not")
    if entry.flag_bits & ENCRYPTED:
        raise UnsafePickleError(f"its record {name} is marked as encrypted")
    stream.seek(entry.header_offset)
    header = stream.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size:
        raise UnsafePickleError(f"its record {name} lies outside the file")
    start, _, flags, method, *_, name_size, extra_size = LOCAL_HEADER.unpack(header)
    if start != ZIP_START or method != zipfile.ZIP_STORED or flags != entry.flag_bits:
        raise UnsafePickleError(f"its record {name} has a damaged header")
    if stream.read(name_size) != entry.orig_filename.encode("utf-8" if flags & 0x800 else "cp437"):
        raise UnsafePickleError(f"its record {name} has another name in the directory")
    stream.seek(extra_size, os.SEEK_CUR)
    if stream.tell() + entry.file_size > end:
        raise UnsafePickleError(f"its record {name} lies outside the file")
    content = torch.empty(entry.file_size, dtype=torch.uint8, device="cpu")
    if stream.readinto(memoryview(content.numpy())) != entry.file_size:
        raise UnsafePickleError(f"its record {name} is cut short")
    if summed and zlib.crc32(content.numpy()) != entry.CRC:
        raise UnsafePickleError(f"its record {name} is damaged: it differs from its sum")
    return content


def _check_byteorder(record: torch.Tensor | None) -> None:
    order = sys.byteorder if record is None else record.numpy().tobytes().decode("ascii", "replace")
    if order != sys.byteorder:
        raise UnsafePickleError(f"its numbers are of byte order {order[:20]!r}, this machine's is {sys.byteorder!r}")


def read_legacy(path: Path, device: torch.device) -> Any:
    """The content of a checkpoint as PyTorch wrote them before 1.6: a few pickles, and the storages after them.

    Raises:
        UnsafePickleError: it is no such file, is damaged, or holds what it should not.
    """
    data = path.read_bytes()
    if data.startswith(ZIP_START):
        raise UnsafePickleError("it is cut short: the archive's directory, which is at its end, is missing")
    try:
        magic, position = parse_pickle(data)
    except UnsafePickleError as error:
        raise UnsafePickleError(f"it is no PyTorch file: {error}") from None
    if magic != LEGACY_MAGIC:
        raise UnsafePickleError("it is no PyTorch file")
    protocol, position = parse_pickle(data, position)
    system, position = parse_pickle(data, position)
    if protocol != LEGACY_PROTOCOL or not isinstance(system, dict):
        raise UnsafePickleError("it has an unknown version")
    if system.get("little_endian", True) is not (sys.byteorder == "little"):
        raise UnsafePickleError("its numbers are of another byte order than this machine's")
    return read_tree(data, position, lambda storages, end: _fill_legacy(data, end, storages, device))


def _fill_legacy(data: bytes, position: int, storages: StorageSet, device: torch.device) -> None:
    """Storages follow a list of their keys, each as a count of values and the values."""
    keys, position = parse_pickle(data, position)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise UnsafePickleError("its list of storages is damaged")
    if sorted(keys) != sorted(storages.by_key):
        raise UnsafePickleError("its list of storages names others than its tensors use")
    for key in keys:
        storage = storages.by_key[key]
        begin = position + 8
        position = begin + storage.size
        if position > len(data):
            raise UnsafePickleError("it is cut short")
        if int.from_bytes(data[begin - 8 : begin], "little") != storage.count:
            raise UnsafePickleError(f"its storage {key} is announced with another size")
        content = torch.empty(storage.size, dtype=torch.uint8, device="cpu")
        memoryview(content.numpy())[:] = memoryview(data)[begin:position]
        storage.fill(content, device)
    if position != len(data):
        raise UnsafePickleError(f"{len(data) - position} bytes follow its last storage")
