"""Claims about the data: symbols, corpora from the standard library, user files, batches.

Most tests build from a small standard library of our own in a temporary folder; a few read the real
one. The cache is always in a temporary folder.
"""

import ast
import itertools
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import platformdirs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilora.text import corpora as data

WORDS = ["".join(w) for w in itertools.product("bdfgklmnprst", "aeiou", "lmnrst", "aeio")]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and a process that has not read it."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(folder / name))
    data._library.cache_clear()
    yield folder / "minilora"
    data._library.cache_clear()


@pytest.fixture
def library(tmp_path, monkeypatch, cache):
    """A standard library of nine modules, three in each split, and one help topic."""
    folder = tmp_path / "lib"
    folder.mkdir()
    names = sorted(name for name in sys.stdlib_module_names if not name.startswith("_"))
    for split in ("train", "val", "test"):
        for name in [n for n in names if data._split_of(f"{n}.py") == split][:3]:
            body = "\n".join(f"    {name}_{i} = {i}" for i in range(40))
            (folder / f"{name}.py").write_text(f'"""{sentence(name)}"""\nif True:\n{body}\n')
    (folder / "json").mkdir()
    (folder / "json" / "tool.py").write_text(f'"""{sentence("json")}"""\nx = "json.tool"\n' * 99)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(folder))
    topics = SimpleNamespace(topics={"FAKE": "Every word is here: " + " ".join(WORDS) + " end"})
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", topics)
    return folder


@pytest.fixture
def builds(monkeypatch):
    """A list that grows by one whenever the sources are read."""
    calls = []
    build = data._build
    monkeypatch.setattr(data, "_build", lambda: calls.append(1) or build())
    return calls


def sentence(name):
    return f"The module called {name} has a paragraph of prose that is long enough to be kept."


def forget():
    data._library.cache_clear()


def parts():
    return {name: array.tobytes() for name, array in data._library().items()}


def write(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_alphabet_is_newline_and_printable_ascii():
    assert len(data.ALPHABET) == 96
    assert data.ALPHABET[0] == "\n" and data.ALPHABET[1] == " " and data.ALPHABET[-1] == "~"


def test_symbol_id_is_the_index_in_the_alphabet():
    ids = data.encode(data.ALPHABET)
    assert ids.dtype == np.uint8
    assert ids.tolist() == list(range(96))


@given(st.text(alphabet=data.ALPHABET))
def test_decode_undoes_encode(text):
    assert data.decode(data.encode(text)) == text


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda ids: np.array(ids, np.uint8)])
def test_decode_takes_any_integer_array_like(kind):
    assert data.decode(kind([41, 74])) == "Hi"


def test_decode_of_nothing_is_an_empty_string():
    assert data.decode([]) == ""


@pytest.mark.parametrize("ids", [[1, -100], [96], [-1]])
def test_decode_refuses_ids_that_are_not_symbols(ids):
    with pytest.raises(ValueError, match="symbols from 0 to 95.*IGNORE_INDEX"):
        data.decode(ids)


def test_encode_names_the_stranger_and_the_remedy():
    with pytest.raises(ValueError, match=r"'é' \(U\+00E9\) at position 3 .*to_alphabet\(\)"):
        data.encode("café")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("\tx", "    x"),
        ("“quoted” ‘it’s’ «so»", '"quoted" \'it\'s\' "so"'),
        ("1–2 — a‑b …", "1-2 -- a-b ..."),
        ("no\u00a0break\u2009thin", "no break thin"),
        ("crème Łódź ½", "creme odz 1/2"),
        ("中文 \x00\x7f😀!", " !"),
    ],
)
def test_to_alphabet_keeps_what_has_a_look_alike(text, expected):
    assert data.to_alphabet(text) == expected


@settings(max_examples=50)
@given(st.text())
def test_to_alphabet_makes_any_text_encodable_and_does_it_once(text):
    once = data.to_alphabet(text)
    assert data.decode(data.encode(once)) == once == data.to_alphabet(once)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """PROSE, CODE and the words of the interpreter that runs the tests, built once."""
    data._library.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr(platformdirs, "user_cache_dir", lambda name: str(folder / name))
        yield data.load_corpus("prose"), data.load_corpus("code"), data.load_words()
    data._library.cache_clear()


def test_real_corpora_have_the_expected_sizes(real):
    prose, code, words = real
    assert 900_000 < len(prose.train) < 1_200_000
    assert 500_000 < len(code.train) < 800_000
    for corpus in (prose, code):
        assert 50_000 < len(corpus.val) < 150_000 and 50_000 < len(corpus.test) < 150_000
        assert {part.dtype for part in (corpus.train, corpus.val, corpus.test)} == {np.dtype("u1")}
    assert 3000 < len(words["train"]) < 4500
    assert 300 < len(words["val"]) < 600 and 300 < len(words["test"]) < 600


