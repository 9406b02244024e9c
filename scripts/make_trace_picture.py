"""Write trace.png, the picture in README: the page of `tinygrad-llm trace --example attention` in a real browser.

    pip install playwright          and Chromium, as `chromium` on the path
    python scripts/make_trace_picture.py

The page shows how the gradient of the values is made: backward through `head = weights @ v`.
"""

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tinygrad_llm import study

PICTURE = Path(__file__).resolve().parents[1] / "trace.png"
SIZE = {"width": 1280, "height": 980}


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        path = study.example("attention").save(Path(folder) / "trace.html")
        browser = driver.chromium.launch(executable_path=chromium, chromium_sandbox=False)
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(path.as_uri())
        page.get_by_text("Where does dV come from?").click()
        page.get_by_role("link", name="see dV being made").click()
        page.evaluate("document.activeElement.blur()")
        page.screenshot(path=PICTURE)
        browser.close()
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
