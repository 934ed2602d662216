"""One HTML page, complete in itself: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["Card", "attack_table", "page", "section", "table"]

Card = tuple[str, str, str]
"""Figure, what it is, and a line below."""

_STYLE = """
:root { --ink:#1c2430; --muted:#667085; --line:#e4e7ec; --good:#12805c; --bad:#b42318; --tint:#f6f8fb; }
* { box-sizing:border-box }
body { margin:0; color:var(--ink); background:#eef1f5;
  font:15px/1.55 Inter,"Segoe UI","Helvetica Neue",Arial,"Liberation Sans",sans-serif }
main { max-width:1080px; margin:0 auto; padding:36px 28px 56px }
header h1 { font-size:28px; line-height:1.2; margin:0 0 4px; letter-spacing:-.01em }
header p { margin:0; color:var(--muted) }
blockquote { margin:22px 0 0; padding:16px 20px; background:#fff; border:1px solid var(--line);
  border-left:4px solid #1a9e77; border-radius:10px; font:17px/1.6 Georgia,"Liberation Serif","DejaVu Serif",serif }
blockquote b { color:var(--muted); font-weight:400 }
.cards { display:grid; grid-template-columns:repeat(auto-fit,minmax(180px,1fr)); gap:12px; margin:18px 0 8px }
.card { background:#fff; border:1px solid var(--line); border-radius:10px; padding:14px 16px }
.card strong { display:block; font-size:24px; line-height:1.2; letter-spacing:-.01em;
  font-variant-numeric:tabular-nums }
.card span { display:block; font-size:13px }
.card small { display:block; color:var(--muted); font-size:12px; line-height:1.4; margin-top:2px }
section { background:#fff; border:1px solid var(--line); border-radius:10px; padding:20px 24px 18px; margin-top:16px }
h2 { font-size:18px; margin:0 0 2px }
section > p { margin:0 0 12px; color:var(--muted); font-size:14px; max-width:105ch }
svg { width:100%; height:auto; display:block }
.scroll { overflow-x:auto }
table { border-collapse:collapse; width:100%; font-size:14px; font-variant-numeric:tabular-nums }
th { text-align:left; font-weight:600; color:var(--muted); font-size:12.5px; vertical-align:bottom }
th,td { padding:7px 10px; border-bottom:1px solid var(--line) }
tr:last-child td { border-bottom:0 }
td:first-child, td:nth-child(2) { white-space:nowrap }
td.name { white-space:nowrap }
td.n, th.n { text-align:right; white-space:nowrap }
td.good { color:var(--good); font-weight:600 } td.bad { color:var(--bad); font-weight:600 }
footer { margin-top:20px; color:var(--muted); font-size:13px }
@media print { body { background:#fff } main { padding:0 } section { break-inside:avoid } }
"""


def page(
    *,
    title: str,
    subtitle: str,
    answer: tuple[str, str] | None,
    cards: Iterable[Card],
    sections: Iterable[str],
    foot: str,
) -> str:
    """The page. ``answer`` is the prompt and what the model made of it; the rest is plain text but for ``sections``."""
    quote = "" if answer is None else f"<blockquote><b>{escape(answer[0])}</b>{escape(answer[1])}</blockquote>"
    boxes = "".join(_card(*card) for card in cards)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f"<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p>{quote}</header>"
        f'<div class="cards">{boxes}</div>{"".join(sections)}<footer>{escape(foot)}</footer></main></body></html>\n'
    )


def section(title: str, text: str, *content: str) -> str:
    """A framed part of the page; ``content`` is HTML or SVG."""
    return f"<section><h2>{escape(title)}</h2><p>{escape(text)}</p>{''.join(content)}</section>"


def table(head: Sequence[str], rows: Iterable[Sequence[str | tuple[str, str]]], *, numbers: Sequence[int] = ()) -> str:
    """A table. A cell is text, or text and class: ``good``, ``bad``, or ``name`` for what stays in one line.

    Columns in ``numbers`` are set to the right.
    """
    titles = "".join(f"<th{_classes(i in numbers)}>{escape(text)}</th>" for i, text in enumerate(head))
    body = "".join("<tr>" + "".join(_cell(cell, i in numbers) for i, cell in enumerate(row)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def attack_table(attacks: Iterable[Mapping[str, Any]]) -> str:
    """Attacks with property aimed at and weakness looked for, what came of each and of its control, and that's kind."""
    rows = [
        (
            str(attack["name"]),
            str(attack["level"]),
            (str(attack["property"]), "name"),
            (str(attack["weakness"]).partition(" ")[0], "name"),
            (str(attack["outcome"]), "good" if attack["outcome"] == "blocked" else "bad"),
            (str(attack["control"]["outcome"]), "good" if attack["control"]["outcome"] == "succeeded" else "bad"),
            str(attack["control_kind"]),
            str(attack["seen"]),
        )
        for attack in attacks
    ]
    head = ["Attack", "Level", "Aims at", "Weakness", "Outcome", "Control", "Control is", "What the attacker saw"]
    return table(head, rows)


def _card(figure: str, what: str, below: str) -> str:
    text = f"<span>{escape(what)}</span><strong>{escape(figure)}</strong><small>{escape(below)}</small>"
    return f'<div class="card">{text}</div>'


def _cell(cell: str | tuple[str, str], number: bool) -> str:
    text, kind = cell if isinstance(cell, tuple) else (cell, "")
    return f"<td{_classes(number, kind)}>{escape(text)}</td>"


def _classes(number: bool, kind: str = "") -> str:
    names = " ".join(name for name in ("n" if number else "", kind) if name)
    return f' class="{names}"' if names else ""
