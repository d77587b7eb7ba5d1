"""A demo is a measurement of under two seconds, and what each choice of its card claims of it.

    @demo(
        sum=lambda m: m["trained"] == m["r"] * (m["d_in"] + m["d_out"]),
        product=lambda m: m["trained"] == m["d_in"] * m["d_out"],
    )
    def numbers_of_one_matrix() -> Measured:
        \"\"\"Add LoRA to one Linear layer, and count what trains.\"\"\"
        ...
        return {"d_in": 48, "d_out": 80, "r": 4, "trained": count_parameters(layer)[0]}

The keys are those of the card's choices. The card is proved if the claim of its answer holds for
what was measured and no other does. Every number that is returned is used by some claim, so that a
wrong number would be noticed; claims are False, not True, for NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from minilora.learn.exam.cards import Card
from minilora.system.cores import one_blas_thread
from minilora.system.errors import UsageError

Measured = dict[
    str, float
]  # what was measured, by a name that a person reads; also whole, also bool
Claim = Callable[[Measured], bool]


@dataclass(frozen=True)
class Demo:
    """measure: the measurement; its docstring says in a sentence what is done."""

    measure: Callable[[], Measured]
    claims: dict[str, Claim]

    @property
    def does(self) -> str:
        return " ".join((self.measure.__doc__ or "").split())

    def supported(self, measured: Measured) -> list[str]:
        """The keys of the choices whose claims hold for what was measured."""
        return [key for key, claim in self.claims.items() if claim(measured)]


@dataclass(frozen=True)
class Proof:
    """does: what was done. supported: the keys of the choices that hold for what was measured."""

    does: str
    measured: Measured
    supported: list[str]


def demo(**claims: Claim) -> Callable[[Callable[[], Measured]], Demo]:
    return lambda measure: Demo(measure, claims)


def demo_of(card: Card) -> Demo:
    """Raises UsageError if there is no such demo, or its claims are not those of the choices."""
    topic, _, name = card.demo.partition(".")
    try:
        found = getattr(import_module(f"minilora.learn.demos.{topic}"), name)
    except (ImportError, AttributeError):
        raise UsageError(f"card {card.id!r} names a demo that is not there: {card.demo}") from None
    keys = {choice.key for choice in card.choices}
    if found.claims.keys() != keys:
        raise UsageError(f"demo {card.demo} has claims for {sorted(found.claims)}, the card for "
                         f"{sorted(keys)}")  # fmt: skip
    return found


def prove(card: Card) -> Proof:
    """Run the demo of a card, in one thread."""
    shown = demo_of(card)
    with one_blas_thread():
        measured = shown.measure()
    return Proof(shown.does, measured, shown.supported(measured))
