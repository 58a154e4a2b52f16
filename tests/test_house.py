"""The house is in order: what is generated is in step, and the notebooks keep its rules."""
import ast
import json
import re
import shutil
import statistics
import subprocess
import sys

import pytest
from prism_nb.report.front import readme_claims, readme_table

from conftest import BIN, ROOT

sys.path.insert(0, str(ROOT / "docs"))
import pages  # noqa: E402

NOTEBOOKS = sorted(ROOT.glob("nbs/[0-9]*.ipynb"))
KEPT = ("settings.ini", "setup.py", "pyproject.toml", "README.md", "nbs", "prism_nb")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The notebooks and the module, cleaned and exported once more, elsewhere."""
    folder = tmp_path_factory.mktemp("copy")
    for name in KEPT:
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", ".last_checked")
        shutil.copytree(source, folder / name, ignore=ignore) if source.is_dir() else shutil.copy(source, folder)
    for command in ("nbdev_clean", "nbdev_export"):
        subprocess.run([BIN / command], cwd=folder, check=True, capture_output=True, text=True)
    return folder


@pytest.mark.parametrize("kind, pattern", [("clean", "nbs/**/*.ipynb"), ("export", "prism_nb/*.py")])
def test_cleaning_and_exporting_changes_nothing(copy, kind, pattern):
    changed = [p.relative_to(ROOT) for p in sorted(ROOT.glob(pattern)) if ".ipynb_checkpoints" not in p.parts
               and p.read_bytes() != (copy / p.relative_to(ROOT)).read_bytes()]
    assert not changed, f"run nbdev_{kind}: {changed}"
    assert {p.name for p in copy.glob(pattern)} == {p.name for p in ROOT.glob(pattern) if ".ipynb_checkpoints" not in p.parts}


def test_readme_is_the_front_page_and_its_numbers_are_those_of_the_committed_reports(tmp_path, monkeypatch):
    listed = subprocess.run(["git", "ls-files", "reports"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
    subprocess.run(["git", "checkout-index", f"--prefix={tmp_path}/", "--", *listed], cwd=ROOT, check=True)   # a study of one's own may have written others
    monkeypatch.setenv("PRISM_REPORTS", str(tmp_path / "reports"))
    text = (ROOT / "README.md").read_text()
    assert pages.readme() == text, "run: make readme"
    assert readme_table() in text and readme_claims() in text, "git add reports, run the cells of nbs/index.ipynb, then: make readme"
    for target in re.findall(r'(?:\]\(|src="|srcset=")([^)"#]+)', text):
        assert (ROOT / target).exists(), target


def test_the_house_names_every_room_and_the_site_shows_it():
    rooms = [n.stem for n in NOTEBOOKS]
    assert re.findall(r"^\| `(\d\d_\w+)`", (ROOT / "docs" / "maintaining.md").read_text(), re.M) == rooms
    assert sorted(name for names in pages.GROUPS.values() for name in names) == rooms
    assert sorted(pages.HOWTO) == [n.stem for n in sorted(ROOT.glob("nbs/howto/*.ipynb"))]


@pytest.mark.parametrize("notebook", [*NOTEBOOKS, *sorted(ROOT.glob("nbs/howto/*.ipynb"))], ids=lambda n: n.stem)
def test_a_picture_is_told_to_those_who_cannot_see_it(notebook):
    for cell in json.loads(notebook.read_text())["cells"]:
        drawn = [kind for output in cell.get("outputs", []) for kind in output.get("data", {}) if kind.startswith("image/")]
        assert not drawn or re.match(r"#\| alt: \S.{20,}", cell["source"][0]), "".join(cell["source"])[:200]


def test_the_page_of_results_is_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import page
    assert page.page() == (ROOT / "benchmarks" / "RESULTS.md").read_text(), "run: python benchmarks/page.py"


def exported(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    sources = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    return [s for s in sources if re.match(r"#\|\s*export\b", s)]


def test_exported_cells_are_small():
    lengths = [len([line for line in cell.splitlines()[1:] if line.strip()]) for n in NOTEBOOKS for cell in exported(n)]
    assert statistics.median(lengths) <= 10 and max(lengths) <= 50, (statistics.median(lengths), max(lengths))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_imports_run_one_way(notebook):
    order = [n.stem[3:] for n in NOTEBOOKS]
    for node in ast.walk(ast.parse((ROOT / "prism_nb" / f"{notebook.stem[3:]}.py").read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:   # the exporter makes the project's own imports relative
            continue
        for room in [node.module] if node.module else [a.name for a in node.names]:
            assert order.index(room) < order.index(notebook.stem[3:]), f"{notebook.stem} imports {room}"


@pytest.mark.parametrize("notebook", [*NOTEBOOKS, *sorted(ROOT.glob("nbs/tables/*.ipynb")), *sorted(ROOT.glob("nbs/howto/*.ipynb"))], ids=lambda n: n.stem)
def test_a_notebook_begins_with_a_title_and_a_subtitle(notebook):
    first = "".join(json.loads(notebook.read_text())["cells"][0]["source"])
    assert re.match(r"# .+\n\n> .+", first)


def test_nothing_says_where_it_was_made():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, listed):
        path = ROOT / name
        if path.suffix in {".png", ".gif", ".webp"} or not path.exists() or path == ROOT / "tests" / "test_house.py":
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        assert not re.search(r"/root/|/home/\w+/|/work/|/tmp/\w", text), f"{name} holds a path of a machine"
