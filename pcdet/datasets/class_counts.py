"""How many objects of each class a split has, told and judged before a training begins."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pcdet.datasets.dataset import DatasetTemplate
from pcdet.datasets.errors import DataError
from pcdet.registry import nearest_name


def report_class_counts(dataset: DatasetTemplate, logger: logging.Logger) -> None:
    """One line with the objects of a split; a warning for classes that have none.

    Says nothing where the data set does not know (``class_counts()`` is None), as of a split without labels.

    Args:
        dataset: whose split is counted. Objects that ``gt_sampling`` can paste count as there.
        logger: gets the line.

    Raises:
        DataError: in training no class has an object: everything would be learnt as background.
    """
    counts = dataset.class_counts()
    if counts is None:
        return
    split = dataset.config.data_split[dataset.mode]
    pasted = _pasted_counts(dataset)
    wanted = ", ".join(f"{name} {counts.get(name, 0)}" for name in dataset.class_names)
    logger.info(f"{split}: objects {wanted}{_rest(counts, dataset.class_names)}")
    missing = [name for name in dataset.class_names if not counts.get(name) and not pasted.get(name)]
    if not missing:
        return
    if dataset.training and len(missing) == len(dataset.class_names):
        raise DataError(
            f"CLASS_NAMES: the {split} split has no object of {', '.join(missing)}, so everything would be learnt as "
            f"background. {_what_is_there(counts, missing)}"
        )
    logger.warning(f"the {split} split has no object of {', '.join(missing)}. {_what_is_there(counts, missing)}")


def _pasted_counts(dataset: DatasetTemplate) -> dict[str, int]:
    """Objects that augmentors can paste: those that do have a method ``object_counts() -> {class: objects}``."""
    found: dict[str, int] = {}
    for augmentor in dataset.data_augmentor.data_augmentor_queue if dataset.training else ():
        tell = getattr(augmentor, "object_counts", None)
        if not callable(tell):
            continue
        for name, count in tell().items():
            found[name] = found.get(name, 0) + count
    return found


def _rest(counts: Mapping[str, int], class_names: list[str]) -> str:
    others = [f"{name} {count}" for name, count in counts.items() if name not in class_names]
    return f"; left out: {', '.join(others)}" if others else ""


def _what_is_there(counts: Mapping[str, int], missing: list[str]) -> str:
    """The names of the labels, and which of them may be meant."""
    if not counts:
        return "Its labels hold no object at all"
    text = "Its labels hold " + ", ".join(f"{name} {count}" for name, count in counts.items())
    hints = [f"for {name}, {hint}" for name in missing if (hint := nearest_name(name, counts)).startswith("did you")]
    return "; ".join([text, *hints])
