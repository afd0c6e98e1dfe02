"""Pictures of the parts of an audit's page, for docs/AUDIT.md.

python tools/dev/screenshots.py PAGE [--out docs/images/audit], with the Chromium of the distribution. A page to
try it on: ``cd tests && PYTHONPATH=.. python -m support.synthetic_audit PAGE``.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pcdet.utils.safe_files import replacing

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Name of the picture -> what of the page is on it.
PARTS = {
    "summary": "#summary",
    "gains": "#gains figure",
    "cost": "#cost figure",
    "curves": "#curves figure",
    "detections": "#detections",
    "sensitivity": "#sensitivity figure",
    "groups": "figure:has(#group-gains)",
    "errors": "figure:has(#errors)",
    "objects": "#objects",
    "frames": "#frames",
}
TALLEST = 900  # pixels of a picture; a longer part is cut
COLOURS = 96  # of a picture, which keeps it small


def take(page, selector: str):
    """The first part that a selector finds, cut where it is long, as a Pillow image; None where there is none."""
    from PIL import Image

    part = page.locator(selector).first
    if not page.locator(selector).count():
        return None
    part.scroll_into_view_if_needed()
    image = Image.open(io.BytesIO(part.screenshot()))
    return image.crop((0, 0, image.width, min(image.height, TALLEST))).convert("RGB").quantize(COLOURS)


def main() -> None:
    """Writes a picture of each part that the page has."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help="the HTML file")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images/audit", help="folder of the pictures")
    args = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("no Chromium on PATH: apt-get install --no-install-recommends chromium")
    args.out.mkdir(parents=True, exist_ok=True)
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox refuses root
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=browser, args=flags)
        page = running.new_page(viewport={"width": 1366, "height": 900})
        page.goto(args.page.resolve().as_uri(), timeout=180_000)
        page.wait_for_selector("html[data-ready]", timeout=180_000)
        page.add_style_tag(content="nav { position: static !important; }")  # it would lie over the parts
        for button in page.locator("#objects-table tbody button").all()[:1]:
            button.click()  # a frame with its chosen object, where the page has any
        for name, selector in PARTS.items():
            image = take(page, selector)
            if image is None:
                print(f"{name}: the page has no such part")
                continue
            with replacing(args.out / f"{name}.png") as stream:
                image.save(stream, format="PNG", optimize=True)
            print(f"{name}: {(args.out / f'{name}.png').stat().st_size / 1000:.0f} kB")
        running.close()


if __name__ == "__main__":
    main()
