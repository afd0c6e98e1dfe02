"""How many queries a warp of the GPU's search takes, on cards with more and less shared memory."""

import ctypes

import pytest

PROBE = """
#include "knn/src/block_memory.h"
extern "C" int queries(long k, long limit) { return pcdet::cpu::queries_a_warp(k, limit); }
extern "C" long most(long limit) { return pcdet::cpu::most_neighbours(limit); }
"""
# What CUDA lets a block have, in bytes (CUDA C++ Programming Guide, technical specifications by compute capability).
PASCAL, TURING, CONSUMER_AMPERE, A100, H100 = (kib * 1024 for kib in (48, 64, 99, 163, 227))


@pytest.fixture
def choose(compile_header):
    library = compile_header(PROBE)
    library.queries.argtypes = [ctypes.c_long, ctypes.c_long]
    library.most.argtypes, library.most.restype = [ctypes.c_long], ctypes.c_long
    return library


def bytes_of_block(k, per_warp):
    """Eight warps: tiles of 64 channels for each query and of 32 for 129 base rows, and lists of 64-bit keys."""
    length = 64
    while length < max(k + 32, 2 * k):
        length *= 2
    queries = 8 * per_warp
    return queries * 64 * 4 + 32 * 129 * 4 + queries * length * 8


@pytest.mark.parametrize("limit", [PASCAL, TURING, CONSUMER_AMPERE, A100, H100])
def test_what_is_chosen_fits_and_nothing_that_fits_is_refused(choose, limit):
    for k in range(1, 513):
        per_warp = choose.queries(k, limit)
        assert per_warp in (0, 1, 2, 4)
        assert per_warp == 0 or bytes_of_block(k, per_warp) <= limit
        assert (per_warp == 0) == (bytes_of_block(k, 1) > limit) == (k > choose.most(limit))


def test_turing_searches_for_256_neighbours_with_fewer_queries_a_warp(choose):
    assert choose.most(TURING) == 256
    assert [choose.queries(k, TURING) for k in (1, 64, 65, 128, 129, 256, 257)] == [4, 4, 2, 2, 1, 1, 0]


@pytest.mark.parametrize("limit", [CONSUMER_AMPERE, A100, H100])
def test_cards_with_more_memory_stop_at_64_kib_of_lists(choose, limit):
    assert [choose.queries(k, limit) for k in (1, 64, 128, 129, 256, 257, 512)] == [4, 4, 4, 2, 2, 1, 1]
