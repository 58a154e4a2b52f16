"""The committed report pages, as a person sees them: in a browser, wide and narrow."""
import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from conftest import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync")
WIDTHS = (1280, 390)
PAGES = sorted(ROOT.glob("reports/*/*.html"))
MEASURE = """<script>
function measure(frame) {
    const page = frame.contentDocument;
    return [page.documentElement.scrollWidth, [...page.images].every(image => image.naturalWidth > 0)];
}
onload = () => {
    const frames = [...document.querySelectorAll('iframe')];
    document.body.dataset.result = JSON.stringify(frames.map(measure));
};
</script>"""


class Images(HTMLParser):
    """Attributes of all images of a page."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.found.append(dict(attrs))


def content(image, folder):
    """The bytes of an image, which is in the page or in a file next to it."""
    if image["src"].startswith("data:image/png;base64,"):
        return base64.b64decode(image["src"].split(",", 1)[1])
    return (folder / image["src"]).read_bytes()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_a_committed_page_is_complete(page):
    text = page.read_text()
    images = Images(text).found
    assert "<script" not in text  # nothing that could write to a console
    assert images or page.stem in ("index", "audit", "tableA")
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', text)
    for image in images:
        assert content(image, page.parent)[:4] in (b"\x89PNG", b"RIFF")
        assert image.get("alt")
    assert page.stat().st_size < 6_000_000


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("page", PAGES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_no_page_scrolls_sideways_and_every_image_loads(page, tmp_path):
    # Frames of the target widths, because a headless window has a least width of its own.
    probe = tmp_path / "probe.html"
    frame = '<iframe src="{}" style="width:{}px;height:900px;border:0"></iframe>'
    frames = "".join(frame.format(page.as_uri(), width) for width in WIDTHS)
    probe.write_text(frames + MEASURE)
    command = [CHROMIUM, *QUIET, "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}",
               "--virtual-time-budget=5000", "--dump-dom", probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    result = re.search(r'data-result="([^"]+)"', done.stdout)
    assert result, done.stderr[-500:]
    for width, (scroll_width, loaded) in zip(WIDTHS, json.loads(result[1]), strict=True):
        assert scroll_width <= width
        assert loaded
