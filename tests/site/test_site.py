"""The site as people read it: its links, and every page in a browser, wide and narrow, light and dark."""
import os
import re
from functools import cache
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from conftest import PAGES, SCREENS, SITE, browser_needed

WIDE, NARROW = 1280, 390
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
WHITE = ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)")
EXPECTED = {"index.html", "notebooks/02_insertion.html", "notebooks/methods/coresets.html", "reports/quick/table1.html",
            "reports/quick/silent.html", "howto/own_videos.html", "api/insertion.html", "api/core/registry.html",
            "api/commands.html", "maintaining/maintaining.html", "maintaining/contributing.html",
            "maintaining/changelog.html"}


@cache
def anchors(page):
    """The anchors of a page; parsing each page that others link to would take most of the time."""
    return {unescape(name) for name in re.findall(r"""\sid="([^"]*)\"""", (SITE / page).read_text(encoding="utf-8"))}


@cache
def is_file(path):
    return path.is_file()


def test_the_site_is_there():
    assert EXPECTED - {*PAGES} == set()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_light_and_its_links_resolve(page):
    soup = BeautifulSoup((SITE / page).read_text(encoding="utf-8"), "html.parser")
    check_links(page, soup)
    check_weight(page, soup)


def check_links(page, soup):
    """Links and anchors resolve, and none leads elsewhere."""
    for tag in soup.find_all(True):
        for link in filter(None, (tag.get("href"), tag.get("src"))):
            if link.startswith("data:"):
                continue
            parts = urlsplit(link)
            assert not parts.scheme, f"an address elsewhere: {link}"
            assert not parts.netloc, f"an address elsewhere: {link}"
            target = (SITE / page).parent / unquote(parts.path) if parts.path else SITE / page
            assert is_file(target.resolve()), f"nothing at {link}"
            if parts.fragment and target.suffix == ".html" and link != "#":
                other = anchors(str(target.resolve().relative_to(SITE.resolve())))
                assert unquote(parts.fragment) in other, f"no anchor {link}"


def check_weight(page, soup):
    """A page and its pictures are small, and each picture has an alt text."""
    assert (SITE / page).stat().st_size < 1_000_000
    for image in soup.find_all("img"):
        path = (SITE / page).parent / unquote(image["src"])
        alt = image.get("alt", "").strip()
        assert alt, image["src"]
        assert not alt.startswith(("../", "_images")), image["src"]
        assert path.suffix not in (".gif", ".webp") or path.stat().st_size < 500_000, image["src"]


COLOURS = {"runOnly": ["color-contrast"]}                         # what dark mode changes
OTHERS = {"rules": {"color-contrast": {"enabled": False}}}
OF_A_WIDTH = {"runOnly": ["scrollable-region-focusable"]}         # what a narrow window changes, besides what is shown


# Of the texts that look the same, light and dark, axe looks at one: the first, on whatever page it is.
REMEMBER_LOOK = """() => {
    const stacks = new Map([[null, '']]);
    const backgrounds = element => {
        if (!stacks.has(element)) {
            const style = getComputedStyle(element);
            const own = [style.backgroundColor, style.backgroundImage, style.opacity].join();
            const behind = backgrounds(element.parentElement);
            stacks.set(element, own === 'rgba(0, 0, 0, 0),none,1' ? behind : own + ' over ' + behind);
        }
        return stacks.get(element);
    };
    const isText = element => element.matches('input, select, textarea')
        || [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    for (const element of document.body.querySelectorAll('*')) {
        if (!isText(element) || !element.checkVisibility()) continue;
        const style = getComputedStyle(element);
        const look = [style.color, style.fontSize, style.fontWeight, style.textShadow, backgrounds(element)];
        (element.looks ??= []).push(look.join());
    }
}"""
MARK_NEW = """seen => {
    const known = new Set(seen), found = [];
    for (const element of document.body.querySelectorAll('*')) {
        const look = element.looks?.join();
        if (!look || known.has(look)) continue;
        known.add(look);
        found.push(look);
        element.setAttribute('data-new-look', '');
    }
    return found;
}"""


def serious(page, options, within=None):
    """The violations found by axe that keep people out; `within`: a selector of what is looked at."""
    settings = {"resultTypes": ["violations"], **options}
    violations = Axe().run(page, within, settings).response["violations"]
    lines = []
    for violation in violations:
        if violation["impact"] in ("serious", "critical"):
            for node in violation["nodes"][:3]:
                lines.append(f"{violation['id']}: {node['html'][:200]} {node['failureSummary'][:300]}")
    return "\n".join(lines)


FLATTEN_CODE = "document.querySelectorAll('.highlight pre').forEach(e => e.textContent = e.textContent)"
NEXT_FRAME = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
REMEMBER_SHOWN = "document.querySelectorAll('*').forEach(e => e.wasShown = e.checkVisibility())"
MARK_SHOWN = """[...document.querySelectorAll('*')].filter(e => e.checkVisibility() && !e.wasShown).map(
    e => e.setAttribute('data-shown', '')).length"""


