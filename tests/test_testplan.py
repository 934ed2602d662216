"""The testplan tells the truth: every claim has tests, every test it names exists, and the page in docs/ shows it."""

import ast
import tomllib
from pathlib import Path
from typing import Any

import pytest

from docs.testplan.render import page

ROOT = Path(__file__).parent.parent
PLANS = sorted((ROOT / "docs" / "testplan").glob("*.toml"))
FIELDS = ("id", "title", "claim", "stimulus", "check", "tests")
SECURITY = [f"SEC-{n:02}" for n in range(1, 14)]


def claims() -> list[dict[str, Any]]:
    """All claims of all plans."""
    return [claim for plan in PLANS for claim in tomllib.loads(plan.read_text())["claim"]]


def names_in(path: Path) -> set[str]:
    """Functions of a test file whose name says test; in a ``tb_*.py``, those that cocotb runs."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.name.startswith("test") or any("cocotb" in ast.unparse(d) for d in node.decorator_list))
    }


def problem(reference: str, root: Path = ROOT) -> str | None:
    """What is wrong with ``path::name``, or None."""
    path, _, name = reference.partition("::")
    if not (root / path).is_file():
        return f"{reference}: no such file"
    if name not in names_in(root / path):
        return f"{reference}: no such test in the file"
    return None


def test_every_security_property_is_claimed_once() -> None:
    assert sorted(claim["id"] for claim in claims() if claim["id"].startswith("SEC-")) == SECURITY


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: str(claim.get("id")))
def test_claim_is_complete_and_its_tests_exist(claim: dict[str, Any]) -> None:
    assert [name for name in FIELDS if not claim.get(name)] == []
    assert [text for text in map(problem, claim["tests"]) if text] == []


def test_verification_page_is_what_the_plan_says() -> None:
    text = (ROOT / "docs" / "verification.md").read_text()
    assert text == page(text), "run make docs"


def test_checker_refuses_a_name_that_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text("def test_real(): ...\ndef helper(): ...\n")
    (tmp_path / "tb_x.py").write_text("@cocotb.test()\nasync def reads_zero(dut): ...\nasync def aid(): ...\n")
    assert problem("test_x.py::test_real", tmp_path) is None
    assert problem("tb_x.py::reads_zero", tmp_path) is None
    assert problem("test_x.py::helper", tmp_path) == "test_x.py::helper: no such test in the file"
    assert problem("tb_x.py::aid", tmp_path) == "tb_x.py::aid: no such test in the file"
    assert problem("test_y.py::test_real", tmp_path) == "test_y.py::test_real: no such file"
