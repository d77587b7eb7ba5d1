"""An exam for paper: one HTML file to print, with several versions of one exam, and their key.

All versions ask the same questions, each in its own order of questions and of choices. A version
begins on a page of its own, a question is never torn apart, and the key is at the end.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from html import escape

from minilora.learn.cards import GAP, Card
from minilora.learn.maths import to_html
from minilora.learn.quiz import LETTERS, Question, draw, question, shuffled

_STYLE = """
  :root { color-scheme: light; }
  body { font: 11pt/1.4 Georgia, "DejaVu Serif", serif; color: #000; background: #fff;
         max-width: 170mm; margin: 10mm auto; padding: 0 5mm; }
  h1 { font-size: 15pt; margin: 0; }
  header { border-bottom: 1.5pt solid #000; padding-bottom: 3mm; margin-bottom: 5mm; }
  .fields { display: flex; gap: 6mm; margin-top: 7mm; }
  .fields span { border-bottom: .6pt solid #000; flex: 2; display: block; }
  .fields span.short { flex: 1; }
  .fields b, .about { font-size: 9pt; font-weight: normal; color: #333; }
  .about { margin: 3mm 0 0; }
  code { font: .9em "DejaVu Sans Mono", Menlo, Consolas, monospace; }
  ol.questions { list-style: none; margin: 0; padding: 0; }
  .question { position: relative; padding-left: 9mm; margin-bottom: 6mm; break-inside: avoid; }
  .question > .number { position: absolute; left: 0; font-weight: bold; }
  .question p { margin: 0 0 2mm; break-after: avoid; }
  .lines { display: grid; grid-template-columns: max-content 1fr; gap: 1mm 2.5mm; margin: 0 0 2mm; }
  .columns { display: grid; grid-template-columns: 1fr 1fr; gap: 6mm; }
  .box { display: inline-block; width: 3.4mm; height: 3.4mm; border: .8pt solid #000;
         vertical-align: -.4mm; }
  .big { width: 7mm; height: 6mm; vertical-align: -1.6mm; }
  .gap { display: inline-block; width: 45mm; border-bottom: .8pt solid #000; }
  .key { width: 100%; border-collapse: collapse; font-size: 9.5pt; }
  .key th, .key td { text-align: left; vertical-align: top; padding: 1.2mm 2mm 1.2mm 0;
                     border-bottom: .4pt solid #999; }
  .key td:nth-child(2) { font-weight: bold; white-space: nowrap; }
  .key tr { break-inside: avoid; }
  .version { margin-bottom: 25mm; }
  @page { margin: 17mm 15mm; }
  @media print {
    body { margin: 0; padding: 0; max-width: none; }
    .version { break-after: page; margin: 0; }
    .version:last-child { break-after: auto; }
  }
"""


def paper_exam(cards: Sequence[Card], n: int, versions: Sequence[str], seed: int) -> str:
    """The HTML. cards: n of them are drawn, balanced over topics, by the seed; as are all orders.

    versions: their names, such as A and B.
    """
    drawn = draw(cards, n, random.Random(seed))
    papers = {}
    for version in versions:
        rng = random.Random(f"{seed} {version}")
        papers[version] = [question(card, rng) for card in shuffled(drawn, rng)]
    sheets = [_sheet(version, paper, seed) for version, paper in papers.items()]
    keys = [_key(version, paper, seed) for version, paper in papers.items()]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>LoRA exam, seed {seed}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(sheets + keys)
        + "\n</body>\n</html>\n"
    )


def _sheet(version: str, paper: list[Question], seed: int) -> str:
    questions = "\n".join(_question(asked, i + 1) for i, asked in enumerate(paper))
    return f"""<section class="version" id="version-{version}">
<header>
<h1>LoRA: exam, version {version}</h1>
<div class="fields"><span><b>Name</b></span><span class="short"><b>Date</b></span>
<span class="short"><b>Points (of {len(paper)})</b></span></div>
<p class="about">One point for each question. Of the choices one is right: tick its box.</p>
</header>
<ol class="questions">
{questions}
</ol>
</section>"""


def _question(asked: Question, number: int) -> str:
    card = asked.card
    gap = '<span class="gap"></span>' if card.kind == "cloze" else GAP
    text = to_html(card.question).replace(GAP, gap)
    forms = {"order": _order, "match": _match, "cloze": lambda card: ""}
    form = forms[card.kind](card) if card.kind in forms else _choices(asked)
    return f'<li class="question"><span class="number">{number}</span>\n<p>{text}</p>{form}</li>'


def _choices(asked: Question) -> str:
    rows = [
        f'<span><span class="box"></span> {asked.letter(choice)}</span>'
        f"<span>{to_html(choice.text)}</span>"
        for choice in asked.choices
    ]
    return _lines(rows)


def _order(card: Card) -> str:
    boxes = '<span class="box big"></span> ' * len(card.items)
    return f"{_numbered(card.items)}<p>Their numbers, in the right order: {boxes}</p>"


def _match(card: Card) -> str:
    rows = [
        f'<span><span class="box big"></span> {i + 1}</span><span>{to_html(item)}</span>'
        for i, item in enumerate(card.items)
    ]
    options = [
        f"<span>{LETTERS[i]}</span><span>{to_html(option)}</span>"
        for i, option in enumerate(card.options)
    ]
    columns = _lines(rows) + _lines(options)
    return f'<p>A letter into each box:</p><div class="columns">{columns}</div>'


def _numbered(items: Sequence[str]) -> str:
    return _lines([f"<span>{i + 1}</span><span>{to_html(t)}</span>" for i, t in enumerate(items)])


def _lines(rows: list[str]) -> str:
    return '<div class="lines">' + "\n".join(rows) + "</div>"


def _key(version: str, paper: list[Question], seed: int) -> str:
    """What is right, and why, in the order of this version."""
    rows = "\n".join(
        f"<tr><td>{i + 1}</td><td>{_solution(asked)}</td>"
        f"<td>{to_html(asked.card.right.why)}</td><td>{escape(asked.card.id)}</td></tr>"
        for i, asked in enumerate(paper)
    )
    return f"""<section class="version" id="key-{version}">
<header><h1>Key, version {version}</h1>
<p class="about">For the teacher. Questions drawn with seed {seed}.</p></header>
<table class="key">
<thead><tr><th>No.</th><th>Answer</th><th>Why</th><th>Card</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
</section>"""


def _solution(asked: Question) -> str:
    right = asked.card.right
    if asked.card.kind in ("choice", "error"):
        return asked.letter(right)
    return to_html(right.text)