@browser_needed
@pytest.mark.parametrize("page", PAGES)
def test_a_page_in_a_browser(page, visit, address, looks):
    picture = page.replace("/", "-")[:-5] + ".jpg"
    with visit(f"{address}/{page}", WIDE) as visited:
        view = visited.page
        view.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
        view.wait_for_function("[...document.images].every(i => i.complete)")
        assert view.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
        written, typeset, wrong = (view.locator(s).count() for s in (".math", ".math mjx-container", "mjx-merror"))
        assert written == typeset
        assert not wrong
        check_width(view, WIDE, picture)
        check_colours(view, picture, looks)
        view.evaluate(FLATTEN_CODE)   # its coloured words have nothing but colours, and are thousands
        assert serious(view, OTHERS) == ""
        view.evaluate(REMEMBER_SHOWN)
        view.set_viewport_size(dict(width=NARROW, height=900))
        view.evaluate(NEXT_FRAME)   # before it the page has not heard of its new width
        check_width(view, NARROW, picture)
        assert serious(view, OF_A_WIDTH) == ""
        assert not view.evaluate(MARK_SHOWN) or serious(view, OTHERS, "[data-shown]") == ""
        assert not [url for url in visited.requests if not url.startswith((address, "data:", "blob:"))]
        assert not visited.messages


def check_width(view, width, picture):
    """Check that a page does not scroll sideways."""
    photograph(view, SCREENS / str(width) / picture, full_page=True)
    widths = view.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]")
    assert max(widths) <= width, f"scrolls sideways: {widths}"


def photograph(view, path, **options):
    """Leave a picture for people, where there are any."""
    if not os.environ.get("CI"):
        view.screenshot(path=path, **options)


def check_colours(view, picture, looks):
    """Check the colours of a page in the dark, where it is photographed, and as it is; add what is new to `looks`."""
    view.evaluate(REMEMBER_LOOK)
    view.emulate_media(color_scheme="dark")
    view.evaluate(REMEMBER_LOOK)
    assert view.evaluate(BACKGROUND) not in WHITE
    photograph(view, SCREENS / "dark" / picture)
    new = view.evaluate(MARK_NEW, [*looks])
    dark = serious(view, COLOURS, "[data-new-look]") if new else ""
    view.emulate_media(color_scheme="light")
    assert view.evaluate(BACKGROUND) in WHITE
    light = serious(view, COLOURS, "[data-new-look]") if new else ""
    assert (dark, light) == ("", "")
    looks.update(new)


@browser_needed
def test_a_page_that_is_opened_in_the_dark_is_dark(visit, address):
    with visit(f"{address}/index.html", WIDE, "dark") as visited:
        assert visited.page.evaluate(BACKGROUND) not in WHITE


FORMULAS = """[...document.querySelectorAll('.math mjx-container')].map(
    m => m.querySelector('mjx-assistive-mml, math')?.textContent ?? m.textContent)"""


@browser_needed
@pytest.mark.parametrize("page, numbers", [("01_interpolation", "23"), ("02_insertion", "456"),
                                           ("methods/gradient_matching", "7")])
def test_the_equations_of_the_paper_are_typeset_with_their_numbers(page, numbers, visit, address):
    with visit(f"{address}/notebooks/{page}.html", WIDE) as visited:
        formulas = visited.page.evaluate(FORMULAS)
    for number in numbers:
        assert any(f"({number})" in text for text in formulas), number


@browser_needed
@pytest.mark.parametrize("scheme", ("http", "file"))
@pytest.mark.parametrize("words, page", [("insertion", "notebooks/02_insertion.html"),
                                         ("herding", "notebooks/methods/coresets.html"),
                                         ("UCF101", "howto/official_downloads.html")])
def test_search_finds(words, page, scheme, visit, address):
    start = address if scheme == "http" else Path(SITE).as_uri()
    with visit(f"{start}/index.html", WIDE) as visited:
        visited.page.wait_for_load_state("networkidle")   # a request that leaving cuts off would count as failed
        visited.page.locator("input[name=q]").first.fill(words)
        visited.page.keyboard.press("Enter")
        visited.page.wait_for_selector("ul.search li a")
        links = visited.page.eval_on_selector_all("ul.search li a", "links => links.map(a => a.href)")
        found = [re.sub(r"[?#].*", "", link) for link in links]
        assert f"{start}/{page}" in found[:10], found[:10]
        assert not visited.messages


@browser_needed
@pytest.mark.parametrize("text", ("make study", "make test", "chance", "DM + PRISM", "Random"))
def test_the_front_page_has_what_people_come_for(text, visit, address):
    with visit(f"{address}/index.html", WIDE) as visited:
        assert text in visited.page.inner_text("article")
        assert visited.page.locator("article img").count() >= 1
