"""The playground computes what minilora computes, and says of it what is true."""

import re
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest

import minilora as ml
from minilora.analysis.spectrum import eckart_young_tail, singular_values
from minilora.learn.page.playground.teacher import draw_task, uniform

pytestmark = pytest.mark.browser

SHORT = {"playground.steps": 50}  # where the length of a training does not matter
SAME_AS_NUMPY = {
    "r = k": {},
    "r < k": {"playground.r": 2},
    "r > k": {"playground.r": 9, **SHORT},
    "A = B = 0": {"playground.start": "zero", **SHORT},
    "full alone": {"playground.method": "full", "playground.full_rate": 0.002},
    "LoRA alone, flat": {"playground.method": "lora", "playground.spectrum": "flat", **SHORT},
    "not square": {"playground.d_in": 17, "playground.d_out": 31, "playground.seed": 7, **SHORT},
    "k = 1, strong": {"playground.k": 1, "playground.alpha": 32, **SHORT},
    "a step before the last": {"playground.step": 12},
    "thrown off": {"playground.rate": 2, **SHORT},
}


def wait_until_trained(page):
    page.evaluate("""new Promise((done) => {
      const look = () => (playground.trained ? done() : setTimeout(look, 20));
      look();
    })""")


@pytest.fixture
def opened(open_page):
    def opened(values=(), **options):
        page = open_page(dict(values), **options)
        wait_until_trained(page)
        return page

    return opened


def losses(page):
    """What the page has at the step shown, by the name of the method."""
    return page.evaluate("""Object.fromEntries(Object.entries(playground.runs).map(
      ([method, run]) => [METHODS[method], run.losses[shownStep()]]))""")


def drawn(page, name):
    rows, columns, data = page.evaluate(
        f"(({{rows, columns, data}}) => [rows, columns, [...data]])(playground.task.{name})"
    )
    return np.array(data).reshape(rows, columns)


@pytest.mark.parametrize("name", SAME_AS_NUMPY)
def test_its_lines_of_python_give_the_errors_that_it_shows(opened, name):
    page = opened(SAME_AS_NUMPY[name])
    code = page.locator("#playground .python code").text_content()
    printed = StringIO()
    with redirect_stdout(printed):
        exec(code, {})
    numpy = dict(
        re.fullmatch(r"(.+) (\S+)", line).groups() for line in printed.getvalue().splitlines()
    )
    assert losses(page) == pytest.approx(
        {method: float(loss) for method, loss in numpy.items()}, rel=1e-4, abs=1e-12
    )


@pytest.mark.parametrize("sizes", [(24, 24, 4, 4), (17, 31, 1, 3), (31, 17, 8, 16)])
def test_it_draws_the_arrays_that_teacher_py_draws(opened, sizes):
    names = ("d_in", "d_out", "k", "r")
    values = {f"playground.{name}": size for name, size in zip(names, sizes, strict=True)}
    page = opened({**values, "playground.seed": 5, **SHORT})
    d_in, d_out, k, r = sizes
    task = draw_task(d_in, d_out, k, "geometric", r, 5)
    np.testing.assert_allclose(drawn(page, "x"), task.x, atol=1e-13)
    np.testing.assert_allclose(drawn(page, "delta"), task.delta, atol=1e-13)
    np.testing.assert_allclose(drawn(page, "A"), task.A, atol=1e-15)


@pytest.mark.parametrize("seed", [0, 1, 123456, 2**32 - 1])
def test_random_numbers_are_those_of_teacher_py(opened, seed):
    page = opened(SHORT)
    numbers = page.evaluate(f"Array.from({{ length: 50 }}, randomFrom({seed}))")
    np.testing.assert_array_equal(numbers, uniform(seed, 50))


def test_gradients_of_a_and_b_are_those_of_the_engine(opened):
    """Adam hardly notices the size of a gradient, so that the errors alone would not show it."""
    page = opened(SHORT)
    found = page.evaluate("""(() => {
      const student = loraStudent(playground.task, 3, false);
      student.parameters[1].data.forEach((_, i, B) => (B[i] = Math.sin(i)));
      const G = matrix(256, 24, (i) => Math.cos(i));
      return student.gradients(G).map((gradient) => [...gradient.data]);
    })()""")
    task = draw_task(24, 24, 4, "geometric", 4, 0)
    A, B = ml.Parameter(task.A), ml.Parameter(np.sin(np.arange(4 * 24)).reshape(4, 24))
    output = 3 * ((ml.Tensor(task.x) @ A) @ B)
    (output * ml.Tensor(np.cos(np.arange(256 * 24)).reshape(256, 24))).sum().backward()
    for gradient, parameter in zip(found, (A, B), strict=True):
        np.testing.assert_allclose(gradient, parameter.grad.ravel(), atol=1e-10)


