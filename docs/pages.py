"""Write the site's pages from the notebooks and the reports, as Sphinx reads them, and README.md."""
import base64
import hashlib
import html
import os
import re
import shutil
import sys
from functools import cache
from pathlib import Path

import layout
import nbformat
import typer
from nbconvert import MarkdownExporter
from typer.cli import get_docs_for_click

from prism_nb.cli import app
from prism_nb.report.front import index_body, readme_claims, readme_table
from prism_nb.report.papermill import TABLES

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "pages"
HOWTO = ["own_videos", "official_downloads", "training_loop", "new_parts", "cluster"]
FOLDERS = {   # report folder → title, content
    "quick": ("MotionShapes, the generated data set",
              "Ten classes of moving shapes, written as real video files; Tables 1 to 5 and A, the figures, Lemma 1, "
              "the audit, and what goes beyond the paper."),
    "jhmdb": ("J-HMDB, real people", "928 clips of 21 actions in three official splits, as a section of a paper."),
}
DECISIONS = "reports/quick/silent.ipynb"   # has an entry of its own in the navigation
MAINTAINER_PAGES = {
    "docs/maintaining.md": "maintaining/maintaining.md",
    "CONTRIBUTING.md": "maintaining/contributing.md",
    "CHANGELOG.md": "maintaining/changelog.md",
    "benchmarks/RESULTS.md": "maintaining/benchmarks.md",
    "docs/reference.md": "api/index.md",
}


def notebook_of(module: str) -> str:
    """The notebook of a module, by its path in the repository."""
    return str(layout.notebooks()[module].relative_to(ROOT))


def page_of(module: str) -> str:
    """The page of a module's notebook."""
    return "notebooks/" + str(layout.notebooks()[module].relative_to(ROOT / "nbs"))


def places() -> dict[str, str]:
    """The page of each file of the repository that has one; a report can be named in several ways."""
    modules = {notebook_of(module): page_of(module) for module in layout.modules()}
    howto = {f"nbs/howto/{name}.ipynb": f"howto/{name}.ipynb" for name in HOWTO}
    reports = [str(n.relative_to(ROOT)) for folder in FOLDERS for n in ROOT.glob(f"reports/{folder}/*.ipynb")]
    executed = {name: name for name in reports}
    by_page = {name.replace(".ipynb", ".html"): name for name in reports}
    by_source = {f"nbs/tables/{Path(name).name}": name for name in reversed(reports)}
    indexes = {f"reports/{folder}/index.html": f"reports/{folder}/index.md" for folder in FOLDERS}
    generated = {"nbs": "notebooks/index.md", "nbs/howto": "howto/index.md", "reports": "reports/index.md",
                 "prism_nb": "api/index.md"}
    front = {"nbs/index.ipynb": "index.ipynb", "README.md": "index.ipynb"}
    return modules | howto | executed | by_page | by_source | indexes | generated | MAINTAINER_PAGES | front


PLACES = places()
LINK = re.compile(r'(?<=\]\()(?![a-z]+:|#)[^)#\s]+|(?<=src=")(?![a-z]+:)[^"]+|(?<=srcset=")[^"]+'
                  r'|(?<=href=")(?![a-z]+:|#)[^"#]+')
EXTERNAL = re.compile(r"\[([^\]]+)\]\(https?:[^)]+\)")      # the site reads the same offline
COLOURS = re.compile(r' style="[^"]*color[^"]*"')          # a terminal's, which cannot be read on every background
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.S)           # without links
ANCHOR = re.compile(r"(?<=\]\(#)[^)]+|(?<=\.ipynb#)[^)]+")  # a heading, as notebooks name it


