"""An exam for paper: one HTML file to print, with several versions of one exam, and their key.

All versions ask the same questions, each in its own order of questions and of choices. A version
begins on a page of its own, a question is never torn apart, and the key is at the end.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from html import escape

from minilora.learn.exam.answers import is_typed
from minilora.learn.exam.cards import GAP, LETTERS, Card
from minilora.learn.exam.maths import to_html
from minilora.learn.exam.quiz import Question, draw, question, shuffled

_STYLE = """
  :root { color-scheme: light; }
  body { font: 10.5pt/1.35 Georgia, "DejaVu Serif", serif; color: #000; background: #fff;
         max-width: 178mm; margin: 10mm auto; padding: 0 5mm; }
  h1 { font-size: 15pt; margin: 0; }
  header { border-bottom: 1.5pt solid #000; padding-bottom: 2.5mm; margin-bottom: 5mm; }
  .fields { display: flex; gap: 6mm; margin-top: 8mm; font-size: 9pt; color: #333; }
  .fields span { flex: 1; border-bottom: .6pt solid #000; }
  .fields span:first-child { flex: 3; }
  .about { margin: 2.5mm 0 0; font-size: 9pt; color: #333; }
  code { font: .88em "DejaVu Sans Mono", Menlo, Consolas, monospace; }
  sub, sup { line-height: 0; }
  .question { position: relative; padding-left: 9mm; margin-bottom: 5mm; break-inside: avoid; }
  .question > b { position: absolute; left: 0; }
  .question p { margin: 0 0 1.5mm; }
  .rows { display: grid; grid-template-columns: max-content 1fr; gap: .8mm 2.5mm; margin: 0 0 2mm;
          align-items: baseline; }
  .two { display: grid; grid-template-columns: 1fr 1fr; gap: 6mm; }
  .box { display: inline-block; width: 3.2mm; height: 3.2mm; border: .8pt solid #000;
         vertical-align: -.3mm; margin-right: 1mm; }
  .large { width: 7mm; height: 6mm; vertical-align: -1.6mm; margin: 0 0 0 1.5mm; }
  .gap { display: inline-block; width: 45mm; border-bottom: .8pt solid #000; }
  table { width: 100%; border-collapse: collapse; font-size: 8.5pt; line-height: 1.25; }
  th, td { text-align: left; vertical-align: top; padding: .9mm 3mm .9mm 0;
           border-bottom: .4pt solid #999; }
  tr { break-inside: avoid; }
  .answer { font-weight: bold; white-space: nowrap; }
  .card { color: #555; }
  section { margin-bottom: 25mm; }
  @page { margin: 15mm 15mm 17mm; }
  @media print {
    body { margin: 0; padding: 0; max-width: none; }
    section { break-after: page; margin: 0; }
    section:last-child { break-after: auto; }
  }
"""
_FOOT = """  @page {name} {{ @bottom-right {{ content: "{title}"; font: 8.5pt Georgia, serif; }} }}
  #{name} {{ page: {name}; }}
"""


def paper_exam(cards: Sequence[Card], n: int, versions: Sequence[str], seed: int) -> str:
    """The HTML. cards: n of them are drawn, balanced over topics, by the seed; as are all orders.

    versions: their names, such as A and B. The seed stands on the key alone, which it makes again.
    """
    drawn = draw(cards, n, random.Random(seed))
    papers = {}
    for version in versions:
        rng = random.Random(f"{seed} {version}")
        papers[version] = [question(card, rng) for card in shuffled(drawn, rng)]
    feet = [_FOOT.format(name=f"version-{v}", title=f"Version {v}") for v in papers]
    feet += [_FOOT.format(name=f"key-{v}", title=f"Key, version {v}") for v in papers]
    sheets = [_sheet(version, paper) for version, paper in papers.items()]
    keys = [_key(version, paper, seed) for version, paper in papers.items()]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>LoRA: exam</title>\n<style>{_STYLE}{''.join(feet)}</style>\n"
        "</head>\n<body>\n" + "\n".join(sheets + keys) + "\n</body>\n</html>\n"
    )


def _sheet(version: str, paper: list[Question]) -> str:
    questions = "\n".join(_question(asked, i + 1) for i, asked in enumerate(paper))
    return f"""<section id="version-{version}">
<header>
<h1>LoRA: exam, version {version}</h1>
<div class="fields"><span>Name</span><span>Date</span><span>Points, of {len(paper)}</span></div>
<p class="about">One point for each question. Of the choices exactly one is right: tick its box.</p>
</header>
{questions}
</section>"""


_BOX = '<span class="box"></span>'
_LARGE_BOX = '<span class="box large"></span>'


def _question(asked: Question, number: int) -> str:
    card = asked.card
    text = to_html(card.question)
    if card.kind == "cloze":
        form, text = "", text.replace(GAP, '<span class="gap"></span>')
    elif card.kind == "order":
        form = _order(card)
    elif card.kind == "match":
        form = _match(card)
    else:
        form = _rows((_BOX + asked.letter(choice), choice.text) for choice in asked.choices)
    return f'<div class="question"><b>{number}</b>\n<p>{text}</p>\n{form}</div>'


def _order(card: Card) -> str:
    items = _rows((str(i + 1), item) for i, item in enumerate(card.items))
    boxes = " ".join([_LARGE_BOX] * len(card.items))
    return f"{items}\n<p>Their numbers in the right order: {boxes}</p>"


def _match(card: Card) -> str:
    items = _rows((f"{i + 1}{_LARGE_BOX}", item) for i, item in enumerate(card.items))
    options = _rows((LETTERS[i], option) for i, option in enumerate(card.options))
    return f'<p>A letter into each box:</p>\n<div class="two">{items}{options}</div>'


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    """Labels, which are HTML, and beside each its text, which becomes it."""
    lines = [f"<span>{label}</span><span>{to_html(text)}</span>" for label, text in rows]
    return '<div class="rows">' + "\n".join(lines) + "</div>"


def _key(version: str, paper: list[Question], seed: int) -> str:
    """What is right, and why, in the order of this version."""
    rows = "\n".join(_key_row(asked, i + 1) for i, asked in enumerate(paper))
    return f"""<section id="key-{version}">
<header><h1>Key, version {version}</h1>
<p class="about">For the teacher. Questions drawn with seed {seed}.</p></header>
<table>
<thead><tr><th>No.</th><th>Answer</th><th>Why</th><th>Card</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
</section>"""


def _key_row(asked: Question, number: int) -> str:
    right = asked.card.right
    answer = to_html(right.text) if is_typed(asked.card) else asked.letter(right)
    return (
        f'<tr><td>{number}</td><td class="answer">{answer}</td><td>{to_html(right.why)}</td>'
        f'<td class="card">{escape(asked.card.id)}</td></tr>'
    )
