"""QTI 1.2 as Canvas reads and writes it: a zip with a manifest and one quiz.

Of QTI's many ways to ask, a card uses two: one response of which one label is right, or, to match,
a response for each item with the same labels. Every label has its feedback. Sources: IMS Question &
Test Interoperability 1.2, ASI XML binding; the fields `question_type` and the file
assessment_meta.xml are Canvas's (its API, "Quiz Questions").
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from minilora.learn.exam.cards import Card, pairs
from minilora.learn.exam.maths import to_html
from minilora.learn.exports import wording

_QTI = "http://www.imsglobal.org/xsd/ims_qtiasiv1p2"
_PACKAGE = "http://www.imsglobal.org/xsd/imsccv1p1/imscp_v1p1"
_CANVAS = "http://canvas.instructure.com/xsd/cccv1p0"
_META = "associatedcontent/imscc_xmlv1p1/learning-application-resource"
_QUIZ = "minilora-cards"
_ALWAYS = "general_fb"  # Canvas's name for the feedback that follows any answer


def write_qti(cards: Iterable[Card], path: Path) -> None:
    """Write the zip; the same cards give the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in qti_files(cards).items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)


def qti_files(cards: Iterable[Card]) -> dict[str, str]:
    """The text of every file of the zip, by its name there."""
    cards = list(cards)
    files = {"imsmanifest.xml": _manifest(), f"{_QUIZ}/{_QUIZ}.xml": _assessment(cards)}
    files[f"{_QUIZ}/assessment_meta.xml"] = _settings(len(cards))
    return files


def _manifest() -> str:
    manifest = Element("manifest", xmlns=_PACKAGE, identifier=f"{_QUIZ}-manifest")
    metadata = SubElement(manifest, "metadata")
    SubElement(metadata, "schema").text = "IMS Content"
    SubElement(metadata, "schemaversion").text = "1.1.3"
    SubElement(manifest, "organizations")
    resources = SubElement(manifest, "resources")
    quiz = SubElement(resources, "resource", identifier=_QUIZ, type="imsqti_xmlv1p2")
    SubElement(quiz, "file", href=f"{_QUIZ}/{_QUIZ}.xml")
    SubElement(quiz, "dependency", identifierref=f"{_QUIZ}-settings")
    href = f"{_QUIZ}/assessment_meta.xml"
    settings = SubElement(
        resources, "resource", identifier=f"{_QUIZ}-settings", type=_META, href=href
    )
    SubElement(settings, "file", href=href)
    return _xml(manifest)


def _settings(points: int) -> str:
    """A quiz to practise: choices shuffled, any number of attempts, answers shown."""
    quiz = Element("quiz", xmlns=_CANVAS, identifier=_QUIZ)
    for name, value in {
        "title": wording.COLLECTION,
        "quiz_type": "practice_quiz",
        "shuffle_answers": "true",
        "allowed_attempts": "-1",
        "show_correct_answers": "true",
        "points_possible": str(points),
    }.items():
        SubElement(quiz, name).text = value
    return _xml(quiz)


def _assessment(cards: list[Card]) -> str:
    document = Element("questestinterop", xmlns=_QTI)
    assessment = SubElement(document, "assessment", ident=_QUIZ, title=wording.COLLECTION)
    section = SubElement(assessment, "section", ident="root_section")
    for card in cards:
        if card.kind == "match":
            _add_matching(section, card)
        else:
            _add_choice(section, card)
    return _xml(document)


def _add_choice(section: Element, card: Card) -> None:
    labels = {f"{card.id}.{c.key}": f"<p>{to_html(c.text)}</p>" for c in card.choices}
    reasons = {f"{card.id}.{c.key}_fb": f"<p>{to_html(c.why)}</p>" for c in card.choices}
    item = _add_item(section, card, "multiple_choice_question", labels)
    presentation = SubElement(item, "presentation")
    _add_material(presentation, wording.question(card))
    _add_response(presentation, "response1", labels)
    scoring = _add_scoring(item)
    for label in labels:
        _show(_add_condition(scoring, "response1", label), f"{label}_fb")
    right = _add_condition(scoring, "response1", f"{card.id}.{card.answer}", go_on="No")
    _score(right, "Set", 100)
    _add_feedback(item, {_ALWAYS: wording.feedback(card)} | reasons)