def test_singular_values_equal_numpy_s(opened):
    page = opened(SHORT)
    rng = np.random.default_rng(0)
    matrices = {
        "square": rng.standard_normal((24, 24)),
        "wide": rng.standard_normal((5, 12)),
        "tall": rng.standard_normal((12, 5)),
        "rank 2": rng.standard_normal((9, 2)) @ rng.standard_normal((2, 9)),
        "zero": np.zeros((3, 4)),
        "column": rng.standard_normal((6, 1)),
        "many sizes": rng.standard_normal((8, 8)) * 10.0 ** -np.arange(8),
    }
    for name, M in matrices.items():
        rows, columns = M.shape
        found = page.evaluate(
            "([rows, columns, data]) => singularValues(matrix(rows, columns, (i) => data[i]))",
            [rows, columns, M.ravel().tolist()],
        )
        np.testing.assert_allclose(found, singular_values(M), rtol=1e-9, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("spectrum", ["flat", "geometric"])
def test_lora_of_a_lower_rank_ends_at_the_bound_of_eckart_and_young(opened, spectrum):
    page = opened({"playground.r": 2, "playground.spectrum": spectrum})
    bound = eckart_young_tail(draw_task(24, 24, 4, spectrum, 2, 0).delta, 2) / 24
    assert page.evaluate("leastLoss(playground.task.sigma, 2, 24)") == pytest.approx(bound)
    assert bound * (1 - 1e-9) < losses(page)["LoRA"] < 1.05 * bound
    shown = page.evaluate(f"readable({bound})")
    reason = page.locator("#play-reason").text_content()
    learned = {"flat": "2: all are equally strong", "geometric": "the 2 strongest"}[spectrum]
    assert f"has learned {learned}. No ΔW of rank 2 has an error below {shown}; " in reason
    assert f"LoRA's is {losses(page)['LoRA'] / bound:.2f} times that." in reason
    row = page.locator("#play-table tr", has_text="LoRA")
    assert row.locator("td").last.text_content() == shown


TRAPS = {
    "A = B = 0": "LoRA has not moved in 400 steps",
    "r < k": "Of the 4 directions of Δ, LoRA has learned the 2 strongest",
    "A tenth of the rate": "LoRA has not arrived",
    "A rate that is too high": "The rate 2 is too high for LoRA: its error rose to",
    "None of them": "Rank 4 is just enough for Δ, and LoRA has found it",
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_does_what_its_words_say(opened, trap):
    page = opened({"playground.seed": 1, "playground.k": 6})
    page.get_by_role("button", name=trap, exact=True).click()
    wait_until_trained(page)
    assert TRAPS[trap] in page.locator("#play-reason").text_content()
    pressed = page.locator("#play-traps [aria-pressed=true]").all_text_contents()
    assert pressed == [trap]
    assert not page.locator("#play-reason").text_content().startswith("At the end:")
    page.get_by_role("button", name="One step back").click()
    assert page.locator("#play-reason").text_content().startswith("At the end:")
    lora, full = losses(page)["LoRA"], losses(page)["full fine-tuning"]
    (start,) = {
        run[0] for run in page.evaluate("Object.values(playground.runs).map((r) => r.losses)")
    }
    assert full < 1e-7 * start
    assert (lora == start) == (trap == "A = B = 0")
    assert (lora < 1e-10) == (trap == "None of them")


def test_a_rate_that_throws_off_both_is_said_of_both(opened):
    page = opened({"playground.rate": 1, "playground.full_rate": 2})
    reason = page.locator("#play-reason").text_content()
    for method, begins in {"lora": "its error rose to", "full": "thrown off too, to"}.items():
        worst = page.evaluate(f"readable(Math.max(...playground.runs.{method}.losses))")
        assert f"{begins} {worst}," in reason


def test_a_setting_between_the_traps_presses_none(opened):
    page = opened({"playground.r": 3, **SHORT})
    assert page.locator("#play-traps [aria-pressed=true]").count() == 0


def test_the_words_quote_the_step_that_is_shown(opened):
    page = opened({"playground.step": 10})
    finding = page.locator("#play-finding").text_content()
    assert finding.startswith("At step 10 of 400, LoRA of rank 4 has an error of ")
    for loss in losses(page).values():
        assert page.evaluate(f"readable({loss})") in finding
    assert finding in page.locator("#play-loss").get_attribute("aria-label")
    change = page.evaluate("[...changeAt('lora', 10).data]")
    sigma = singular_values(np.array(change).reshape(24, 24))[:4]
    cells = page.locator("#play-values-table tr td:nth-child(3)").all_text_contents()[:4]
    assert cells == [f"{value:.3f}" for value in sigma]


def test_every_strong_direction_is_ahead_of_the_weaker_at_step_10(opened):
    page = opened({"playground.step": 10})
    change = np.array(page.evaluate("[...changeAt('lora', 10).data]")).reshape(24, 24)
    learned = singular_values(change)[:4] / np.geomspace(2, 0.2, 4)
    assert list(learned) == sorted(learned, reverse=True)


def test_the_error_by_rank_is_that_of_each_rank_and_falls_to_zero_at_k(opened):
    page = opened({"playground.k": 3, "playground.r": 2, "playground.seed": 4})
    assert page.evaluate("ranks.length") == 0  # not before one is near
    page.locator("#play-ranks-figure").scroll_into_view_if_needed()
    page.evaluate("""new Promise((done) => {
      const look = () => (ranks.length === 5 ? done() : setTimeout(look, 20));
      look();
    })""")
    found = page.evaluate("ranks")
    assert [row["r"] for row in found] == [1, 2, 3, 4, 5]
    assert found[1]["loss"] == losses(page)["LoRA"]
    for row in found[:2]:
        assert row["least"] < row["loss"] < 1.1 * row["least"]
    assert all(row["loss"] < 1e-6 and row["least"] == 0 for row in found[2:])
    assert page.locator("#play-ranks circle").count() == 5


def test_the_address_brings_back_settings_and_step(opened):
    page = opened({"playground.k": 3, **SHORT})
    page.get_by_role("button", name="To the start").click()
    page.get_by_role("button", name="One step on").click()
    again = opened(
        dict(part.split("=") for part in page.evaluate("address()").split("#")[1].split("&"))
    )
    assert again.locator("#play-step-text").text_content() == "1 of 50"
    assert again.locator("#play-k").input_value() == "3"
    assert losses(again) == losses(page)


def test_an_address_with_values_that_cannot_be_gives_the_defaults(opened):
    wrong = {
        "k": 99, "r": 0, "d_in": -3, "rate": "fast", "alpha": 7, "method": "magic", "seed": 1.5,
        "steps": 1e9, "step": 1e20, "full_rate": "", "spectrum": "flatter", "start": "one",
    }  # fmt: skip
    page = opened({f"playground.{name}": value for name, value in wrong.items()})
    default = opened()
    assert losses(page) == losses(default)
    finding = "#play-finding"
    assert page.locator(finding).text_content() == default.locator(finding).text_content()


def test_a_seed_that_is_none_is_refused_beside_its_field(opened):
    page = opened(SHORT)
    page.get_by_text("Sizes, steps, start and seed").click()
    before = losses(page)
    for typed in ("-1", "1e20", ""):
        page.locator("#play-seed").fill(typed)
        assert page.locator("#play-seed + .problem").text_content()
        assert losses(page) == before
    page.locator("#play-seed").fill("2")
    wait_until_trained(page)
    assert page.locator("#play-seed + .problem").text_content() == ""
    assert losses(page) != before


def test_it_plays_and_pauses_by_keyboard(opened):
    page = opened()
    page.locator("#play-play").focus()
    page.keyboard.press("Enter")
    assert page.locator("#play-play").text_content() == "Pause"
    page.wait_for_timeout(200)
    page.keyboard.press("Enter")
    step = int(page.locator("#play-step").input_value())
    assert 0 < step < 400
    page.locator("#play-step").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#play-step-text").text_content() == f"{step + 1} of 400"
    page.keyboard.press("End")
    assert page.locator("#play-step-text").text_content() == "400 of 400"


def test_who_prefers_less_motion_sees_five_pictures_a_second_apart(opened):
    page = opened(SHORT, reduced_motion="reduce")
    page.locator("#play-play").click()
    seen = {page.locator("#play-step").input_value()}
    for _ in range(15):
        page.wait_for_timeout(100)
        seen.add(page.locator("#play-step").input_value())
    assert seen <= {"0", "10", "20"} and len(seen) > 1


def test_settings_that_change_while_it_trains_win(opened):
    page = opened(SHORT)
    page.evaluate("set('playground.k', 2); set('playground.k', 3); set('playground.r', 3)")
    wait_until_trained(page)
    assert page.evaluate("playground.settings.k") == 3
    assert "Rank 3" in page.locator("#play-reason").text_content() or losses(page)["LoRA"] > 1e-5


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_axe_finds_no_barrier_in_the_playground(opened, barriers, color_scheme):
    page = opened(
        {"predict": "true", "guess.playground": "bound", **SHORT}, color_scheme=color_scheme
    )
    page.evaluate(
        "document.querySelectorAll('#playground details').forEach((d) => (d.open = true))"
    )
    assert barriers(page, "#playground") == []
