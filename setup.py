"""Builds pcdet and its native library ``pcdet/ops/_C`` from every ``pcdet/ops/**/src``.

The CPU ops are always built. The CUDA ops are added when this torch has CUDA and an nvcc of the same major version is
found (``pcdet/utils/cuda_toolkit.py`` says where); ``FORCE_CUDA=1`` asks for them (and fails without nvcc),
``FORCE_CUDA=0`` leaves them out. ``TORCH_CUDA_ARCH_LIST`` and ``MAX_JOBS`` work as usual.
``PCDET_SANITIZE=address,undefined`` builds the CPU ops with those sanitizers.

    python setup.py build_ext --inplace     # in the checkout, next to the sources
    pip install --no-build-isolation -e .   # the same, and pcdet can be imported from anywhere
"""

import os
import re
import shutil
import sys
import sysconfig
from pathlib import Path

# ninja may be installed beside this interpreter in an environment that is not activated.
os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])

import torch
from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from pcdet.utils.cuda_toolkit import ToolkitError, fitting_toolkit, major

OPS = Path("pcdet/ops")
# Into how many translation units the sources of a kind are joined. PyTorch's headers take nearly all of a compiler's
# time, and a joined source reads them once: two units keep two cores busy; nvcc spends more on the kernels themselves.
UNITS = {".cpp": 2, ".cu": 4}


def choose_cuda() -> bool:
    """Whether the CUDA kernels are built, as this file's first lines say; their toolkit becomes torch's CUDA_HOME."""
    asked, cuda = os.environ.get("FORCE_CUDA", ""), torch.version.cuda
    if asked not in ("", "0", "1"):
        raise SystemExit(f"FORCE_CUDA must be 1 (build the CUDA ops), 0 (leave them out) or not set, got {asked!r}")
    if asked == "0" or (cuda is None and asked == ""):
        return False
    if cuda is None:
        raise SystemExit(f"FORCE_CUDA=1, but torch {torch.__version__} has no CUDA. Install a CUDA build of torch")
    try:
        toolkit = fitting_toolkit(cuda)
    except ToolkitError as error:
        raise SystemExit(str(error)) from error
    if toolkit:
        os.environ["CUDA_HOME"] = str(toolkit.home)
        return True
    missing = f"torch {torch.__version__} needs nvcc {major(cuda)}, which was not found (PATH, /usr/local/cuda, .venv)"
    if asked == "1":
        raise SystemExit(f"FORCE_CUDA=1, but {missing}: `make setup FORCE_CUDA=1` installs it, or set CUDA_HOME")
    print(f"only the CPU ops are built: {missing}", file=sys.stderr)
    return False


WITH_CUDA = choose_cuda()

from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension  # reads CUDA_HOME when imported


