"""The floors of the package: who may import whom, read off the sources, and what importing may ask for."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO_ROOT = Path(__file__).resolve().parent.parent
PCDET = REPO_ROOT / "pcdet"

# Floor -> the floors it may import. A module belongs to the first floor whose name begins its own.
ALLOWED = {
    "pcdet.registry": ("pcdet.registry",),
    "pcdet.utils": ("pcdet.utils",),
    "pcdet.ops": ("pcdet.ops", "pcdet.utils"),
    "pcdet.datasets": ("pcdet.datasets", "pcdet.ops", "pcdet.utils", "pcdet.registry"),
    "pcdet.models.kd": ("pcdet.models.kd", "pcdet.models", "pcdet.ops", "pcdet.utils", "pcdet.registry"),
    "pcdet.models": ("pcdet.models", "pcdet.ops", "pcdet.utils", "pcdet.registry"),
    "pcdet.engine": ("pcdet.engine", "pcdet.utils", "pcdet.registry"),
    "pcdet.config": ("pcdet.config", "pcdet.datasets", "pcdet.models", "pcdet.engine", "pcdet.registry", "pcdet.utils"),
    "pcdet.api": ("pcdet.config", "pcdet.datasets", "pcdet.models", "pcdet.engine", "pcdet.utils", "pcdet.registry"),
    "pcdet.experiments": ("pcdet.experiments", "pcdet.config", "pcdet.datasets", "pcdet.registry", "pcdet.utils"),
    "pcdet.audit": (
        "pcdet.audit",
        "pcdet.experiments",
        "pcdet.datasets",
        "pcdet.ops",
        "pcdet.registry",
        "pcdet.utils",
    ),
    "pcdet.cli": ("pcdet",),
    "pcdet.doctor": (),
    "pcdet.testing": ("pcdet",),
}
# Commands of the package by their OpenPCDet names, or that a machine without torch can start: run as programs, they
# call their bodies in pcdet.cli, two floors up. Nothing else may.
RUN_AS_PROGRAMS = (
    "pcdet.datasets.kitti.kitti_dataset",
    "pcdet.datasets.nuscenes.nuscenes_dataset",
    "pcdet.datasets.kitti.evaluate",
    "pcdet.datasets.nuscenes.evaluate",
    "pcdet.datasets.simulated.__main__",
    "pcdet.doctor",
)
# What may be absent, or takes long to import: importing any module must do without. One file imports spconv.
OPTIONAL = (
    "spconv",
    "cumm",
    "tensorboardX",
    "matplotlib",
    "shapely",
    "onnx",
    "nuscenes",
    "optuna",
    "submitit",
    "plotly",
)


def modules() -> list[tuple[str, Path]]:
    """(dotted name, file) of every module of the package."""
    found = []
    for path in sorted(PCDET.rglob("*.py")):
        parts = path.relative_to(REPO_ROOT).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


@functools.cache
def parsed(source: str) -> ast.Module:
    """The tree of a file's text, made once for all tests."""
    return ast.parse(source)


