"""Each format holds every card: question, choices, the right one, every reason, explanation.

The readers here are written from the descriptions of the formats; tests/parity/test_card_readers.py
reads them with other programs.
"""

import csv
import json
import re
import sqlite3
import sys
import zipfile
from xml.etree import ElementTree

import jsonschema
import pytest
from exported_cards import (
    CARDS,
    SPECIALS,
    Read,
    assert_holds,
    assert_note_holds,
    bare,
    bare_html,
)

import minilora
from minilora.learn.exam.cards import CARDS_FILE, TOPICS, load_cards
from minilora.learn.exports.anki import anki_text, write_anki
from minilora.learn.exports.gift import gift
from minilora.learn.exports.json_file import cards_json
from minilora.learn.exports.moodle import moodle_xml
from minilora.learn.exports.qti import qti_files, write_qti
from minilora.system.errors import MissingExtraError

BY_ID = {card.id: card for card in CARDS}
WHEN = 1_700_000_000


# Moodle XML


def read_moodle(text):
    for question in ElementTree.fromstring(text.encode()).iter("question"):
        if question.get("type") == "category":
            continue
        texts = {name: question.findtext(f"{name}/text") for name in ("name", "questiontext")}
        after = bare_html(question.findtext("generalfeedback/text"))
        answers = [
            (
                bare_html(answer.findtext("text")),
                bare_html(answer.findtext("feedback/text")),
                {"100": True, "0": False}[answer.get("fraction")],
            )
            for answer in question.findall("answer")
        ]
        pairs = [
            (bare_html(sub.findtext("text")), bare(sub.findtext("answer/text")), True)
            for sub in question.findall("subquestion")
        ]
        yield Read(texts["name"], bare_html(texts["questiontext"]), answers or pairs, after)


def test_moodle_xml_holds_every_card():
    read = list(read_moodle(moodle_xml(CARDS)))
    assert len(read) == len(CARDS)
    for found in read:
        assert_holds(found, BY_ID[found.id])


def test_moodle_knows_a_question_again_and_finds_it_by_topic_and_tag():
    quiz = ElementTree.fromstring(moodle_xml(CARDS).encode())
    category = ""
    for question in quiz.iter("question"):
        if question.get("type") == "category":
            category = question.findtext("category/text")
            continue
        card = BY_ID[question.findtext("idnumber")]
        assert question.get("type") == ("matching" if card.kind == "match" else "multichoice")
        assert category == f"$course$/top/LoRA exam cards/{TOPICS[card.topic]}"
        assert [tag.text for tag in question.findall("tags/tag/text")] == list(card.tags)
        for part in question.iter():
            if part.find("text") is not None and part.tag not in ("name", "tag"):
                assert part.get("format") == "html" or part.tag == "answer"


def test_every_option_of_a_match_goes_with_an_item():
    """Moodle and GIFT are told the pairs only: an option without an item would be lost."""
    for card in CARDS:
        if card.kind == "match":
            used = {part[1] for part in card.right.text.split()}
            assert used == set("ABCDEFGH"[: len(card.options)]), card.id


# GIFT


def read_gift(text):
    """As Moodle reads it: blocks at empty lines, comments out, escapes to placeholders, then
    ::name::, {…}, ####, and ~ and = between the answers."""
    for block in text.split("\n\n"):
        lines = [line.strip() for line in block.splitlines()]
        source = "\n".join(line for line in lines if not line.startswith("//")).strip()
        if source.startswith("$CATEGORY:"):
            source = source.partition("\n")[2].strip()
        if not source:
            continue
        source = source.replace(r"\\", "&&092;")
        for character in ":#={}~":
            source = source.replace(f"\\{character}", f"&&{ord(character):03};")
        assert "\\n" not in source
        name, asked = re.fullmatch(r"::(.*?)::(.*)", source, re.DOTALL).groups()
        start, end = asked.index("{"), asked.index("}")
        assert asked[end + 1 :] == "" and asked.startswith("[html]") and ":" not in asked
        body, _, after = asked[start + 1 : end].strip().rpartition("####")
        if "~" in body:
            answers = []
            for answer in body.replace("=", "~=").split("~")[1:]:
                assert answer[0] not in "%["
                answer, why = answer.strip().split("#", 1)
                right = answer.startswith("=")
                answers.append((gift_html(answer[right:]), gift_html(why), right))
        else:
            pairs = [pair.split("->", 1) for pair in body.split("=")[1:]]
            answers = [(gift_html(item), bare(placed(option)), True) for item, option in pairs]
        yield Read(name, gift_html(asked[len("[html]") : start]), answers, gift_html(after))


