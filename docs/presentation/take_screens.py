"""Take the pictures of screens that the slides show, into data/screens/.

Run by `.venv-airflow/bin/python docs/presentation/take_screens.py URL`, where URL is the Airflow of a `make demo
KEEP=1` that has ended its runs. It needs a Chromium (`dev/chromium.sh`).
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DEMO = ROOT / "build" / "demo"
SCREENS = HERE / "data" / "screens"
TASKS_OF_THE_GRAPH = 11
COLOURS = 128
"""A screen of text and plain areas needs no more, and becomes a third of the size."""


FONT = "body, body :not(code, pre, svg *) { font-family: 'DejaVu Sans' !important; }"
"""The pages ask for the system's own font, of which a machine without a desktop has none."""


def main(url: str) -> int:
    """Take all pictures from the Airflow at `url` and from the demo's report."""
    SCREENS.mkdir(parents=True, exist_ok=True)
    chromium = subprocess.run([ROOT / "dev" / "chromium.sh"], capture_output=True, text=True, check=True).stdout.strip()
    run_id = json.loads((DEMO / "run.json").read_text())["run_id"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"], chromium_sandbox=False)
        take_graph(open_page(browser, url, 1900), run_id)
        take_run_page(open_page(browser, url, 980), run_id)
        take_report(open_page(browser, url, 1180))
        browser.close()
    return 0


def open_page(browser: Browser, url: str, width: int) -> Page:
    """Return a page of the demo's user, as wide as given."""
    passwords = json.loads((DEMO / "airflow" / "passwords.json").read_text())
    reply = httpx.post(f"{url}/auth/token", json={"username": "admin", "password": passwords["admin"]})
    context = browser.new_context(base_url=url, viewport={"width": width, "height": 660}, device_scale_factor=1.6)
    context.set_default_timeout(120_000)
    context.add_cookies([{"name": "_token", "value": reply.raise_for_status().json()["access_token"], "url": url}])
    return context.new_page()


def take_graph(page: Page, run_id: str) -> None:
    """Take the DAG's graph in two rows, since it is twenty times as wide as high."""
    page.goto(f"/dags/fruits_pipeline/runs/{quote(run_id)}")
    page.get_by_label("Show Graph (Press g)").click()
    page.get_by_label("Collapse Details Panel").click()
    page.add_style_tag(content=FONT)
    nodes = page.locator(".react-flow__node")
    nodes.nth(TASKS_OF_THE_GRAPH - 1).wait_for()
    page.get_by_label("Fit View").click()
    page.wait_for_timeout(2000)  # the view glides into its place
    boxes = sorted((node.bounding_box() or {} for node in nodes.all()), key=lambda box: box["x"])
    top = min(box["y"] for box in boxes) - 8
    bottom = max(box["y"] + box["height"] for box in boxes) + 8
    half = (len(boxes) + 1) // 2
    strips = [
        picture_of(page.screenshot(clip={"x": left, "y": top, "width": right - left, "height": bottom - top}))
        for left, right in (
            (row[0]["x"] - 8, row[-1]["x"] + row[-1]["width"] + 8) for row in (boxes[:half], boxes[half:])
        )
    ]
    picture = Image.new("RGB", (max(strip.width for strip in strips), sum(strip.height for strip in strips)), "white")
    for row, strip in enumerate(strips):
        picture.paste(strip, (0, row * strips[0].height))
    keep("graph.png", picture)


def take_run_page(page: Page, run_id: str) -> None:
    """Take the top of the run's page, as Airflow serves it."""
    page.goto(f"/fruits-runs/runs/{quote(run_id)}")
    page.add_style_tag(content=FONT)
    keep("run.png", picture_of(page.screenshot()))


def take_report(page: Page) -> None:
    """Take two sections of report.html."""
    page.goto((DEMO / "report.html").as_uri())
    page.add_style_tag(content=FONT)
    for name, heading in {"report-map.png": "Map of the images", "report-volumes.png": "Volumes"}.items():
        section = page.locator("section", has=page.get_by_role("heading", name=heading, exact=True)).last
        keep(name, picture_of(section.screenshot()))


def picture_of(png: bytes) -> Image.Image:
    """Decode a screenshot."""
    return Image.open(io.BytesIO(png)).convert("RGB")


def keep(name: str, picture: Image.Image) -> None:
    """Write a picture with few colours."""
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(SCREENS / name, optimize=True)
    sys.stdout.write(f"{name}: {picture.size}, {(SCREENS / name).stat().st_size} bytes\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
