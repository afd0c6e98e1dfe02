"""Says what this machine has for pcdet and what to do about what is missing.

Works without torch and without the native ops. The exit status is 1 if something is missing that training needs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pcdet
from pcdet.utils import places
from pcdet.utils.cpu_features import FASTER_LAYOUT, mixed_precision, read_processor
from pcdet.utils.cuda_toolkit import find_toolkits
from pcdet.utils.native_ops import how_to_build, how_to_build_with_cuda, kernels

REPO_ROOT = Path(pcdet.__file__).resolve().parent.parent
REQUIRED = ("numpy", "numba", "scipy", "easydict", "pyyaml", "tqdm", "pillow", "threadpoolctl")
OPTIONAL = {"tensorboardX": "training curves", "matplotlib": "pictures of results", "pytest": "make test"}
BACKENDS = {"CPU": "CPU", "CUDA": "CUDA", "CompositeImplicitAutograd": "any, through other ops"}


class Advice(NamedTuple):
    """Something missing and what to do about it; ``needed`` if training cannot do without."""

    text: str
    needed: bool


class Report(NamedTuple):
    """Sections of facts by name, and what to do."""

    sections: dict[str, dict[str, str]]
    advice: list[Advice]

    @property
    def healthy(self) -> bool:
        """Whether nothing is missing that training needs."""
        return not any(a.needed for a in self.advice)


def examine() -> Report:
    """Looks at the interpreter, the processor, the packages, torch, the native ops, spconv and the threads."""
    advice: list[Advice] = []
    sections = {
        name: look(advice)
        for name, look in (
            ("system", _system),
            ("processor", _processor),
            ("packages", _packages),
            ("torch", _torch),
            ("native ops", _ops),
            ("spconv", _spconv),
            ("threads", _threads),
        )
    }
    return Report(sections, advice)


def as_text(report: Report) -> str:
    """The report for reading."""
    lines = []
    for name, facts in report.sections.items():
        width = max(map(len, facts), default=0)
        lines += [name, *(f"  {key:<{width}}  {value}" for key, value in facts.items()), ""]
    lines += [f"{'TO DO' if a.needed else 'could be better'}: {a.text}" for a in report.advice]
    lines.append("all that training needs is here" if report.healthy else "something that training needs is missing")
    return "\n".join(lines)


def as_json(report: Report) -> str:
    """The report for programs."""
    advice = [a._asdict() for a in report.advice]
    return json.dumps({"sections": report.sections, "advice": advice, "healthy": report.healthy}, indent=2)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Writes the report to standard output; returns the exit status.

    Args:
        argv: arguments; those of the process if None.
        prog: how the command is called, for its help.
    """
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="write JSON")
    report = examine()
    sys.stdout.write((as_json if parser.parse_args(argv).json else as_text)(report) + "\n")
    return 0 if report.healthy else 1


# ------------------------------------------------------------------------------------------------------------ sections


def _system(advice: list[Advice]) -> dict[str, str]:
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        advice.append(Advice(f"Python 3.10 to 3.12 is supported, this is {platform.python_version()}", True))
    compiler = shutil.which("g++") or shutil.which("c++")
    return {
        "pcdet": f"{pcdet.__version__} in {REPO_ROOT}",
        "python": f"{platform.python_version()} in {sys.prefix}",
        "platform": platform.platform(),
        "c++ compiler": compiler or "none",
        "nvcc": ", ".join(map(str, find_toolkits())) or "none",
    }


def _processor(advice: list[Advice]) -> dict[str, str]:
    """The processor, what hides parts of it, and what mixed precision is on it."""
    processor = read_processor()
    choice = mixed_precision(processor)
    layout = FASTER_LAYOUT[choice.name].replace("_", "-")
    sets = "unknown" if processor.sets is None else ", ".join(processor.sets) or "none that matter here"
    hidden = [f"{name} by {setting}" for name, setting in processor.hidden.items()]
    return {
        "model": processor.name,
        "instruction sets": sets,
        "hidden": "; ".join(hidden) or "none",
        "with --use_amp": f"{choice.name}, {layout} maps: {choice.reason}",
    }


