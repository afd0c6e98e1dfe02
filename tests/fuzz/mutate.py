"""Random changes of files: flips, numbers at limits, blocks cut, doubled, moved and taken from other files, words."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

MAX_SIZE = 1 << 18  # bytes of an input
LIMITS = (0, 1, -1, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 100, 16)
FORMATS = ("<b", "<h", "<i", "<q", ">h", ">i", ">q")


def mutated(rng: random.Random, corpus: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """A file of the corpus after one to six random changes."""
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        change = rng.choice(CHANGES)
        change(rng, data, corpus, tokens)
        if len(data) > MAX_SIZE:
            del data[MAX_SIZE:]
    return bytes(data)


def _place(rng: random.Random, data: bytearray) -> int:
    return rng.randrange(len(data) + 1)


def _block(rng: random.Random, data: Sequence[int]) -> slice:
    """A stretch of the data, mostly short."""
    start = rng.randrange(len(data) + 1)
    return slice(start, start + min(int(rng.expovariate(1 / 16)) + 1, len(data)))


def _flip_bit(rng, data, corpus, tokens) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set_byte(rng, data, corpus, tokens) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.randrange(256)


def _cut_short(rng, data, corpus, tokens) -> None:
    del data[_place(rng, data) :]


def _delete_block(rng, data, corpus, tokens) -> None:
    del data[_block(rng, data)]


def _double_block(rng, data, corpus, tokens) -> None:
    block = data[_block(rng, data)]
    place = _place(rng, data)
    data[place:place] = block * rng.choice((1, 1, 2, 50))


def _splice(rng, data, corpus, tokens) -> None:
    other = rng.choice(corpus)
    data[_block(rng, data)] = other[_block(rng, other)]


def _join(rng, data, corpus, tokens) -> None:
    other = rng.choice(corpus)
    data[_place(rng, data) :] = other[rng.randrange(len(other) + 1) :]


def _number(rng, data, corpus, tokens) -> None:
    form = rng.choice(FORMATS)
    size = struct.calcsize(form)
    value = rng.choice(LIMITS) & (2 ** (8 * size) - 1)
    place = _place(rng, data)
    data[place : place + size] = value.to_bytes(size, "little" if form[0] == "<" else "big")


def _digits(rng, data, corpus, tokens) -> None:
    """Writes a number as text over one that is there, or anywhere."""
    places = [i for i, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    start = rng.choice(places) if places else _place(rng, data)
    end = start
    while end < len(data) and 0x30 <= data[end] <= 0x39:
        end += 1
    data[start:end] = rng.choice((b"%d" % rng.choice(LIMITS), b"1e39", b"1e400", b"nan", b"-inf", b"0x1p3", b"1_0"))


def _insert_token(rng, data, corpus, tokens) -> None:
    if tokens:
        place = _place(rng, data)
        data[place : place + rng.choice((0, 0, 1, 4))] = rng.choice(tokens)


CHANGES: tuple[Callable, ...] = (
    _flip_bit, _flip_bit, _set_byte, _set_byte, _cut_short, _delete_block, _double_block, _splice, _join, _number,
    _number, _digits, _insert_token, _insert_token, _insert_token,
)  # fmt: skip
