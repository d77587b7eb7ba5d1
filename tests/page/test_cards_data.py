"""The cards as the page gets them, without a browser: numbers as a person reads them, safe HTML."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from minilora.learn.demos.demo import Proof
from minilora.learn.exam.cards import load_cards
from minilora.learn.page.cards.cards_data import card_templates, cards_data, shown

CARDS = load_cards()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"),
        (np.bool_(False), "no"),
        (0, "0"),
        (9216, "9,216"),
        (np.int64(-1234567), "-1,234,567"),
        (4.0, "4"),
        (4.4321, "4.43"),
        (3.14159e-5, "3.14 × 10⁻⁵"),
        (-2e-12, "-2 × 10⁻¹²"),
        (1234.56, "1,235"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_a_measured_number_is_written_as_a_person_reads_it(value, text):
    assert shown(value) == text


def test_what_was_measured_and_what_it_supports_comes_from_the_demo():
    proof = Proof("Count.", {"trained": 512, "is frozen": True}, ["low_rank"])
    [entry] = cards_data(CARDS[:1], lambda card: proof)["cards"]
    assert entry["measured"] == [["trained", "512"], ["is frozen", "yes"]]
    assert entry["supported"] == ["low_rank"]


class Tags(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.seen, self.ids = set(), []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.ids += [value for name, value in attrs if name == "id"]


def test_each_card_has_a_template_and_no_text_becomes_a_tag():
    hostile = replace(CARDS[0], question="<script>alert(1)</script><img src=x> & `<b>`")
    html = card_templates([hostile, *CARDS[1:]])
    tags = Tags(html)
    assert tags.ids == [f"card-{card.id}" for card in CARDS]
    assert not tags.seen & {"script", "img", "b", "a"}
    assert "&lt;script&gt;" in html