def imports(name: str, path: Path, *, top_level_only: bool = False) -> list[tuple[int, str]]:
    """(line, absolute dotted name) of everything that a module imports, ``from a import b`` as ``a.b``."""
    tree = parsed(path.read_text(encoding="utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = []
    for node in _top_level(tree) if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and name_of_import(node) is not None:
            found.append((node.lineno, name_of_import(node)))
    return found


def name_of_import(call: ast.Call) -> str | None:
    """What ``importlib.import_module`` and ``__import__`` import, "?" if that is no literal; None for other calls."""
    called = ast.unparse(call.func)
    if called.split(".")[-1] not in ("import_module", "__import__"):
        return None
    return call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else "?"


def _top_level(tree: ast.Module) -> list[ast.stmt]:
    """Statements that run at import, but for those under ``if TYPE_CHECKING:``."""
    found = []
    for node in tree.body:
        found.append(node)
        if isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            found += node.body + node.orelse
        elif isinstance(node, ast.Try):
            found += node.body + [s for h in node.handlers for s in h.body] + node.orelse
    return found


def lines_of_the_program(path: Path) -> set[int]:
    """Lines under ``if __name__ == "__main__":``."""
    blocks = [
        node
        for node in parsed(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
    ]
    return {line for block in blocks for line in range(block.lineno, block.end_lineno + 1)}


def floor(name: str) -> str | None:
    """The floor on which a module stands; None for the package itself."""
    return next((f for f in ALLOWED if name == f or name.startswith((f"{f}.", f"{f}_"))), None)


def is_below(name: str, floors: tuple[str, ...]) -> bool:
    return any(name == f or name.startswith((f"{f}.", f"{f}_")) for f in floors)


def violations(name: str, path: Path) -> list[str]:
    own = floor(name)
    if own is None:
        return []
    wrong, program = [], lines_of_the_program(path) if name in RUN_AS_PROGRAMS else set()
    for line, target in imports(name, path):
        if target != "pcdet" and not target.startswith("pcdet."):
            continue
        if line in program and is_below(target, ("pcdet.cli",)):
            continue
        may = ALLOWED[own]
        up_from_models = own == "pcdet.models" and is_below(target, ("pcdet.models.kd",))
        if up_from_models or not (target in ("pcdet", "pcdet.__version__") or is_below(target, may)):
            wrong.append(f"{path.relative_to(REPO_ROOT)}:{line} imports {target}; {own} may import {may or 'nothing'}")
    return wrong


def test_every_module_stands_on_a_floor():
    homeless = [name for name, _ in modules() if name != "pcdet" and floor(name) is None]
    assert not homeless, f"add these to ALLOWED: {homeless}"


def test_imports_go_down_only():
    wrong = [v for name, path in modules() for v in violations(name, path)]
    assert not wrong, "\n".join(wrong)


def test_only_registries_import_what_a_variable_names():
    """A registry imports the package that fills it, at the first lookup; no other arrow is hidden in a string."""
    hidden = {name for name, path in modules() for _, target in imports(name, path) if target == "?"}
    assert hidden == {"pcdet.registry"}
    spelt = [
        f"{path.relative_to(REPO_ROOT)}:{node.lineno} {node.value}"
        for _, path in modules()
        for node in ast.walk(parsed(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and re.fullmatch(r"pcdet(\.\w+)+:\w+", str(node.value))
    ]
    assert not spelt, "import these plainly: " + "\n".join(spelt)


def test_no_files_import_each_other_in_a_circle():
    """Imports inside functions and those for type checkers count too."""
    names = {name for name, _ in modules()}
    arrows = {name: set() for name in names}
    for name, path in modules():
        program = lines_of_the_program(path) if name in RUN_AS_PROGRAMS else set()
        for line, target in imports(name, path):
            while target and target not in names:
                target = target.rpartition(".")[0]
            if target and target != name and line not in program:
                arrows[name].add(target)
    while True:  # files that import nothing that is left cannot be in a circle
        free = {name for name, targets in arrows.items() if not targets}
        if not free:
            break
        arrows = {name: targets - free for name, targets in arrows.items() if name not in free}
    assert not arrows, f"circles among {sorted(arrows)}"


def test_the_package_itself_imports_nothing():
    assert imports("pcdet", PCDET / "__init__.py") == []


@pytest.mark.parametrize(
    ("name", "source", "caught"),
    [
        ("pcdet.utils.x", "from pcdet.registry import Registry", True),
        ("pcdet.utils.x", "from . import common_utils", False),
        ("pcdet.ops.x", "import pcdet.datasets", True),
        ("pcdet.models.x", "from pcdet.models.kd import build_distiller", True),
        ("pcdet.models.kd.x", "from pcdet.models import build_network", False),
        ("pcdet.engine.x", "def f():\n    from pcdet.models import build_network", True),
        ("pcdet.datasets.x", "from ..config import cfg", True),
        ("pcdet.config.check", "from pcdet.registry import Registry", False),
        ("pcdet.api", "from pcdet.models import build_network", False),
        ("pcdet.api", "from pcdet.cli.train import main", True),
        ("pcdet.engine.x", "from pcdet.api import build_detector", True),
        ("pcdet.doctor", "if __name__ == '__main__':\n    from pcdet.cli.doctor import main", False),
        ("pcdet.doctor", "from pcdet.cli.doctor import main", True),
        ("pcdet.doctor", "if __name__ == '__main__':\n    from pcdet.config import cfg", True),
        ("pcdet.datasets.x", "if __name__ == '__main__':\n    from pcdet.cli.doctor import main", True),
    ],
)
def test_a_violation_is_seen(tmp_path, monkeypatch, name, source, caught):
    monkeypatch.setattr(sys.modules[__name__], "REPO_ROOT", tmp_path)
    path = tmp_path / "x.py"
    path.write_text(source)
    assert bool(violations(name, path)) is caught


def test_only_spconv_utils_imports_spconv():
    users = {
        str(path.relative_to(PCDET))
        for name, path in modules()
        for _, target in imports(name, path)
        if target.split(".")[0] in ("spconv", "cumm")
    }
    assert users <= {"utils/spconv_utils.py"}, users


def test_only_commands_touch_the_global_configuration():
    users = [
        name
        for name, path in modules()
        if floor(name) not in ("pcdet.config", "pcdet.cli")
        and any(t == "pcdet.config.cfg" for _, t in imports(name, path))
    ]
    assert not users


def test_optional_packages_are_imported_where_they_are_needed():
    wrong = [
        f"{name}:{line} imports {target} at the top; import it inside the function that needs it"
        for name, path in modules()
        for line, target in imports(name, path, top_level_only=True)
        if target.split(".")[0] in OPTIONAL and not name.endswith((".__main__", "pcdet.testing"))
    ]
    assert not wrong, "\n".join(wrong)


IMPORT_ALL = """
import importlib, importlib.abc, sys, warnings

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {optional!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked by the test", name=name)

sys.meta_path.insert(0, Blocked())
failed = []
for name in {names!r}:
    try:
        importlib.import_module(name)
    except Exception as error:
        failed.append(f"{{name}}: {{type(error).__name__}}: {{error}}")
import torch
assert not torch.cuda.is_initialized(), "importing pcdet started CUDA"
print("\\n".join(failed))
sys.exit(bool(failed))
"""


def test_every_module_imports_without_optional_packages_and_without_a_gpu():
    names = [name for name, _ in modules() if not name.endswith("__main__")]
    blocked = ("spconv", "cumm", "tensorboardX", "matplotlib", "optuna", "submitit", "plotly")
    code = IMPORT_ALL.format(optional=blocked, names=names)
    environment = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPO_ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=REPO_ROOT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
