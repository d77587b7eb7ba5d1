"""Formulas read well in a terminal, in HTML and in MathML, and nothing of them is lost."""

import pytest
from exported_cards import bare, characters

from minilora.learn.exam import maths
from minilora.learn.exam.cards import load_cards
from minilora.system.errors import UsageError

KNOWN = [  # a formula, in a terminal, in HTML
    ("s = α/r", "s = α/r", "<i>s</i> = <i>α</i>/<i>r</i>"),
    ("d_in", "d_in", "<i>d</i><sub>in</sub>"),
    ("W_0", "W₀", "<i>W</i><sub>0</sub>"),
    ("ΔW = A·B", "ΔW = A·B", "Δ<i>W</i> = <i>A</i>·<i>B</i>"),
    ("dA = x^T G", "dA = xᵀ G", "<i>d</i><i>A</i> = <i>x</i><sup>T</sup> <i>G</i>"),
    ("10^-4", "10⁻⁴", "10<sup>−4</sup>"),
    ("x^{r + 1}", "x^(r + 1)", "<i>x</i><sup><i>r</i> + 1</sup>"),
    ("W' = W", "W′ = W", "<i>W</i>′ = <i>W</i>"),
    ("2-1", "2−1", "2−1"),
    ("σ_i^2", "σ_i²", "<i>σ</i><sub><i>i</i></sub><sup>2</sup>"),
    ("α/√r", "α/√r", "<i>α</i>/√<i>r</i>"),
    ("√(d r)", "√(d r)", "√(<i>d</i> <i>r</i>)"),
    ("‖ΔW‖_F < 1,024.5", "‖ΔW‖_F < 1,024.5", "‖Δ<i>W</i>‖<sub><i>F</i></sub> &lt; 1,024.5"),
    ("rank(A B) ≤ r", "rank(A B) ≤ r", "rank(<i>A</i> <i>B</i>) ≤ <i>r</i>"),
]


@pytest.mark.parametrize(("formula", "text", "html"), KNOWN)
def test_a_formula_as_text_and_as_html(formula, text, html):
    assert maths.to_text(f"${formula}$") == text
    assert maths.to_html(f"${formula}$") == html


def test_mathml_says_what_is_a_name_a_number_a_sign_and_a_script():
    assert maths.to_mathml("$s A = √r$") == (
        '<math><mi>s</mi><mspace width="0.2em"/><mi>A</mi><mo>=</mo>'
        "<msqrt><mi>r</mi></msqrt></math>"
    )
    assert maths.formula_to_mathml("W_0^2") == (
        "<math><msubsup><mi>W</mi><mn>0</mn><mn>2</mn></msubsup></math>"
    )
    sign, difference = "−1", "2 − 1"
    assert '<mo form="prefix">−' in maths.formula_to_mathml(sign)
    assert '<mo form="prefix">−' in maths.formula_to_mathml(f"a = {sign}")
    assert "<mo>−" in maths.formula_to_mathml(difference)


def test_everything_around_formulas_is_escaped_and_code_is_marked():
    text = 'if a < b & "c":\n`A @ B <x>` is $A B$'
    around = "if a &lt; b &amp; &quot;c&quot;:<br><code>A @ B &lt;x&gt;</code> is "
    assert maths.to_html(text) == around + "<i>A</i> <i>B</i>"
    assert maths.to_mathml(text).startswith(around + "<math>")
    assert maths.to_text(text) == 'if a < b & "c":\n`A @ B <x>` is A B'
    assert maths.to_text("`cost = $5 + $x`") == "`cost = $5 + $x`"


def test_in_finished_html_only_the_formulas_are_converted():
    html = '<p class="a">`x` &amp; $r &lt; d_in$</p>'
    converted = maths.mathml_in_html(html)
    assert converted.startswith('<p class="a">`x` &amp; <math><mi>r</mi><mo>&lt;</mo><msub>')
    assert converted.endswith("</math></p>")


@pytest.mark.parametrize(
    ("formula", "problem"),
    [
        ("a_", "something is missing at its end"),
        ("√", "something is missing at its end"),
        ("^2", "nothing stands before '^'"),
        ("a ^2", "nothing stands before '^'"),
        ("a_b_c", "nothing stands before '_'"),
        ("(a + b", "'(' is not closed by ')'"),
        ("(a]", "'(' is not closed by ')'"),
        ("‖a", "'‖' is not closed by '‖'"),
        ("a)", "')' closes nothing"),
        (r"\frac{a}{b}", r"'\\' has no meaning there"),
        ("W²", "'²' has no meaning there"),
    ],
)
def test_a_formula_that_cannot_be_read_is_named(formula, problem):
    for convert in (maths.to_text, maths.to_html, maths.to_mathml, maths.mathml_in_html):
        with pytest.raises(UsageError) as raised:
            convert(f"before ${formula}$ after")
        assert str(raised.value) == f"cannot read the formula ${formula}$: {problem}"


def test_a_dollar_alone_is_refused():
    with pytest.raises(UsageError, match="between two dollars, which is not so in: it costs"):
        maths.to_text("it costs $5")


def texts(card):
    yield from (card.question, card.explanation, card.source, *card.items, *card.options)
    for choice in card.choices:
        yield from (choice.text, choice.why)


@pytest.mark.parametrize("card", load_cards(), ids=lambda card: card.id)
def test_every_text_of_a_card_converts_and_keeps_its_characters(card):
    for text in texts(card):
        html, mathml = maths.to_html(text), maths.to_mathml(text)
        assert bare(characters(html)) == bare(text)
        if "√" not in text:  # which MathML draws, and then needs no brackets
            assert bare(characters(mathml)) == bare(text)
        assert mathml.count("<msqrt>") == text_in_formulas(text).count("√")
        assert "$" not in maths.to_text(text.replace("`", ""))


def text_in_formulas(text):
    return "".join(piece for piece in text.split("$")[1::2])
