"""Claims about the doctor: it finds nothing missing here, and names what is missing elsewhere.

Elsewhere is made by hiding a package, a folder's permission, the library's sources or the models.
"""

import importlib.metadata
import io
import json
import os
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from minilora.cli import doctor
from minilora.experiments.tasks import BASE_MODELS
from minilora.hub import places as hub
from minilora.text import corpora as data
from minilora.text import library

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))[
    "project"
]


def find(name):
    (check,) = (check for check in doctor.examine() if check.name == name)
    return check


@pytest.fixture
def hide(monkeypatch):
    """A function that makes packages look as if they were not installed."""
    real = importlib.metadata.version

    def hide(*names):
        def version(name):
            if name in names:
                raise importlib.metadata.PackageNotFoundError(name)
            return real(name)

        monkeypatch.setattr(doctor, "version", version)

    return hide


@pytest.fixture
def no_folder_is_writable(monkeypatch):
    def refuse(folder):
        raise PermissionError(f"cannot write {folder}: you may not write there")

    monkeypatch.setattr(doctor, "make_folder", refuse)


@pytest.fixture
def no_sources(monkeypatch, tmp_path):
    """A standard library without sources, and no cache from a time when it had them."""
    empty = tmp_path / "library"
    empty.mkdir()
    monkeypatch.setattr(library.sysconfig, "get_path", lambda name: str(empty))
    monkeypatch.setattr(
        library.platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache")
    )
    library.parts.cache_clear()
    yield empty
    library.parts.cache_clear()


def test_nothing_is_missing_on_this_machine(here):
    checks = doctor.examine()
    assert [check for check in checks if check.ok is False] == []
    assert all(check.name and check.found for check in checks)


def test_versions_cores_and_models_are_named(here):
    python = find("Python")
    assert python.found == ".".join(map(str, sys.version_info[:3]))
    assert find("numpy").found == importlib.metadata.version("numpy")
    assert f"of {os.cpu_count()} usable" in find("cores").found
    assert find("docs-tiny").found == "417,280 parameters"
    assert find("words-tiny").found == "208,000 parameters"
    assert str(here) in find("current folder").found


def test_every_runtime_dependency_of_the_package_is_examined_with_its_lowest_version():
    assert {f"{name} >= {low}" for name, low in doctor.REQUIRED.items()} == {
        *PROJECT["dependencies"]
    }


@pytest.mark.parametrize(("name", "extra"), doctor.OPTIONAL.items())
def test_every_optional_package_is_of_an_extra_that_has_it(name, extra):
    assert name in [line.split()[0] for line in PROJECT["optional-dependencies"][extra]]
    assert extra in doctor.EXTRAS


def test_blas_and_its_threads_are_named(monkeypatch):
    library = {"user_api": "blas", "internal_api": "openblas", "version": "1.2", "num_threads": 7}
    other = {"user_api": "openmp", "internal_api": "openmp", "version": "5", "num_threads": 9}
    monkeypatch.setattr(doctor, "threadpool_info", lambda: [other, library])
    assert find("BLAS") == doctor.Check("BLAS", True, "openblas 1.2, 7 threads")


def test_blas_that_threadpoolctl_does_not_know_is_no_failure_but_a_warning(monkeypatch):
    monkeypatch.setattr(doctor, "threadpool_info", list)
    check = find("BLAS")
    assert check.ok is None and "OPENBLAS_NUM_THREADS=1" in check.remedy


@pytest.mark.parametrize(("found", "ok"), [("3.4.0", False), ("3.5", True), ("3.10.0rc1", True)])
def test_a_package_that_is_too_old_is_a_failure(monkeypatch, found, ok):
    monkeypatch.setattr(doctor, "version", lambda name: found)
    check = doctor._required("threadpoolctl", "3.5")
    assert check.ok is ok and ("threadpoolctl>=3.5" in check.remedy) is not ok


