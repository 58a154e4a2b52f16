"""The site as people read it: its links, and every page in a browser, wide and narrow, light and dark."""
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup

from conftest import PAGES, SCREENS, SITE, browser_needed

WIDE, NARROW = 1280, 390


@cache
def soup(page):
    return BeautifulSoup((SITE / page).read_text(encoding="utf-8"), "html.parser")


def test_the_site_is_there():
    assert {"index.html", "notebooks/09_insertion.html", "reports/quick/table1.html", "reports/quick/silent.html", "howto/own_videos.html",
            "api/insertion.html", "api/commands.html", "house/maintaining.html", "house/contributing.html", "house/changelog.html"} <= {*PAGES}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_anchors_resolve_and_none_leads_elsewhere(page):
    for tag in soup(page).find_all(True):
        for link in filter(None, (tag.get("href"), tag.get("src"))):
            if link.startswith("data:"):
                continue
            parts = urlsplit(link)
            assert not parts.scheme and not parts.netloc, f"an address elsewhere: {link}"
            target = (SITE / page).parent / unquote(parts.path) if parts.path else SITE / page
            assert target.resolve().is_file(), f"nothing at {link}"
            if parts.fragment and target.suffix == ".html":
                there = soup(str(target.resolve().relative_to(SITE.resolve())))
                assert there.find(id=unquote(parts.fragment)) or link == "#", f"no anchor {link}"


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_light(page):
    assert (SITE / page).stat().st_size < 1_000_000
    for picture in soup(page).find_all("img"):
        path = (SITE / page).parent / unquote(picture["src"])
        assert picture.get("alt", "").strip() and not picture["alt"].startswith(("../", "_images")), picture["src"]
        assert path.suffix not in (".gif", ".webp") or path.stat().st_size < 500_000, picture["src"]


COLOURS = {"runOnly": ["color-contrast"]}                           # what the dark changes
OTHERS = {"rules": {"color-contrast": {"enabled": False}}}          # colours are the same at every width


def serious(page, options=None):
    """What axe finds that keeps people out."""
    found = Axe().run(page, options={"resultTypes": ["violations"], **(options or {})}).response["violations"]
    return "\n".join(f"{v['id']}: {node['html'][:200]} {node['failureSummary'][:300]}" for v in found if v["impact"] in ("serious", "critical") for node in v["nodes"][:3])


@browser_needed
@pytest.mark.parametrize("width", (WIDE, NARROW))
@pytest.mark.parametrize("page", PAGES)
def test_a_page_in_a_browser(page, width, visit, address):
    with visit(f"{address}/{page}", width) as seen:
        view = seen.page
        assert not [url for url in seen.asked if not url.startswith((address, "data:", "blob:"))]
        wide = view.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]")
        assert max(wide) <= width, f"scrolls sideways: {wide}"
        view.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
        view.wait_for_function("[...document.images].every(i => i.complete)")
        assert view.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
        written, typeset, wrong = (view.locator(s).count() for s in (".math", ".math mjx-container", "mjx-merror"))
        assert written == typeset and not wrong
        assert not seen.said
        picture = SCREENS / str(width) / (page.replace("/", "-")[:-5] + ".png")
        view.screenshot(path=picture, full_page=True)
        assert serious(view, OTHERS if width == NARROW else None) == ""


@browser_needed
@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_read_in_the_dark(page, visit, address):
    with visit(f"{address}/{page}", WIDE, "dark") as seen:
        assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") not in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)")
        seen.page.screenshot(path=SCREENS / "dark" / (page.replace("/", "-")[:-5] + ".png"))
        assert serious(seen.page, COLOURS) == ""


@browser_needed
def test_the_equations_of_the_paper_are_typeset_with_their_numbers(visit, address):
    for page, numbers in (("08_interpolation", "23"), ("09_insertion", "456"), ("10_dm", "7")):
        with visit(f"{address}/notebooks/{page}.html", WIDE) as seen:
            shown = seen.page.evaluate("[...document.querySelectorAll('.math mjx-container')].map(m => m.querySelector('mjx-assistive-mml, math')?.textContent ?? m.textContent)")
            for number in numbers:
                assert any(f"({number})" in text for text in shown), (page, number)


@browser_needed
@pytest.mark.parametrize("scheme", ("http", "file"))
@pytest.mark.parametrize("words, page", [("insertion", "notebooks/09_insertion.html"), ("herding", "notebooks/14_coresets.html"), ("UCF101", "howto/official_downloads.html")])
def test_search_finds(words, page, scheme, visit, address):
    start = address if scheme == "http" else Path(SITE).as_uri()
    with visit(f"{start}/index.html", WIDE) as seen:
        seen.page.locator("input[name=q]").first.fill(words)
        seen.page.keyboard.press("Enter")
        seen.page.wait_for_selector("ul.search li a")
        found = [re.sub(r"[?#].*", "", a) for a in seen.page.eval_on_selector_all("ul.search li a", "links => links.map(a => a.href)")]
        assert f"{start}/{page}" in found[:10], found[:10]
        assert not seen.said


@browser_needed
def test_the_front_page_has_what_one_comes_for(visit, address):
    with visit(f"{address}/index.html", WIDE) as seen:
        text = seen.page.inner_text("article")
        for what in ("make study", "make test", "chance", "DM + PRISM", "Random"):
            assert what in text
        assert seen.page.locator("article img").count() >= 1
