"""The page as a whole: one small file that asks for nothing, and shows what its address says."""

import re
from collections import Counter
from pathlib import Path

import pytest

import minilora.learn.page

pytestmark = pytest.mark.browser
PAGE = Path(minilora.learn.page.__file__).parent


def test_the_file_is_small_and_names_nothing_outside_itself(page_file):
    html = page_file.read_text("utf-8")
    assert page_file.stat().st_size < 2.5e6
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?!#)[^"'> ]+|@import|url\(""", html)


def test_the_scripts_share_one_scope_and_no_name_stands_for_two_things():
    scripts = [path.read_text("utf-8") for path in PAGE.glob("*.js")]
    names = re.findall(
        r"^(?:async )?(?:function\*?|const|let|class) (\w+)", "\n".join(scripts), re.M
    )
    assert [name for name, times in Counter(names).items() if times > 1] == []


def test_every_part_of_the_folder_is_in_the_page(page_file):
    html = page_file.read_text("utf-8")
    for path in PAGE.glob("*.js"):
        assert path.read_text("utf-8").strip() in html, path.name


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_scrolls_sideways(open_page, width):
    page = open_page(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_axe_finds_no_barrier(open_page, barriers, color_scheme):
    page = open_page(color_scheme=color_scheme)
    assert barriers(page) == []


def test_a_result_is_hidden_for_a_class_and_a_copied_address_says_so(open_page):
    page = open_page({"hide.live": "true"})
    assert page.locator("#live .tools input").is_checked()
    assert "covered" in page.locator("#live").get_attribute("class")
    page.locator("#live .tools input").uncheck()
    assert page.evaluate("address()") == page.url.split("#")[0]