def test_cores_are_counted_where_affinity_is_unknown(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert find("cores").found == "6 of 6 usable"


@pytest.mark.parametrize("name", doctor.REQUIRED)
def test_missing_required_package_is_a_failure_with_the_command_that_installs_it(hide, name):
    hide(name)
    check = find(name)
    assert check.ok is False and check.found == "not installed"
    lowest = f"{name}>={doctor.REQUIRED[name]}"
    assert shlex.split(check.remedy) == [sys.executable, "-m", "pip", "install", lowest]


def test_missing_extra_is_no_failure_and_its_command_is_named(hide, here):
    hide(*doctor.OPTIONAL)
    assert [check.name for check in doctor.examine() if check.ok is False] == []
    check = find("torch")
    assert check.ok is None and check.found == "not installed"
    assert "PyTorch" in check.remedy and check.remedy.endswith("-m pip install torch")


def test_old_python_is_a_failure(monkeypatch):
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 9))
    assert find("Python").ok is False


def test_unwritable_current_folder_is_a_failure_with_another_way(here, no_folder_is_writable):
    check = find("current folder")
    assert check.ok is False
    assert check.found == f"cannot write {here}: you may not write there"
    assert "--out" in check.remedy


def test_unwritable_cache_costs_time_and_is_no_failure(here, no_folder_is_writable):
    check = find("cache folder")
    assert check.ok is None and "you may not write there" in check.found
    assert "costs a second" in check.remedy


def test_cache_folder_that_cannot_be_made_is_reported(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(
        doctor.platformdirs, "user_cache_dir", lambda name: str(tmp_path / "file" / name)
    )
    check = find("cache folder")
    assert check.ok is None and str(tmp_path / "file") in check.found


def test_unwritable_data_folder_names_the_option_that_keeps_progress_elsewhere(
    here, no_folder_is_writable
):
    check = find("data folder")
    assert check.ok is None and "quiz --progress FILE" in check.remedy


@pytest.mark.parametrize(("encoding", "ok"), [("utf-8", True), ("cp1252", None), ("ascii", None)])
def test_a_terminal_that_lacks_our_letters_is_told_with_the_remedy(encoding, ok, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", "40")
    check = doctor._terminal()
    assert (check.ok, check.found) == (ok, f"{encoding}, 40 columns")
    assert ("PYTHONIOENCODING=utf-8" in check.remedy) is not ok


def test_library_without_sources_is_a_failure_and_text_is_offered(here, no_sources):
    check = find("corpora")
    assert check.ok is False and "--text FILE" in check.remedy and str(no_sources) in check.remedy


def test_sizes_of_the_corpora_are_named(here):
    check = find("corpora")
    assert f"prose {len(data.load_corpus('prose').train):,}" in check.found
    assert f"code {len(data.load_corpus('code').train):,}" in check.found


@pytest.mark.parametrize("damage", ["absent", "cut", "other shape"])
def test_bundled_model_that_cannot_be_loaded_is_a_failure_with_a_remedy(
    monkeypatch, tmp_path, here, damage
):
    assets = tmp_path / "assets"
    if damage != "absent":
        for name in BASE_MODELS:
            (assets / name).mkdir(parents=True)
            for file in ("config.json", "model.safetensors"):
                content = (hub.ASSETS / name / file).read_bytes()
                (assets / name / file).write_bytes(content)
    if damage == "cut":
        weights = assets / "docs-tiny" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000])
    if damage == "other shape":
        config = assets / "docs-tiny" / "config.json"
        options = json.loads(config.read_text("utf-8"))
        config.write_text(json.dumps(options | {"vocab_size": 95}), "utf-8")
    monkeypatch.setattr(hub, "ASSETS", assets)
    check = find("docs-tiny")
    assert check.ok is False and check.found == "cannot be loaded"
    assert "docs-tiny" in check.remedy and len(check.remedy) > 30
    assert find("words-tiny").ok is (damage != "absent")
