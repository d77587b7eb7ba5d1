"""The page in Chromium: made once, opened as a file, and whatever goes wrong in it is a failure.

`open_page()` gives a Playwright page that has started. When the test is over, it fails if the page
asked the network or a disk for anything, or wrote an error to the console.
"""

import shutil
from importlib.resources import files
from urllib.parse import urlencode

import pytest

from minilora.learn.page.build import write_page

MARKS = (0, 5, 20)  # a short training: what the page computes does not depend on its length


@pytest.fixture(scope="session")
def page_file(tmp_path_factory):
    """The file that `minilora page` writes, of a live model that was trained for a few steps."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(path, MARKS)
    return path


@pytest.fixture(scope="session")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"))
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, page_file):
    """open_page({"live.strength": 2}, width=360, color_scheme="dark", ...): the page in a browser
    context of its own, with this state in its address. Options are Playwright's new_context's."""
    contexts, problems = [], []

    def note_request(request):
        if request.url.split("#")[0] != page_file.as_uri():
            problems.append(f"asked for {request.url}")

    def note_message(message):
        if message.type in ("error", "warning"):
            problems.append(message.text)

    def opened(state=None, width=1280, **options):
        context = chromium.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", note_request)
        page.on("console", note_message)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(page_file.as_uri() + ("#" + urlencode(state) if state else ""))
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture(scope="session")
def barriers():
    """barriers(page, "#live"): what axe-core finds wrong in this part for people who see little,
    or use the keyboard or a screen reader; a sentence each."""
    pytest.importorskip("axe_core_python")
    axe = (files("axe_core_python") / "axe.min.js").read_text("utf-8")

    def found(page, selector="body"):
        page.evaluate(axe)
        result = page.evaluate("(selector) => axe.run(selector)", selector)
        return [
            f"{violation['id']}: {node['html']} {node['failureSummary']}"
            for violation in result["violations"]
            for node in violation["nodes"]
        ]

    return found
