"""Claims about the text out of the standard library: what is taken, how it is split and kept.

Most tests build from a small standard library of our own in a temporary folder; a few read the real
one. The cache is always in a temporary folder.
"""

import ast
import itertools
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import platformdirs
import pytest
from safetensors.numpy import load_file, save_file

from minilora.system.scratch import SCRATCH
from minilora.text import alphabet, corpora, library

WORDS = ["".join(w) for w in itertools.product("bdfgklmnprst", "aeiou", "lmnrst", "aeio")]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and a process that has not read it."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(folder / name))
    library.parts.cache_clear()
    yield folder / "minilora"
    library.parts.cache_clear()


@pytest.fixture
def sources(tmp_path, monkeypatch, cache):
    """A standard library of nine modules, three in each split, and one help topic."""
    folder = tmp_path / "lib"
    folder.mkdir()
    names = sorted(name for name in sys.stdlib_module_names if not name.startswith("_"))
    for split in ("train", "val", "test"):
        for name in [n for n in names if library._split_of(f"{n}.py") == split][:3]:
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
    build = library._build
    monkeypatch.setattr(library, "_build", lambda: calls.append(1) or build())
    return calls


def sentence(name):
    return f"The module called {name} has a paragraph of prose that is long enough to be kept."


def forget():
    library.parts.cache_clear()


def parts():
    return {name: array.tobytes() for name, array in library.parts().items()}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """PROSE, CODE and the words of the interpreter that runs the tests, built once."""
    library.parts.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr(platformdirs, "user_cache_dir", lambda name: str(folder / name))
        yield corpora.load_corpus("prose"), corpora.load_corpus("code"), corpora.load_words()
    library.parts.cache_clear()


def test_real_corpora_have_the_expected_sizes(real):
    prose, code, words = real
    assert 900_000 < len(prose.train) < 1_200_000
    assert 500_000 < len(code.train) < 800_000
    for corpus in (prose, code):
        assert 40_000 < len(corpus.val) < 150_000 and 50_000 < len(corpus.test) < 150_000
        assert {part.dtype for part in (corpus.train, corpus.val, corpus.test)} == {np.dtype("u1")}
    assert 3000 < len(words["train"]) < 4500
    assert 300 < len(words["val"]) < 600 and 300 < len(words["test"]) < 600


def test_real_prose_is_paragraphs_and_none_is_in_two_splits(real):
    prose = real[0]
    paragraphs = [
        paragraph
        for part in (prose.train, prose.val, prose.test)
        for paragraph in alphabet.decode(part).split("\n")
    ]
    assert len(paragraphs) == len(set(paragraphs))
    assert all(len(paragraph) >= 40 and ">>>" not in paragraph for paragraph in paragraphs)


def test_real_code_has_no_comment_lines_and_no_deep_indents(real):
    code = alphabet.decode(real[1].train)
    assert not any(line.lstrip().startswith("#") for line in code.split("\n"))
    assert "\n\n\n" not in code and "\n       " not in code


def test_docstrings_of_real_modules_are_those_that_ast_finds():
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for module in ("abc", "dataclasses", "queue", "statistics", "threading", "typing"):
        source = Path(sysconfig.get_path("stdlib"), f"{module}.py").read_text("utf-8")
        nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
        expected = sorted(filter(None, (ast.get_docstring(node, clean=False) for node in nodes)))
        found = library._docstrings_and_code(source)[0]
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
    docstrings, code = library._docstrings_and_code(source)
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
    assert library._collapse_indents(code) == "a\n b\n  c\n    d\n      e"


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
    assert list(library._paragraphs(text)) == [kept.replace("\n", " ")]


def test_split_of_a_file_does_not_depend_on_python_version():
    names = ["abc.py", "json/encoder.py", "tree", "ast.py", "aifc.py", "_struct"]
    splits = ["train", "train", "train", "val", "test", "test"]
    assert [library._split_of(name) for name in names] == splits


