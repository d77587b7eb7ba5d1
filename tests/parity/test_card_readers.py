"""Claims about exported cards: the programs that they are made for read what the cards say.

Anki's own engine, moodle-xml-parser, pygiftparser; of QTI text2qti, which only writes it: what we
write has the structure of what it writes. No reader of Canvas's matching questions was found.
"""

import dataclasses
import io
import re
from html import unescape
from xml.etree import ElementTree

import pytest
from exported_cards import CARDS, Read, assert_holds, assert_note_holds, bare, bare_html

from minilora.learn.exam.cards import TOPICS, Card, Choice
from minilora.learn.exam.maths import to_html
from minilora.learn.exports import wording
from minilora.learn.exports.anki import anki_text, write_anki
from minilora.learn.exports.gift import gift
from minilora.learn.exports.moodle import moodle_xml
from minilora.learn.exports.qti import qti_files

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

BY_ID = {card.id: card for card in CARDS}
WHEN, LATER = 1_700_000_000, 1_700_000_900


@pytest.fixture
def collection(tmp_path):
    engine = pytest.importorskip("anki.collection")
    opened = engine.Collection(str(tmp_path / "collection.anki2"))
    yield opened
    opened.close()


def bring_in(collection, cards, when, tmp_path):
    """Import a package as File > Import does; how many notes were new, changed, known already."""
    from anki.collection import ImportAnkiPackageOptions, ImportAnkiPackageRequest

    path = tmp_path / "cards.apkg"
    write_anki(cards, path, when)
    request = ImportAnkiPackageRequest(package_path=str(path), options=ImportAnkiPackageOptions())
    log = collection.import_anki_package(request).log
    assert not log.conflicting and not log.missing_notetype
    return len(log.new), len(log.updated), len(log.duplicate)


def test_anki_reads_every_card_into_the_deck_of_its_topic(collection, tmp_path):
    assert bring_in(collection, CARDS, WHEN, tmp_path) == (len(CARDS), 0, 0)
    assert collection.card_count() == len(CARDS)
    for number in collection.find_notes(""):
        note = collection.get_note(number)
        card = BY_ID[note["Id"]]
        assert_note_holds(dict(note.items()), card)
        [shown] = note.cards()
        assert collection.decks.name(shown.did) == f"LoRA exam cards::{TOPICS[card.topic]}"
        front = bare_html(shown.question().partition("</style>")[2])
        assert bare(card.question) in front and bare(card.explanation) not in front
        assert bare(card.explanation) in bare_html(shown.answer().partition("</style>")[2])
    problems, fine = collection.fix_integrity()
    assert fine, problems


def test_anki_imports_a_second_time_without_duplicates(collection, tmp_path):
    bring_in(collection, CARDS, WHEN, tmp_path)
    note_types = len(collection.models.all_names_and_ids())
    assert bring_in(collection, CARDS, WHEN, tmp_path) == (0, 0, len(CARDS))
    assert bring_in(collection, CARDS, LATER, tmp_path) == (0, len(CARDS), 0)
    assert collection.note_count() == collection.card_count() == len(CARDS)
    assert len(collection.models.all_names_and_ids()) == note_types


def test_anki_takes_a_new_wording_and_keeps_the_schedule(collection, tmp_path):
    bring_in(collection, CARDS, WHEN, tmp_path)
    collection.decks.select(collection.decks.id_for_name(wording.COLLECTION))
    shown = collection.sched.getCard()
    note = collection.get_note(shown.nid)
    shown.start_timer()
    collection.sched.answerCard(shown, 4)
    shown.load()
    scheduled = (shown.due, shown.ivl, shown.reps, shown.type, shown.queue)
    assert shown.reps == 1 and shown.ivl > 0
    new = dataclasses.replace(BY_ID[note["Id"]], explanation="Said in another way.")
    changed = [new if card.id == new.id else card for card in CARDS]
    bring_in(collection, changed, LATER, tmp_path)
    note.load()
    shown.load()
    assert note["Explanation"] == "Said in another way."
    assert (shown.due, shown.ivl, shown.reps, shown.type, shown.queue) == scheduled
    assert collection.note_count() == len(CARDS)


def test_anki_reads_the_text_file_beside_the_package_and_takes_a_new_wording(collection, tmp_path):
    from anki.collection import ImportCsvRequest

    path = tmp_path / "cards.txt"

    def bring_in_text(cards):
        path.write_text(anki_text(cards), "utf-8")
        metadata = collection.get_csv_metadata(path=str(path), delimiter=None)
        log = collection.import_csv(ImportCsvRequest(path=str(path), metadata=metadata)).log
        return len(log.new), len(log.updated), len(log.duplicate)

    bring_in(collection, CARDS, WHEN, tmp_path)
    assert bring_in_text(CARDS) == (len(CARDS), 0, 0)
    assert bring_in_text(CARDS) == (0, 0, len(CARDS))
    changed = [dataclasses.replace(CARDS[0], explanation="Said in another way."), *CARDS[1:]]
    assert bring_in_text(changed) == (0, 1, len(CARDS) - 1)
    found = [collection.get_note(n) for n in collection.find_notes("note:Basic")]
    backs = {note.guid: note["Back"] for note in found}
    assert "Said in another way." in backs[f"minilora-{CARDS[0].id}-basic"]
    for card in CARDS[1:]:
        back = bare_html(backs[f"minilora-{card.id}-basic"])
        for text in (card.question, card.explanation, *(choice.why for choice in card.choices)):
            assert bare(text) in back


