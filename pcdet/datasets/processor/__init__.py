"""From points to what a model takes: features, range, order, voxels."""

from pcdet.datasets.processor.data_processor import DataProcessor
from pcdet.datasets.processor.point_feature_encoder import AbsoluteCoordinatesEncoding
from pcdet.datasets.processor.steps import grid_of

__all__ = ["AbsoluteCoordinatesEncoding", "DataProcessor", "grid_of"]
