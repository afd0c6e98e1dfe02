"""Precision and memory layout: what is chosen on which machine, and what is said about it."""

import pytest
import torch
from torch import nn

from pcdet.engine import precision as module
from pcdet.engine.precision import Precision, use_channels_last
from pcdet.utils.cpu_features import Processor

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
PLAIN = Processor("Zen 3", ("AVX2",))
WITH_BF16 = Processor("Sapphire Rapids", ("AVX2", "AVX-512", "AVX512_BF16", "AMX-BF16"))
HIDDEN = Processor(
    "Sapphire Rapids", ("AVX2", "AVX512_BF16"), hidden=dict.fromkeys(["AVX512_BF16"], "ONEDNN_MAX_CPU_ISA=AVX2")
)
UNKNOWN = Processor("arm", None)


@pytest.mark.parametrize("processor", [PLAIN, WITH_BF16, HIDDEN, UNKNOWN])
def test_unasked_it_is_float32_and_contiguous_on_every_machine(processor):
    for device in (CPU, GPU):
        chosen = Precision.choose(device, False, processor=processor)
        assert (chosen.dtype, chosen.layout, chosen.slow) == (None, "contiguous", False)
    assert chosen.describe() == "precision float32, contiguous maps: mixed precision was not asked for (--use_amp)"


def test_a_cpu_with_bf16_gets_it_in_channels_last_maps():
    chosen = Precision.choose(CPU, True, processor=WITH_BF16)
    assert (chosen.dtype, chosen.layout, chosen.slow) == (torch.bfloat16, "channels_last", False)
    assert chosen.describe() == (
        "precision bfloat16, channels-last maps: this processor has bf16 arithmetic (AVX512_BF16, AMX-BF16)"
    )
    assert Precision.choose(CPU, True, dtype="bf16", processor=WITH_BF16) == chosen


@pytest.mark.parametrize(
    ("processor", "why"),
    [
        (PLAIN, "this processor has no bf16 arithmetic (AVX2; needs AVX512_BF16, AMX-BF16 or Arm's BF16)"),
        (HIDDEN, "this processor's bf16 arithmetic (AVX512_BF16) is hidden by ONEDNN_MAX_CPU_ISA=AVX2"),
        (UNKNOWN, "this system does not say whether its processor has bf16 arithmetic"),
    ],
)
def test_a_cpu_without_bf16_stays_with_float32_unless_one_insists(processor, why):
    chosen = Precision.choose(CPU, True, processor=processor)
    assert (chosen.dtype, chosen.layout, chosen.slow) == (None, "contiguous", False)
    assert f"precision float32, contiguous maps: mixed precision was asked for, but {why}" in chosen.describe()
    insisted = Precision.choose(CPU, True, dtype="bf16", processor=processor)
    assert (insisted.dtype, insisted.layout, insisted.slow) == (torch.bfloat16, "channels_last", True)
    said = insisted.describe()
    assert said.startswith(f"precision bfloat16, channels-last maps: --amp_dtype bf16 insists, but {why}")
    assert said.endswith("; convolutions take at least ten times as long as in float32")


def test_this_machines_processor_is_asked_where_none_is_given(monkeypatch):
    for processor, dtype in ((PLAIN, None), (WITH_BF16, torch.bfloat16)):
        monkeypatch.setattr(module, "read_processor", lambda processor=processor: processor)
        assert Precision.choose(CPU, True).dtype is dtype


def test_a_gpu_is_fp16_or_as_told_and_contiguous():
    gpu = Precision.choose(GPU, True, loss_scale=32.0, processor=PLAIN)
    assert (gpu.dtype, gpu.loss_scale, gpu.layout) == (torch.float16, 32.0, "contiguous")
    told = Precision.choose(GPU, True, dtype="bf16", processor=PLAIN)
    assert (told.dtype, told.layout, told.slow) == (torch.bfloat16, "contiguous", False)


@pytest.mark.parametrize(("device", "enabled"), [(CPU, False), (CPU, True), (GPU, False), (GPU, True)])
def test_channels_last_can_be_insisted_on_anywhere(device, enabled):
    chosen = Precision.choose(device, enabled, channels_last=True, processor=PLAIN)
    assert chosen.layout == "channels_last" and chosen.describe().endswith("; the layout was asked for")
    assert chosen.dtype is Precision.choose(device, enabled, processor=PLAIN).dtype


def test_types_that_cannot_be_had_are_refused():
    with pytest.raises(ValueError, match="fp16 training needs a GPU"):
        Precision.choose(CPU, True, dtype="fp16", processor=WITH_BF16)
    with pytest.raises(ValueError, match="auto, fp16 or bf16, got 'half'"):
        Precision.choose(CPU, True, dtype="half")


def test_a_record_holds_precision_and_layout():
    assert Precision().facts() == {"precision": "float32", "layout": "contiguous"}
    chosen = Precision.choose(CPU, True, processor=WITH_BF16)
    assert chosen.facts() == {"precision": "torch.bfloat16", "layout": "channels_last"}


@pytest.mark.parametrize(("layout", "last"), [("contiguous", False), ("channels_last", True)])
def test_weights_are_laid_out_as_chosen(layout, last):
    conv = Precision(layout=layout).lay_out(nn.Conv2d(4, 4, 3))
    assert conv.weight.is_contiguous(memory_format=torch.channels_last) is last


def test_channels_last_reaches_convolutions_of_all_modules_but_no_other_tensor():
    class Model(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Conv2d(4, 4, 3), nn.ConvTranspose2d(4, 4, 3))
            self.register_buffer("anchors", torch.zeros(2, 3, 4, 5))
            self.hidden = (nn.Conv2d(4, 4, 3),)  # in a tuple, hence no submodule

        def all_modules(self):
            return [*self.modules(), *self.hidden]

    model = use_channels_last(Model())
    for weight in (model[0].weight, model[1].weight, model.hidden[0].weight):
        assert weight.is_contiguous(memory_format=torch.channels_last)
    assert model.anchors.is_contiguous()
    assert model(torch.zeros(1, 4, 5, 5)).is_contiguous(memory_format=torch.channels_last)
