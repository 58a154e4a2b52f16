"""The built site, a server for it, and a browser."""
import functools
import http.server
import shutil
import threading
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent.parent
SITE, SCREENS = ROOT / "build" / "site", ROOT / "build" / "screens"
PATHS = [path.relative_to(SITE) for path in SITE.rglob("*.html")]
PAGES = sorted(str(path) for path in PATHS if path.parts[0] not in ("_static", "files"))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browser_needed = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def address():
    """Where the site is served, on this machine alone."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def looks():
    """Looks of texts, light and dark, whose contrast has been checked."""
    return set()


class Visit:
    """A page in a browser that records its requests and its messages."""
    def __init__(self, browser, url, width, scheme="light"):
        viewport = dict(width=width, height=900)
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
        self.page, self.messages, self.requests = self.context.new_page(), [], []
        self.page.on("console", self.record)
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda request: self.messages.append(f"failed: {request.url}"))
        self.page.goto(url, wait_until="load")
        self.page.evaluate("""async () => {
            if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
            await document.fonts.ready;
        }""")

    def record(self, message):
        if message.type in ("error", "warning"):
            self.messages.append(message.text)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


@pytest.fixture
def visit(browser):
    return functools.partial(Visit, browser)
