"""Sets the results of an evaluation beside the frames that they belong to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from pcdet.datasets.errors import DataError

SHOWN = 10  # names in one message


def in_frame_order(results: Sequence[dict], frames: Sequence[str]) -> list[dict]:
    """One result for each frame, in the order of the frames.

    Args:
        results: with ``frame_id``; where none has one, they are in the order of the frames already.
        frames: names, each once.

    Raises:
        DataError: results are missing, repeated, or of frames that the split does not have. All are named.
    """
    with_id = sum("frame_id" in result for result in results)
    if not with_id:
        if len(results) != len(frames):
            raise DataError(f"{len(results)} results for {len(frames)} frames, none with a frame_id to tell which")
        return list(results)
    if with_id < len(results):
        raise DataError(f"{len(results) - with_id} of {len(results)} results have no frame_id, the others have one")
    counts = Counter(str(result["frame_id"]) for result in results)
    missing = [frame for frame in frames if frame not in counts]
    repeated = [frame for frame, count in counts.items() if count > 1]
    unknown = sorted(set(counts) - set(frames))
    problems = []
    if missing:
        problems.append(f"no results for {len(missing)} of {len(frames)} frames, for instance {_names(missing)}")
    if repeated:
        problems.append(f"several results for {len(repeated)} frames: {_names(repeated)}")
    if unknown:
        problems.append(f"results for {len(unknown)} frames that the split does not have: {_names(unknown)}")
    if problems:
        raise DataError(problems)
    by_frame = {str(result["frame_id"]): result for result in results}
    return [by_frame[frame] for frame in frames]


def repeated_frames(frames: Iterable[str]) -> str:
    """Names of frames that are there more than once, for a message; empty if there are none."""
    return _names([frame for frame, count in Counter(frames).items() if count > 1])


def _names(frames: Sequence[str]) -> str:
    more = f" and {len(frames) - SHOWN} more" if len(frames) > SHOWN else ""
    return ", ".join(frames[:SHOWN]) + more
