"""The exam for paper, read back from its HTML: versions, questions, choices and the key."""

import re
from html import unescape

import pytest

from minilora.learn.exam.answers import is_typed
from minilora.learn.exam.cards import load_cards
from minilora.learn.exam.maths import to_html
from minilora.learn.exam.paper_exam import paper_exam

CARDS = load_cards()
BY_ID = {card.id: card for card in CARDS}


def words(html):
    """What a person reads of it, on one line."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def sections(html):
    """Each section by its id."""
    return dict(re.findall(r'<section id="([^"]+)">(.*?)</section>', html, re.DOTALL))


def questions(sheet):
    return re.split(r'<div class="question">', sheet)[1:]


def key(section):
    """The card, the answer and the reason for each number."""
    rows = re.findall(
        r"<tr><td>(\d+)</td><td[^>]*>(.*?)</td><td>(.*?)</td><td[^>]*>(.*?)</td>", section
    )
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    return [(BY_ID[card], words(answer), words(why)) for _, answer, why, card in rows]


@pytest.fixture(scope="module")
def exam():
    return sections(paper_exam(CARDS, 20, ["A", "B"], 7))


def test_each_version_is_a_section_and_the_keys_come_last(exam):
    assert list(exam) == ["version-A", "version-B", "key-A", "key-B"]


def test_no_sheet_of_a_student_names_the_seed_from_which_the_key_can_be_made():
    html = paper_exam(CARDS, 3, ["A"], 987654)
    printed_on_every_page = re.search("<title>(.*?)</title>", html)[1]
    assert "987654" not in printed_on_every_page + sections(html)["version-A"]
    assert "987654" in sections(html)["key-A"]


@pytest.mark.parametrize("version", ["A", "B"])
def test_every_question_of_the_key_is_asked_with_its_choices_in_their_order(exam, version):
    asked = questions(exam[f"version-{version}"])
    assert len(asked) == 20
    for number, (html, (card, answer, why)) in enumerate(
        zip(asked, key(exam[f"key-{version}"]), strict=True)
    ):
        text = words(html)
        assert text.startswith(f"{number + 1} ")
        assert words(to_html(card.question.partition("____")[0])) in text
        assert why == words(to_html(card.right.why))
        if not is_typed(card):
            labels = re.findall(r'<span class="box"></span>(\w)</span><span>(.*?)</span>\n?', html)
            shown = {label: words(choice) for label, choice in labels}
            assert list(shown) == list("ABCDE"[: len(card.choices)])
            assert sorted(shown.values()) == sorted(words(to_html(c.text)) for c in card.choices)
            assert shown[answer] == words(to_html(card.right.text))


@pytest.mark.parametrize("kind", ["cloze", "order", "match"])
def test_what_is_not_chosen_has_room_to_be_written_and_no_choices(kind):
    cards = [card for card in CARDS if card.kind == kind]
    exam = sections(paper_exam(cards, len(cards), ["A"], 0))
    for html, (card, answer, _) in zip(
        questions(exam["version-A"]), key(exam["key-A"]), strict=True
    ):
        assert html.count('class="gap"') == (1 if kind == "cloze" else 0)
        assert html.count('class="box large"') == len(card.items)
        assert 'class="box"' not in html and "____" not in html
        for labels, texts in (("123456", card.items), ("ABCDEF", card.options)):
            for label, text in zip(labels, texts, strict=False):
                assert f" {label} {words(to_html(text))}" in words(html)
        assert answer == words(to_html(card.right.text))


def test_versions_ask_the_same_questions_in_other_orders_of_questions_and_choices(exam):
    first, second = (key(exam[f"key-{version}"]) for version in "AB")
    ids = [[card.id for card, _, _ in rows] for rows in (first, second)]
    assert sorted(ids[0]) == sorted(ids[1]) and ids[0] != ids[1]
    letters = [
        {c.id: answer for c, answer, _ in rows if not is_typed(c)} for rows in (first, second)
    ]
    moved = [name for name in letters[0] if letters[0][name] != letters[1][name]]
    assert len(moved) > len(letters[0]) / 2


def test_a_seed_is_an_exam():
    first, again, other = (paper_exam(CARDS, 20, ["A", "B"], seed) for seed in (7, 7, 8))
    assert first == again != other
    assert "seed 7" in words(sections(first)["key-A"])


def test_more_versions_leave_the_others_as_they_are():
    two, three = (sections(paper_exam(CARDS, 20, list(names), 7)) for names in ("AB", "BAC"))
    assert two["version-A"] == three["version-A"] and two["key-B"] == three["key-B"]


def test_the_right_letters_of_a_key_are_not_one_letter(exam):
    letters = [answer for card, answer, _ in key(exam["key-A"]) if not is_typed(card)]
    assert len(set(letters)) > 2 and max(map(letters.count, letters)) < len(letters) * 0.7


def test_the_file_needs_nothing_else_and_prints_versions_and_questions_whole():
    html = paper_exam(CARDS, 20, ["A", "B"], 7)
    assert not re.search(r"https?://|<script|<link|<img|url\(", html)
    assert "section { break-after: page" in html and "break-inside: avoid" in html
    assert "$" not in words(re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL))


def test_what_looks_like_html_in_a_card_is_text():
    card = next(card for card in CARDS if card.kind == "choice")
    changed = type(card)(**(vars(card) | {"question": "Is <b> & </section> text?"}))
    exam = sections(paper_exam([changed], 1, ["A"], 0))
    assert "Is <b> & </section> text?" in words(questions(exam["version-A"])[0])
