"""Claims about figures/README.md: it shows every figure, and says what each does not show."""

import re
from pathlib import Path

import pytest

from minilora.studies import STUDIES

FIGURES = Path(__file__).parents[2] / "figures"
GALLERY = (FIGURES / "README.md").read_text("utf-8")
SECTIONS = {image: text for text in re.split(r"\n#+ ", GALLERY)
            for image in re.findall(r"!\[.+?\]\((.+?)\)", text)}  # fmt: skip


def test_every_figure_is_shown():
    assert SECTIONS.keys() == {path.name for path in FIGURES.glob("*.png")}
    assert SECTIONS.keys() >= {f"{name.replace('_', '-')}.png" for name in STUDIES}


@pytest.mark.parametrize("image", SECTIONS)
def test_every_caption_says_what_to_see_and_what_is_not_shown(image):
    text = SECTIONS[image]
    assert re.search(r"\b[Ss]ee\b", text) and re.search(r"do(es)? not show", text)


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_named_with_its_command(name):
    assert f"`minilora study {name}`" in SECTIONS[f"{name.replace('_', '-')}.png"]


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_says_whether_it_holds_at_scale_here_as_in_the_package(name):
    text, section = STUDIES[name].at_scale, SECTIONS[f"{name.replace('_', '-')}.png"]
    assert f"\n\n**Does it hold at scale?** {text}\n" in f"{section}\n"
    assert re.search(r"\(.*(20\d\d|benchmark|arXiv)", text) or text.startswith("We know of no")
