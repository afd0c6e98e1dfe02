"""What is fuzzed: a reader, files it accepts, what it may raise and what must hold of what it returns."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz.simpler import shorter


def _nothing(value: Any, path: Path) -> None:
    """No promise beyond the call itself."""


def _same_folder(folder: Path, name: str) -> Path:
    return folder / name


@dataclass(frozen=True, kw_only=True)
class Target:
    """One reader or op.

    Attributes:
        name: unique; regression files begin with it.
        folder: of its regression files, below ``tests/regressions/fuzz``.
        suffix: of the files that it reads.
        read: the call under test, given a file.
        refusals: the errors it documents.
        seeds: makes files that it accepts, from which bytes are mutated.
        structure: makes a hypothesis strategy of files.
        draw: makes a random file, where hypothesis would take longer than the call itself.
        check: raises AssertionError where the value breaks a promise.
        names_file: whether a refusal must contain the file's name.
        tokens: words of the format, for the mutator.
        modules: in which coverage is followed, where it can be; few, for each child makes its functions anew.
        place: where in a folder the file has to lie; writes what else has to be there.
        simpler: candidates for a smaller input that may fail in the same way.
        text: whether regression files are text.
        seconds: processor time allowed to an input of no size; each MB adds as much.
        memory: MB by which the process may grow.
    """

    name: str
    folder: str
    suffix: str
    read: Callable[[Path], Any]
    refusals: tuple[type[Exception], ...]
    seeds: Callable[[], Sequence[bytes]] | None = None
    structure: Callable[[], Any] | None = None
    draw: Callable[[random.Random], bytes] | None = None
    check: Callable[[Any, Path], None] = _nothing
    names_file: bool = True
    tokens: Sequence[bytes] = ()
    modules: Sequence[str]
    place: Callable[[Path, str], Path] = _same_folder
    simpler: Callable[[bytes], Iterator[bytes]] = shorter
    text: bool = False
    seconds: float = 5.0
    memory: int = 1024

    def regression_name(self, data: bytes) -> str:
        """The name of the regression file of an input."""
        return f"{self.name}-{hashlib.sha256(data).hexdigest()[:8]}{'.txt' if self.text else '.bin'}"