def test_modules_leave_out_tests_tools_and_what_is_not_of_the_library(sources):
    for name in ("json/tests/test_a.py", "idlelib/run.py", "encodings/utf_8.py", "my_own.py"):
        (sources / name).parent.mkdir(exist_ok=True)
        (sources / name).write_text("x = 1\n")
    found = [name for name, _ in library._modules()]
    assert "json/tool.py" in found and len(found) == 10
    assert found == sorted(found)


def test_a_library_in_a_zip_file_as_in_a_browser_is_read_alike(sources, tmp_path, monkeypatch):
    (sources / "my_own.py").write_text("x = 1\n")
    in_folder = list(library._modules())
    archive = shutil.make_archive(str(tmp_path / "python"), "zip", sources)
    shutil.rmtree(sources)
    assert list(library._modules()) == []
    monkeypatch.setattr(sys, "path", [archive, *sys.path])
    assert list(library._modules()) == in_folder and len(in_folder) == 10


def test_corpus_is_in_the_split_of_its_file(sources):
    for kind, form in (("prose", "called {} has"), ("code", "\n {}_7 = 7\n")):
        corpus = corpora.load_corpus(kind)
        assert corpus.name == kind
        for path in sources.glob("*.py"):
            own = library._split_of(path.name)
            for split in ("train", "val", "test"):
                text = alphabet.decode(getattr(corpus, split))
                assert (form.format(path.stem) in text) == (split == own)


def test_code_is_of_top_level_modules_only(sources):
    corpus = corpora.load_corpus("code")
    assert not any(
        "json.tool" in alphabet.decode(part) for part in (corpus.train, corpus.val, corpus.test)
    )


def test_code_is_limited_in_each_file_and_in_all(sources, monkeypatch):
    full = {name: len(part) for name, part in parts().items()}
    forget()
    monkeypatch.setattr(library, "_FILE_LIMIT", 500)
    monkeypatch.setattr(library, "_cache_file", lambda: sources / "other.safetensors")
    assert len(parts()["code_val"]) < full["code_val"]
    monkeypatch.setattr(library, "_CODE_LIMIT", 0)
    with pytest.raises(alphabet.TextError):
        library._build()


def test_letters_that_the_shipped_models_never_saw_stay_out_of_the_library(sources):
    before = parts()
    for path in sources.glob("*.py"):
        text = path.read_text().replace("paragraph", "paragßraph")
        path.write_text(f"# ß\n{text}x = 'łÆı'\n")
    forget()
    library._cache_file().unlink()
    after = parts()
    assert after["prose_train"] == before["prose_train"]
    assert alphabet.encode("x = ''").tobytes() in after["code_train"]


def test_words_are_disjoint_sorted_and_lower_case(sources):
    words = corpora.load_words()
    together = words["train"] + words["val"] + words["test"]
    assert len(together) == len(set(together)) and set(WORDS) <= set(together)
    assert all(3 <= len(w) <= 9 and w.isalpha() and w.islower() for w in together)
    assert all(split == sorted(split) for split in words.values())
    assert all(library._split_of(w) == split for split in words for w in words[split])


def test_words_are_not_parts_of_names_paths_or_calls():
    text = "use plain words not my_name or call() or path/to or x.attr or 'quoted' or Upper2x"
    assert library._WORD.findall(text) == ["use", "plain", "words", "not"]


def test_missing_help_topics_are_no_error(sources, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    (sources / "queue.py").write_text(f'"""The words of all the world: {" ".join(WORDS)}"""\n')
    assert set(WORDS) <= set(itertools.chain(*corpora.load_words().values()))


@pytest.mark.parametrize("kind", ["empty folder", "no folder", "zip file"])
def test_library_without_sources_says_so_and_offers_a_file(kind, sources, monkeypatch):
    place = sources / "python.zip"
    if kind == "zip file":
        place.write_bytes(b"PK")
    elif kind == "empty folder":
        place.mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(place))
    for load in (lambda: corpora.load_corpus("code"), corpora.load_words):
        with pytest.raises(alphabet.TextError, match="may be stripped.*--text FILE"):
            load()


