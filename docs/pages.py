"""Write the site's pages from the notebooks and the reports, as Sphinx reads them, and README.md from the front page."""
import base64
import hashlib
import html
import os
import re
import shutil
import sys
from functools import cache
from pathlib import Path

import nbformat
import typer
from nbconvert import MarkdownExporter
from typer.cli import get_docs_for_click

from prism_nb.cli import app
from prism_nb.report.front import index_body, readme_claims, readme_table
from prism_nb.report.papermill import TABLES

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "pages"
GROUPS = {
    "The paper, equation by equation": ["08_interpolation", "09_insertion", "10_dm", "12_memory", "15_condensation", "13_evaluation"],
    "What is stored, and what it is compared with": ["11_condensed", "14_coresets"],
    "From files to clips": ["00_rules", "01_video", "02_clips", "03_layouts", "04_datasets", "05_verify", "06_motionshapes", "07_networks"],
    "Pictures, machines and the study": ["16_figures", "17_scale", "18_needs", "19_study", "20_reports", "21_cli"],
}
HOWTO = ["own_videos", "official_downloads", "training_loop", "new_parts", "cluster"]
FOLDERS = {   # title, and what is in it
    "quick": ("MotionShapes, the embedded data set", "Ten classes of moving shapes, written as real video files; Tables 1 to 5 and A, the figures, Lemma 1, the audit, and what lies beyond."),
    "jhmdb": ("J-HMDB, real people", "928 clips of 21 actions over three official splits, as a section of a paper."),
}
SILENT = "reports/quick/silent.ipynb"   # has a place of its own in the list of pages
HOUSE = {"docs/maintaining.md": "house/maintaining.md", "CONTRIBUTING.md": "house/contributing.md", "CHANGELOG.md": "house/changelog.md", "benchmarks/RESULTS.md": "house/benchmarks.md", "docs/reference.md": "api/index.md"}


def places() -> dict[str, str]:
    """Where each page of the repository stands on the site; a report can be named in several ways."""
    rooms = {f"nbs/{n.name}": f"notebooks/{n.name}" for n in ROOT.glob("nbs/[0-9]*.ipynb")}
    howto = {f"nbs/howto/{name}.ipynb": f"howto/{name}.ipynb" for name in HOWTO}
    made = {str(n.relative_to(ROOT)): str(n.relative_to(ROOT)) for folder in FOLDERS for n in ROOT.glob(f"reports/{folder}/*.ipynb")}
    named = {name.replace(".ipynb", ".html"): page for name, page in made.items()} | {f"nbs/tables/{Path(page).name}": page for page in reversed(made.values())}
    indexes = {f"reports/{folder}/index.html": f"reports/{folder}/index.md" for folder in FOLDERS}
    generated = {"nbs": "notebooks/index.md", "nbs/howto": "howto/index.md", "reports": "reports/index.md", "prism_nb": "api/index.md"}
    return rooms | howto | made | named | indexes | generated | HOUSE | {"nbs/index.ipynb": "index.ipynb", "README.md": "index.ipynb"}


PLACES = places()
LINK = re.compile(r'(?<=\]\()(?![a-z]+:|#)[^)#\s]+|(?<=src=")(?![a-z]+:)[^"]+|(?<=srcset=")[^"]+|(?<=href=")(?![a-z]+:|#)[^"#]+')

ELSEWHERE = re.compile(r"\[([^\]]+)\]\(https?:[^)]+\)")   # the site reads the same offline
COLOURS = re.compile(r' style="[^"]*color[^"]*"')   # a terminal's, which cannot be read on every ground
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.S)   # no links in there
HERE = re.compile(r"(?<=\]\(#)[^)]+")   # a heading of the same page, as notebooks name it


def linked(text: str, source: str, page: str) -> str:
    """The text of `source` with its relative links made those of `page`; a file that is no page comes along."""
    def there(found):
        target = os.path.normpath(os.path.join(os.path.dirname(source), found[0]))
        if target not in PLACES:
            if not (ROOT / target).is_file():
                raise SystemExit(f"{source}: the link {found[0]} leads nowhere")
            put(f"files/{target}", (ROOT / target).read_bytes())
        in_html = found.string[found.start() - 1] == '"'   # Sphinx does not look into that
        place = re.sub(r"\.(ipynb|md)$", ".html", PLACES.get(target, target)) if in_html else PLACES.get(target, f"files/{target}")
        return os.path.relpath(place, os.path.dirname(page) or ".")
    parts = CODE.split(ELSEWHERE.sub(r"\1", text))
    parts[::2] = [HERE.sub(lambda found: re.sub(r"[^\w-]", "", found[0].lower()), LINK.sub(there, part)) for part in parts[::2]]
    return "".join(parts)


def put(page: str, content: str | bytes):
    """Write a page, or a file that one shows."""
    path = OUT / page
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def pictured(content: bytes, kind: str, page: str) -> str:
    """A picture from inside a notebook as a file; the link to it."""
    name = f"{page.split('.')[0]}-{hashlib.sha256(content).hexdigest()[:8]}.{kind}"
    put(f"files/{name}", content)
    return os.path.relpath(name, os.path.dirname(page) or ".")


