"""Random pickles that are programs in order: every opcode finds what it takes from the stack."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

TEXTS = (b"", b"f4", b"f8", b"O8", b"<", b"|", b"U1", b"V8", b"latin1", b"data", b"cpu", b"0", b"__class__", b"spec")
DTYPES = (b"f4", b"f8", b"i8", b"O8", b"U1", b"S4", b"V8", b"M8")
KINDS = (
    *("atom", "atom", "name", "call", "call", "dtype", "dtype", "build", "build"),
    *("tuple", "item", "memo", "recall"),
)
INTEGERS = (0, 1, 2, 3, 4, 7, 8, -1, 255, 2**31 - 1, -(2**31))
TUPLES = (b")", b"\x85", b"\x86", b"\x87")  # of the last 0 to 3


def program(rng: random.Random, names: Sequence[str]) -> bytes:
    """A pickle of up to 30 steps.

    Args:
        rng: for all choices.
        names: what it may ask for, ``module name``.
    """
    steps, depth, memo = [b"\x80\x02"], 0, 0
    for _ in range(rng.randrange(2, 30)):
        kind = rng.choice(KINDS)
        if kind == "memo" and depth:
            steps.append(b"q" + bytes([memo % 256]))
            memo += 1
        elif kind == "recall" and memo:
            steps.append(b"h" + bytes([rng.randrange(min(memo, 256))]))
            depth += 1
        elif kind == "tuple" and depth >= 3:
            size = rng.randrange(1, 4)
            steps.append(TUPLES[size])
            depth += 1 - size
        elif kind == "item" and depth >= 1:
            steps.append(rng.choice((atom(rng) + b"a", atom(rng) + atom(rng) + b"s", b"(" + atom(rng) + b"e", b"2a")))
        elif kind == "build" and depth >= 1:
            steps.append(state(rng) + b"b")
        elif kind == "call":
            steps.append(name(rng, names) + arguments(rng) + rng.choice((b"R", b"R", b"\x81")))
            depth += 1
        elif kind == "dtype":
            steps.append(dtype(rng))
            depth += 1
        else:
            steps.append(name(rng, names) if kind == "name" else atom(rng))
            depth += 1
    return b"".join(steps) + b"\x86" * max(depth - 1, 0) + b"."


def name(rng: random.Random, names: Sequence[str]) -> bytes:
    """The opcode that asks for one of the names."""
    return b"c" + rng.choice(names).replace(" ", "\n").encode() + b"\n"


def atom(rng: random.Random) -> bytes:
    """Something plain."""
    return rng.choice(
        (
            text(rng),
            b"J" + struct.pack("<i", rng.choice(INTEGERS)),
            b"C\x02" + rng.choice((b"f4", b"\0\0", b"\xff\xff")),
            b"G" + struct.pack(">d", 0.5),
            *(b"N", b"\x88", b"]", b"}", b")"),
        )
    )


def arguments(rng: random.Random) -> bytes:
    """A tuple of up to three atoms."""
    count = rng.randrange(4)
    return b"".join(atom(rng) for _ in range(count)) + TUPLES[count]


def text(rng: random.Random) -> bytes:
    """A short text."""
    chosen = rng.choice(TEXTS)
    return b"X" + struct.pack("<i", len(chosen)) + chosen


def dtype(rng: random.Random) -> bytes:
    """A numpy dtype as numpy writes it, with an odd state, and mostly a scalar of it."""
    spec = rng.choice(DTYPES)
    head = b"cnumpy\ndtype\nX\x02\0\0\0" + spec + b"\x89\x88\x87R"
    order = text(rng) if rng.random() < 0.2 else b"X\x01\0\0\0" + rng.choice((b"<", b">", b"|"))
    fields = b"".join(rng.choice((b"N", b"N", atom(rng), b")", b"}")) for _ in range(3))
    sizes = b"".join(b"J" + struct.pack("<i", rng.choice((*INTEGERS, -1, -1, 63))) for _ in range(3))
    made = head + b"(J\x03\0\0\0" + order + fields + sizes + b"tb"
    if rng.random() < 0.3:
        return made
    data = atom(rng) if rng.random() < 0.5 else b"C\x08" + bytes([rng.randrange(256)] * 8)
    return b"cnumpy.core.multiarray\nscalar\n" + made + data + b"\x86R"


def state(rng: random.Random) -> bytes:
    """What an object may be built from: attributes, a tuple as numpy's dtypes and arrays take it, or an atom."""
    attributes = b"}(" + atom(rng) + atom(rng) + b"u"
    dtype = b"(J\x03\0\0\0X\x01\0\0\0" + rng.choice((b"<", b"|")) + b"".join(atom(rng) for _ in range(6)) + b"t"
    array = b"(" + b"".join(atom(rng) for _ in range(5)) + b"t"
    return rng.choice((attributes, attributes + b"N\x86", b"N" + attributes + b"\x86", dtype, array, atom(rng)))