def test_library_is_built_once_and_then_read_from_the_cache(sources, cache, builds):
    first = parts()
    corpora.load_corpus("prose"), corpora.load_corpus("code"), corpora.load_words()
    forget()
    (cache / f"{SCRATCH}of one who was killed after the renaming").mkdir()
    assert parts() == first
    assert len(builds) == 1
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]


def test_building_twice_gives_the_same(sources):
    assert library._build() == library._build()


def test_loaded_parts_cannot_be_overwritten(sources):
    with pytest.raises(ValueError, match="read-only"):
        corpora.load_corpus("prose").train[0] = 1


DAMAGES = [
    "truncated", "garbage", "empty", "folder", "part missing", "other text", "other type",
    "no seal", "pipe", "too large",
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_or_foreign_cache_file_is_built_again(damage, sources, cache, builds):
    first = parts()
    (file,) = cache.iterdir()
    content, stored = file.read_bytes(), load_file(file)
    file.unlink()
    if damage == "folder":
        file.mkdir()
    elif damage == "part missing":
        save_file({"prose_train": np.zeros(3, np.uint8)}, file)
    elif damage == "other text":  # a valid file of valid symbols, but not the library's
        save_file(stored | {"prose_val": np.zeros(2000, np.uint8)}, file)
    elif damage == "other type":
        save_file(stored | {"prose_val": stored["prose_val"].view(np.int8)}, file)
    elif damage == "no seal":
        del stored["seal"]
        save_file(stored, file)
    elif damage == "pipe":
        os.mkfifo(file)
    elif damage == "too large":
        file.write_bytes(content)
        os.truncate(file, 10**10)
    else:
        file.write_bytes({"truncated": content[:-99], "garbage": b"?" * 99, "empty": b""}[damage])
    forget()
    assert parts() == first
    assert len(builds) == 2


def test_one_changed_byte_anywhere_in_the_cache_file_never_changes_the_data(sources, cache):
    first = parts()
    (file,) = cache.iterdir()
    content = file.read_bytes()
    for position in np.random.default_rng(0).integers(len(content), size=30):
        flipped = bytearray(content)
        flipped[position] ^= 0x15
        file.write_bytes(flipped)
        forget()
        assert parts() == first


def test_cache_file_of_another_recipe_is_built_again(sources, cache, builds, monkeypatch):
    first = parts()
    (file,) = cache.iterdir()
    monkeypatch.setattr(library, "_recipe", lambda: b"another")
    file.rename(library._cache_file())
    forget()
    assert parts() == first
    assert len(builds) == 2


def test_cache_folder_that_cannot_be_made_is_no_error(sources, cache, builds):
    cache.parent.write_text("a file where the folder should be")
    first = parts()
    forget()
    assert parts() == first
    assert len(builds) == 2


@pytest.mark.parametrize("function", ["pathlib.Path.write_bytes", "os.replace"])
def test_full_disk_is_no_error_and_leaves_nothing(function, sources, cache, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(function, fail)
    assert len(corpora.load_corpus("prose").train)
    assert list(cache.iterdir()) == []


def test_another_recipe_or_library_or_version_has_another_cache_file(sources, monkeypatch, cache):
    files = {library._cache_file()}
    monkeypatch.setattr(library.platform, "python_version", lambda: "3.99.0")
    files.add(library._cache_file())
    monkeypatch.setattr(sysconfig, "get_path", lambda name: "/elsewhere")
    files.add(library._cache_file())
    for module in (library, alphabet):
        monkeypatch.setattr(module, "__file__", __file__)
        files.add(library._cache_file())
    assert len(files) == 5
    assert {file.parent for file in files} == {cache}
