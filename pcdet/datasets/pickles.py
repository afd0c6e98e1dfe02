"""Info and database files: pickles of plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pcdet.datasets.errors import DataError
from pcdet.utils import safe_pickle


def read_pickle(path: str | Path) -> Any:
    """What a pickle of plain data holds.

    Raises:
        DataError: the file is damaged, no pickle, or asks for more than plain data.
        OSError: there is no such file.
    """
    try:
        return safe_pickle.load(path)
    except safe_pickle.UnsafePickleError as error:
        raise DataError(f"{error}; make it again with the tool that wrote it") from error
