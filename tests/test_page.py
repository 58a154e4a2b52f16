"""The report as a person sees it: in a browser, wide and narrow."""
import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from conftest import ROOT

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (1280, 390)
PAGES = sorted(ROOT.glob("reports/*/*.html"))


class Images(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.found.append(dict(attributes))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_the_committed_pages_are_whole(page):
    text = page.read_text()
    images = Images(text).found
    assert "<script" not in text   # nothing that could write to a console
    assert (images or page.stem in ("index", "audit", "tableA")) and not re.findall(r'(?:src|href)="(?:https?:)?//', text)
    for image in images:
        inside = image["src"].startswith("data:image/png;base64,")
        content = base64.b64decode(image["src"].split(",", 1)[1]) if inside else (page.parent / image["src"]).read_bytes()
        assert content[:4] in (b"\x89PNG", b"RIFF") and image.get("alt")
    assert page.stat().st_size < 6_000_000


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("page", PAGES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_no_page_scrolls_sideways_and_every_picture_loads(page, tmp_path):
    # Frames of the wanted widths, because a headless window has a least width of its own.
    probe = tmp_path / "probe.html"
    frames = "".join(f'<iframe src="{page.as_uri()}" style="width:{width}px;height:900px;border:0"></iframe>' for width in WIDTHS)
    probe.write_text(f"""{frames}<script>
    onload = () => {{ document.body.dataset.result = JSON.stringify([...document.querySelectorAll('iframe')].map(f => {{ const d = f.contentDocument;
        return [d.documentElement.scrollWidth, [...d.images].every(i => i.naturalWidth > 0)]; }})); }}</script>""")
    done = subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                           "--disable-component-update", "--disable-sync", "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}",
                           "--virtual-time-budget=5000", "--dump-dom", probe.as_uri()], capture_output=True, text=True, timeout=120)
    seen = re.search(r'data-result="([^"]+)"', done.stdout)
    assert seen, done.stderr[-500:]
    for width, (wide, loaded) in zip(WIDTHS, json.loads(seen[1]), strict=True):
        assert wide <= width and loaded