def relink(text: str, source: str, page: str) -> str:
    """Rewrite the relative links in the text of `source` for `page`; copy a file that has no page."""
    def target_of(found):
        target = os.path.normpath(os.path.join(os.path.dirname(source), found[0]))
        if target not in PLACES:
            if not (ROOT / target).is_file():
                raise SystemExit(f"{source}: the link {found[0]} leads nowhere")
            write_page(f"files/{target}", (ROOT / target).read_bytes())
        place = PLACES.get(target, f"files/{target}")
        if found.string[found.start() - 1] == '"':   # HTML, which Sphinx does not read
            place = re.sub(r"\.(ipynb|md)$", ".html", PLACES.get(target, target))
        return os.path.relpath(place, os.path.dirname(page) or ".")

    def slug(found):
        return re.sub(r"[^\w-]", "", found[0].lower())
    parts = CODE.split(EXTERNAL.sub(r"\1", text))
    parts[::2] = [ANCHOR.sub(slug, LINK.sub(target_of, part)) for part in parts[::2]]
    return "".join(parts)


def write_page(page: str, content: str | bytes):
    """Write a page, or a file that one shows."""
    path = OUT / page
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def save_image(content: bytes, kind: str, page: str) -> str:
    """Write an image of a notebook as a file; return the link to it."""
    name = f"{page.split('.')[0]}-{hashlib.sha256(content).hexdigest()[:8]}.{kind}"
    write_page(f"files/{name}", content)
    return os.path.relpath(name, os.path.dirname(page) or ".")


def directives(source: str) -> tuple[dict[str, str], str]:
    """The `#|` lines of a cell, and the rest of it."""
    lines = source.splitlines()
    found = dict(re.match(r"#\|\s*([\w-]+):?\s*(.*)", line).groups() for line in lines if line.startswith("#|"))
    return found, "\n".join(line for line in lines if not line.startswith("#|"))


def render_cell(cell, report: bool):
    """A code cell as a page shows it, or None."""
    found, cell.source = directives(cell.source)
    if {"hide", "default_exp"} & {*found} or cell.cell_type == "raw":
        return None
    parameters = "injected-parameters" in cell.metadata.get("tags", [])
    asserts = re.search(r"^\s*(assert|test_\w+\(|\w+agrees\(\))", cell.source, re.M)
    is_test = asserts and not any(output.output_type != "stream" for output in cell.outputs)
    images = [kind for o in cell.outputs for kind in o.get("data", {}) if kind.startswith("image/")]
    exported = "export" in found
    tags = {"hide-input": parameters or images and not report and not exported,
            "remove-input": report and not parameters or "echo" in found,
            "exported": exported and not report,
            "test": is_test and not exported and not report}
    cell.metadata = nbformat.NotebookNode(tags=[tag for tag, holds in tags.items() if holds])
    prompt = "The parameters" if parameters else "The code of this picture"
    image = {"image": {"alt": found["alt"]}} if "alt" in found else {}
    cell.metadata["mystnb"] = {"code_prompt_show": prompt, "code_prompt_hide": "Hide it", **image}
    cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    for output in cell.outputs:
        data = output.get("data", {})
        for kind in [k for k in data if "widget" in k or k == "text/plain" and "text/html" in data]:
            del data[kind]
    return cell if not report or parameters or cell.outputs else None


def relink_outputs(cell, source: str, page: str):
    """Rewrite the links in a cell's outputs; animations become files."""
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if webp := data.pop("image/webp", None):
            alt = html.escape(cell.metadata["mystnb"]["image"]["alt"])
            data["text/html"] = f'<img alt="{alt}" src="{save_image(base64.b64decode(webp), "webp", page)}">'
            continue
        for kind in {"text/html", "text/markdown"} & {*data}:
            data[kind] = relink(COLOURS.sub("", data[kind]), source, page)


def write_notebook(source: str, page: str, report: bool = False, after_title: str = "", at_end: str = ""):
    """Write a notebook as a page: without plumbing, its links those of the site."""
    nb = nbformat.read(ROOT / source, as_version=4)
    cells = []
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = relink(cell.source, source, page)
        elif not (cell := render_cell(cell, report)):
            continue
        relink_outputs(cell, source, page)
        cells.append(cell)
    cells[1:1] = [nbformat.v4.new_markdown_cell(after_title)] if after_title else []
    cells += [nbformat.v4.new_markdown_cell(at_end)] if at_end else []
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nb.cells, nb.metadata = cells, {"kernelspec": kernel, "language_info": {"name": "python"}}
    write_page(page, nbformat.writes(nb))


