"""Class-balanced resampling: rare classes stand in as many frames as frequent ones (Zhu et al. 2019, "CBGS")."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pcdet.datasets.seeding import RESAMPLING, generator_for


def balanced_frames(classes: Sequence[Sequence[str]], class_names: Sequence[str]) -> np.ndarray:
    """Numbers of frames, some repeated and some left out, in which each class has an equal part.

    With n frames that a class stands in, summed over all classes N, a class draws N / len(class_names) of its frames
    with repetition, at least one. The draw has a seed of its own: every process and every run has the same frames.

    Args:
        classes: of each frame, those that stand in it.
        class_names: classes that are balanced; one that stands in no frame adds none.

    Returns:
        (K,) int64, the frames of the first class first.
    """
    rng = generator_for(RESAMPLING, 0)
    present = [set(names) for names in classes]
    frames = {name: [i for i, names in enumerate(present) if name in names] for name in class_names}
    total = sum(map(len, frames.values()))
    drawn = []
    for own in frames.values():
        if own:
            ratio = (1 / len(class_names)) / (len(own) / total)
            drawn.append(rng.choice(np.array(own, dtype=np.int64), max(1, int(len(own) * ratio))))
    return np.concatenate(drawn) if drawn else np.zeros(0, dtype=np.int64)
