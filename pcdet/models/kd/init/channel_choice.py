"""Teacher-guided initialisation by chosen channels (SparseKD, NeurIPS 2022): the student keeps the strongest ones.

Of each layer's output channels the student takes as many as it has, those of the largest strength, in their order:
    l1        the sum of |weight| of the channel's filter;
    bn_scale  |gamma| of the batch norm behind the layer; where none is behind it, as ``l1``.
What reads these channels takes the same ones, through concatenations, residual sums and maps of volumes, as the modules
tell (``SlotModule.channel_flow``). Channels whose outputs are added to others are chosen together, by the sum of their
strengths.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Literal

import torch
from torch import Tensor, nn

from pcdet.models.channel_flow import ChannelFlow, Parts, axes_of, given
from pcdet.models.feature_spec import NotDescribedError, SlotModule
from pcdet.registry import ConfigError

Strength = Literal["bn_scale", "l1"]


@torch.no_grad()
def inherit_channels(student: nn.Module, teacher: nn.Module, by: Strength) -> int:
    """Copies the teacher's strongest channels into the student, and returns how many of its tensors were set.

    Args:
        student: changed in place.
        teacher: as deep as the student, and as wide or wider.
        by: what makes a channel strong.

    Raises:
        ConfigError: a module does not tell its channels, or the student has others than a narrower teacher.
    """
    flow, own_flow = (flow_of(detector, by) for detector in (teacher, student))
    layers, own_layers = ({*one.makes.items(), *one.norms.items()} for one in (flow, own_flow))
    if layers != own_layers:
        first = min(path for path, _ in layers ^ own_layers)
        raise ConfigError(
            f"KD.INIT {by}: the student's layers are not the teacher's (one that differs: {first}); use a teacher of "
            "the same depth, or INIT none"
        )
    kept = _kept_channels(flow, own_flow, teacher, by)
    teacher_state, copied = teacher.state_dict(), 0
    for name, own in student.state_dict().items():
        if not own.is_floating_point():
            continue
        source = _chosen(name, teacher_state[name], flow, kept, teacher)
        if source is None or source.shape != own.shape:
            found = "which channel_flow does not name" if source is None else f"of which {list(source.shape)} are kept"
            raise ConfigError(
                f"KD.INIT {by}: {name} {list(own.shape)} of the student cannot be made of the teacher's "
                f"{list(teacher_state[name].shape)}, {found}; use a teacher of the same depth, or INIT none"
            )
        own.copy_(source)
        copied += 1
    return copied


def flow_of(detector: nn.Module, by: str = "l1") -> ChannelFlow:
    """What a detector's modules tell of their channels.

    Raises:
        ConfigError: one does not.
    """
    flow = ChannelFlow()
    start = detector.described.read_by[next(slot for slot, _ in detector.named_children())]
    entries: dict[str, Parts] = {name: given(spec.channels) for name, spec in start.items()}
    for slot, module in detector.named_children():
        try:
            if not isinstance(module, SlotModule):
                raise NotDescribedError(slot)
            entries |= module.channel_flow(flow, slot, entries)
        except NotDescribedError as error:
            raise ConfigError(
                f"KD.INIT {by}: {type(detector).__name__}.{slot} cannot be narrowed by chosen channels, since "
                f"{type(module).__name__} does not say which layers read which; write its channel_flow "
                "(pcdet.models.feature_spec.SlotModule), or use INIT slice"
            ) from error
    return flow


def strengths(flow: ChannelFlow, teacher: nn.Module, by: Strength) -> dict[str, Tensor]:
    """Group -> (channels,) strength of each of its channels."""
    scales: dict[str, Tensor] = defaultdict(lambda: 0)
    filters: dict[str, Tensor] = defaultdict(lambda: 0)
    for path, group in flow.norms.items():
        gamma = teacher.get_submodule(path).weight
        if group is not None and gamma is not None:
            scales[group] = scales[group] + gamma.abs()
    for path, group in flow.makes.items():
        layer = teacher.get_submodule(path)
        axis, _ = axes_of(layer)
        filters[group] = filters[group] + layer.weight.abs().transpose(0, axis).flatten(1).sum(dim=1)
    return {**filters, **(scales if by == "bn_scale" else {})}


def _kept_channels(flow: ChannelFlow, own_flow: ChannelFlow, teacher: nn.Module, by: Strength) -> dict[str, Tensor]:
    """Group -> the teacher's channels that the student keeps, ascending."""
    kept = {}
    for group, strength in strengths(flow, teacher, by).items():
        wanted = own_flow.channels[group]
        if wanted > len(strength):
            raise ConfigError(
                f"KD.INIT {by}: {group} of the student has {wanted} channels and the teacher's {len(strength)}; use a "
                "teacher that is as wide or wider, or INIT none"
            )
        kept[group] = strength.argsort(descending=True, stable=True)[:wanted].sort().values
    return kept


def _chosen(name: str, source: Tensor, flow: ChannelFlow, kept: dict[str, Tensor], teacher: nn.Module) -> Tensor | None:
    """The part of a teacher's tensor that the student gets; None for one that the flow does not name."""
    path, _, leaf = name.rpartition(".")
    if path in flow.norms:
        group = flow.norms[path]
        return source if group is None else source.index_select(0, kept[group])
    if path not in flow.makes:
        return None
    outputs = kept[flow.makes[path]]
    if leaf != "weight":
        return source.index_select(0, outputs)
    out_axis, in_axis = axes_of(teacher.get_submodule(path))
    return source.index_select(out_axis, outputs).index_select(in_axis, _inputs(flow.reads[path], kept, source.device))


def _inputs(parts: Parts, kept: dict[str, Tensor], device: torch.device) -> Tensor:
    """Which of a layer's inputs are kept, in order."""
    rows, start = [], 0
    for part in parts:
        own = torch.arange(part.channels, device=device) if part.group is None else kept[part.group]
        places = own[:, None] * part.repeat + torch.arange(part.repeat, device=device)
        rows.append(start + places.flatten())
        start += part.size
    return torch.cat(rows)
