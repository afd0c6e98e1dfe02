"""Rows of a few frames for losses on pillars, and what a formula written in numpy needs of them."""

import numpy as np
import torch
from kd_pairs import distil

from pcdet.models.kd.features.grid import Geometry
from pcdet.models.kd.model_outputs import ModelOutputs
from pcdet.models.kd.step import Step

GEOMETRY = Geometry(point_cloud_range=(0.0, -4.0, -3.0, 8.0, 4.0, 1.0), grid_size=(8, 8, 1))
SIZES = (7, 0, 4)  # frames of different sizes, one of them empty
CHANNELS, TEACHER_CHANNELS = 8, 16  # of the small detectors' pillars


class Rows:
    """Random rows of student and teacher at the same pillars.

    Args:
        sizes: rows of each frame.
        seed: of the numbers.
        equal: the teacher's rows are the student's.
        counts: points in each pillar; random numbers above 0 if left out.
    """

    def __init__(self, sizes=SIZES, seed=0, *, equal=False, counts=None):
        rng = np.random.default_rng(seed)
        places = [(frame, cell) for frame, n in enumerate(sizes) for cell in sorted(rng.choice(64, n, replace=False))]
        self.sizes = sizes
        self.coords = torch.tensor([[frame, 0, *divmod(int(cell), 8)] for frame, cell in places]).reshape(-1, 4)
        self.counts = np.array(rng.integers(1, 9, len(places)) if counts is None else counts, dtype=np.float64)
        self.student = rng.normal(size=(len(places), CHANNELS))
        self.teacher = self.student if equal else rng.normal(size=(len(places), TEACHER_CHANNELS))

    def frames(self):
        """(student's rows, teacher's rows, counts) of each frame that has any."""
        ends = np.cumsum(self.sizes)[:-1]
        parts = zip(*(np.split(x, ends) for x in (self.student, self.teacher, self.counts)), strict=True)
        return [part for part in parts if len(part[0])]

    def step(self):
        """(the step that a loss gets, the student's rows with a gradient)."""
        student = torch.tensor(self.student, dtype=torch.float32, requires_grad=True)
        teacher = torch.tensor(self.teacher, dtype=torch.float32)
        batch = {
            "batch_size": len(self.sizes),
            "voxel_coords": self.coords,
            "voxel_num_points": torch.tensor(self.counts, dtype=torch.float32),
        }
        outputs = [ModelOutputs(None, batch, {"pillar_features": x}, GEOMETRY) for x in (student, teacher)]
        return Step(*outputs, {}), student


def loss_on_pillars(node, **models):
    """A loss that takes all rows of the pillars of two small detectors."""
    node = {"FEATURE": "pillar_features", "SAMPLE": {"NUM": 50}} | node
    return distil(node, **models).losses[node["NAME"]]


def linear(layer, x):
    """A linear layer of a loss, in numpy."""
    weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
    return x @ weight.T + bias


def make_identity(layer):
    """Lets a linear layer give what it gets."""
    torch.nn.init.eye_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
