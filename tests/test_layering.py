"""Arrows between the packages point one way: co-simulation to hardware and to software, never back."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FORBIDDEN = {
    "sw/flexserve_sw": {"flexserve_hw", "flexserve_cosim", "cocotb", "cocotbext", "amaranth", "systemrdl"},
    "hw/flexserve_hw": {"flexserve_cosim", "cocotb", "cocotbext"},
}
"""Per package: import names that must not appear in it."""


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and top-level name of every import, those made by a call with a literal name too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.split(".")[0]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__", "find_spec") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value.split(".")[0]


def violations(source: str, forbidden: set[str]) -> list[str]:
    """Imports of ``source`` that are forbidden, as ``line: name``."""
    return [f"{line}: {name}" for line, name in imported(ast.parse(source)) if name in forbidden]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_package_imports_nothing_above_it(package: str) -> None:
    sources = {str(path): path.read_text() for path in (ROOT / package).rglob("*.py")}
    assert sources, f"no sources under {package}"
    found = [f"{name}:{text}" for name, source in sources.items() for text in violations(source, FORBIDDEN[package])]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import flexserve_hw",
        "from flexserve_hw.params import SocParams",
        "def f():\n    import cocotb.triggers as t",
        "import importlib\nimportlib.import_module('amaranth.hdl')",
        "if True:\n    from flexserve_cosim import build",
    ],
)
def test_checker_finds_each_way_to_import(source: str) -> None:
    assert len(violations(source, FORBIDDEN["sw/flexserve_sw"])) == 1


def test_importing_all_software_loads_no_hardware_and_no_simulator() -> None:
    program = """
import importlib, pkgutil, sys
import flexserve_sw
for module in pkgutil.walk_packages(flexserve_sw.__path__, "flexserve_sw."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
bad = {name.split(".")[0] for name in sys.modules} & set(sys.argv[1:])
sys.exit(f"loaded: {sorted(bad)}" if bad else 0)
"""
    names = sorted(FORBIDDEN["sw/flexserve_sw"])
    done = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
