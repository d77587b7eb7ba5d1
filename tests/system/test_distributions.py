"""Claims about wheel and sdist: both have everything, are equal, and work without the clone.

They are built and installed by uv (`pip install uv`), each in an environment with nothing else.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = shutil.which("uv")
pytestmark = [pytest.mark.system, pytest.mark.skipif(UV is None, reason="needs uv")]


def run(*argv, cwd, **options):
    """Of no clone and no environment but that of the program itself."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """{"sdist": ..., "wheel": made of the clone, "second wheel": made of the sdist}."""
    folder = tmp_path_factory.mktemp("dist")
    run(UV, "build", "--quiet", "--sdist", "--wheel", "--out-dir", folder / "a", cwd=ROOT)
    (sdist,) = (folder / "a").glob("*.tar.gz")
    (wheel,) = (folder / "a").glob("*.whl")
    run(UV, "build", "--quiet", "--wheel", "--out-dir", folder / "b", sdist, cwd=folder)
    (second,) = (folder / "b").glob("*.whl")
    return {"sdist": sdist, "wheel": wheel, "second wheel": second}


def members(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def files_below(folder):
    """Those that git has, and so no cache: relative path -> content."""
    listed = subprocess.check_output(["git", "ls-files", "-z", folder], cwd=ROOT, text=True)
    return {name: (ROOT / name).read_bytes() for name in listed.split("\0") if name}


def test_the_wheel_has_every_file_of_the_package_and_the_lessons(built):
    wheel = members(built["wheel"])
    package = files_below("minilora")
    lessons = {f"minilora/{name}": content for name, content in files_below("lessons").items()}
    for name, content in (package | lessons).items():
        assert wheel.pop(name, None) == content, name
    assert {name.split("/")[0].partition("-")[2] for name in wheel} == {"0.1.0.dist-info"}


def test_a_wheel_made_of_the_sdist_is_the_same(built):
    assert members(built["wheel"]) == members(built["second wheel"])


def test_the_sdist_has_tests_figures_and_what_builds_them(built):
    with tarfile.open(built["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in [*files_below("tests"), *files_below("figures"), "README.md", "LICENSE"]:
        assert name in names, name
    assert "pyproject.toml" in names


LIGHT = ["--help", "--version", "params", "cards --topic memory", "lessons"]
COMMANDS = [
    *LIGHT,
    "doctor",
    "compare --steps 2",
    "generate --adapter minilora-results/code-lora --tokens 20",
    "lessons --copy 'my lessons'",
    "check 'my lessons/05_counting_parameters.ipynb'",
    "page --out page.html",
    "cards --json cards.json",
    "exam --seed 7 --out exam.html",
]


@pytest.fixture
def installed(built, tmp_path):
    """installed("wheel")(command line, input=...): what it prints, in an empty environment and in
    a folder that has nothing to do with the clone."""
    here, scripts = tmp_path / "elsewhere", tmp_path / "env" / "bin"
    here.mkdir()

    def install(made):
        run(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "env", cwd=here)
        run(UV, "pip", "install", "--quiet", "--python", tmp_path / "env", built[made], cwd=here)
        where = run(scripts / "python", "-c", "import minilora; print(minilora.__file__)", cwd=here)
        assert Path(where).is_relative_to(tmp_path / "env")

        def minilora(line, **options):
            return run(scripts / "minilora", *shlex.split(line), cwd=here, **options)

        return here, minilora

    return install


def test_the_wheel_works_without_the_clone(installed):
    here, minilora = installed("wheel")
    for command in COMMANDS:
        assert minilora(command), command
    assert (here / "minilora-results" / "results.json").stat().st_size
    copied = [path.name for path in (here / "my lessons").glob("*.ipynb")]
    assert sorted(copied) == sorted(path.name for path in (ROOT / "lessons").glob("*.ipynb"))
    assert "2 of 2" in minilora("quiz --questions 2 --progress p.json", input="a\nb\n" * 3)


def test_the_sdist_works_without_the_clone(installed):
    _, minilora = installed("sdist")
    for command in LIGHT:
        assert minilora(command), command
