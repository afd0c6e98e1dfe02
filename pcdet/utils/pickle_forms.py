"""The forms in which pickles hold most of their arrays, each looked at in one step."""

from __future__ import annotations

import re
from typing import Protocol

# Most of an info file is arrays, and most of an array is the same for all: 15 to 40 instructions a step. ARRAY_HEAD
# leaves an array and a mark behind, DTYPE a dtype; ARRAY is both with the shape between them, up to the data.
# ARRAY_AGAIN is the same as ARRAY in files that refer back to what they have named before.
ARRAY_HEAD = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R("
DTYPE_TEXT = rb"cnumpy\ndtype\nX(?:\x02\0\0\0..|\x03\0\0\0...)\x89\x88\x87R\(K\x03X\x01\0\0\0.NNN(?:J....|K.){2}K.tb"
SHAPE = rb"(?:K.\x85|K.K.\x86|K.K.K.\x87)"
REFERENCE = rb"(?:h.|j....)"
DTYPE = re.compile(DTYPE_TEXT, re.DOTALL)
ARRAY = re.compile(re.escape(ARRAY_HEAD) + rb"K\x01" + SHAPE + DTYPE_TEXT + rb"[\x88\x89]", re.DOTALL)
REFERRED = re.compile(rb"h(.)|j(....)", re.DOTALL)
ARRAY_AGAIN = re.compile(
    rb"(%b%b)K\0\x85\x94(%b)\x87\x94R\x94\(K\x01%b\x94(%b)[\x88\x89]"
    % (REFERENCE, REFERENCE, REFERENCE, SHAPE, REFERENCE),
    re.DOTALL,
)
FORTRAN = ord("\x88")  # the instruction before the data of an array in that order: NEWTRUE
PLAIN_ENDING, MEMOIZED_ENDING = b"tb", b"\x94t\x94b"  # the instructions behind the data of ARRAY, ARRAY_AGAIN
REFERENCES = tuple(b"hj")  # BINGET, LONG_BINGET


class Arrays(Protocol):
    """What takes arrays out of a pickle, ``pickle_arrays.ArrayGroups``."""

    def first(self, form: bytes, data_size: int, ending: bytes, end: int, memoized: int = 0) -> None:
        """Tells an array of a new form."""

    def again(self, begin: int) -> int:
        """Where an array of a form that has been told ends; 0 where none begins."""

    def leave_out(self, begin: int, end: int) -> None:
        """Drops instructions."""
