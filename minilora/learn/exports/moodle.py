"""Moodle XML, which also carries tags, an id number, and a reason for every choice.

Cards that ask to match become Moodle's matching questions. Those that ask for an order stay
choices between orders: Moodle's own ordering question is not in every Moodle (core has it since
4.4), and could not say why a wrong order is wrong. A gap is a choice too, for the same reason.
Source of the format: docs.moodle.org, "Moodle XML format".
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from minilora.learn.exam.cards import TOPICS, Card, pairs
from minilora.learn.exam.maths import to_html
from minilora.learn.exports import wording


def moodle_xml(cards: Iterable[Card]) -> str:
    """The text of a Moodle XML file, a category for each topic."""
    quiz = Element("quiz")
    for topic, of_topic in groupby(cards, key=lambda card: card.topic):
        category = SubElement(SubElement(quiz, "question", type="category"), "category")
        path = f"$course$/top/{wording.COLLECTION}/{TOPICS[topic]}"
        SubElement(category, "text").text = path
        for card in of_topic:
            _add_question(quiz, card)
    indent(quiz)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(quiz, "unicode") + "\n"


def _add_question(quiz: Element, card: Card) -> None:
    matching = card.kind == "match"
    asked = wording.prompt(card) if matching else wording.question(card)
    reasons = wording.reasons(card) if matching else ""
    question = SubElement(quiz, "question", type="matching" if matching else "multichoice")
    SubElement(SubElement(question, "name"), "text").text = card.id
    _add_html(question, "questiontext", asked)
    _add_html(question, "generalfeedback", reasons + wording.feedback(card))
    settings = {"defaultgrade": "1", "penalty": "0.3333333", "hidden": "0", "idnumber": card.id}
    if not matching:
        settings |= {"single": "true", "answernumbering": "ABCD"}
    for name, value in {**settings, "shuffleanswers": "true"}.items():
        SubElement(question, name).text = value
    _add_pairs(question, card) if matching else _add_choices(question, card)
    tags = SubElement(question, "tags")
    for tag in card.tags:
        SubElement(SubElement(tags, "tag"), "text").text = tag


def _add_choices(question: Element, card: Card) -> None:
    for choice in card.choices:
        share = "100" if choice is card.right else "0"
        answer = _add_html(question, "answer", f"<p>{to_html(choice.text)}</p>", fraction=share)
        _add_html(answer, "feedback", f"<p>{to_html(choice.why)}</p>")


def _add_pairs(question: Element, card: Card) -> None:
    """Options are plain text: Moodle shows them in menus."""
    for item, option in pairs(card, card.right):
        subquestion = _add_html(question, "subquestion", f"<p>{to_html(item)}</p>")
        SubElement(SubElement(subquestion, "answer"), "text").text = wording.in_menu(option)


def _add_html(parent: Element, tag: str, html: str, **attributes: str) -> Element:
    element = SubElement(parent, tag, {**attributes, "format": "html"})
    SubElement(element, "text").text = html
    return element
