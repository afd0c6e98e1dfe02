"""The sections of a model file, and those keys that belong to no class."""

from __future__ import annotations

from dataclasses import dataclass

PROGRAM_KEYS = ("ROOT_DIR", "LOCAL_RANK", "TAG", "EXP_GROUP_PATH")  # set by programs, not by files
SECTIONS = ("CLASS_NAMES", "DATA_CONFIG", "MODEL", "OPTIMIZATION", "HOOK", "KD")


@dataclass(frozen=True, kw_only=True)
class DisableAugmentation:
    """``HOOK.DisableAugmentationHook``: which augmentors rest during the last epochs."""

    disable_aug_list: list[str]
    num_last_epochs: int


@dataclass(frozen=True, kw_only=True)
class HookConfig:
    """The ``HOOK`` section."""

    disableaugmentationhook: DisableAugmentation | None = None
