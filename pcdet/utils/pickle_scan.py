"""Looks through the instructions of a pickle before any is carried out.

Python's own reader trusts lengths, memo numbers and keys: seven bytes can take gigabytes, nested tuples as keys take
time that doubles with every level. What passes here is read in time and memory in proportion to its size. Only the kind
of every value is followed, not the value.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable

from pcdet.utils.pickle_forms import (
    ARRAY,
    ARRAY_AGAIN,
    ARRAY_HEAD,
    DTYPE,
    FORTRAN,
    MEMOIZED_ENDING,
    PLAIN_ENDING,
    REFERENCES,
    REFERRED,
    Arrays,
)

MAX_KEY_BYTES = 1024  # of one key: keys are compared again and again
MAX_KEY_TUPLE = 8  # values in a tuple that is a key
MAX_TUPLE_KEYS = 2000  # in a file: unlike those of strings, hashes of tuples can be made to collide
MAX_INT_BYTES = 128
MAX_LONG_LINE = 320  # digits of so large an integer, with a sign and an L

KEY, OTHER, TUPLE = 0, 1, 2  # may be a key; may not; a tuple of keys, which may be one and nothing deeper
ARRAY_MADE = 3  # by ``Arrays``: numpy's own, which no instruction may change
TAKEN, NOTHING = 254, 255  # at a number of the memo: part of an array that was taken out; nothing
PARTS_TAKEN = bytes((TAKEN, TAKEN, ARRAY_MADE, TAKEN, TAKEN, TAKEN))  # what ``ARRAY_AGAIN`` remembers


class UnsafePickleError(ValueError):
    """The file asks for something other than plain data, or is damaged."""


class CutShortError(UnsafePickleError):
    """The pickle goes on where the data end."""


class NotTakenError(Exception):
    """The pickle uses parts of arrays apart from them, so that arrays cannot be taken out of it."""


# What an instruction does, for those that make up most of a file; the number is explained beside each.
CONSTANT, MEMOIZE, COUNTED, PUT, GET, SHORT_TUPLE, MARK, REDUCE, TUPLE_TO_MARK, STOP, OTHER_CODE = range(11)
COMMON = {
    CONSTANT: {  # pushes a small value: bytes of its argument
        **{"NONE": 0, "NEWTRUE": 0, "NEWFALSE": 0, "EMPTY_TUPLE": 0},
        **{"BININT": 4, "BININT1": 1, "BININT2": 2, "BINFLOAT": 8},
    },
    MEMOIZE: {"MEMOIZE": 0},  # remembers the top of the stack
    COUNTED: {  # pushes a text or bytes: bytes of the length before it
        **{"BINUNICODE": 4, "SHORT_BINUNICODE": 1, "BINUNICODE8": 8, "BINBYTES": 4, "SHORT_BINBYTES": 1},
        **{"BINBYTES8": 8, "BINSTRING": 4, "SHORT_BINSTRING": 1, "BYTEARRAY8": 8},
    },
    PUT: {"BINPUT": 1, "LONG_BINPUT": 4},  # bytes of its index
    GET: {"BINGET": 1, "LONG_BINGET": 4},
    SHORT_TUPLE: {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3},  # values in it
    MARK: {"MARK": 0},
    REDUCE: {"REDUCE": 0},
    TUPLE_TO_MARK: {"TUPLE": 0},
    STOP: {"STOP": 0},
}
CODE_OF = {op.name: ord(op.code) for op in pickletools.opcodes}
BYTEARRAY8, GLOBAL = CODE_OF["BYTEARRAY8"], CODE_OF["GLOBAL"]
ACTIONS, ARGUMENTS = [OTHER_CODE] * 256, [0] * 256
for _action, _arguments in COMMON.items():
    for _name, _argument in _arguments.items():
        ACTIONS[CODE_OF[_name]], ARGUMENTS[CODE_OF[_name]] = _action, _argument


def end_of_pickle(data: bytes, start: int = 0, arrays: Arrays | None = None) -> int:
    """Where the pickle that begins at ``start`` ends, once every instruction of it has been looked at.

    Args:
        data: the pickle, and whatever follows it.
        start: its first byte.
        arrays: takes out of it the arrays of the usual forms.

    Raises:
        NotTakenError: ``arrays`` cannot do so.
        CutShortError: the data end before the pickle does.
        UnsafePickleError: an instruction that plain data do not need, a length or number beyond the data, a key that
            is no short text or number nor a tuple of a few, or no pickle at all.
    """
    scan = _Scan(data, start, arrays)
    try:
        end = scan.run()
    except (IndexError, KeyError):
        raise UnsafePickleError(f"its instructions make no sense at byte {scan.position}") from None
    if scan.frames_end > end:
        raise UnsafePickleError(f"it ends at byte {end}, within a frame that goes on to byte {scan.frames_end}")
    return end


class _Scan:
    """The kinds of the values on the stack, one list a mark, and of those that are remembered."""

    def __init__(self, data: bytes, start: int, arrays: Arrays | None):
        self.data, self.start, self.position, self.arrays = data, start, start, arrays
        self.stack: list[int] = []
        self.marks: list[list[int]] = []
        self.memo = bytearray()  # of kinds: files of millions of arrays remember millions of values
        self.gaps = 0  # numbers in it that stand for nothing
        self.known: set[bytes] = set()  # references of ``ARRAY_AGAIN`` that have been looked up
        self.tuple_keys = 0
        self.frames_end = 0  # of the frame that reaches farthest

    def run(self) -> int:
        data, size, stack, memo, position = self.data, len(self.data), self.stack, self.memo, self.position
        arrays = self.arrays
        while position < size:
            code = data[position]
            position += 1
            action, argument = ACTIONS[code], ARGUMENTS[code]
            if action == CONSTANT:
                position += argument
                stack.append(KEY)
            elif action == MEMOIZE:
                if self.gaps:
                    self.remember(len(memo) - self.gaps, stack[-1])
                else:
                    memo.append(stack[-1])
            elif action == SHORT_TUPLE:
                stack[-argument:] = (OTHER if any(stack[-argument:]) else TUPLE,)
            elif action == MARK:
                self.marks.append(stack)
                stack = []
            elif action == REDUCE:  # what we make for the file is a key by its identity, or none
                stack.pop()
                stack[-1] = KEY
            elif action == TUPLE_TO_MARK:
                kinds, stack = stack, self.marks.pop()
                stack.append(TUPLE if len(kinds) <= MAX_KEY_TUPLE and not any(kinds) else OTHER)
            elif action == STOP:
                return position
            elif action == OTHER_CODE:
                again = arrays.again(position - 1) if code == GLOBAL and arrays is not None else 0
                if again:
                    position = again
                    stack.append(ARRAY_MADE)
                else:
                    self.position, self.stack = position, stack
                    self.uncommon(code)
                    position, stack = self.position, self.stack
            else:
                end = position + argument
                number = (
                    data[position] if end <= size and argument == 1 else int.from_bytes(data[position:end], "little")
                )
                position = end
                if action == COUNTED:
                    position += number
                    stack.append(KEY if number <= MAX_KEY_BYTES and code != BYTEARRAY8 else OTHER)
                elif action == GET:
                    again, kind = 0, KEY
                    if end < size and data[end] in REFERENCES:
                        again, kind = self.array_again(end - argument - 1)
                    if again:
                        position = again
                    else:
                        kind = memo[number]
                        kind = kind if kind < TAKEN else self.recall(number)
                    stack.append(kind)
                else:
                    self.position, self.stack = position, stack
                    self.put(number)
        raise CutShortError("it is cut short")

    def uncommon(self, code: int) -> None:
        handler = UNCOMMON.get(code)
        if handler is None:
            op = pickletools.code2op.get(chr(code))
            what = f"the instruction {op.name}" if op else f"{bytes([code])!r}, which is no instruction,"
            raise UnsafePickleError(f"it has {what} at byte {self.position - 1}; plain data do without it")
        handler(self)

    def number(self, width: int) -> int:
        """The next ``width`` bytes as a number."""
        if self.position + width > len(self.data):
            raise CutShortError("it is cut short")
        begin, self.position = self.position, self.position + width
        return self.data[begin] if width == 1 else int.from_bytes(self.data[begin : self.position], "little")

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise CutShortError("it is cut short")
        begin, self.position = self.position, end + 1
        return self.data[begin:end]

    def index(self) -> int:
        """A line with a number of the memo."""
        line = self.line()
        if not line.isdigit() or len(line) > 20:
            raise UnsafePickleError(f"it numbers what it remembers strangely before byte {self.position}")
        return int(line)

    def put(self, index: int) -> None:
        """Every number of the memo was preceded by the smaller ones, each of a byte or more."""
        if index > self.position - self.start:
            raise UnsafePickleError(f"it numbers what it remembers with {index}, beyond its size")
        self.remember(index, self.stack[-1])

    def remember(self, index: int, kind: int) -> None:
        gap = index - len(self.memo)
        if gap >= 0:
            self.memo += bytes((NOTHING,)) * gap
            self.gaps += gap
            self.memo.append(kind)
        else:
            if self.arrays is not None:  # arrays of one form may then refer to different values
                raise NotTakenError
            self.gaps -= self.memo[index] == NOTHING
            self.memo[index] = kind

    def recall(self, index: int) -> int:
        kind = self.memo[index]
        if kind == NOTHING:
            raise KeyError(index)
        if kind == TAKEN:
            raise NotTakenError
        return kind

    def pop_mark(self) -> list[int]:
        kinds, self.stack = self.stack, self.marks.pop()
        return kinds

    def check_keys(self, kinds: list[int]) -> None:
        """Before they are hashed."""
        if OTHER in kinds or ARRAY_MADE in kinds:
            raise UnsafePickleError(
                f"a key or an element of a set before byte {self.position} is neither a number nor a text of at most "
                f"{MAX_KEY_BYTES} bytes, nor a tuple of at most {MAX_KEY_TUPLE} such"
            )
        self.tuple_keys += kinds.count(TUPLE)
        if self.tuple_keys > MAX_TUPLE_KEYS:
            raise UnsafePickleError(f"more than {MAX_TUPLE_KEYS} keys are tuples")

    # ------------------------------------------------------------------------------------------------ rare instructions

    def proto(self) -> None:
        self.position += 1

    def frame(self) -> None:
        size = self.number(8)
        if size > len(self.data) - self.position:
            raise CutShortError("it is cut short")
        self.frames_end = max(self.frames_end, self.position + size)
        if self.arrays is not None:
            self.arrays.leave_out(self.position - 9, self.position)

    def text_put(self) -> None:
        self.put(self.index())

    def text_get(self) -> None:
        self.stack.append(self.recall(self.index()))

    def text_int(self) -> None:
        digits = len(self.line())
        if digits > MAX_LONG_LINE:
            raise UnsafePickleError(f"it holds an integer of {digits} digits")
        self.stack.append(KEY if digits <= 20 else OTHER)

    def text(self) -> None:
        self.stack.append(KEY if len(self.line()) <= MAX_KEY_BYTES else OTHER)

    def long1(self) -> None:
        self.any_long(1)

    def long4(self) -> None:
        self.any_long(4)

    def any_long(self, width: int) -> None:
        size = self.number(width)
        if size > MAX_INT_BYTES:
            raise UnsafePickleError(f"it holds an integer of {size} bytes")
        self.position += size
        self.stack.append(KEY if size <= 8 else OTHER)

    def stack_global(self) -> None:
        self.stack[-2:] = [KEY]

    def text_global(self) -> None:
        self.stack.append(KEY)
        begin = self.position - 1
        if array := ARRAY.match(self.data, begin):
            after, _ = self.after_array_data(array, PLAIN_ENDING)
            if after:
                self.position = after
            else:
                self.position = array.end()
                self.marks.append(self.stack)
                self.stack = [KEY, TUPLE, KEY, KEY]
        elif self.data.startswith(ARRAY_HEAD, begin):
            self.position = begin + len(ARRAY_HEAD)
            self.marks.append(self.stack)
            self.stack = []
        elif dtype := DTYPE.match(self.data, begin):
            self.position = dtype.end()
        else:
            self.line()
            self.line()

    def array_again(self, begin: int) -> tuple[int, int]:
        """Where an array ends that refers back to what others have named, and its kind.

        (0, OTHER) where none of the usual form begins.
        """
        if self.gaps:
            return 0, OTHER
        if self.arrays is not None and (after := self.arrays.again(begin)):
            self.memo += PARTS_TAKEN
            return after, ARRAY_MADE
        found = ARRAY_AGAIN.match(self.data, begin)
        if found is None:
            return 0, OTHER
        after, size = self.after_array_data(found, MEMOIZED_ENDING, memoized=len(PARTS_TAKEN))
        if not after:
            return 0, OTHER
        for references in found.groups():
            if references not in self.known:
                self.check_references(references)
        # (0,), the function's arguments, the array, its shape, its data, its state with the shape in it
        self.memo += bytes((TUPLE, OTHER, KEY, TUPLE, KEY if size <= MAX_KEY_BYTES else OTHER, OTHER))
        return after, KEY

    def check_references(self, instructions: bytes) -> None:
        """KeyError unless what the instructions of ``ARRAY_AGAIN`` refer to is remembered, as it is from then on."""
        for short, long in REFERRED.findall(instructions):
            self.recall(short[0] if short else int.from_bytes(long, "little"))
        self.known.add(instructions)

    def after_array_data(self, form: re.Match, ending: bytes, memoized: int = 0) -> tuple[int, int]:
        """Where an array ends, and the size of its data; (0, 0) unless exactly ``ending`` follows these.

        Args:
            form: its instructions up to the one that pushes the data.
            ending: the instructions that make the state's tuple and give it to the array.
            memoized: values that all of them remember.
        """
        position = form.end()
        width = {b"C": 1, b"B": 4}.get(self.data[position : position + 1])
        if width is None:
            return 0, 0
        begin = position + 1 + width
        size = int.from_bytes(self.data[position + 1 : begin], "little")
        if not self.data.startswith(ending, begin + size):
            return 0, 0
        end = begin + size + len(ending)
        if self.arrays is not None and self.data[position - 1] != FORTRAN:
            self.arrays.first(self.data[form.start() : begin], size, ending, end, memoized)
        return end, size

    def reference(self) -> None:
        if self.arrays is not None:  # whose own references would be taken for the file's
            raise NotTakenError
        self.stack[-1] = KEY

    def empty(self) -> None:
        self.stack.append(OTHER)

    def append(self) -> None:
        self.stack.pop()

    def build(self) -> None:
        self.stack.pop()
        self.check_target()

    def check_target(self) -> None:
        """Of an instruction that changes it."""
        if self.stack[-1] == ARRAY_MADE:
            raise UnsafePickleError("it changes a value that is complete")

    def to_list(self) -> None:
        self.pop_mark()
        self.stack.append(OTHER)

    def appends(self) -> None:
        self.pop_mark()

    def setitem(self) -> None:
        self.check_keys(self.stack[-2:-1])
        del self.stack[-2:]
        self.check_target()

    def setitems(self) -> None:
        self.check_keys(self.pop_mark()[::2])
        self.check_target()

    def to_dict(self) -> None:
        self.check_keys(self.pop_mark()[::2])
        self.stack.append(OTHER)

    def additems(self) -> None:
        self.check_keys(self.pop_mark())

    def to_frozenset(self) -> None:
        self.additems()
        self.stack.append(OTHER)


UNCOMMON: dict[int, Callable[[_Scan], None]] = {
    CODE_OF[name]: handler
    for handler, names in {
        _Scan.proto: ["PROTO"],
        _Scan.frame: ["FRAME"],
        _Scan.text_put: ["PUT"],
        _Scan.text_get: ["GET"],
        _Scan.text_int: ["INT", "LONG"],
        _Scan.text: ["STRING", "UNICODE", "FLOAT"],
        _Scan.long1: ["LONG1"],
        _Scan.long4: ["LONG4"],
        _Scan.text_global: ["GLOBAL"],
        _Scan.stack_global: ["STACK_GLOBAL"],
        _Scan.reference: ["BINPERSID"],
        _Scan.empty: ["EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"],
        _Scan.append: ["APPEND"],
        _Scan.build: ["BUILD"],
        _Scan.to_list: ["LIST"],
        _Scan.appends: ["APPENDS"],
        _Scan.setitem: ["SETITEM"],
        _Scan.setitems: ["SETITEMS"],
        _Scan.to_dict: ["DICT"],
        _Scan.additems: ["ADDITEMS"],
        _Scan.to_frozenset: ["FROZENSET"],
    }.items()
    for name in names
}
