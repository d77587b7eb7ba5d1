"""The page as a whole: one small file that asks for nothing, and shows what its address says."""

import re
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

import minilora.learn.page

pytestmark = pytest.mark.browser
PAGE = Path(minilora.learn.page.__file__).parent


def test_the_file_is_small_and_names_nothing_outside_itself(page_file):
    html = page_file.read_text("utf-8")
    assert page_file.stat().st_size < 2.5e6
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?!#|data:)[^"'> ]+|@import|url\(""", html)


def test_every_part_of_the_folder_is_in_the_page(page_file):
    html = page_file.read_text("utf-8")
    for path in PAGE.rglob("*.js"):
        assert path.read_text("utf-8").strip() in html, path.name


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_scrolls_sideways(open_page, width):
    page = open_page(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_no_barrier_whatever_is_unfolded_asked_or_covered(
    open_page, barriers, color_scheme, width
):
    page = open_page(color_scheme=color_scheme, width=width)
    assert barriers(page) == []
    page.evaluate("document.querySelectorAll('details').forEach((e) => (e.open = true))")
    page.get_by_label("Predict first").check()
    page.get_by_label("Broken text").check()
    page.fill("#live-prompt", "")
    assert barriers(page) == []


SECTIONS = ["live", "playground", "count", "cards"]


@pytest.mark.parametrize("name", SECTIONS)
def test_results_are_hidden_for_a_class_and_the_question_stays(open_page, name):
    page = open_page({f"hide.{name}": "true"})
    section = page.locator(f"#{name}")
    results = section.locator(".result")
    assert results.count() and not any(result.is_visible() for result in results.all())
    assert section.locator("h2").is_visible()
    assert section.get_by_text("The results are hidden.").is_visible()
    section.get_by_label("Hide results").uncheck()
    assert results.first.is_visible()
    assert "#" not in page.evaluate("address()")


def test_with_predict_first_a_result_appears_once_the_reader_has_guessed(open_page):
    page = open_page()
    assert not page.locator(".guess").first.is_visible()
    page.get_by_label("Predict first").check()
    texts, answer = page.locator("#live-base-text"), page.locator("#live .answer")
    assert not texts.is_visible() and not answer.is_visible()
    page.get_by_label("Python, and better than at 1").check()
    assert texts.is_visible() and answer.inner_text().startswith("Not so.")
    page.get_by_label("Broken text").check()
    assert answer.inner_text().startswith("Right.")
    again = open_page(dict(parse_qsl(page.evaluate("address()").partition("#")[2])))
    assert again.locator("#live-base-text").is_visible()
    assert again.get_by_label("Broken text").is_checked()


def test_with_predict_first_a_guess_that_is_no_choice_uncovers_nothing(open_page):
    page = open_page({"predict": "true", "guess.live": "nonsense"})
    assert not page.locator("#live-base-text").is_visible()


def test_every_control_is_restored_from_the_address(open_page):
    """Whatever is typed, moved, chosen or ticked in any section: a copied address shows it."""
    page = open_page()
    controls = page.locator("main [data-state]:visible")
    for name in controls.evaluate_all("all => all.map((e) => e.dataset.state)"):
        control = page.locator(f"main [data-state='{name}']")
        if control.is_visible():  # still: another model has other matrices
            change(control)
    shown = "all => all.map((e) => [e.dataset.state, e.type === 'checkbox' ? e.checked : e.value])"
    expected = controls.evaluate_all(shown)
    page.wait_for_timeout(300)  # until the address is written
    again = open_page(dict(parse_qsl(page.url.partition("#")[2])))
    assert again.locator("main [data-state]:visible").evaluate_all(shown) == expected


def change(control):
    """Give a control another value that it can have."""
    kind, tag = control.get_attribute("type"), control.evaluate("e => e.tagName")
    if kind == "checkbox":
        control.set_checked(not control.is_checked())
    elif tag == "SELECT":
        options = control.locator("option").evaluate_all("all => all.map((o) => o.value)")
        control.select_option(next(o for o in options if o != control.input_value()))
    elif kind == "range":
        control.press("ArrowLeft")
    elif kind == "number":
        control.fill(str(int(control.input_value() or 1) + 1))
    else:
        control.fill("abc")


@pytest.mark.parametrize(
    "state",
    [
        {"live.strength": 1e9},
        {"live.strength": -1},
        {"live.rank": 2.5},
        {"live.time": 99},
        {"live.prompt": ""},
        {"live.prompt": "été"},
        {"live.prompt": "x" * 61},
        {"live.seed": -4},
        {"live.temperature": "hot"},
        {"live.after": "never"},
        {"live.q_proj": 1},
        {"predict": "maybe"},
        {"nonsense": 3},
        {"constructor": 3},
    ],
    ids=str,
)
def test_an_address_with_nonsense_gives_the_default(open_page, state):
    page = open_page(state)
    assert "#" not in page.evaluate("address()")
    assert page.locator("#live-adapted-text").inner_text().startswith("def ")


def test_the_link_is_copied(open_page):
    page = open_page({"live.seed": 7}, permissions=["clipboard-read", "clipboard-write"])
    page.locator("#live").get_by_text("Copy link").click()
    page.locator("#live").get_by_text("Copied.").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.url


def test_a_link_to_a_section_keeps_the_state_and_moves_the_focus(open_page):
    page = open_page({"live.seed": 7})
    page.get_by_role("link", name="Count").press("Enter")
    assert page.evaluate("document.activeElement.id") == "count"
    assert page.url.endswith("#live.seed=7")


def test_every_control_is_reached_by_the_tab_key_and_shows_that_it_is(open_page):
    page = open_page()
    controls = page.locator(":is(a, button, input, select, summary):visible").count()
    reached = set()
    for _ in range(controls + 40):
        page.keyboard.press("Tab")
        seen = page.evaluate(
            """() => {
                const e = document.activeElement;
                const all = [...document.querySelectorAll("*")];
                return [all.indexOf(e), getComputedStyle(e).outlineStyle, e.tagName];
            }"""
        )
        if seen[2] == "BODY":
            break
        assert seen[1] != "none"
        reached.add(seen[0])
    assert len(reached) >= controls


def test_printed_it_is_texts_and_results_dark_on_white_and_no_chart_is_empty(open_page):
    page = open_page(color_scheme="dark")
    page.locator("#live-surprise[aria-busy=false]").wait_for()
    page.pdf()
    assert page.locator("#play-ranks circle").count() == 6
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 29, 33)"
    for control in page.locator("main :is(button, input, select):visible").all():
        assert control.locator("xpath=ancestor::*[@class='answers']").count()
    for result in page.locator("main :is(svg, canvas, polyline)").all():
        assert result.is_visible()


def test_bars_keep_their_colours_where_a_system_sets_its_own(open_page):
    page = open_page(forced_colors="active")
    for bar in ("#live-next .of-adapted", "#live-spectrum .column", "#cards .bar"):
        color = "e => getComputedStyle(e).backgroundColor"
        white = page.locator("body").evaluate(color)
        assert page.locator(bar).first.evaluate(color) != white
