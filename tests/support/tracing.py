"""Which functions of the package a piece of code runs through, in order."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from pathlib import Path
from types import CodeType

REPO_ROOT = Path(__file__).resolve().parents[2]
PACKAGE = str(REPO_ROOT / "pcdet") + "/"


class Trace:
    """Context that notes every function of pcdet that is entered and left in this thread, each at its first time.

    Attributes:
        entered: code -> its place in the order of first calls.
        left: code -> its place in the order of first returns.
    """

    def __enter__(self) -> Trace:
        self.entered: dict[CodeType, int] = {}
        self.left: dict[CodeType, int] = {}
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame, event: str, _arg: object) -> None:
        order = {"call": self.entered, "return": self.left}.get(event)
        if order is not None and frame.f_code.co_filename.startswith(PACKAGE):
            order.setdefault(frame.f_code, len(order))

    def files(self) -> list[str]:
        """Files of the package, as paths in the repository, in the order in which they were first entered."""
        return list(dict.fromkeys(str(Path(code.co_filename).relative_to(REPO_ROOT)) for code in self.entered))


def code_of(file: str, name: str) -> CodeType:
    """The code of a function or method: ``pcdet/datasets/collate.py`` and ``collate_batch``.

    Raises:
        AttributeError: the file has no such function.
    """
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    function = functools.reduce(getattr, name.split("."), module)
    return inspect.unwrap(function).__code__