def directives(source: str) -> tuple[dict[str, str], str]:
    """The `#|` lines of a cell, and the rest of it."""
    said = dict(re.match(r"#\|\s*([\w-]+):?\s*(.*)", line).groups() for line in source.splitlines() if line.startswith("#|"))
    return said, "\n".join(line for line in source.splitlines() if not line.startswith("#|"))


def shown(cell, report: bool):
    """A code cell as a page shows it, or None."""
    said, cell.source = directives(cell.source)
    if {"hide", "default_exp"} & {*said} or "raw" == cell.cell_type:
        return None
    parameters = "injected-parameters" in cell.metadata.get("tags", [])
    tests = re.search(r"^\s*(assert|test_\w+\(|\w+agrees\(\))", cell.source, re.M) and not any(o.output_type != "stream" for o in cell.outputs)
    drawn = [kind for output in cell.outputs for kind in output.get("data", {}) if kind.startswith("image/")]
    tags = {"hide-input": parameters or drawn and not report and "export" not in said, "remove-input": report and not parameters or "echo" in said, "exported": "export" in said and not report, "test": tests and "export" not in said and not report}
    cell.metadata = nbformat.NotebookNode(tags=[tag for tag, holds in tags.items() if holds])
    cell.metadata["mystnb"] = {"code_prompt_show": "The parameters" if parameters else "The code of this picture", "code_prompt_hide": "Hide it", **({"image": {"alt": said["alt"]}} if "alt" in said else {})}
    cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    for output in cell.outputs:
        for kind in [kind for kind in output.get("data", {}) if "widget" in kind or kind == "text/plain" and "text/html" in output["data"]]:
            del output["data"][kind]
    return cell if not report or parameters or cell.outputs else None


def notebook(source: str, page: str, report: bool = False, after_title: str = "", at_end: str = ""):
    """A notebook as a page: without plumbing, its links those of the site."""
    nb = nbformat.read(ROOT / source, as_version=4)
    cells = []
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = linked(cell.source, source, page)
        elif not (cell := shown(cell, report)):
            continue
        for output in cell.get("outputs", []):
            if webp := output.get("data", {}).pop("image/webp", None):
                output["data"]["text/html"] = f'<img alt="{html.escape(cell.metadata["mystnb"]["image"]["alt"])}" src="{pictured(base64.b64decode(webp), "webp", page)}">'
                continue
            for kind in {"text/html", "text/markdown"} & {*output.get("data", {})}:
                output["data"][kind] = linked(COLOURS.sub("", output["data"][kind]), source, page)
        cells.append(cell)
    cells[1:1] = [nbformat.v4.new_markdown_cell(after_title)] if after_title else []
    cells += [nbformat.v4.new_markdown_cell(at_end)] if at_end else []
    nb.cells, nb.metadata = cells, {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}, "language_info": {"name": "python"}}
    put(page, nbformat.writes(nb))


@cache
def titles(source: str) -> tuple[str, str]:
    """A notebook's title and subtitle."""
    first = nbformat.read(ROOT / source, as_version=4).cells[0].source
    return re.match(r"# (.+)\n\n> (.+)", first).groups()


def listed(pages: list[str], caption: str = "") -> str:
    """Pages in the list at the side, not in the text."""
    return "\n".join(["```{toctree}", ":hidden:", *([f":caption: {caption}"] if caption else []), "", *(re.sub(r"\.(ipynb|md)$", "", page) for page in pages), "```", ""])


def table(rows) -> str:
    """Pairs as a table in Markdown: what, and what is said of it."""
    return "\n".join(["| | |", "|---|---|", *(f"| {what} | {said} |" for what, said in rows), ""])


def contents(sources: list[str], page: str) -> str:
    """A table of notebooks: what each is about."""
    return table((f"[{titles(s)[0]}]({os.path.relpath(PLACES[s], os.path.dirname(page))})", titles(s)[1]) for s in sources)


def write_notebooks():
    """The rooms, in the order in which one reads the paper, and their table."""
    parts = ["# The paper, notebook by notebook\n", "One idea a notebook: the equation as the paper numbers it, what it does to a tiny example, the code that computes it, and the test that would fail if the idea were wrong.\n",
             "A line at the left in orange marks code that is exported to the module `prism_nb`; a line in blue, a test.\n"]
    for caption, names in GROUPS.items():
        parts += [f"## {caption}\n", contents([f"nbs/{name}.ipynb" for name in names], "notebooks/index.md"), listed(names, caption)]
        for name in names:
            notebook(f"nbs/{name}.ipynb", f"notebooks/{name}.ipynb", after_title=f"*In the [reference](../api/{name[3:]}.md): `prism_nb.{name[3:]}`.*")
    put("notebooks/index.md", "\n".join(parts))


def write_howto():
    """How to do what people come for."""
    for name in HOWTO:
        notebook(f"nbs/howto/{name}.ipynb", f"howto/{name}.ipynb")
    put("howto/index.md", "# How to\n\nEach of these is a notebook that is run as a test, on small data.\n\n" + contents([f"nbs/howto/{name}.ipynb" for name in HOWTO], "howto/index.md") + "\n" + listed(HOWTO))