def _add_matching(section: Element, card: Card) -> None:
    """Each item is worth its part of the points; the only feedback is that for all of them."""
    labels = {f"{card.id}.option{i}": option for i, option in enumerate(card.options, start=1)}
    label_of = {option: label for label, option in labels.items()}
    numbers = [str(number) for number in range(1, len(card.items) + 1)]
    item = _add_item(section, card, "matching_question", numbers)
    presentation = SubElement(item, "presentation")
    _add_material(presentation, wording.prompt(card))
    scoring = _add_scoring(item)
    texts = {label: wording.in_menu(option) for label, option in labels.items()}
    for number, (left, right) in zip(numbers, pairs(card, card.right), strict=True):
        response = f"response_{number}"
        _add_response(presentation, response, texts, of=wording.in_menu(left))
        condition = _add_condition(scoring, response, label_of[right])
        _score(condition, "Add", 100 / len(card.items))
    _add_feedback(item, {_ALWAYS: wording.reasons(card) + wording.feedback(card)})


def _add_item(section: Element, card: Card, kind: str, answers: Iterable[str]) -> Element:
    item = SubElement(section, "item", ident=card.id, title=card.id)
    metadata = SubElement(SubElement(item, "itemmetadata"), "qtimetadata")
    for name, value in {
        "question_type": kind,
        "points_possible": "1",
        "original_answer_ids": ",".join(answers),
        "assessment_question_identifierref": f"{card.id}-question",
    }.items():
        field = SubElement(metadata, "qtimetadatafield")
        SubElement(field, "fieldlabel").text = name
        SubElement(field, "fieldentry").text = value
    return item


def _add_response(
    presentation: Element, ident: str, labels: dict[str, str], of: str | None = None
) -> None:
    """One of these labels is to be chosen; of: for the item with this text."""
    kind = "text/html" if of is None else "text/plain"
    response = SubElement(presentation, "response_lid", ident=ident)
    if of is None:
        response.set("rcardinality", "Single")
    else:
        _add_material(response, of, kind)
    choices = SubElement(response, "render_choice")
    for label, text in labels.items():
        _add_material(SubElement(choices, "response_label", ident=label), text, kind)


def _add_scoring(item: Element) -> Element:
    """Points from 0 to 100, and the feedback that is always shown."""
    scoring = SubElement(item, "resprocessing")
    points = {"varname": "SCORE", "vartype": "Decimal", "minvalue": "0", "maxvalue": "100"}
    SubElement(SubElement(scoring, "outcomes"), "decvar", points)
    always = SubElement(scoring, "respcondition", {"continue": "Yes"})
    SubElement(SubElement(always, "conditionvar"), "other")
    _show(always, _ALWAYS)
    return scoring


def _add_condition(scoring: Element, response: str, label: str, go_on: str = "Yes") -> Element:
    condition = SubElement(scoring, "respcondition", {"continue": go_on})
    chosen = SubElement(SubElement(condition, "conditionvar"), "varequal", respident=response)
    chosen.text = label
    return condition


def _show(condition: Element, feedback: str) -> None:
    SubElement(condition, "displayfeedback", feedbacktype="Response", linkrefid=feedback)


def _score(condition: Element, action: str, points: float) -> None:
    SubElement(condition, "setvar", action=action, varname="SCORE").text = f"{points:.2f}"


def _add_feedback(item: Element, texts: dict[str, str]) -> None:
    for ident, html in texts.items():
        feedback = SubElement(item, "itemfeedback", ident=ident)
        _add_material(SubElement(feedback, "flow_mat"), html)


def _add_material(parent: Element, text: str, kind: str = "text/html") -> None:
    material = SubElement(parent, "material")
    SubElement(material, "mattext", texttype=kind).text = text


def _xml(document: Element) -> str:
    indent(document)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(document, "unicode") + "\n"
