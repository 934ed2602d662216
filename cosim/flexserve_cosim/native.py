"""The transaction-level machine and the software on it, compiled to machine code: the same Python, as it is typed.

mypyc compiles a copy of :mod:`flexserve_sw` into the cache. A process that has that copy first on its path runs it, as
:func:`flexserve_cosim.session.simulate_native` does. Modules that can't be compiled, or gain nothing, stay Python.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import sysconfig
from pathlib import Path

import flexserve_sw
from flexserve_sw.errors import UserError

from .compiler import Progress, build_root, cache_errors, locked, run_tool

__all__ = ["compile_software", "compiled_modules", "handles_while_waiting"]

_PACKAGE = Path(flexserve_sw.__file__).parent
_BUILD = "flexserve_cosim.mypyc_build"

_COMPILED = (
    "census.py", "designs", "drivers", "errors.py", "fast", "integers.py", "llm", "machine.py", "monitor", "normal",
    "npu", "serving", "sync.py", "tasks.py", "timeline.py",
)  # fmt: skip
"""What runs in a job; the rest of the package is about something else."""

_INTERPRETED = {
    "fast/master.py": "an enum whose members are made by __init__",
    "llm/gguf_reader.py": "read once",
    "llm/hf_reader.py": "read once",
    "llm/tokenizer_json.py": "read once, and mypyc stumbles over it",
    "serving/parts.py": "an error that is a builtin's subclass",
}
"""Modules among them that stay Python, and why."""


def handles_while_waiting(source: str) -> bool:
    """Whether a coroutine or generator of a module is suspended while it handles an exception.

    Compiled ones don't keep the exception that they handle to themselves: what another one handles meanwhile would take
    its place, and be raised again instead.
    """
    waits = (ast.Await, ast.Yield, ast.YieldFrom, ast.AsyncFor, ast.AsyncWith)
    for statement in ast.walk(ast.parse(source)):
        if isinstance(statement, ast.Try):
            handling = [*(line for handler in statement.handlers for line in handler.body), *statement.finalbody]
            if any(isinstance(node, waits) for line in handling for node in ast.walk(line)):
                return True
    return False


def compiled_modules(package: Path = _PACKAGE) -> list[Path]:
    """Modules that are compiled, relative to the package."""
    found = []
    for path in sorted(package.rglob("*.py")):
        module = path.relative_to(package)
        stays = path.name == "__init__.py" or module.as_posix() in _INTERPRETED or module.parts[0] not in _COMPILED
        if not stays and not handles_while_waiting(path.read_text()):
            found.append(module)
    return found


def _key(modules: list[Path]) -> str:
    facts = [str(sysconfig.get_config_var("SOABI")), sys.version, importlib.metadata.version("mypy")]
    digest = hashlib.sha256(json.dumps([*facts, *map(str, modules)]).encode())
    for path in sorted([*_PACKAGE.rglob("*"), Path(__file__).with_name("mypyc_build.py")]):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def compile_software(*, progress: Progress | None = None) -> Path:
    """Folder with the compiled package, made or found in the cache; for the head of a process's path.

    ``progress`` is told what takes long, in a sentence. Raises :class:`UserError` if a tool is missing or fails.
    """
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        raise UserError(f"Compiling the software needs a C compiler, but there is no {compiler}; install one.")
    for need in ("mypy", "setuptools"):
        try:
            importlib.metadata.version(need)
        except importlib.metadata.PackageNotFoundError:
            raise UserError(f"Compiling the software needs {need}: install extra native of the project.") from None
    modules = compiled_modules()
    root = build_root() / "native"
    home = root / _key(modules)
    if home.exists():
        return home
    with cache_errors(root), locked(root / f"{home.name}.lock"):
        if home.exists():
            return home
        if progress:
            progress(f"Compiling the software and its machine (once, two minutes; they are kept in {root})")
        work = root / f"{home.name}.work"
        shutil.rmtree(work, ignore_errors=True)
        copy = work / _PACKAGE.name
        shutil.copytree(_PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        files = [str(copy.relative_to(work) / module) for module in modules]
        # Not this folder, but the installed package, is where the build module comes from.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        run_tool([sys.executable, "-P", "-m", _BUILD, *files], cwd=work, environment=environment, what="mypyc")
        shutil.rmtree(work / "build")
        work.rename(home)
    return home