def test_real_prose_is_paragraphs_and_none_is_in_two_splits(real):
    prose = real[0]
    paragraphs = [
        paragraph
        for part in (prose.train, prose.val, prose.test)
        for paragraph in data.decode(part).split("\n")
    ]
    assert len(paragraphs) == len(set(paragraphs))
    assert all(len(paragraph) >= 40 and ">>>" not in paragraph for paragraph in paragraphs)


def test_real_code_has_no_comment_lines_and_no_deep_indents(real):
    code = data.decode(real[1].train)
    assert not any(line.lstrip().startswith("#") for line in code.split("\n"))
    assert "\n\n\n" not in code and "\n       " not in code


def test_docstrings_of_real_modules_are_those_that_ast_finds():
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for module in ("abc", "dataclasses", "queue", "statistics", "threading", "typing"):
        source = Path(sysconfig.get_path("stdlib"), f"{module}.py").read_text("utf-8")
        nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
        expected = sorted(filter(None, (ast.get_docstring(node, clean=False) for node in nodes)))
        found = data._docstrings_and_code(source)[0]
        assert len(found) == len(expected)
        plain = [text for text in expected if "\\" not in text]
        assert set(plain) <= set(found)


def test_docstrings_and_comments_leave_the_code():
    source = (
        '#!/usr/bin/python\n\n"""Of the module."""\n\n\n\nimport os  # kept\n'
        "class A:  # a colon above\n    'Of the class.'\n\n    x = '''not a docstring'''\n"
        "    # gone\n    def f(self,\n          y):\n\n"
        '        r"""Of the \\"method\\",\n        two lines."""  # noqa\n        return "#"  \n'
        'if x:\n    "-".join(x)\n'
    )
    docstrings, code = data._docstrings_and_code(source)
    assert docstrings == [
        "Of the module.",
        "Of the class.",
        'Of the \\"method\\",\n        two lines.',
    ]
    assert code == (
        "import os  # kept\nclass A:  # a colon above\n\n    x = '''not a docstring'''\n"
        '    def f(self,\n          y):\n\n        return "#"\nif x:\n    "-".join(x)'
    )


def test_four_spaces_of_indent_become_one_and_at_most_six():
    code = "a\n    b\n        c\n" + " " * 17 + "d\n" + " " * 40 + "e"
    assert data._collapse_indents(code) == "a\n b\n  c\n    d\n      e"


def test_paragraphs_drop_examples_tables_indented_blocks_and_scraps():
    kept = "This paragraph has two lines\nand it is kept as a single one."
    dropped = [
        "Too short.",
        "    This paragraph is indented, as literal blocks are in a docstring.",
        "This paragraph has an example that runs to the end >>> print(1)",
        "a[0] = 1; b[1] = 2; c[2] = 3; d[3] = 4; e[4] = 5; f[5] = 6; g = {}",
        "Onlyafewverylongwordswithoutspaces betweenthemarenotprosebutsomethingelse",
    ]
    text = "\n\n".join([kept, *dropped])
    assert list(data._paragraphs(text)) == [kept.replace("\n", " ")]


def test_split_of_a_file_does_not_depend_on_python_version():
    names = ["abc.py", "json/encoder.py", "tree", "ast.py", "aifc.py", "_struct"]
    splits = ["train", "train", "train", "val", "test", "test"]
    assert [data._split_of(name) for name in names] == splits


def test_modules_leave_out_tests_tools_and_what_is_not_of_the_library(library):
    for name in ("json/tests/test_a.py", "idlelib/run.py", "encodings/utf_8.py", "my_own.py"):
        (library / name).parent.mkdir(exist_ok=True)
        (library / name).write_text("x = 1\n")
    found = data._modules(library)
    assert "json/tool.py" in found and len(found) == 10
    assert found == sorted(found)


def test_corpus_is_in_the_split_of_its_file(library):
    for kind, form in (("prose", "called {} has"), ("code", "\n {}_7 = 7\n")):
        corpus = data.load_corpus(kind)
        assert corpus.name == kind
        for path in library.glob("*.py"):
            own = data._split_of(path.name)
            for split in ("train", "val", "test"):
                text = data.decode(getattr(corpus, split))
                assert (form.format(path.stem) in text) == (split == own)


