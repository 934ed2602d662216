"""The documentation agrees with the code: generated pages are fresh, links lead somewhere, examples are valid."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from docs import render_attacks
from docs.render_registers import PAGE, render
from flexserve_sw.monitor.smc import Call

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = {str(path.relative_to(ROOT)): path for path in PAGES}
OWN = ("flexserve_hw", "flexserve_sw", "flexserve_cosim")


def test_register_reference_is_what_the_sources_say() -> None:
    assert PAGE.read_text() == render(), "run make docs"


def test_list_of_attacks_is_what_the_catalogues_say() -> None:
    assert render_attacks.PAGE.read_text() == render_attacks.render(), "run make docs"


@pytest.mark.parametrize("name", NAMES)
def test_links_and_pictures_lead_somewhere(name: str) -> None:
    page = NAMES[name]
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    local = [target.split("#")[0] for target in targets if not target.startswith(("http", "#"))]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("name", NAMES)
def test_paths_of_sources_exist(name: str) -> None:
    """Code in backquotes that looks like a file of the project is one."""
    found = re.findall(
        r"`((?:flexserve_\w+|docs|tests|training|hw|sw|cosim)/[\w/.]+\.(?:py|toml|md|rdl|svg))`",
        NAMES[name].read_text(),
    )
    roots = (ROOT, ROOT / "hw", ROOT / "sw", ROOT / "cosim")
    assert [path for path in found if not any((root / path).exists() for root in roots)] == []


@pytest.mark.parametrize("name", NAMES)
def test_python_examples_parse_and_import_what_exists(name: str) -> None:
    for block in re.findall(r"```python\n(.*?)```", NAMES[name].read_text(), flags=re.DOTALL):
        tree = compile(block, name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        assert isinstance(tree, ast.Module)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in OWN:
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_call_identifiers_are_those_of_the_monitor() -> None:
    text = (ROOT / "docs" / "programmers_guide.md").read_text()
    assert [call.name for call in Call if f"`0x{call.value:08X}`" not in text] == []


def test_make_targets_that_the_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"`make ([a-z-]+)", page.read_text())}
    assert named - targets == set()
