"""Claims about corpora: a text file becomes three parts, or one sentence says why it cannot."""

import os

import numpy as np
import pytest

from minilora.system import readers
from minilora.text import alphabet, corpora, windows


def write(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_unknown_corpus_is_named():
    with pytest.raises(ValueError, match="no corpus 'poems'; use 'prose' or 'code'"):
        corpora.load_corpus("poems")


def test_text_file_is_split_in_order(tmp_path):
    text = "".join(chr(32 + i % 95) for i in range(2000))
    corpus = corpora.load_text(write(tmp_path / "my.txt", text))
    assert corpus.name == "my.txt"
    assert [len(part) for part in (corpus.train, corpus.val, corpus.test)] == [1800, 100, 100]
    assert alphabet.decode(np.concatenate([corpus.train, corpus.val, corpus.test])) == text


def test_path_may_be_a_string(tmp_path):
    assert corpora.load_text(str(write(tmp_path / "a", "abc " * 500))).name == "a"


def test_byte_order_mark_and_line_ends_do_not_matter(tmp_path):
    text = "A line of text.\n" * 100
    plain = corpora.load_text(write(tmp_path / "a", text))
    windows = corpora.load_text(write(tmp_path / "b", "\ufeff" + text.replace("\n", "\r\n")))
    assert np.array_equal(plain.train, windows.train)


@pytest.mark.parametrize("length", [1300, 1301, 1309, 1319, 1321])
def test_each_part_of_a_long_enough_text_holds_a_window(length, tmp_path):
    corpus = corpora.load_text(write(tmp_path / "a", "x" * length))
    assert len(corpus.train) + len(corpus.val) + len(corpus.test) == length
    for part in (corpus.train, corpus.val, corpus.test):
        assert windows.spaced_windows(part, 1, 64)[0].shape == (1, 64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \r\n", "is empty"),
        ("x" * 1299, "too short: it has 1299 usable characters and needs at least 1300"),
        (b"PK\x03\x04\x00\x00", "NUL bytes.*binary file or UTF-16"),
        ("text".encode("utf-16"), "NUL bytes.*binary file or UTF-16"),
        ("caf\xe9 ".encode("latin-1") * 300, "not UTF-8: byte 0xe9 at offset 3 .*save it"),
        (b"\xef\xbb\xbfcaf\xe9 ", "not UTF-8: byte 0xe9 at offset 6 "),
        ("漢字かな x " * 400, "only 20% of the characters .* choose a text in the Latin"),
        ("\u043c\u0438\u0440, " * 400, "only 25% of the characters"),
    ],
)
def test_unusable_file_is_one_sentence_with_the_remedy(content, message, tmp_path):
    path = write(tmp_path / "user.txt", content)
    with pytest.raises(alphabet.TextError, match=message) as caught:
        corpora.load_text(path)
    assert "user.txt" in str(caught.value) and "\n" not in str(caught.value)


def test_accents_count_as_representable_composed_or_not(tmp_path):
    for text in ("é" * 1400, "e\u0301" * 1400):
        assert alphabet.decode(corpora.load_text(write(tmp_path / "a", text)).val) == "e" * 70


def test_missing_file_and_folder_are_text_errors(tmp_path):
    with pytest.raises(alphabet.TextError, match="cannot read .*nowhere.txt: there is no such"):
        corpora.load_text(tmp_path / "nowhere.txt")
    with pytest.raises(alphabet.TextError, match="is a folder; give a file in it"):
        corpora.load_text(tmp_path)


def test_file_that_cannot_be_read_gives_the_reason(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / "secret.txt", "a text " * 300)
    monkeypatch.setattr(readers, "open", refuse, raising=False)
    with pytest.raises(alphabet.TextError, match=r"cannot read .*secret.txt: you may not read it"):
        corpora.load_text(path)


def test_a_text_of_gigabytes_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "a").open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(alphabet.TextError, match="9,537 MiB, and at most 64 are read"):
        corpora.load_text(tmp_path / "a")


def test_what_a_text_loses_is_said_with_its_share(tmp_path):
    path = write(tmp_path / "a", "ein Maß, ein €uro, a λ and another λ. " * 100)
    with pytest.warns(UserWarning, match=r"a: 300 of 2900 characters \(10.3%\) .*: 'λ', '€'$"):
        corpora.load_text(path)
    path = write(tmp_path / "b", "plain text " * 200 + "".join(map(chr, range(0x400, 0x40C))))
    with pytest.warns(UserWarning, match=" and 4 more$"):
        corpora.load_text(path)


def test_a_text_of_accents_alone_is_too_short(tmp_path):
    with pytest.raises(alphabet.TextError, match="it has 0 usable characters"):
        corpora.load_text(write(tmp_path / "a", "\u0301\u200b" * 20_000))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX's")
def test_what_might_never_end_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(alphabet.TextError, match="is a pipe or a device; save its content"):
            corpora.load_text(path)


def test_batches_are_random_windows_of_one_split(tmp_path):
    corpus = corpora.load_text(write(tmp_path / "a", "".join(map(chr, range(32, 127))) * 30))
    for options, tokens in (({}, corpus.train), ({"split": "val"}, corpus.val)):
        drawn = corpus.batches(4, 16, **options)(np.random.default_rng(5))
        expected = windows.random_windows(tokens, 4, 16, np.random.default_rng(5))
        np.testing.assert_array_equal(drawn, expected)


def test_a_corpus_made_of_lists_gives_batches_too():
    corpus = corpora.Corpus("own", [1, 2, 3, 4], [], [])
    ids, targets = corpus.batches(2, 3)(np.random.default_rng(0))
    assert ids.tolist() == [[1, 2, 3]] * 2 and targets.tolist() == [[2, 3, 4]] * 2