@cache
def titles(source: str) -> tuple[str, str]:
    """A notebook's title and subtitle."""
    first = nbformat.read(ROOT / source, as_version=4).cells[0].source
    return re.match(r"# (.+)\n\n> (.+)", first).groups()


def toctree(pages: list[str], caption: str = "") -> str:
    """Pages in the navigation, not in the text."""
    names = [re.sub(r"\.(ipynb|md)$", "", page) for page in pages]
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["```{toctree}", *options, "", *names, "```", ""])


def two_columns(rows) -> str:
    """Pairs as a table in Markdown."""
    return "\n".join(["| | |", "|---|---|", *(f"| {what} | {about} |" for what, about in rows), ""])


def contents(sources: list[str], page: str) -> str:
    """A table of notebooks: what each is about."""
    folder = os.path.dirname(page)
    return two_columns((f"[{titles(s)[0]}]({os.path.relpath(PLACES[s], folder)})", titles(s)[1]) for s in sources)


def write_notebooks():
    """The notebooks of the package, layer by layer, and their table; the paper comes first."""
    parts = ["# The paper, notebook by notebook\n",
             "One idea per notebook: the equation as the paper numbers it, what it does to a tiny example, the code "
             "that computes it, and the test that would fail if the idea were wrong.\n",
             "An orange line on the left marks code that is exported to the package `prism_nb`; a blue line, a test.\n"]
    order = ["paper", *(name for name in layout.LAYERS if name != "paper")]
    for name in order:
        modules = [module for module in layout.modules() if layout.layer(module) == name]
        caption = layout.LAYERS[name][0].upper() + layout.LAYERS[name][1:]
        pages = [page_of(module).removeprefix("notebooks/") for module in modules]
        parts += [f"## {caption}\n", contents([notebook_of(module) for module in modules], "notebooks/index.md"),
                  toctree(pages, caption)]
        for module in modules:
            page = page_of(module)
            reference = os.path.relpath(api_page(module), os.path.dirname(page))
            link = f"*In the [reference]({reference}): `prism_nb.{module}`.*"
            write_notebook(notebook_of(module), page, after_title=link)
    write_page("notebooks/index.md", "\n".join(parts))


def write_howto():
    """The how-tos."""
    for name in HOWTO:
        write_notebook(f"nbs/howto/{name}.ipynb", f"howto/{name}.ipynb")
    table = contents([f"nbs/howto/{name}.ipynb" for name in HOWTO], "howto/index.md")
    intro = "# How to\n\nEach of these is a notebook that is run as a test, on small data.\n\n"
    write_page("howto/index.md", f"{intro}{table}\n{toctree(HOWTO)}")


def provenance_line(folder: str, name: str) -> str:
    """The command that builds a report, and its CSV files."""
    table = next(key for key, (notebook, _) in TABLES.items() if notebook == name and key != "first")
    dataset = "" if folder == "quick" else f" --dataset {folder}"
    numbers = [path.name for path in sorted(ROOT.glob(f"reports/{folder}/{name}[._]*csv"))]
    for number in numbers:
        write_page(f"files/reports/{folder}/{number}", (ROOT / "reports" / folder / number).read_bytes())
    links = ", ".join(f"{{download}}`{n} <../../files/reports/{folder}/{n}>`" for n in numbers)
    command = f"`prism-nb study --profile quick --tables {table}{dataset}`"
    sentence = f"{command} builds this page from `nbs/tables/{name}.ipynb`."
    return sentence + (f" Its numbers: {links}." if numbers else "")


def write_report_index(folder: str, title: str, names: list[str]):
    """The front page of a report folder."""
    page = f"reports/{folder}/index.md"
    body = re.sub(r"<h1>.*?</h1>\s*<blockquote>.*?</blockquote>", "", index_body(ROOT / "reports" / folder), flags=re.S)
    body = relink(body, f"reports/{folder}/index.html", page)
    body = re.sub(r'(?<=src=")data:image/(\w+);base64,([^"]+)',
                  lambda found: save_image(base64.b64decode(found[2]), found[1], page), body)
    sections = re.split(r"<h2>(.*?)</h2>", body)
    parts = [f"# {title}\n"]
    for head, text in zip(sections[1::2], sections[2::2]):
        parts.append(f"## {markdown_heading(head)}\n\n```{{raw}} html\n{text}\n```\n")
    listed = [name for name in names if f"reports/{folder}/{name}.ipynb" != DECISIONS]
    write_page(page, "\n".join([*parts, toctree(listed)]))


