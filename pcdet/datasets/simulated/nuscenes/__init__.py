"""Simulated scenes in nuScenes' tables: a vehicle drives through a street, and things stand and move about it."""

from pcdet.datasets.simulated.nuscenes.writer import write_nuscenes

__all__ = ["write_nuscenes"]
