"""Teacher-guided initialisation (SparseKD, NeurIPS 2022): a narrower student begins with slices of its teacher.

Every tensor of the student takes the first channels of the teacher's tensor of the same name. Where a layer reads a
concatenation, it takes the first of each of its parts. So the student computes what the teacher would, were its further
channels zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pcdet.models.channel_flow import ChannelFlow, Part, axes_of
from pcdet.models.feature_spec import Entries, NotDescribedError, SlotModule
from pcdet.registry import ConfigError


@torch.no_grad()
def inherit_weights(student: nn.Module, teacher: nn.Module) -> int:
    """Copies what fits of the teacher's state into the student, and returns how many of its tensors were set.

    Args:
        student: changed in place.
        teacher: as deep as the student, and as wide or wider.

    Raises:
        ConfigError: a tensor of the student's is missing in the teacher, of another rank, or larger there.
    """
    teacher_state, chosen = teacher.state_dict(), _chosen_inputs(student, teacher)
    copied = 0
    for name, own in student.state_dict().items():
        if not own.is_floating_point():
            continue
        source = teacher_state.get(name)
        if (
            source is None
            or source.dim() != own.dim()
            or any(a > b for a, b in zip(own.shape, source.shape, strict=True))
        ):
            found = "is missing" if source is None else f"has shape {list(source.shape)}"
            raise ConfigError(
                f"KD.INIT slice: {name} {list(own.shape)} of the student cannot be cut from the teacher's, which "
                f"{found}; use a teacher of the same depth, or INIT none"
            )
        if name in chosen:
            source = source.index_select(*chosen[name])
        own.copy_(source[tuple(slice(size) for size in own.shape)])
        copied += 1
    return copied


def _chosen_inputs(student: nn.Module, teacher: nn.Module) -> dict[str, tuple[int, Tensor]]:
    """For the weight of every layer that reads a concatenation: its input axis, and which of the teacher's inputs."""
    student_parts, chosen = concatenated_inputs(student), {}
    for path, teacher_parts in concatenated_inputs(teacher).items():
        if path not in student_parts:  # then the weight is missing too, or it reads no concatenation in the student
            continue
        layer = teacher.get_submodule(path)
        starts = torch.tensor([0, *teacher_parts[:-1]]).cumsum(0).tolist()
        rows = [torch.arange(start, start + n) for start, n in zip(starts, student_parts[path], strict=False)]
        chosen[f"{path}.weight"] = axes_of(layer)[1], torch.cat(rows).to(layer.weight.device)
    return chosen


def concatenated_inputs(detector: nn.Module) -> dict[str, list[int]]:
    """Path of each layer of a detector that reads a concatenation -> the channels of its parts, in order.

    The first channels of a wide layer are not what its narrow counterpart reads where several outputs were joined
    before it: there the first channels of every part are. A module that does not tell its ``channel_flow`` is taken for
    one whose layers read no concatenation.

    Raises:
        ConfigError: a module does not describe itself, so that nobody knows which of its layers do.
    """
    parts: dict[str, list[int]] = {}
    for slot, module in detector.named_children():
        try:
            if not isinstance(module, SlotModule):
                raise NotDescribedError(slot)
            parts |= _concatenated_inputs(module, slot, detector.described.read_by[slot])
        except NotDescribedError as error:
            raise ConfigError(
                f"KD.INIT slice: {type(detector).__name__}.{slot} cannot be sliced, since {type(module).__name__} or "
                "what it reads is not described; derive the class from pcdet.models.feature_spec.SlotModule, or use "
                "INIT none"
            ) from error
    return parts


def _concatenated_inputs(module: SlotModule, slot: str, inputs: Entries) -> dict[str, list[int]]:
    """Those of one module, which may read concatenations of the modules before it."""
    if type(module).channel_flow is SlotModule.channel_flow:
        return {}
    flow = ChannelFlow()
    # Entries too, so that one which no module describes is an error; whose channels they are does not matter here.
    read = Entries((name, tuple(Part(None, size) for size in spec.parts)) for name, spec in inputs.items())
    module.channel_flow(flow, slot, read)
    return {path: [part.size for part in parts] for path, parts in flow.reads.items() if len(parts) > 1}
