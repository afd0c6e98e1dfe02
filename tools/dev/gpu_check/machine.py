"""What a check was made on: card, driver, processor, versions and sources. Nothing here imports torch."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

from pcdet.utils.cuda_toolkit import find_toolkits

ROOT = Path(__file__).resolve().parents[3]
EMULATOR = "PCDET_CUDA_EMULATOR"
PACKAGES = ("torch", "numpy", "spconv", "triton", "pytest", "pytest-xdist")
SOURCES = (
    *("pcdet/**/*.py", "pcdet/**/*.cpp", "pcdet/**/*.cu", "pcdet/**/*.cuh", "pcdet/**/*.h", "pcdet/**/*.inc"),
    *("tests/**/*.py", "tools/**/*.py", "tools/cfgs/**/*.yaml", "setup.py", "pyproject.toml"),
)
SPCONV_BUILD = re.compile(r"(?<=^spconv)-cu\d+$")  # builds of spconv have the CUDA version in their names
SMI_FIELDS = ("name", "compute_cap", "driver_version", "memory.total")


class NoDeviceError(RuntimeError):
    """There is no card, or no library of the emulator."""


def read_machine(device: str) -> dict:
    """The facts of a check.

    Args:
        device: cuda, emulated or cpu.

    Returns:
        device, card, compute_capability, driver, card_memory, processor, cores, memory_gb, versions,
        missing_packages, commit, sources;
        None for those of a card where none is used.

    Raises:
        NoDeviceError: for cuda and emulated.
    """
    card = dict.fromkeys(("card", "compute_capability", "driver", "card_memory"))
    if device == "cuda":
        card = _read_card()
    versions = _versions()
    if device == "emulated":
        versions["emulator"] = _sum_of_emulator()
    return {
        "device": device,
        **card,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "versions": versions,
        "missing_packages": _missing_packages(),
        "commit": _commit(),
        "sources": _sum_of_sources(),
    }


def _read_card() -> dict:
    command = ["nvidia-smi", f"--query-gpu={','.join(SMI_FIELDS)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        reason = "nvidia-smi was not found: no NVIDIA driver here; rehearse with --device cpu --small"
        raise NoDeviceError(reason) from None
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise NoDeviceError(f"nvidia-smi shows no card: {(done.stdout + done.stderr).strip()}")
    names = ("card", "compute_capability", "driver", "card_memory")
    return dict(zip(names, (cell.strip() for cell in lines[0].split(",")), strict=True))


def _sum_of_emulator() -> str:
    library = os.environ.get(EMULATOR, "")
    if not Path(library).is_file():
        raise NoDeviceError(f"device emulated needs the emulator's library: {EMULATOR} must name it, got {library!r}")
    return hashlib.sha256(Path(library).read_bytes()).hexdigest()[:16]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", info.read_text(), re.MULTILINE) if info.is_file() else None
    return found[1] if found else platform.machine()


def _nvcc() -> str | None:
    """The releases of the compilers that setup.py finds, the preferred one first."""
    return ", ".join(dict.fromkeys(toolkit.release for toolkit in find_toolkits())) or None


def _versions() -> dict[str, str | None]:
    """What there is of Python, nvcc and the packages; None for those that are not installed."""
    found = {"python": platform.python_version(), "nvcc": _nvcc(), **dict.fromkeys(PACKAGES)}
    for package in metadata.distributions():
        name = SPCONV_BUILD.sub("", (package.name or "").lower())
        if name in PACKAGES:
            found[name] = package.version
    return found


def _missing_packages() -> list[str]:
    """What requirements.txt names and this environment has not."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = {found[0].lower() for line in lines if (found := re.match(r"[A-Za-z][\w-]*", line))}
    return sorted(wanted - {(package.name or "").lower() for package in metadata.distributions()})


def _commit() -> str | None:
    """HEAD, with a word on changes that are not committed; None outside a repository."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + (" and changes" if _git("status", "--porcelain") else "")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=60, check=True
    ).stdout.strip()


def _sum_of_sources() -> str:
    """One number for the content of every source, so that a change that is not committed counts too."""
    total = hashlib.sha256()
    for file in sorted({file for pattern in SOURCES for file in ROOT.glob(pattern)}):
        total.update(f"{file.relative_to(ROOT)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:16]
