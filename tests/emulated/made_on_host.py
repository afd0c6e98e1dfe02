"""What a training step computes in the host's memory."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pcdet.engine.trainer import Hook

ROOT = Path(__file__).resolve().parents[2]
# Operators whose results on the host are the ends of a copy: numbers on their way to the device, or read back.
COPIES = {"aten::_to_copy", "aten::lift_fresh", "aten::_pin_memory"}


class HostResults(TorchDispatchMode):
    """Collects "function of pcdet: operator" of every array that an operator leaves on the host, copies aside.

    Tensors without dimensions are numbers, which an operator may take from the host.
    """

    def __init__(self):
        super().__init__()
        self.found: set[str] = set()
        self.operators = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.operators += 1
        arrays = [value for value in tree_leaves(result) if isinstance(value, torch.Tensor) and value.dim() > 0]
        name = func.name().split(".")[0]
        if name not in COPIES and any(array.device.type == "cpu" for array in arrays):
            self.found.add(f"{_function_at_work()}: {name}")
        return result


class SecondStep(Hook):
    """Watches the second iteration, in which nothing is done for the first time."""

    def __init__(self):
        self.results = HostResults()

    def after_iteration(self, trainer):
        if trainer.it == 1:
            self.results.__enter__()
        elif trainer.it == 2:
            self.results.__exit__(None, None, None)


def _function_at_work() -> str:
    """The innermost function of pcdet on the stack; ``autograd`` without one."""
    frame = sys._getframe(1)
    while frame is not None:
        if Path(frame.f_code.co_filename).is_relative_to(ROOT / "pcdet"):
            return frame.f_code.co_name
        frame = frame.f_back
    return "autograd"