def compile_flags() -> dict[str, list[str]]:
    """Flags for g++ and nvcc.

    No -march: the library must run on any CPU of the platform; hot loops pick wider vectors at run time
    (``pcdet/simd.h``). No contraction into fused multiply-add: a result would depend on the machine. nvcc fuses, as
    it does by itself: what must not depend on that avoids it in the source (``unfused_product``, ``overlap_bev``).
    Nobody looks at the floating-point exception flags, and without them more loops become vector loops.
    """
    cxx = ["-O3", "-g0", "-std=c++20", "-fvisibility=hidden", "-ffp-contract=off", "-fno-trapping-math"]
    cxx += ["-Wall", "-Wno-unknown-pragmas"]
    if sys.platform == "linux":
        cxx.append("-fopenmp")  # not given to the linker: the symbols come from the OpenMP runtime torch has loaded
    if sanitizers := os.environ.get("PCDET_SANITIZE"):
        # Any finding ends the process. Torch's classes hide their type information, which vptr would need.
        cxx += [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-fno-sanitize=vptr"]
        cxx += ["-fno-omit-frame-pointer", "-g1", "-O1"]
    return {"cxx": cxx, "nvcc": ["-O3", "-std=c++20", "-lineinfo", "--expt-relaxed-constexpr"]}


def number_of_units(suffix: str) -> int:
    """UNITS, or more where MAX_JOBS says that more compilers run at once: then C++ and CUDA together fill them."""
    jobs = int(os.environ.get("MAX_JOBS") or 0)
    return max(UNITS[suffix], int(jobs * {".cpp": 0.4, ".cu": 0.6}[suffix]))


def joined(suffix: str) -> list[str]:
    """File suffix -> the translation units that include every source of that kind; written only where they change."""
    sources, number = sorted(OPS.rglob(f"src/*{suffix}")), number_of_units(suffix)
    folder = Path("build/units")
    folder.mkdir(parents=True, exist_ok=True)
    units = []
    for i in range(min(number, len(sources))):
        unit = folder / f"ops_{suffix[1:]}_{i}{suffix}"  # ops_cpp_0.o and ops_cu_0.o share a folder
        text = "".join(f'#include "../../{source.as_posix()}"\n' for source in sources[i::number])
        if not unit.is_file() or unit.read_text() != text:
            unit.write_text(text)
        units.append(str(unit))
    return units


def native_library():
    """The one extension; paths relative to this file, as setuptools wants them."""
    os.chdir(ROOT)
    included = [path for path in OPS.rglob("*") if path.suffix in {".h", ".inc", ".cuh", ".cpp", ".cu"}]
    sanitizers = os.environ.get("PCDET_SANITIZE")
    return (CUDAExtension if WITH_CUDA else CppExtension)(
        "pcdet.ops._C",
        [*joined(".cpp"), *(joined(".cu") if WITH_CUDA else [])],
        include_dirs=[str(ROOT / OPS / "include")],
        depends=sorted(map(str, included)),
        extra_compile_args=compile_flags() if WITH_CUDA else {"cxx": compile_flags()["cxx"]},
        extra_link_args=[f"-fsanitize={sanitizers}"] if sanitizers else [],
        py_limited_api=True,
    )


def requirements() -> list[str]:
    """The lines of requirements.txt, but for what only builds the ops (``build-system`` in pyproject.toml names it).

    torch and spconv are not among them: which build fits depends on the machine (docs/INSTALL.md).
    """
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    return [line for line in lines if line and not re.match(r"(ninja|setuptools|wheel)\b", line)]


COMMANDS = {
    "pcdet-train": "train", "pcdet-train-kd": "train_kd", "pcdet-test": "test", "pcdet-compare": "compare",
    "pcdet-demo": "demo", "pcdet-doctor": "doctor", "pcdet-kd-measure": "kd_measure", "pcdet-audit": "audit",
}  # fmt: skip
# Folder of the package -> folder of the checkout: model files and lists of frames.
SHIPPED = {"pcdet/cfgs": "tools/cfgs", "pcdet/data/kitti/ImageSets": "data/kitti/ImageSets"}


class BuildWithShippedFiles(build_py):
    """Copies what the package carries into it; an editable installation finds it in the checkout."""

    def run(self):
        """Called by setuptools."""
        super().run()
        for target, source in SHIPPED.items() if not self.editable_mode else ():
            ignored = shutil.ignore_patterns("*.md")
            shutil.copytree(ROOT / source, Path(self.build_lib, target), ignore=ignored, dirs_exist_ok=True)


setup(
    name="pcdet",
    version=re.search(r'__version__ = "(.+?)"', (ROOT / "pcdet/__init__.py").read_text()).group(1),
    description="Training, distilling and evaluating LiDAR 3D object detectors",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=["pcdet", "pcdet.*"]),
    package_data={
        "pcdet.ops": ["include/pcdet/*.h"],
        "pcdet.audit.page": ["*.html", "*.css", "*.js"],
        "pcdet.datasets.nuscenes": ["splits.json"],
    },
    install_requires=requirements(),
    entry_points={"console_scripts": [f"{command} = pcdet.cli.{module}:main" for command, module in COMMANDS.items()]},
    ext_modules=[native_library()],
    cmdclass={
        "build_ext": BuildExtension.with_options(no_python_abi_suffix=True),
        "build_py": BuildWithShippedFiles,
    },
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