def write_reports():
    """Every report as it was executed, and the outcome of each claim."""
    for folder, (title, _) in FOLDERS.items():
        names = [name for name in dict(TABLES.values()) if (ROOT / f"reports/{folder}/{name}.ipynb").exists()]
        for name in names:
            page = f"reports/{folder}/{name}.ipynb"
            write_notebook(page, page, report=True, after_title=provenance_line(folder, name))
        write_report_index(folder, title, names)
    summary = two_columns((f"[{title}]({folder}/index.md)", about) for folder, (title, about) in FOLDERS.items())
    intro = ("# Reports\n\nThe tables and figures of the paper, as executed: measured numbers next to the printed "
             "ones, and the outcome of each claim.\n\n")
    main_rows = f"## The main rows\n\n{readme_table()}\n\n{readme_claims()}\n\n"
    navigation = toctree([f"{folder}/index" for folder in FOLDERS])
    write_page("reports/index.md", intro + summary + main_rows + navigation)


def markdown_heading(head: str) -> str:
    """A heading in HTML, as Markdown."""
    return re.sub(r'<a href="(.+?)\.html">(.+?)</a>', r"[\2](\1.ipynb)", head)


def api_page(module: str) -> str:
    """The page of a module in the reference."""
    return f"api/{module.replace('.', '/')}.md"


def write_reference():
    """A page for each module, and one for the commands."""
    for module in layout.modules():
        page = api_page(module)
        link = os.path.relpath(page_of(module), os.path.dirname(page))
        intro = f"*Explained, with examples, in [{titles(notebook_of(module))[0]}]({link}).*"
        members = f"```{{eval-rst}}\n.. automodule:: prism_nb.{module}\n   :members:\n```\n"
        write_page(page, f"# {module}\n\n{intro}\n\n{members}")
    command = typer.main.get_command(app)
    help_text = html.unescape(get_docs_for_click(obj=command, ctx=typer.Context(command), name="prism-nb"))
    body = help_text.split("\n", 1)[1].replace("```console", "```text")
    write_page("api/commands.md", f"# The command line\n{body}")
    rows = ((f"[{m}]({api_page(m).removeprefix('api/')})", titles(notebook_of(m))[1]) for m in layout.modules())
    intro = relink((ROOT / "docs" / "reference.md").read_text(), "docs/reference.md", "api/index.md")
    pages = ["commands", *(api_page(module).removeprefix("api/") for module in layout.modules())]
    write_page("api/index.md", f"{intro}\n{two_columns(rows)}\n{toctree(pages)}")


def write_maintainer_pages():
    """What is written for maintainers."""
    for source, page in MAINTAINER_PAGES.items():
        if page.startswith("maintaining/"):
            write_page(page, relink((ROOT / source).read_text(), source, page))


def write_front():
    """The front page, and the navigation."""
    maintaining = [page for page in MAINTAINER_PAGES.values() if page.startswith("maintaining/")]
    lists = [toctree(["howto/index", "notebooks/index"]), toctree(["reports/index", DECISIONS], "Results"),
             toctree(["api/index", *maintaining], "Reference")]
    write_notebook("nbs/index.ipynb", "index.ipynb", at_end="\n".join(lists))


def readme() -> str:
    """The front page as a code host shows it."""
    nb = nbformat.read(ROOT / "nbs" / "index.ipynb", as_version=4)
    text, _ = MarkdownExporter(exclude_input=True).from_notebook_node(nb)
    text = LINK.sub(lambda found: os.path.normpath(os.path.join("nbs", found[0])), text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["readme"]:
        sys.exit((ROOT / "README.md").write_text(readme()) and None)
    shutil.rmtree(OUT, ignore_errors=True)
    for write in (write_notebooks, write_howto, write_reports, write_reference, write_maintainer_pages, write_front):
        write()