def _packages(advice: list[Advice]) -> dict[str, str]:
    facts = {}
    for name in REQUIRED:
        facts[name] = _version(name) or "missing"
        if facts[name] == "missing":
            what = name if places.INSTALLED else "-r requirements.txt"
            advice.append(Advice(f"{name} is missing: pip install {what}", True))
    for name, use in OPTIONAL.items():
        facts[name] = _version(name) or f"missing ({use})"
    return facts


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _torch(advice: list[Advice]) -> dict[str, str]:
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        advice.append(Advice(f"torch does not import ({error}): see docs/INSTALL.md for the build that fits", True))
        return {"torch": "missing"}
    facts = {"torch": torch.__version__, "built for CUDA": torch.version.cuda or "no"}
    toolkits = find_toolkits()
    if torch.version.cuda and toolkits and not any(toolkit.fits(torch.version.cuda) for toolkit in toolkits):
        text = (
            f"nvcc {toolkits[0].release} cannot build ops for torch's CUDA {torch.version.cuda}: "
            "take one major version for both"
        )
        advice.append(Advice(text, False))
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            major, minor = torch.cuda.get_device_capability(i)
            facts[f"device {i}"] = f"{torch.cuda.get_device_name(i)} (sm_{major}{minor})"
        facts["cudnn"] = str(torch.backends.cudnn.version())
    else:
        facts["devices"] = "CPU only"
        if shutil.which("nvidia-smi"):
            advice.append(
                Advice("there is an NVIDIA driver, but this torch cannot use it: install a CUDA build of torch", False)
            )
    facts["CPU vectors"] = torch.backends.cpu.get_cpu_capability()
    return facts


def _ops(advice: list[Advice]) -> dict[str, str]:
    library = next(iter(sorted((REPO_ROOT / "pcdet" / "ops").glob("_C*.so"))), None)
    facts = {"library": str(library.relative_to(REPO_ROOT)) if library else "not built"}
    try:
        importlib.import_module("pcdet.ops")
    except ImportError as error:
        facts["loads"] = f"no: {str(error).splitlines()[0]}"
        advice.append(Advice(f"the native ops do not load: {how_to_build()}", True))
        return facts
    facts["loads"] = "yes"
    torch = importlib.import_module("torch")
    found = kernels(torch, list(BACKENDS))
    facts |= {name: ", ".join(BACKENDS[key] for key in keys) or "no kernel" for name, keys in found.items()}
    if torch.cuda.is_available() and not any("CUDA" in keys for keys in found.values()):
        advice.append(Advice(f"the ops are built for the CPU only: {how_to_build_with_cuda()}", False))
    return facts


def _spconv(advice: list[Advice]) -> dict[str, str]:
    """Which spconv is installed and whether it fits torch. It is not imported: that takes seconds."""
    builds = {
        d.metadata["Name"]: d.version
        for d in metadata.distributions()
        if (d.metadata["Name"] or "").lower().startswith("spconv")
    }
    if not builds:
        text = "spconv is missing (SECOND needs it, PointPillars does not): docs/INSTALL.md says which build"
        advice.append(Advice(text, False))
        return {"spconv": "missing"}
    if len(builds) > 1:
        text = f"several builds of spconv hide each other: keep one of {', '.join(sorted(builds))}"
        advice.append(Advice(text, False))
    if _torch_sees_a_gpu() and set(builds) == {"spconv"}:
        wanted = "spconv-cu126" if sys.version_info[:2] == (3, 12) else "spconv-cu120"
        advice.append(
            Advice(f"this spconv runs on the CPU only: pip uninstall spconv cumm; pip install {wanted}", False)
        )
    return {name: f"{version} ({_spconv_backend(name)})" for name, version in sorted(builds.items())}


def _spconv_backend(name: str) -> str:
    _, _, tag = name.partition("-cu")
    return f"CUDA {tag[:-1]}.{tag[-1]}" if tag.isdigit() else "CPU"


def _torch_sees_a_gpu() -> bool:
    try:
        return importlib.import_module("torch").cuda.is_available()
    except ImportError:
        return False


def _threads(advice: list[Advice]) -> dict[str, str]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    facts = {"cores usable": str(usable)}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        facts[name] = os.environ.get(name, "not set")
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["torch"] = str(torch.get_num_threads())
        if torch.get_num_threads() > usable:
            text = f"torch would run {torch.get_num_threads()} threads on {usable} cores: set OMP_NUM_THREADS"
            advice.append(Advice(text, False))
    return facts
