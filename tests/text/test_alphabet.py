"""Claims about the alphabet: its 96 symbols, and what becomes of the characters outside it."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilora.text import alphabet


def test_alphabet_is_newline_and_printable_ascii():
    assert len(alphabet.ALPHABET) == 96
    assert (
        alphabet.ALPHABET[0] == "\n"
        and alphabet.ALPHABET[1] == " "
        and alphabet.ALPHABET[-1] == "~"
    )


def test_symbol_id_is_the_index_in_the_alphabet():
    ids = alphabet.encode(alphabet.ALPHABET)
    assert ids.dtype == np.uint8
    assert ids.tolist() == list(range(96))


@given(st.text(alphabet=alphabet.ALPHABET))
def test_decode_undoes_encode(text):
    assert alphabet.decode(alphabet.encode(text)) == text


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda ids: np.array(ids, np.uint8)])
def test_decode_takes_any_integer_array_like(kind):
    assert alphabet.decode(kind([41, 74])) == "Hi"


def test_decode_of_nothing_is_an_empty_string():
    assert alphabet.decode([]) == ""


@pytest.mark.parametrize("ids", [[1, -100], [96], [-1]])
def test_decode_refuses_ids_that_are_not_symbols(ids):
    with pytest.raises(ValueError, match="symbols from 0 to 95.*IGNORE_INDEX"):
        alphabet.decode(ids)


def test_encode_names_the_stranger_and_the_remedy():
    with pytest.raises(ValueError, match=r"'é' \(U\+00E9\) at position 3 .*to_alphabet\(\)"):
        alphabet.encode("café")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("\tx", "    x"),
        ("“quoted” ‘it’s’ «so»", '"quoted" \'it\'s\' "so"'),
        ("1–2 — a‑b …", "1-2 -- a-b ..."),
        ("no\u00a0break\u2009thin", "no break thin"),
        ("crème Łódź ½", "creme Lodz 1/2"),
        ("Die Straße ist GRÖẞER", "Die Strasse ist GROSSER"),
        ("mała łódka, Rødgrød, œuvre, Æther", "mala lodka, Rodgrod, oeuvre, AEther"),
        ("đường, ışık, Ðað, Þórr, þing", "duong, isik, Dad, THorr, thing"),
        ("Ħaġar ŧ Ŋŋ ǽ ǿ", "Hagar t Nn ae o"),
        ("ɓɗƙƴ ɛɔ ə Oʻahu", "bdky eo e O'ahu"),
        ("中文 \x00\x7f😀!", " !"),
    ],
)
def test_to_alphabet_keeps_what_has_a_look_alike(text, expected):
    assert alphabet.to_alphabet(text) == expected


@settings(max_examples=50)
@given(st.text())
def test_to_alphabet_makes_any_text_encodable_and_does_it_once(text):
    once = alphabet.to_alphabet(text)
    assert alphabet.decode(alphabet.encode(once)) == once == alphabet.to_alphabet(once)


def test_text_error_is_a_value_error():
    assert issubclass(alphabet.TextError, ValueError)


def test_what_has_no_look_alike_is_counted_and_named():
    lost, total = alphabet.dropped("Привет, Ёж! ß é e\u0301 \u200b\ufeff\u00ad±")
    assert lost == dict.fromkeys("Приветж±", 1) | {"Ё": 1}
    assert total == len("Привет,Ёж!ßée±")
    assert alphabet.dropped("plain ß text\x00") == ({}, 10)


def test_a_long_run_of_combining_marks_takes_no_quadratic_time():
    began = time.process_time()
    assert alphabet.to_alphabet("a" + "\u0301\u0323" * 100_000) == "a"
    assert time.process_time() - began < 1  # normalizing the whole takes minutes
