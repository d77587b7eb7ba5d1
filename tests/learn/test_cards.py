"""Every card is well formed, and what its demo measures makes its answer right and no other."""

import math

import pytest

from minilora.learn import cards as C
from minilora.learn.demos.demo import demo_of, prove

CARDS = C.load_cards()
BY_ID = {card.id: card for card in CARDS}
_PROOFS = {}


def proof(card):
    if card.id not in _PROOFS:
        _PROOFS[card.id] = prove(card)
    return _PROOFS[card.id]


def corruptions(measured, name):
    """What was measured, with the number of this name made wrong."""
    value = measured[name]
    others = [other for key, other in measured.items() if key != name]
    wrong = [0, 1, -1, -value, 10 * value + 1, value / 10, value + 1, value - 1, 1e12, math.nan]
    if isinstance(value, bool):
        wrong = [not value]
    for number in [*wrong, *others]:
        if number != value:
            yield {**measured, name: number}


@pytest.mark.parametrize("name", BY_ID)
def test_what_the_demo_measures_proves_the_answer_and_nothing_else(name):
    card = BY_ID[name]
    shown, measured = demo_of(card), proof(card).measured
    assert shown.supported(measured) == [card.answer], measured
    assert shown.does.endswith(".")
    assert measured and all(
        isinstance(v, (int, float)) or hasattr(v, "dtype") for v in measured.values()
    )
    for number in measured:
        assert any(
            shown.supported(corrupted) != [card.answer]
            for corrupted in corruptions(measured, number)
        ), f"no claim would notice if {number!r} were wrong"
    assert shown.supported(dict.fromkeys(measured, math.nan)) != [card.answer]
