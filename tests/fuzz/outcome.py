"""What may come of one input, and the judgement of a call by what it promises."""

from __future__ import annotations

import os
import re
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuzz.target import Target

OK, REFUSED, WRONG, CRASH, HANG, MEMORY = KINDS = ("ok", "refused", "wrong", "crash", "hang", "memory")
FAILURES = (WRONG, CRASH, HANG, MEMORY)
_ACCIDENTAL = re.compile(r"'[^']*'|\"[^\"]*\"|0x[0-9a-f]+|\d+|/\S+", re.IGNORECASE)


@dataclass(frozen=True)
class Outcome:
    """What came of one input.

    Attributes:
        kind: ``ok``: accepted, and the value is sane; ``refused``: the documented error. All others are failures:
            ``wrong`` is another exception, a message without the file's name or a value that breaks a promise;
            ``crash``, ``hang`` and ``memory`` are what they say.
        reason: for people.
        place: where an exception that is a failure came from.
    """

    kind: str
    reason: str = ""
    place: str = ""

    @property
    def failed(self) -> bool:
        """Whether this is to be reported."""
        return self.kind in FAILURES

    @property
    def shape(self) -> tuple[str, str]:
        """What outcomes of one cause share: where an exception came from, else the reason without its accidents."""
        return self.kind, self.place or _ACCIDENTAL.sub("_", self.reason)[:160]


def judge(target: Target, path: Path) -> Outcome:
    """Gives a file to a target's reader and says what came of it.

    Args:
        target: the reader, what it may raise, and what must hold of what it returns.
        path: the file; a refusal has to contain its name.
    """
    try:
        value = target.read(path)
    except target.refusals as error:
        return _refusal(target, path, error)
    except MemoryError as error:
        return _failure(MEMORY, "", error)
    except Exception as error:  # judged, not swallowed: every exception that is not documented is a failure
        return _failure(WRONG, "", error)
    try:
        target.check(value, path)
    except AssertionError as error:
        return Outcome(WRONG, f"accepted, but {error}")
    except Exception as error:
        return _failure(WRONG, "accepted, but then ", error)
    return Outcome(OK)


def _refusal(target: Target, path: Path, error: BaseException) -> Outcome:
    if _out_of_memory(error):
        return _failure(MEMORY, "", error)
    text = str(error)
    if "INTERNAL ASSERT" in text:
        return _failure(WRONG, "", error)
    if target.names_file and path.name not in text:
        return _failure(WRONG, "the message does not name the file: ", error)
    return Outcome(REFUSED, text)


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether an error came of a MemoryError, also of one that it hides."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _failure(kind: str, begin: str, error: BaseException) -> Outcome:
    name, place = type(error).__name__, _place(error)
    return Outcome(kind, f"{begin}{name}: {str(error)[:300]} ({place})", f"{begin}{name} {place}")


def _place(error: BaseException) -> str:
    """The innermost line of the project, and the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}pcdet{os.sep}" in frame.filename]
    ends = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in (*own[-1:], *frames[-1:])]
    return ", ".join(dict.fromkeys(ends))
