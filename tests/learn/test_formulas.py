"""A typed formula is right in any style, wrong if its value is another, and never a danger."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilora.learn.exam.cards import load_cards
from minilora.learn.exam.formulas import is_formula, same_formula

COUNT, SCALE, LAYER = "$r (d_in + d_out)$", "$s = α/√r$", "$y = x (W + s A B) + b$"
GRADIENT = "$dA = s x^T (G B^T)$"


@pytest.mark.parametrize(
    ("expected", "typed"),
    [
        (COUNT, "r(d_in+d_out)"),
        (COUNT, "r*(d_in+d_out)"),
        (COUNT, "r × (d_in + d_out)"),
        (COUNT, "(d_out + d_in) r"),
        (COUNT, "r d_in + r d_out"),
        (COUNT, "rd_in+rd_out"),
        (COUNT, "r·din + r·dout"),
        (COUNT, "R (D_in + D_out)"),
        (COUNT, "r [d_{in} + d_{out}]"),
        (COUNT, "$r (d_in + d_out)$"),
        (COUNT, "trainable = r (d_in + d_out)"),
        (COUNT, "2r(d_in + d_out)/2"),
        (COUNT, "d_out*r - -d_in*r"),
        (COUNT, "r**1 * (d_in^2 - d_out²) / (d_in – d_out)"),
        (SCALE, "alpha/sqrt(r)"),
        (SCALE, "α / √r"),
        (SCALE, "α / √(r)"),
        (SCALE, "alpha/sqrt r"),
        (SCALE, "alpha r^-0.5"),
        (SCALE, "lora_alpha * r**(-.5)"),
        (SCALE, "α r^{-1/2}"),
        (SCALE, "s = α÷√r"),
        (LAYER, "x(W+sAB)+b"),
        (LAYER, "x W + s x A B + b"),
        (LAYER, "b + x @ W + s * (x @ A) @ B"),
        (GRADIENT, "s x.T (G B.T)"),
        (GRADIENT, "s xᵀ G Bᵀ"),
        (GRADIENT, "x' s G B'"),
        (GRADIENT, "s (B Gᵀ x)^T"),
        ("$W_0 + s A B$", "W0 + sAB"),
        ("$W (s A B)^2$", "s**2 W A B A B"),
        ("$W (1 + s A B)$", "W + s W A B"),
        ("$4,194,304$", "4,194,304 √2 √2 / 2"),
        ("$0$", "r - r"),
        ("$W_0 + s A B$", "W₀ + s A B"),
        ("$ΔW = s A B$", "delta W = s A B"),
        ("$4,194,304$", "4194304"),
        ("$4,194,304$", "4 194 304"),
        ("$4,194,304$", "4_194_304"),
        ("$4,194,304$", "2^22"),
        ("$10^{-4}$", "1e-4"),
        ("$10^{-4}$", "0.0001"),
        ("$0.39 %$", "0.0039"),
        ("$1/2$", ".5"),
        ("$r$", "(" * 59 + "r" + ")" * 59),
    ],
)
def test_the_same_in_another_style_is_the_same(expected, typed):
    assert same_formula(typed, expected)


@pytest.mark.parametrize(
    ("expected", "typed"),
    [
        (COUNT, "r d_in d_out"),
        (COUNT, "r d_in + d_out"),
        (COUNT, "r (d_in - d_out)"),
        (COUNT, "r (d_in + d_in)"),
        (COUNT, "r + (d_in + d_out)"),
        (COUNT, "k (d_in + d_out)"),
        (COUNT, "r (d_in + d_out) + 0.000001"),
        (SCALE, "α/r"),
        (SCALE, "√α/r"),
        (SCALE, "√(α/r)"),
        (LAYER, "x (W + s B A) + b"),
        (LAYER, "(W + s A B) x + b"),
        (GRADIENT, "s G B^T x^T"),
        (GRADIENT, "s x (G B)"),
        ("$4,194,304$", "4,194,303"),
        ("$r^2$", "r2"),
    ],
)
def test_another_value_is_another_formula(expected, typed):
    assert not same_formula(typed, expected)


@pytest.mark.parametrize(
    "typed",
    [
        "",
        " " * 10_000,
        "(",
        "r (d_in + d_out",
        "r ) (",
        "r + ",
        "* r",
        "r // d",
        "r · / d",
        "/ r",
        "r /",
        "1,000,00",
        "d_",
        "x^",
        "√",
        "‖r‖",
        "r < d",
        "__import__('os').system('ls')",
        "r.__class__",
        "lambda: r",
        "9**9**9**9",
        "9^999999999",
        "2^" * 59 + "2",
        "0/0",
        "1/0",
        "√(0-1)",
        "0^-1",
        "2^A",
        "A^B",
        "A^0.5",
        "(A - A)^-1",
        "A^3",
        "1 / A",
        "(" * 119,
        "√" * 119,
        "-" * 119,
        "9" * 5000,
        "r(d_in+d_out)" * 1000,
        "🙂",
        "r\0",
        "\x1b[31m",
    ],
)
def test_what_is_no_formula_equals_none(typed):
    assert not is_formula(typed)
    assert not any(same_formula(typed, expected) for expected in (COUNT, SCALE, LAYER, "$1$"))


@pytest.mark.parametrize(
    "typed",
    ["9" * 120, "9^99·9^99·9^99·9^99 A", "9^99·9^99·9^99·9^99 (A - A)", "9^99·9^99·9^99·9^99 x B"],
)
def test_what_is_infinite_or_nearly_so_equals_nothing(typed):
    assert not any(same_formula(typed, expected) for expected in (COUNT, LAYER, "$1$"))


@given(st.text(alphabet="rdαABx_in0123456789.,+-*/^√()[]{}%=T'‖ ", max_size=130))
def test_any_line_is_judged_without_an_error(typed):
    same_formula(typed, COUNT)
    same_formula(typed, GRADIENT)
    is_formula(typed)


def test_many_names_that_can_be_split_in_many_ways_take_no_time():
    expected = "$a + a_a + a_b + b$"
    assert not same_formula("a" * 119 + "c", expected)
    assert same_formula("a_a + ab + b + a", expected)


def test_a_formula_with_an_open_bracket_cannot_be_read_but_words_can():
    assert not is_formula("r (d_in + d_out") and is_formula("r (d_in + d_out)")
    assert is_formula("the sum of both")


def test_every_choice_of_every_cloze_that_is_a_formula_can_be_read_and_equals_itself():
    texts = [c.text for card in load_cards() if card.kind == "cloze" for c in card.choices]
    formulas = [text for text in texts if "$" in text]
    assert len(formulas) > 10
    assert [text for text in formulas if not same_formula(text, text)] == []
