"""CITATION.cff names the version that is."""

from pathlib import Path

from minilora.system.version import __version__


def test_the_citation_has_this_version():
    text = (Path(__file__).parents[1] / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {__version__}\n" in text and text.startswith("cff-version: 1.2.0\n")