def placed(text):
    return re.sub(r"&&(\d{3});", lambda found: chr(int(found[1])), text).strip()


def gift_html(text):
    return bare_html(placed(text))


def test_gift_holds_every_card():
    read = list(read_gift(gift(CARDS)))
    assert len(read) == len(CARDS)
    for found in read:
        assert_holds(found, BY_ID[found.id])


def test_gift_names_the_id_the_tags_and_the_category():
    text = gift(SPECIALS)
    assert "$CATEGORY: $course$/top/LoRA exam cards/Find the error in a published text\n\n" in text
    assert "// [id:special-cloze] [tag:texts] [tag:two words]\n::special-cloze::[html]" in text


# QTI

QTI = "{http://www.imsglobal.org/xsd/ims_qtiasiv1p2}"
PACKAGE = "{http://www.imsglobal.org/xsd/imsccv1p1/imscp_v1p1}"


def read_qti(files):
    """As Canvas scores it: the label that sets the points to 100 is right, those that add are."""
    manifest = ElementTree.fromstring(files["imsmanifest.xml"].encode())
    quiz = manifest.find(f".//{PACKAGE}resource[@type='imsqti_xmlv1p2']")
    assert {file.get("href") for file in manifest.iter(f"{PACKAGE}file")} == files.keys() - {
        "imsmanifest.xml"
    }
    text = files[quiz.find(f"{PACKAGE}file").get("href")].replace(f'xmlns="{QTI[1:-1]}"', "")
    for item in ElementTree.fromstring(text.encode()).iter("item"):
        texts = {f.get("ident"): f.findtext(".//mattext") for f in item.findall("itemfeedback")}
        shown, points = {}, {}
        for condition in item.iter("respcondition"):
            chosen = condition.find("conditionvar/varequal")
            key = (chosen.get("respident"), chosen.text) if chosen is not None else None
            for display in condition.findall("displayfeedback"):
                shown[key] = texts[display.get("linkrefid")]
            for score in condition.findall("setvar"):
                points[key] = float(score.text)
        assert sum(points.values()) == pytest.approx(100, abs=0.05)
        fields = [field.text for field in item.findall(".//qtimetadatafield/*")]
        kind = dict(zip(fields[::2], fields[1::2], strict=True))["question_type"]
        answers = []
        for response in item.iter("response_lid"):
            for label in response.iter("response_label"):
                key, text = (
                    (response.get("ident"), label.get("ident")),
                    label.findtext(".//mattext"),
                )
                if kind == "multiple_choice_question":
                    answers.append((bare_html(text), bare_html(shown[key]), key in points))
                elif key in points:
                    answers.append((bare(response.findtext("material/mattext")), bare(text), True))
        question = bare_html(item.findtext("presentation/material/mattext"))
        yield Read(item.get("ident"), question, answers, bare_html(shown[None]))


def test_qti_holds_every_card():
    read = list(read_qti(qti_files(CARDS)))
    assert len(read) == len(CARDS)
    for found in read:
        assert_holds(found, BY_ID[found.id])


def test_no_two_parts_of_the_quiz_share_an_identifier():
    quiz = ElementTree.fromstring(qti_files(CARDS)["minilora-cards/minilora-cards.xml"].encode())
    items = [item.get("ident") for item in quiz.iter(f"{QTI}item")]
    choices = [
        label.get("ident")
        for item in quiz.iter(f"{QTI}item")
        for label in item.find(f".//{QTI}response_lid").iter(f"{QTI}response_label")
    ]
    assert len({*items, *choices}) == len(items) + len(choices)


# Anki


def read_notes(path):
    """(guid, fields by name, tags, deck) of every note in a package."""
    database = sqlite3.connect(":memory:")
    with zipfile.ZipFile(path) as archive:
        database.deserialize(archive.read("collection.anki2"))
    models, decks = map(json.loads, database.execute("select models, decks from col").fetchone())
    rows = database.execute(
        "select guid, mid, flds, tags, did from notes join cards on cards.nid = notes.id"
    ).fetchall()
    database.close()
    for guid, model, fields, tags, deck in rows:
        names = [field["name"] for field in models[str(model)]["flds"]]
        values = dict(zip(names, fields.split("\x1f"), strict=True))
        yield guid, values, tags.split(), decks[str(deck)]["name"]


