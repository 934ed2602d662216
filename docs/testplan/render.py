"""Write the tables of docs/verification.md from the testplans. ``make docs`` runs it; a test holds the page to it."""

import tomllib
from pathlib import Path

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent / "verification.md"
BEGIN, END = "<!-- testplan: begin -->", "<!-- testplan: end -->"


def render() -> str:
    """Tables of every plan, in the order of their file names."""
    lines = []
    for path in sorted(FOLDER.glob("*.toml")):
        plan = tomllib.loads(path.read_text())
        lines += [f"### {plan['title']}", "", plan["intro"].strip(), ""]
        for claim in plan["claim"]:
            lines += [f"#### {claim['id']} {claim['title']}", "", f"**Claim.** {_flow(claim['claim'])}", ""]
            lines += [f"**Stimulus.** {_flow(claim['stimulus'])}", "", f"**Check.** {_flow(claim['check'])}", ""]
            lines += ["**Tests.**", "", *(f"- `{test}`" for test in claim["tests"]), ""]
    return "\n".join(lines)


def page(text: str) -> str:
    """``text`` of the page with the tables between its marks renewed."""
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n{render()}{END}{tail}"


def _flow(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
