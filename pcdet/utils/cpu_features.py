"""What the processor can do that decides its arithmetic: read from Linux, and from the variables that hide some of it.

torch's own queries of the processor ignore both variables. This file needs no torch.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

CPUINFO = Path("/proc/cpuinfo")

# Linux's flag -> instruction set. AVX-512 alone emulates bf16.
INSTRUCTION_SETS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX512_BF16",
    "amx_bf16": "AMX-BF16",
    "bf16": "Arm BF16",
}
BF16_SETS = ("AVX512_BF16", "AMX-BF16", "Arm BF16")

_AMX = ("AMX-BF16",)
_BF16 = ("AVX512_BF16", *_AMX)
_AVX512 = ("AVX-512", *_BF16)
_AVX2 = ("AVX2", *_AVX512)
# torch compares its values as they are written; oneDNN in upper case. Both ignore any other value.
HIDDEN_FROM_TORCH = {"default": (*_AVX2, "Arm BF16"), "avx2": _AVX512}
HIDDEN_FROM_ONEDNN = {
    "SSE41": _AVX2,
    "AVX": _AVX2,
    "AVX2": _AVX512,
    "AVX2_VNNI": _AVX512,
    "AVX2_VNNI_2": _AVX512,
    "AVX512_CORE": _BF16,
    "AVX512_CORE_VNNI": _BF16,
    "AVX512_CORE_BF16": _AMX,
    "AVX512_CORE_FP16": _AMX,
    "AVX10_1_512": _AMX,
}

# Memory layout of feature maps that is faster on a CPU. Three 3x3 convolutions of 64 channels on 128 x 128 cells,
# forward and backward, one AVX2 thread: float32 0.22 s contiguous and 0.44 s channels-last; bfloat16 15.1 s and 2.8 s.
FASTER_LAYOUT = {"float32": "contiguous", "bfloat16": "channels_last"}


@dataclass(frozen=True)
class Processor:
    """A processor's name and those of its instruction sets that matter here.

    Attributes:
        name: as the system calls it.
        sets: instruction sets that it has, named as in :data:`INSTRUCTION_SETS`; None where the system does not say.
        hidden: those of them that are hidden, each with the settings that do.
    """

    name: str
    sets: tuple[str, ...] | None
    hidden: Mapping[str, str] = field(default_factory=dict)

    @property
    def bf16(self) -> tuple[str, ...]:
        """Its instruction sets for bf16, hidden or not."""
        return tuple(s for s in self.sets or () if s in BF16_SETS)

    @property
    def usable_bf16(self) -> tuple[str, ...]:
        """Its instruction sets for bf16 that no variable hides."""
        return tuple(s for s in self.bf16 if s not in self.hidden)


class CpuPrecision(NamedTuple):
    """What mixed precision is on a processor: bfloat16 or float32, and why."""

    name: str
    reason: str


def read_processor(cpuinfo: str | None = None, environment: Mapping[str, str] | None = None) -> Processor:
    """This machine's processor.

    Args:
        cpuinfo: text in the form of Linux's ``/proc/cpuinfo``; None: that file, where there is one.
        environment: variables; None: this process's.
    """
    if cpuinfo is None:
        cpuinfo = CPUINFO.read_text() if CPUINFO.is_file() else ""
    entries: dict[str, str] = {}  # of the first core
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        entries.setdefault(key.strip(), value.strip())
    name = entries.get("model name") or platform.processor() or platform.machine()
    flags = entries.get("flags", entries.get("Features"))  # x86, Arm
    if flags is None:
        return Processor(name, None)
    known = set(flags.split())
    sets = tuple(title for flag, title in INSTRUCTION_SETS.items() if flag in known)
    return Processor(name, sets, hidden_sets(sets, os.environ if environment is None else environment))


def hidden_sets(sets: tuple[str, ...], environment: Mapping[str, str]) -> dict[str, str]:
    """Instruction set -> what hides it, such as ``ONEDNN_MAX_CPU_ISA=AVX2``."""
    onednn = "ONEDNN_MAX_CPU_ISA" if "ONEDNN_MAX_CPU_ISA" in environment else "DNNL_MAX_CPU_ISA"
    level, capability = environment.get(onednn, ""), environment.get("ATEN_CPU_CAPABILITY", "")
    hidden: dict[str, str] = {}
    for setting, hides in (
        (f"{onednn}={level}", HIDDEN_FROM_ONEDNN.get(level.upper(), ())),
        (f"ATEN_CPU_CAPABILITY={capability}", HIDDEN_FROM_TORCH.get(capability, ())),
    ):
        for name in filter(sets.__contains__, hides):
            hidden[name] = f"{hidden[name]} and {setting}" if name in hidden else setting
    return hidden


def mixed_precision(processor: Processor) -> CpuPrecision:
    """What mixed precision is on this processor: bfloat16 where there are instructions for it that nothing hides."""
    if processor.usable_bf16:
        found = ", ".join(processor.usable_bf16)
        return CpuPrecision("bfloat16", f"this processor has bf16 arithmetic ({found})")
    if processor.bf16:
        settings = ", ".join(dict.fromkeys(processor.hidden[s] for s in processor.bf16))
        found = ", ".join(processor.bf16)
        return CpuPrecision("float32", f"this processor's bf16 arithmetic ({found}) is hidden by {settings}")
    needed = "AVX512_BF16, AMX-BF16 or Arm's BF16"
    if processor.sets is None:
        return CpuPrecision("float32", f"this system does not say whether its processor has bf16 arithmetic ({needed})")
    found = ", ".join(processor.sets) or "none of those asked about"
    return CpuPrecision("float32", f"this processor has no bf16 arithmetic ({found}; needs {needed})")
