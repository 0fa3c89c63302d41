"""Looks at the site in Chromium, at two widths: `make docs-look`.

No page scrolls sideways, nothing sticks out of it but in a box that scrolls, no page asks
another host for anything, no script fails, and the search finds messages. `CHROMIUM` names the
browser, if it is not on the path.

    python docs/site/look.py [folder for pictures] [part of a page's path]
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import sys
import threading
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page, sync_playwright

SITE = Path(__file__).resolve().parents[2] / "build" / "site"
WIDTHS = {390: 844, 1280: 900}
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# What sticks out on the right, but for what a box of its own lets scroll.
STICKS_OUT = """() => {
  const boxes = ["auto", "scroll", "hidden"];
  const scrolls = e => e && (boxes.includes(getComputedStyle(e).overflowX)
    || scrolls(e.parentElement.closest(".md-content *")));
  const wide = [...document.querySelectorAll(".md-content *")].filter(e =>
    e.getClientRects().length && e.getBoundingClientRect().right > innerWidth + 1 &&
    !scrolls(e.parentElement) && !scrolls(e));
  return wide.slice(0, 3).map(e => e.tagName + ": " + e.textContent.trim().slice(0, 60));
}"""

# Messages that users paste into the search, as they see them.
MESSAGES = [
    "is missing: pass api_key=... or set THINNEST_API_KEY",
    "There is nothing to send: no message holds any text.",
    "The API key is missing or invalid. Set THINNEST_API_KEY or pass api_key=... [401]",
    "hung up before it began its answer",
    "No event came for 600 s, as long as the field `stall_timeout` allows",
    "The store of shared_limits is out of reach",
]


def serve() -> http.server.ThreadingHTTPServer:
    """Serve the site on loopback."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Print nothing."""

    handler = functools.partial(Quiet, directory=str(SITE))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def look(page: Page, url: str, pictures: Path | None, name: str) -> list[str]:
    """What is wrong with a page, at the width that the browser has now."""
    response = page.goto(url)
    wrong = [] if response and response.ok else ["it does not open"]
    width = page.evaluate("document.documentElement.scrollWidth")
    if width > page.evaluate("innerWidth"):
        wrong.append(f"it is {width} px wide")
    wrong += [f"sticks out: {what}" for what in page.evaluate(STICKS_OUT)]
    if pictures:
        page.screenshot(path=pictures / f"{name}.png", full_page=True)
    return wrong


def search(page: Page, home: str, message: str) -> list[str]:
    """What is wrong with what the search finds for a message."""
    page.goto(f"{home}?q={quote(message)}")
    page.wait_for_selector(".md-search-result__item")
    items = page.locator(".md-search-result__item").all()[:3]
    found = [item.inner_text().splitlines()[0] for item in items]
    return [] if "Troubleshooting" in found else [f"the search for {message!r} finds {found}"]


def main(pictures: Path | None = None, part: str = "") -> int:
    """Look at every page; return how many things are wrong."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser_path = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, names)), None
    )
    if browser_path is None:
        sys.exit("There is no Chromium: apt install chromium, or set CHROMIUM to its path.")
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
    server = serve()
    home = f"http://127.0.0.1:{server.server_port}/"
    paths = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
    paths = [path for path in paths if part in path and path != "404.html"]
    found: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=SWITCHES)
        page = browser.new_page()
        found += [what for message in MESSAGES for what in search(page, home, message)]
        for width, height in WIDTHS.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            said: list[str] = []
            page.on("pageerror", lambda error, said=said: said.append(f"script: {error}"))
            page.on(
                "request",
                lambda asked, said=said: (
                    None
                    if asked.url.startswith((home, "data:", "blob:"))
                    else said.append(f"asks another host: {asked.url}")
                ),
            )
            for path in paths:
                name = (
                    f"{path.removesuffix('index.html').strip('/').replace('/', '-')}-{width}"
                )
                wrong = look(page, home + path.removesuffix("index.html"), pictures, name)
                found += [f"{path} at {width} px: {what}" for what in [*wrong, *said]]
                said.clear()
        browser.close()
    server.shutdown()
    print(*found, f"{len(paths)} pages at {len(WIDTHS)} widths, {len(found)} wrong", sep="\n")
    return len(found)


if __name__ == "__main__":
    folder, *rest = [*sys.argv[1:], ""]
    sys.exit(min(main(Path(folder) if folder else None, "".join(rest)), 1))
