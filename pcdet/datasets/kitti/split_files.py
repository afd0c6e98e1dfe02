"""Lists of frames: ``ImageSets/train.txt`` and its like."""

from __future__ import annotations

from pathlib import Path

from pcdet.datasets.errors import DataError
from pcdet.datasets.file_names import is_frame_name
from pcdet.utils.text_files import TextFileError, read_text


def read_split(path: str | Path) -> list[str]:
    """The names in a list of frames, in its order, one a line or several with blanks between them.

    Blank lines are passed over. There are no comments: a name that begins with # is refused.

    Raises:
        FileNotFoundError: there is no such list.
        DataError: it is empty or no text, a frame stands there twice, or a word is no name of a frame. All are named.
    """
    try:
        lines = read_text(path).splitlines()
    except TextFileError as error:
        raise DataError(str(error)) from None
    problems, first_line = [], {}
    for number, line in enumerate(lines, start=1):
        names = line.split()
        if any(name.startswith("#") for name in names):
            problems.append(f"{path}, line {number}: a list of frames has no comments, got {line[:60]!r}")
            continue
        for name in names:
            if not is_frame_name(name):
                problems.append(f"{path}, line {number}: must hold names of frames, such as 000123, got {name[:60]!r}")
            elif name in first_line:
                problems.append(
                    f"{path}, line {number}: lists frame {name} more than once (first in line {first_line[name]})"
                )
            else:
                first_line[name] = number
    if not problems and not first_line:
        problems.append(f"{path} is empty; it lists the frames of the split, one number a line")
    if problems:
        raise DataError(problems)
    return list(first_line)
