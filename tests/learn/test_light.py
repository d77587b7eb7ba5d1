"""Claims about the light path: all steps on a computer, a fifth in a browser, and that is said."""

import sys

from minilora.learn.light import light


def test_a_computer_takes_all_steps_and_a_browser_a_fifth_and_says_so(monkeypatch, capsys):
    assert light(300) == 300 and capsys.readouterr().out == ""
    monkeypatch.setattr(sys, "platform", "emscripten")
    assert (light(300), light(3)) == (60, 1)
    assert "In a browser 60 steps are taken in place of 300" in capsys.readouterr().out
