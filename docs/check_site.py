"""Looks at the built site in a browser, as a reader would: `make docs-check`.

Opens every page, on a wide window and a narrow one. Fails if something of a page does not load or
comes from another host, an image does not show, mathematics is not drawn, a link leads nowhere, a
page is wider than its window, the search does not find, or a copy button does not copy.
"""

import argparse
import functools
import http.server
import pathlib
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import unquote, urldefrag

import tqdm
from playwright.sync_api import Browser, Page, TimeoutError, sync_playwright

SITE = pathlib.Path(__file__).parent / "_build" / "html"
# What is searched for, and a page that must be found.
SEARCHES = {
    "LAMB": "api/algorithms.html",
    "RowSparse": "api/definitions.html",
    "loss scale": "mixed_precision.html",
    "ZeRO": "many_devices.html",
}
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 800}

IMAGES = "() => [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
LINKS = "() => [...document.querySelectorAll('a[href]')].map(a => a.href)"
IDS = "() => [...document.querySelectorAll('[id]')].map(e => e.id)"
TOO_WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
FORMULAS = "() => document.querySelectorAll('.math').length"
DRAWN = "() => document.querySelectorAll('mjx-container').length"
FINISHED = "() => document.querySelector('.search-summary')?.innerText.includes('finished')"
WRONG = "() => document.querySelectorAll('[data-mml-node=merror], mjx-merror').length"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves without a line for each file."""

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


class Server(http.server.ThreadingHTTPServer):
    """Bears a browser that leaves before all has come."""

    def handle_error(self, *arguments: object) -> None:
        """Nothing: what a page lacks is seen in the browser."""


@contextmanager
def served(folder: pathlib.Path) -> Iterator[str]:
    """Return the address of a folder on this machine."""
    handler = functools.partial(Quiet, directory=str(folder))
    with Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Findings:
    """Return what is wrong, and how much was looked at."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.links: dict[str, set[str]] = {}
        self.ids: dict[str, set[str]] = {}
        self.counts = dict.fromkeys(("pages", "images", "formulas", "links", "copies"), 0)

    def unless(self, right: bool, what: str) -> None:
        """Note what is not right."""
        if not right:
            self.wrong.append(what)


