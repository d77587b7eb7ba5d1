"""The scripts of the page share one scope."""

import re
from collections import Counter
from pathlib import Path

from minilora.learn.page import build

PAGE = Path(build.__file__).parent
SCRIPTS = {
    path.relative_to(PAGE).as_posix(): path.read_text("utf-8") for path in PAGE.rglob("*.js")
}


def test_every_script_is_put_into_the_page_once():
    assert sorted(build.script_files()) == sorted(SCRIPTS)


def test_no_two_scripts_declare_the_same_name():
    """Of two functions of one name, the later would take the place of the other in silence."""
    declared = r"^(?:async )?(?:function\*?|class|const|let) (\w+)"
    names = Counter(
        name for text in SCRIPTS.values() for name in re.findall(declared, text, re.MULTILINE)
    )
    assert len(names) > 100
    assert [name for name, times in names.items() if times > 1] == []


def test_no_script_makes_html_or_code_of_text():
    wrong = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
    assert [name for name, text in SCRIPTS.items() if re.search(wrong, text)] == []


def test_lines_of_scripts_have_at_most_100_characters():
    long = [(name, line) for name, text in SCRIPTS.items() for line in text.splitlines()]
    assert [(name, line) for name, line in long if len(line) > 100] == []