def test_the_anki_package_holds_every_card(tmp_path):
    write_anki(CARDS, tmp_path / "cards.apkg", WHEN)
    notes = list(read_notes(tmp_path / "cards.apkg"))
    assert len(notes) == len(CARDS)
    for guid, fields, tags, deck in notes:
        card = BY_ID[fields["Id"]]
        assert next(iter(fields)) == "Id" and guid == f"minilora-{card.id}"
        assert deck == f"LoRA exam cards::{TOPICS[card.topic]}"
        assert f"minilora::lesson-{card.lesson}" in tags and f"minilora::{card.topic}" in tags
        assert_note_holds(fields, card)


def test_what_anki_knows_the_notes_by_never_changes(tmp_path):
    """A change here makes a second copy of every card in the collections of all who have them."""
    write_anki(CARDS, tmp_path / "cards.apkg", WHEN)
    with zipfile.ZipFile(tmp_path / "cards.apkg") as archive:
        database = sqlite3.connect(":memory:")
        database.deserialize(archive.read("collection.anki2"))
    models, decks = map(json.loads, database.execute("select models, decks from col").fetchone())
    database.close()
    [note_type] = [m for m in models.values() if m["name"] == "LoRA exam card"]
    assert note_type["id"] == "1764150001"
    assert [field["name"] for field in note_type["flds"]] == (
        "Id Question Choices Answer Reasons Explanation Source Lesson Topic Difficulty Demo".split()
    )
    ids = {deck["name"]: deck["id"] for deck in decks.values()}
    assert ids["LoRA exam cards::What LoRA is, and what it is not"] == 1747988440


def test_the_text_file_for_anki_holds_every_card():
    lines = anki_text(CARDS).splitlines()
    head = [line for line in lines if line.startswith("#")]
    assert head[:2] == ["#separator:tab", "#html:true"]
    names = head[3].removeprefix("#columns:").split("\t")
    rows = list(csv.reader(lines[len(head) :], delimiter="\t"))
    assert len(rows) == len(CARDS)
    for row, card in zip(rows, CARDS, strict=True):
        found = dict(zip(names, row, strict=True))
        assert found["guid"] == f"minilora-{card.id}-basic"
        front, back = bare_html(found["Front"]), bare_html(found["Back"])
        for text in (card.question, *card.items, *card.options):
            assert bare(text) in front and bare(text) in back
        for choice in card.choices:
            assert bare(choice.why) in back
        assert bare(card.explanation) in back
    for column, name in ((1, "guid"), (4, "deck"), (5, "tags")):
        assert f"#{name} column:{column}" in head and names[column - 1] == name


def test_without_genanki_the_error_names_the_extra_and_another_way(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "genanki", None)
    with pytest.raises(MissingExtraError, match=r"minilora\[cards\].*--anki-text"):
        write_anki(CARDS, tmp_path / "cards.apkg", WHEN)
    assert not list(tmp_path.iterdir())


# JSON


def test_json_holds_every_card_and_fits_its_schema(tmp_path):
    document = json.loads(cards_json(load_cards()))
    schema = json.loads((CARDS_FILE.parent / "cards.schema.json").read_text("utf-8"))
    jsonschema.validate(document, schema)
    names = schema["$defs"]["card"]["properties"].keys()
    assert all(card.keys() == names for card in document["cards"])
    assert document["made by"] == f"minilora {minilora.__version__}"
    for entry, card in zip(document["cards"], load_cards(), strict=True):
        assert [c["why"] for c in entry["choices"]] == [c.why for c in card.choices]
        assert (entry["id"], entry["answer"]) == (card.id, card.answer)


# All


def test_the_same_cards_give_the_same_bytes(tmp_path):
    for convert in (moodle_xml, gift, anki_text, cards_json):
        assert convert(CARDS) == convert(CARDS)
    for name in ("1", "2"):
        write_anki(CARDS, tmp_path / f"{name}.apkg", WHEN)
        write_qti(CARDS, tmp_path / f"{name}.zip")
    for ending in ("apkg", "zip"):
        first, second = (tmp_path / f"{name}.{ending}" for name in ("1", "2"))
        assert first.read_bytes() == second.read_bytes()
        with zipfile.ZipFile(first) as archive:
            assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
