"""One rule for smaller students: a teacher's ``MODEL`` block with all its channels scaled.

A network of a fraction of the parameters has channels times the square root of that fraction: width 0.5 is the "4x"
student, 0.25 the "16x" one, 1 / 2.8 the "8x" one and 1 / 1.4 the "2x" one (PointDistiller, section 4.1 and its released
configurations). Channels are cut to whole numbers. Which keys hold channels, and what follows from what, every module's
class says (``SlotModule.scaled``).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pcdet.models.description import DataFacts, Description, add_slot, class_of, describes_itself, slots_of
from pcdet.registry import ConfigError


def scale_model_cfg(model_cfg: Mapping, width: float) -> Any:
    """A copy of a ``MODEL`` block, without ``WIDTH``, whose channels are scaled.

    Args:
        model_cfg: the teacher's block; untouched.
        width: factor, in (0, 1] for a student; 1 changes nothing.

    Raises:
        ConfigError: ``width`` is not a positive number, or a module does not say which of its keys hold channels.
    """
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not width > 0:
        raise ConfigError(f"MODEL.WIDTH: must be a positive number, got {width!r}")
    scaled = copy.deepcopy(model_cfg)
    scaled.pop("WIDTH", None)
    if width == 1:
        return scaled
    facts = DataFacts()
    before, after = (Description(entries=facts.entries()) for _ in range(2))
    for slot, node in slots_of(model_cfg):
        cls = class_of(slot, node)
        if not describes_itself(cls):
            raise ConfigError(
                f"MODEL.WIDTH: cannot scale MODEL.{slot.key}, since {node.get('NAME')} is not described: derive it "
                "from pcdet.models.feature_spec.SlotModule and name its CHANNEL_KEYS, or set its channels by hand and "
                "MODEL.WIDTH to 1"
            )
        scaled[slot.key] = cls.scaled(node, width, before.entries, after.entries)
        add_slot(before, slot, node, facts)
        add_slot(after, slot, scaled[slot.key], facts)
    return scaled
