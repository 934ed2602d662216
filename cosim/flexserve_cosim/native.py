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

__all__ = ["build_key", "compile_software", "compiled_modules", "handles_while_waiting"]

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


_SHAPING = ("CC", "CFLAGS", "CPPFLAGS", "LDFLAGS")
"""Variables of the environment by which a build differs."""

_WAITS = (ast.Await, ast.Yield, ast.YieldFrom, ast.AsyncFor, ast.AsyncWith)


def _waits(node: ast.AST) -> bool:
    """Whether anything in a piece of code may suspend it."""
    return any(
        isinstance(part, _WAITS) or (isinstance(part, ast.comprehension) and part.is_async) for part in ast.walk(node)
    )


def _leaves_by_waiting(source: str) -> bool:
    """Whether leaving an ``async with`` of a module's classes may take time."""
    return any(
        isinstance(node, ast.AsyncFunctionDef) and node.name == "__aexit__" and _waits(node)
        for node in ast.walk(ast.parse(source))
    )


def handles_while_waiting(source: str, *, leaving_waits: bool = False) -> bool:
    """Whether a coroutine or generator of a module may be suspended while it handles an exception.

    Compiled ones don't keep the exception that they handle to themselves: what another one handles meanwhile would take
    its place, and be raised again instead. ``leaving_waits`` tells that ``async with`` may be left by waiting.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AsyncWith) and leaving_waits:
            return True
        if isinstance(node, ast.Try | ast.TryStar):
            handling = [*(line for handler in node.handlers for line in handler.body), *node.finalbody]
            if any(map(_waits, handling)):
                return True
    return False


def compiled_modules(package: Path = _PACKAGE) -> list[Path]:
    """Modules that are compiled, relative to the package."""
    sources = {path.relative_to(package): path.read_text() for path in sorted(package.rglob("*.py"))}
    leaving_waits = any(map(_leaves_by_waiting, sources.values()))
    return [
        module
        for module, source in sources.items()
        if module.parts[0] in _COMPILED
        and module.name != "__init__.py"
        and module.as_posix() not in _INTERPRETED
        and not handles_while_waiting(source, leaving_waits=leaving_waits)
    ]


def build_key(package: Path = _PACKAGE) -> str:
    """Hash of all that makes a build what it is. Raises :class:`UserError` if mypyc is not installed."""
    facts = [sys.version, str(sysconfig.get_config_var("SOABI")), *(os.environ.get(name, "") for name in _SHAPING)]
    for need in ("mypy", "setuptools", "numpy"):
        try:
            facts.append(importlib.metadata.version(need))
        except importlib.metadata.PackageNotFoundError:
            raise UserError(f"Compiling the software needs {need}: install extra native of the project.") from None
    digest = hashlib.sha256(json.dumps(facts).encode())
    ours = [Path(__file__), Path(__file__).with_name("mypyc_build.py")]
    for path in [*sorted(package.rglob("*")), *ours]:
        if path.is_file() and path.suffix not in (".pyc", ".so"):
            name = path.name if path in ours else path.relative_to(package).as_posix()
            content = path.read_bytes()
            digest.update(json.dumps([name, len(content)]).encode() + content)
    return digest.hexdigest()[:16]


def compile_software(*, progress: Progress | None = None) -> Path:
    """Folder with the compiled package, made or found in the cache; for the head of a process's path.

    There, compiled modules have no source beside them, so nothing of them can run as Python. ``progress`` is told what
    takes long, in a sentence. Raises :class:`UserError` if a tool is missing or fails.
    """
    root = build_root() / "native"
    home = root / build_key()
    if home.exists():
        return home
    _require_compiler()
    with cache_errors(root, what="The compiled software"), locked(root / f"{home.name}.lock"):
        if home.exists():
            return home
        if progress:
            progress(f"Compiling the software and its machine (once, two minutes; they are kept in {root})")
        work = root / f"{home.name}.work"
        shutil.rmtree(work, ignore_errors=True)
        copy = work / _PACKAGE.name
        shutil.copytree(_PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        if build_key(copy) != home.name:
            raise UserError("The software has changed while it was to be compiled; run that again.")
        modules = [copy / module for module in compiled_modules(copy)]
        # Not this folder, but the installed package, is where the build module comes from.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        environment.pop("MYPYPATH", None)
        files = [str(module.relative_to(work)) for module in modules]
        run_tool([sys.executable, "-P", "-m", _BUILD, *files], cwd=work, environment=environment, what="mypyc")
        shutil.rmtree(work / "build")
        for module in modules:
            module.unlink()
        work.rename(home)
    return home


def _require_compiler() -> None:
    """Say what is missing before minutes have passed."""
    compiler = (os.environ.get("CC", "").split() or str(sysconfig.get_config_var("CC") or "cc").split())[0]
    if shutil.which(compiler) is None:
        raise UserError(f"Compiling the software needs a C compiler, but there is no {compiler}; install one.")
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        raise UserError(f"Compiling the software needs Python's headers in {headers}; install them (python3-dev).")