def made_with(folder: str, name: str) -> str:
    """What a report is made with, and its numbers."""
    name_there = next(key for key, (notebook, _) in TABLES.items() if notebook == name and key != "first")
    command = f"prism-nb study --profile quick --tables {name_there}" + ("" if folder == "quick" else f" --dataset {folder}")
    numbers = [p.name for p in sorted(ROOT.glob(f"reports/{folder}/{name}[._]*csv"))]
    for number in numbers:
        put(f"files/reports/{folder}/{number}", (ROOT / "reports" / folder / number).read_bytes())
    return f"`{command}` makes this page from `nbs/tables/{name}.ipynb`." + (" Its numbers: " + ", ".join(f"{{download}}`{n} <../../files/reports/{folder}/{n}>`" for n in numbers) + "." if numbers else "")


def write_reports():
    """Every report as it was run, and what each claim came to."""
    for folder, (title, _) in FOLDERS.items():
        names = [name for name in dict(TABLES.values()) if (ROOT / f"reports/{folder}/{name}.ipynb").exists()]
        for name in names:
            notebook(f"reports/{folder}/{name}.ipynb", f"reports/{folder}/{name}.ipynb", report=True, after_title=made_with(folder, name))
        body = linked(re.sub(r"<h1>.*?</h1>\s*<blockquote>.*?</blockquote>", "", index_body(ROOT / "reports" / folder), flags=re.S), f"reports/{folder}/index.html", f"reports/{folder}/index.md")
        body = re.sub(r'(?<=src=")data:image/(\w+);base64,([^"]+)', lambda found: pictured(base64.b64decode(found[2]), found[1], f"reports/{folder}/index.md"), body)
        sections = re.split(r"<h2>(.*?)</h2>", body)
        parts = [f"# {title}\n", *(f"## {unlinked(head)}\n\n```{{raw}} html\n{text}\n```\n" for head, text in zip(sections[1::2], sections[2::2]))]
        put(f"reports/{folder}/index.md", "\n".join([*parts, listed([name for name in names if f"reports/{folder}/{name}.ipynb" != SILENT])]))
    summary = table((f"[{title}]({folder}/index.md)", said) for folder, (title, said) in FOLDERS.items())
    put("reports/index.md", f"# Reports\n\nThe tables and figures of the paper, as run: measured numbers beside the printed ones, and what became of each claim.\n\n{summary}\n## The main rows\n\n{readme_table()}\n\n{readme_claims()}\n\n" + listed([f"{folder}/index" for folder in FOLDERS]))


def unlinked(head: str) -> str:
    """A heading in HTML, as Markdown."""
    return re.sub(r'<a href="(.+?)\.html">(.+?)</a>', r"[\2](\1.ipynb)", head)


def write_reference():
    """A page for each module, and one for the commands."""
    rooms = [name for names in GROUPS.values() for name in names]
    for name in sorted(rooms):
        module = name[3:]
        put(f"api/{module}.md", f"# {module}\n\n*Explained, with examples, in [{titles(f'nbs/{name}.ipynb')[0]}](../notebooks/{name}.ipynb).*\n\n```{{eval-rst}}\n.. automodule:: prism_nb.{module}\n   :members:\n```\n")
    command = typer.main.get_command(app)
    told = html.unescape(get_docs_for_click(obj=command, ctx=typer.Context(command), name="prism-nb"))
    put("api/commands.md", "# The command line\n" + told.split("\n", 1)[1].replace("```console", "```text"))
    modules = table((f"[{name[3:]}]({name[3:]}.md)", titles(f"nbs/{name}.ipynb")[1]) for name in sorted(rooms))
    put("api/index.md", linked((ROOT / "docs" / "reference.md").read_text(), "docs/reference.md", "api/index.md") + f"\n{modules}\n" + listed(["commands", *(name[3:] for name in sorted(rooms))]))


def write_house():
    """What is written for those who look after it."""
    for source, page in HOUSE.items():
        if page.startswith("house/"):
            put(page, linked((ROOT / source).read_text(), source, page))


def write_front():
    """The front page, and the list of pages at its side."""
    lists = [listed(["howto/index", "notebooks/index"]), listed(["reports/index", SILENT], "What came out"), listed(["api/index", *(page for page in HOUSE.values() if page.startswith("house/"))], "To look up")]
    notebook("nbs/index.ipynb", "index.ipynb", at_end="\n".join(lists))


def readme() -> str:
    """The front page as a code host shows it."""
    nb = nbformat.read(ROOT / "nbs" / "index.ipynb", as_version=4)
    text, _ = MarkdownExporter(exclude_input=True).from_notebook_node(nb)
    return LINK.sub(lambda found: os.path.normpath(os.path.join("nbs", found[0])), text).strip() + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["readme"]:
        sys.exit((ROOT / "README.md").write_text(readme()) and None)
    shutil.rmtree(OUT, ignore_errors=True)
    for write in (write_notebooks, write_howto, write_reports, write_reference, write_house, write_front):
        write()
