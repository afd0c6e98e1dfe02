"""Runs the augmentors of DATA_AUGMENTOR one after another."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pcdet.registry import AUGMENTORS, build_from_cfg


class DataAugmentor:
    """The augmentors of DATA_AUGMENTOR, built from their nodes.

    Args:
        root_path: the data set's folder.
        augmentor_configs: nodes with NAME in the order they run, or a mapping with AUG_CONFIG_LIST and
            DISABLE_AUG_LIST.
        class_names: classes that are trained.
        logger: for what the augmentors have to say.
    """

    def __init__(
        self,
        root_path: Path,
        augmentor_configs: Sequence[dict] | Mapping,
        class_names: Sequence[str],
        logger: logging.Logger | None = None,
    ):
        disabled: Sequence[str] = ()
        if isinstance(augmentor_configs, Mapping):
            disabled = augmentor_configs.get("DISABLE_AUG_LIST", ())
            augmentor_configs = augmentor_configs["AUG_CONFIG_LIST"]
        self.queue = [
            (
                node["NAME"],
                build_from_cfg(
                    node,
                    AUGMENTORS,
                    path=f"DATA_AUGMENTOR.AUG_CONFIG_LIST[{i}]",
                    root_path=root_path,
                    class_names=list(class_names),
                    logger=logger,
                ),
            )
            for i, node in enumerate(augmentor_configs)
            if node.get("NAME") not in disabled
        ]

    @property
    def data_augmentor_queue(self) -> list:
        """The augmentors, without their names."""
        return [augmentor for _, augmentor in self.queue]

    def disable_augmentation(self, names: Sequence[str] | Mapping) -> None:
        """Takes augmentors out: names, or a mapping with DISABLE_AUG_LIST. Workers started later see it."""
        names = names["DISABLE_AUG_LIST"] if isinstance(names, Mapping) else names
        self.queue = [(name, augmentor) for name, augmentor in self.queue if name not in names]

    def forward(self, data_dict: dict, rng: np.random.Generator) -> dict:
        """The sample after every augmentor."""
        for _, augmentor in self.queue:
            data_dict = augmentor(data_dict, rng)
        return data_dict