def test_moodle_xml_parser_reads_every_choice():
    parser = pytest.importorskip("moodle_xml_parser.parser")
    found = parser.parse_bytes(moodle_xml(CARDS).encode())["multichoice"]
    assert {question.name for question in found} == {c.id for c in CARDS if c.kind != "match"}
    for question in found:
        card = BY_ID[question.name]
        assert question.single and question.shuffle_answers and question.default_grade == 1
        assert question.text_pre_parse == unescape(wording.question(card))
        assert question.general_feedback == unescape(wording.feedback(card))
        assert [(o.answer, o.feedback, o.score_fraction) for o in question.options] == [
            (
                unescape(f"<p>{to_html(choice.text)}</p>"),
                unescape(f"<p>{to_html(choice.why)}</p>"),
                100 * (choice is card.right),
            )
            for choice in card.choices
        ]


def without_what_pygiftparser_misreads(card):
    """A doubled backslash is two for it, not one as for Moodle; a brace ends the answers even if it
    is escaped; and a pair is parted at its last arrow, not the first."""

    def plain(value):
        if isinstance(value, tuple):
            return tuple(map(plain, value))
        if isinstance(value, Choice):
            return Choice(value.key, plain(value.text), plain(value.why))
        return re.sub(r"[\\{}]|->", "", value) if isinstance(value, str) else value

    fields = dataclasses.fields(card)
    return Card(**{field.name: plain(getattr(card, field.name)) for field in fields})


def test_pygiftparser_reads_every_card():
    parser = pytest.importorskip("pygiftparser.parser")
    cards = {card.id: without_what_pygiftparser_misreads(card) for card in CARDS}
    found = parser.parseFile(io.StringIO(gift(cards.values())))
    assert len(found) == len(cards)
    for question in found:
        assert question.valid and question.markup == "html" and question.tail == ""
        assert question.cat.startswith("$course$/top/LoRA")

        def html(text):
            return bare_html(parser.transformSpecials(text))

        if isinstance(question.answers, parser.MatchingSet):
            pairs = question.answers.answers
            answers = [
                (html(p.question), bare(parser.transformSpecials(p.answer)), p.fraction == 100)
                for p in pairs
            ]
        else:
            assert isinstance(question.answers, parser.SelectSet)
            answers = [
                (html(a.answer), html(a.feedback), a.fraction == 100)
                for a in question.answers.answers
            ]
        after = html(question.generalFeedback)
        read = Read(question.title, html(question.text), answers, after)
        assert_holds(read, cards[question.title])


def skeleton(element):
    """An element without its texts and identifiers: tags, names and fixed values of attributes."""
    fixed = ("rcardinality", "texttype", "varname", "vartype", "action", "continue", "feedbacktype")
    attributes = {name: element.get(name) if name in fixed else "" for name in element.attrib}
    return element.tag, attributes, [skeleton(child) for child in element]


def test_a_question_in_qti_is_built_as_text2qti_builds_it():
    quiz, qti, config = (
        pytest.importorskip(f"text2qti.{name}") for name in ("quiz", "qti", "config")
    )
    card = next(card for card in CARDS if card.kind == "choice")
    lines = [f"1. {card.question}", "... explanation"]
    for letter, choice in zip("abcdefgh", card.choices, strict=False):
        lines += [f"{'*' if choice is card.right else ''}{letter}) {choice.key}", "... why"]
    theirs = qti.QTI(quiz.Quiz("\n".join(lines) + "\n", config=config.Config()))
    ours = qti_files([card])

    def item(text):
        return ElementTree.fromstring(text.encode()).find(".//{*}item")

    assert skeleton(item(ours["minilora-cards/minilora-cards.xml"])) == skeleton(
        item(theirs.assessment)
    )

    def resources(text):
        return skeleton(ElementTree.fromstring(text.encode()).find("{*}resources"))

    assert resources(ours["imsmanifest.xml"]) == resources(theirs.imsmanifest_xml)
    settings = ElementTree.fromstring(ours["minilora-cards/assessment_meta.xml"].encode())
    known = {part.tag for part in ElementTree.fromstring(theirs.assessment_meta.encode())}
    assert {part.tag for part in settings} <= known