def test_code_is_of_top_level_modules_only(library):
    corpus = data.load_corpus("code")
    assert not any(
        "json.tool" in data.decode(part) for part in (corpus.train, corpus.val, corpus.test)
    )


def test_code_is_limited_in_each_file_and_in_all(library, monkeypatch):
    full = {name: len(part) for name, part in parts().items()}
    forget()
    monkeypatch.setattr(data, "_FILE_LIMIT", 500)
    monkeypatch.setattr(data, "_cache_file", lambda: library / "other.npz")
    assert len(parts()["code_val"]) < full["code_val"]
    monkeypatch.setattr(data, "_CODE_LIMIT", 0)
    with pytest.raises(data.TextError):
        data._build()


def test_words_are_disjoint_sorted_and_lower_case(library):
    words = data.load_words()
    together = words["train"] + words["val"] + words["test"]
    assert len(together) == len(set(together)) and set(WORDS) <= set(together)
    assert all(3 <= len(w) <= 9 and w.isalpha() and w.islower() for w in together)
    assert all(split == sorted(split) for split in words.values())
    assert all(data._split_of(w) == split for split in words for w in words[split])


def test_words_are_not_parts_of_names_paths_or_calls():
    text = "use plain words not my_name or call() or path/to or x.attr or 'quoted' or Upper2x"
    assert data._WORD.findall(text) == ["use", "plain", "words", "not"]


def test_missing_help_topics_are_no_error(library, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    (library / "queue.py").write_text(f'"""The words of all the world: {" ".join(WORDS)}"""\n')
    assert set(WORDS) <= set(itertools.chain(*data.load_words().values()))


@pytest.mark.parametrize("kind", ["empty folder", "no folder", "zip file"])
def test_library_without_sources_says_so_and_offers_a_file(kind, library, monkeypatch):
    place = library / "python.zip"
    if kind == "zip file":
        place.write_bytes(b"PK")
    elif kind == "empty folder":
        place.mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(place))
    for load in (lambda: data.load_corpus("code"), data.load_words):
        with pytest.raises(data.TextError, match="zipped or stripped.*--text FILE"):
            load()


def test_unknown_corpus_is_named(cache):
    with pytest.raises(ValueError, match="no corpus 'poems'; use 'prose' or 'code'"):
        data.load_corpus("poems")


def test_library_is_built_once_and_then_read_from_the_cache(library, cache, builds):
    first = parts()
    data.load_corpus("prose"), data.load_corpus("code"), data.load_words()
    forget()
    assert parts() == first
    assert len(builds) == 1
    assert [path.suffix for path in cache.iterdir()] == [".npz"]


def test_building_twice_gives_the_same(library):
    assert data._build() == data._build()


def test_loaded_parts_cannot_be_overwritten(library):
    with pytest.raises(ValueError, match="read-only"):
        data.load_corpus("prose").train[0] = 1


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "folder", "part missing"])
def test_damaged_cache_file_is_built_again(damage, library, cache, builds):
    first = parts()
    (file,) = cache.iterdir()
    content = file.read_bytes()
    file.unlink()
    if damage == "folder":
        file.mkdir()
    elif damage == "part missing":
        np.savez(file, prose_train=np.zeros(3, np.uint8))
    else:
        file.write_bytes({"truncated": content[:-99], "garbage": b"?" * 99, "empty": b""}[damage])
    forget()
    assert parts() == first
    assert len(builds) == 2


def test_one_changed_byte_anywhere_in_the_cache_file_never_changes_the_data(library, cache):
    first = parts()
    (file,) = cache.iterdir()
    content = file.read_bytes()
    for position in np.random.default_rng(0).integers(len(content), size=30):
        flipped = bytearray(content)
        flipped[position] ^= 0x15
        file.write_bytes(flipped)
        forget()
        assert parts() == first


def test_cache_folder_that_cannot_be_made_is_no_error(library, cache, builds):
    cache.parent.write_text("a file where the folder should be")
    first = parts()
    forget()
    assert parts() == first
    assert len(builds) == 2


