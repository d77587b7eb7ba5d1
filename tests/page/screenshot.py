"""Makes figures/page.png, README's picture of the page: its head and the live model.

python tests/page/screenshot.py
"""

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from minilora.learn.page.build import write_page

PICTURE = Path(__file__).parents[2] / "figures" / "page.png"
WIDTH = 1280

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "page.html"
        write_page(file)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport={"width": WIDTH, "height": 800})
        page.goto(file.as_uri())
        page.locator("#live-surprise[aria-busy=false]").wait_for()
        last = page.locator("#live-now")
        box = last.bounding_box()
        height = box["y"] + box["height"] + 16
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": height}
        page.screenshot(path=PICTURE, full_page=True, clip=clip)
