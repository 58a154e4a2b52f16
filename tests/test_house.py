"""The house is in order: what is generated is in step, and the notebooks keep its rules."""
import ast
import json
import re
import shutil
import statistics
import subprocess

import pytest

from conftest import BIN, ROOT, call

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


def test_readme_is_the_index(tmp_path):
    done = call("jupyter", "nbconvert", "--to", "markdown", "--output-dir", tmp_path, "--output", "README", "nbs/index.ipynb")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text(), "run: make readme"


def test_readme_names_every_room_and_nothing_else():
    text = (ROOT / "README.md").read_text()
    assert re.findall(r"^\| `(\d\d_\w+)`", text, re.M) == [n.stem for n in NOTEBOOKS]
    for name in {*re.findall(r"`(reports/[\w/.]+)`", text), *re.findall(r"`(nbs/[\w/.]+)`", text)}:
        assert (ROOT / name).exists(), name


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


@pytest.mark.parametrize("notebook", [*NOTEBOOKS, *sorted(ROOT.glob("nbs/tables/*.ipynb"))], ids=lambda n: n.stem)
def test_a_notebook_begins_with_a_title_and_a_subtitle(notebook):
    first = "".join(json.loads(notebook.read_text())["cells"][0]["source"])
    assert re.match(r"# .+\n\n> .+", first)


def test_nothing_says_where_it_was_made():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, listed):
        path = ROOT / name
        if path.suffix in {".png", ".gif"} or not path.exists() or path == ROOT / "tests" / "test_house.py":
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        assert not re.search(r"/root/|/home/\w+/|/work/|/tmp/\w", text), f"{name} holds a path of a machine"
