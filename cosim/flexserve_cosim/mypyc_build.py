"""Compiles modules with mypyc where they are: ``python -m flexserve_cosim.mypyc_build FILE...``, a process of its own.

Needs mypy and setuptools, of extra ``native``, and a C compiler.
"""

from __future__ import annotations

import sys

from mypyc.build import mypycify
from setuptools import setup

__all__ = ["OPTIONS"]

OPTIONS = ("--config-file=", "--ignore-missing-imports", "--no-incremental")
"""For mypy, which is to heed nobody's settings. The types are checked strictly elsewhere; here they are taken."""


def main() -> None:
    """Compile the files named on the command line: one extension module with all of it, and a small one beside each."""
    modules = mypycify([*OPTIONS, *sys.argv[1:]], opt_level="3", debug_level="0", multi_file=True)
    setup(name="flexserve-native", script_args=["--quiet", "build_ext", "--inplace"], ext_modules=modules, packages=[])


if __name__ == "__main__":
    main()