@pytest.mark.parametrize("function", ["numpy.savez", "os.replace"])
def test_full_disk_is_no_error_and_leaves_nothing(function, library, cache, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(function, fail)
    assert len(data.load_corpus("prose").train)
    assert list(cache.iterdir()) == []


def test_another_recipe_or_library_or_version_has_another_cache_file(library, monkeypatch, cache):
    files = {data._cache_file()}
    monkeypatch.setattr(data.platform, "python_version", lambda: "3.99.0")
    files.add(data._cache_file())
    monkeypatch.setattr(sysconfig, "get_path", lambda name: "/elsewhere")
    files.add(data._cache_file())
    monkeypatch.setattr(data, "__file__", __file__)
    files.add(data._cache_file())
    assert len(files) == 4
    assert {file.parent for file in files} == {cache}


def test_text_file_is_split_in_order(tmp_path):
    text = "".join(chr(32 + i % 95) for i in range(2000))
    corpus = data.load_text(write(tmp_path / "my.txt", text))
    assert corpus.name == "my.txt"
    assert [len(part) for part in (corpus.train, corpus.val, corpus.test)] == [1800, 100, 100]
    assert data.decode(np.concatenate([corpus.train, corpus.val, corpus.test])) == text


def test_path_may_be_a_string(tmp_path):
    assert data.load_text(str(write(tmp_path / "a", "abc " * 500))).name == "a"


def test_byte_order_mark_and_line_ends_do_not_matter(tmp_path):
    text = "A line of text.\n" * 100
    plain = data.load_text(write(tmp_path / "a", text))
    windows = data.load_text(write(tmp_path / "b", "\ufeff" + text.replace("\n", "\r\n")))
    assert np.array_equal(plain.train, windows.train)


@pytest.mark.parametrize("length", [1300, 1301, 1309, 1319, 1321])
def test_each_part_of_a_long_enough_text_holds_a_window(length, tmp_path):
    corpus = data.load_text(write(tmp_path / "a", "x" * length))
    assert len(corpus.train) + len(corpus.val) + len(corpus.test) == length
    for part in (corpus.train, corpus.val, corpus.test):
        assert data.spaced_windows(part, 1, 64)[0].shape == (1, 64)


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
    with pytest.raises(data.TextError, match=message) as caught:
        data.load_text(path)
    assert "user.txt" in str(caught.value) and "\n" not in str(caught.value)


def test_accents_count_as_representable_composed_or_not(tmp_path):
    for text in ("é" * 1400, "e\u0301" * 1400):
        assert data.decode(data.load_text(write(tmp_path / "a", text)).val) == "e" * 70


def test_missing_file_and_folder_are_text_errors(tmp_path):
    with pytest.raises(data.TextError, match="there is no file .*nowhere.txt"):
        data.load_text(tmp_path / "nowhere.txt")
    with pytest.raises(data.TextError, match="is a folder; choose a text file"):
        data.load_text(tmp_path)


def test_file_that_cannot_be_read_gives_the_reason(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(data.TextError, match=r"cannot be read \(Permission denied\)"):
        data.load_text(tmp_path / "secret.txt")


def test_text_error_is_a_value_error():
    assert issubclass(data.TextError, ValueError)


def test_targets_are_the_inputs_shifted_by_one():
    tokens = np.arange(90, dtype=np.uint8)
    for ids, targets in (
        data.random_windows(tokens, 5, 8, np.random.default_rng(0)),
        data.spaced_windows(tokens, 5, 8),
    ):
        assert ids.shape == targets.shape == (5, 8)
        assert ids.dtype == targets.dtype == np.int64
        assert np.array_equal(targets, ids + 1)


def test_random_windows_reach_both_ends_and_follow_the_seed():
    tokens = np.arange(12, dtype=np.uint8)
    ids, targets = data.random_windows(tokens, 200, 8, np.random.default_rng(3))
    assert set(ids[:, 0]) == {0, 1, 2, 3} and targets.max() == 11
    again, _ = data.random_windows(tokens, 200, 8, np.random.default_rng(3))
    assert np.array_equal(ids, again)


def test_spaced_windows_go_from_the_first_symbol_to_the_last():
    ids, targets = data.spaced_windows(np.arange(100, dtype=np.uint8), 4, 9)
    assert ids[:, 0].tolist() == [0, 30, 60, 90] and targets[-1, -1] == 99
    ids, _ = data.spaced_windows(np.arange(100, dtype=np.uint8), 1, 9)
    assert ids[:, 0].tolist() == [0]


def test_text_of_one_window_gives_that_window_and_a_shorter_one_an_error():
    tokens = np.arange(9, dtype=np.uint8)
    assert data.random_windows(tokens, 3, 8, np.random.default_rng(0))[0].max() == 7
    assert data.spaced_windows(tokens, 3, 8)[0].max() == 7
    with pytest.raises(ValueError, match="takes 10 symbols and there are only 9"):
        data.random_windows(tokens, 3, 9, np.random.default_rng(0))
    with pytest.raises(ValueError, match="block_size=9 .*smaller block_size"):
        data.spaced_windows(tokens, 3, 9)
