"""Greedy matching, for all frames and several cases at once: the rows of a frame take turns, each its best partner.

What is best does not depend on what is left, so every row has a fixed order of preference: it takes the first of its
candidates that is still free. Frames do not touch each other; one step therefore handles one candidate of one row in
every frame and in every case, as one row operation on booleans.
"""

from __future__ import annotations

import numpy as np


def take_turns(
    row: np.ndarray, partner: np.ndarray, frame: np.ndarray, preference: np.ndarray, free: np.ndarray
) -> np.ndarray:
    """Which candidate each row takes, in T cases at once.

    Args:
        row: (P,) of the candidates, ascending: within a frame, rows take turns in this order.
        partner: (P,) what the row would take, which no other row can take then.
        frame: (P,) ascending.
        preference: (P,) all candidates, the preferred first; only the order within one row matters.
        free: (P, T) which candidates can be taken at all.

    Returns:
        (P, T) bool.
    """
    taken = np.zeros_like(free)
    if not len(frame):
        return taken
    row = _dense(row)
    turn = row - row[np.searchsorted(frame, frame)]  # place of the row among those of its frame
    order = preference[np.argsort(row[preference], kind="stable")]
    rank = np.empty_like(row)
    rank[order] = np.arange(len(row)) - np.searchsorted(row, row)  # place of the candidate for its row
    step = turn * (rank.max() + 1) + rank
    order = np.argsort(step, kind="stable")
    partner = np.unique(partner, return_inverse=True)[1]

    partner_free = np.ones((partner.max() + 1, free.shape[1]), dtype=bool)
    row_free = np.ones((row[-1] + 1, free.shape[1]), dtype=bool)
    for now in np.split(order, np.flatnonzero(np.diff(step[order])) + 1):
        takes = free[now] & partner_free[partner[now]] & row_free[row[now]]
        partner_free[partner[now]] &= ~takes
        row_free[row[now]] &= ~takes
        taken[now] = takes
    return taken


def _dense(ascending: np.ndarray) -> np.ndarray:
    """Ascending numbers renumbered 0, 1, 2, ... without gaps."""
    return np.cumsum(np.concatenate([[0], np.diff(ascending) != 0]))
