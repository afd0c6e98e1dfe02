"""Text files as people's editors leave them: UTF-8, with or without a byte order mark."""

from __future__ import annotations

from pathlib import Path

BOM = b"\xef\xbb\xbf"
UTF_16_BOMS = (b"\xff\xfe", b"\xfe\xff")


class TextFileError(ValueError):
    """A file is not UTF-8 text; the message names the file and what to do."""


def read_text(path: str | Path) -> str:
    """The content of a UTF-8 file, without the byte order mark that some editors put before it. Line ends stay.

    Raises:
        TextFileError: the file is UTF-16 or UTF-32, or not text at all.
        OSError: there is no such file, or it cannot be read.
    """
    data = Path(path).read_bytes()
    if data.startswith(UTF_16_BOMS) or b"\0" in data:
        raise TextFileError(f"{path} is not a text file in UTF-8 (UTF-16, or not text); save it as UTF-8")
    try:
        return data.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TextFileError(
            f"{path}, line {line}: not a text file in UTF-8 ({error.reason}, byte {error.start}); save it as UTF-8"
        ) from None
