"""Claims about the light path: all on a computer, a tenth in a browser, and that is said."""

import sys

from minilora.learn.light import light


def test_a_computer_takes_all_and_a_browser_a_tenth_and_says_so(monkeypatch, capsys):
    assert light(300) == 300 and capsys.readouterr().out == ""
    monkeypatch.setattr(sys, "platform", "emscripten")
    assert (light(300), light(3)) == (30, 1)
    assert "In a browser 30 in place of 300" in capsys.readouterr().out