def open_page(browser: Browser, base: str, path: str, findings: Findings) -> None:
    """Everything about one page by itself."""
    context = browser.new_context(
        viewport=WIDE, permissions=["clipboard-read", "clipboard-write"]
    )  # fmt: skip
    page = context.new_page()
    page.on("requestfailed", lambda request: findings.wrong.append(f"{path}: no {request.url}"))
    page.on("pageerror", lambda error: findings.wrong.append(f"{path}: {error}"))
    page.on(
        "request",
        lambda request: findings.unless(
            request.url.startswith((base, "data:")), f"{path}: asks {request.url}"
        ),
    )
    page.on(
        "response",
        lambda answer: findings.unless(answer.ok, f"{path}: {answer.status} {answer.url}"),
    )
    page.goto(base + path, wait_until="load")
    page.evaluate("() => document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    formulas = page.evaluate(FORMULAS)
    if formulas:
        with suppress(TimeoutError):
            page.wait_for_function(f"({DRAWN})() > 0 && MathJax.startup.promise.then(() => true)")
        drawn = page.evaluate(DRAWN)
        findings.unless(drawn >= formulas, f"{path}: {drawn} of {formulas} formulas drawn")
        findings.unless(not page.evaluate(WRONG), f"{path}: a formula is wrong")
    page.wait_for_load_state("networkidle")
    for image in page.evaluate(IMAGES):
        findings.wrong.append(f"{path}: does not show {image}")
    copy(page, path, findings)
    findings.links[path] = set(page.evaluate(LINKS))
    findings.ids[path] = set(page.evaluate(IDS))
    page.set_viewport_size(NARROW)
    extra = page.evaluate(TOO_WIDE)
    findings.unless(extra <= 0, f"{path}: {extra} pixels too wide for a telephone")
    findings.counts["pages"] += 1
    findings.counts["formulas"] += formulas
    findings.counts["images"] += page.evaluate("() => document.images.length")
    context.close()


def copy(page: Page, path: str, findings: Findings) -> None:
    """Presses the first copy button and the last."""
    buttons = page.locator("button.copybtn")
    blocks = page.locator("div.highlight > pre").count()
    findings.unless(buttons.count() >= blocks, f"{path}: {blocks} blocks of code do not copy")
    for number in sorted({0, buttons.count() - 1}) if buttons.count() else ():
        block = buttons.nth(number).locator("xpath=..")
        block.hover()
        buttons.nth(number).click()
        page.wait_for_timeout(50)
        got = page.evaluate("() => navigator.clipboard.readText()")
        lines = block.locator("pre").inner_text().rstrip().splitlines()
        if any(line.startswith(">>> ") for line in lines):
            lines = [line[4:] for line in lines if line.startswith((">>> ", "... "))]
        expected = "\n".join(lines)
        findings.unless(got.rstrip() == expected, f"{path}: copied {got[:60]!r}")
        findings.counts["copies"] += 1


def follow(base: str, findings: Findings) -> None:
    """Every link within the site leads to a file, and to an anchor that the page has."""
    for path, links in findings.links.items():
        for link in links:
            target, anchor = urldefrag(link)
            if not target.startswith(base):
                continue
            findings.counts["links"] += 1
            file = unquote(target.removeprefix(base)) or "index.html"
            findings.unless((SITE / file).exists(), f"{path}: leads to {file}, which is not there")
            if anchor and file in findings.ids:
                known = unquote(anchor) in findings.ids[file]
                findings.unless(known, f"{path}: {file} has no #{anchor}")


def search(browser: Browser, base: str, findings: Findings) -> None:
    """Types into the search field of the first page."""
    page = browser.new_page(viewport=WIDE)
    for words, expected in SEARCHES.items():
        page.goto(base)
        page.fill("input[name=q]", words)
        page.keyboard.press("Enter")
        with suppress(TimeoutError):
            page.wait_for_function(FINISHED)
        found = page.evaluate(
            "() => [...document.querySelectorAll('#search-results li a')].map(a => a.href)"
        )
        hit = any(base + expected == urldefrag(link)[0].split("?")[0] for link in found)
        findings.unless(hit, f"search for {words!r} finds {len(found)} pages, but not {expected}")
        sys.stdout.write(f"search {words!r}: {len(found)} results\n")
    page.close()


def main() -> int:
    """Look at everything; 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--browser", default=shutil.which("chromium") or shutil.which("google-chrome")
    )
    parser.add_argument("--pictures", type=pathlib.Path, help="a folder for pictures of the pages")
    options = parser.parse_args()
    if not (SITE / "index.html").exists():
        sys.exit("No site yet: make docs.")
    paths = sorted(str(file.relative_to(SITE)) for file in SITE.rglob("*.html"))
    findings = Findings()
    with served(SITE) as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=options.browser, args=["--no-sandbox"]
        )  # fmt: skip
        for path in tqdm.tqdm(paths, desc="pages", ncols=80):
            open_page(browser, base, path, findings)
        follow(base, findings)
        search(browser, base, findings)
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            page = browser.new_page(viewport=WIDE)
            for path in paths:
                page.goto(base + path, wait_until="networkidle")
                name = path.replace("/", "-").removesuffix(".html")
                page.screenshot(path=options.pictures / f"{name}.png")
        browser.close()
    for line in findings.wrong:
        sys.stdout.write(f"wrong: {line}\n")
    seen = ", ".join(f"{count} {what}" for what, count in findings.counts.items())
    sys.stdout.write(f"{seen}: {len(findings.wrong)} wrong\n")
    return bool(findings.wrong)


if __name__ == "__main__":
    sys.exit(main())
