"""The repository is in order: what is generated is up to date, and code and notebooks keep the project's rules."""
import ast
import io
import json
import re
import shutil
import statistics
import subprocess
import sys
import tokenize

import pytest
from conftest import BIN, ROOT

from prism_nb.core.registry import part_modules
from prism_nb.core.source import source_hash
from prism_nb.report.front import readme_claims, readme_gpu, readme_table
from prism_nb.study.records import NUMBERS

sys.path.insert(0, str(ROOT / "docs"))
import layout  # noqa: E402
import pages  # noqa: E402

COPIED = ("settings.ini", "setup.py", "pyproject.toml", "README.md", "nbs", "prism_nb")
NOTEBOOKS = sorted(path for path in ROOT.glob("nbs/**/*.ipynb") if ".ipynb_checkpoints" not in path.parts)
EXPLAINED = [path for path in NOTEBOOKS if path.parent.name != "tables"]   # their pictures are in the repository
SETTINGS = {"PRISM_DATA", "PRISM_REPORTS", "PRISM_DEVICE", "PRISM_PROGRESS", "PRISM_PLUGINS",   # of a person's machine
            "PRISM_RECORDS", "PRISM_FRESH"}                                                     # of a study


def name(path):
    return str(path.relative_to(ROOT))


def git_files():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


def cells(notebook, kind="code"):
    """The sources of a notebook's cells."""
    return ["".join(c["source"]) for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == kind]


def exported(notebook):
    return [source for source in cells(notebook) if re.match(r"#\|\s*export\b", source)]


@pytest.fixture(scope="module")
def exported_copy(tmp_path_factory):
    """The notebooks and the package, cleaned and exported once more, elsewhere."""
    folder = tmp_path_factory.mktemp("copy")
    ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", ".last_checked")
    for item in COPIED:
        source = ROOT / item
        if source.is_dir():
            shutil.copytree(source, folder / item, ignore=ignore)
        else:
            shutil.copy(source, folder)
    for command in ("nbdev_clean", "nbdev_export"):
        subprocess.run([BIN / command], cwd=folder, check=True, capture_output=True, text=True)
    return folder


@pytest.mark.parametrize("kind, pattern", [("clean", "nbs/**/*.ipynb"), ("export", "prism_nb/**/*.py")])
def test_cleaning_and_exporting_changes_nothing(exported_copy, kind, pattern):
    def files(root):
        found = [path for path in root.glob(pattern) if ".ipynb_checkpoints" not in path.parts]
        return {str(path.relative_to(root)): path.read_bytes() for path in found}
    ours, theirs = files(ROOT), files(exported_copy)
    assert sorted(ours) == sorted(theirs), f"run nbdev_{kind}"
    assert [path for path in ours if ours[path] != theirs[path]] == [], f"run nbdev_{kind}"


def test_readme_is_the_front_page_with_the_numbers_of_the_committed_reports(tmp_path, monkeypatch):
    committed = [name(path) for path in git_files() if name(path).startswith("reports/")]
    command = ["git", "checkout-index", f"--prefix={tmp_path}/", "--", *committed]   # not those of a later study
    subprocess.run(command, cwd=ROOT, check=True)
    monkeypatch.setenv("PRISM_REPORTS", str(tmp_path / "reports"))
    text = (ROOT / "README.md").read_text()
    assert pages.readme() == text, "run: make readme"
    hint = "git add reports, run the cells of nbs/index.ipynb, then: make readme"
    assert readme_table() in text, hint
    assert readme_claims() in text, hint
    assert readme_gpu() in text, hint


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r'(?:\]\(|src="|srcset=")([^)"#]+)', (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target


def test_imports_go_from_higher_layers_to_lower_ones_without_a_circle():
    assert layout.violations() == []
    assert len(layout.modules()) == len(layout.notebooks())   # a circle has no order


def test_the_map_of_the_layout_is_that_of_the_imports():
    assert layout.svg() == layout.SVG.read_text(), "run: python docs/layout.py"
    assert layout.maintaining() == layout.MAINTAINING.read_text(), "run: python docs/layout.py"


def test_the_site_has_every_how_to():
    assert sorted(pages.HOWTO) == sorted(path.stem for path in ROOT.glob("nbs/howto/*.ipynb"))


@pytest.mark.parametrize("notebook", EXPLAINED, ids=name)
def test_a_picture_is_described(notebook):
    for cell in json.loads(notebook.read_text())["cells"]:
        images = [kind for output in cell.get("outputs", []) for kind in output.get("data", {}) if "image/" in kind]
        if images:
            assert re.match(r"#\| alt: \S.{20,}", cell["source"][0]), "".join(cell["source"])[:200]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_a_notebook_begins_with_a_title_and_a_subtitle(notebook):
    if notebook.stem != "index":
        assert re.match(r"# .+\n\n> .+", cells(notebook, "markdown")[0])


def test_the_page_of_benchmarks_is_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import page
    assert page.page() == (ROOT / "benchmarks" / "RESULTS.md").read_text(), "run: python benchmarks/page.py"


def test_exported_cells_are_small():
    sources = [source for notebook in NOTEBOOKS for source in exported(notebook)]
    lengths = sorted(len([line for line in source.splitlines()[1:] if line.strip()]) for source in sources)
    assert statistics.median(lengths) <= 10
    assert lengths[int(.9 * len(lengths))] <= 25
    assert lengths[-1] <= 50


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_a_line_of_code_is_at_most_120_characters_wide(notebook):
    assert [line for source in cells(notebook) for line in source.splitlines() if len(line) > 120] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_a_line_of_code_is_one_statement(notebook):
    ends = (tokenize.NEWLINE, tokenize.NL, tokenize.COMMENT, tokenize.ENDMARKER)
    for source in cells(notebook):
        tokens = [*tokenize.generate_tokens(io.StringIO(source).readline)]
        joined = [a.line for a, b in zip(tokens, tokens[1:]) if a.string == ";" and b.type not in ends]
        assert joined == []


def test_the_environment_holds_settings_only():
    used = set()
    for path in ROOT.glob("prism_nb/**/*.py"):
        constants = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        used |= {value for value in constants if isinstance(value, str) and re.fullmatch(r"PRISM_[A-Z_]+", value)}
    assert used <= SETTINGS


def test_it_was_decided_whether_a_change_of_the_code_changes_numbers():
    code = source_hash("prism_nb.condensation", "prism_nb.evaluation", *part_modules())
    decision = "if numbers change, raise NUMBERS in nbs/study/records.ipynb; in any case write the new hash here"
    assert (NUMBERS, code) == (1, "72440045fecaa50a"), decision


def imported_by(module):
    return set(subprocess.run([sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"],
                              capture_output=True, text=True, check=True, cwd=ROOT).stdout.split())


def test_a_command_starts_without_what_only_pages_need():
    loaded = imported_by("prism_nb.cli")
    assert "prism_nb.report.front" in loaded
    assert not {"nbformat", "nbconvert", "papermill", "jsonschema", "jupyter_client", "IPython", "statsmodels",
                "scipy.stats", "scipy.spatial", "matplotlib"} & loaded


def test_a_page_is_built_without_what_reads_iris():
    loaded = imported_by("prism_nb.report.execution")
    assert "jsonschema" in loaded
    assert not {"lark", "rfc3987_syntax.syntax_helpers"} & loaded


def test_a_worker_starts_without_what_only_verdicts_and_figures_need():
    loaded = imported_by("prism_nb.study.runner")
    assert "prism_nb.study.verdicts" in loaded
    assert not {"IPython", "statsmodels", "scipy.stats", "matplotlib"} & loaded


def test_nothing_says_where_it_was_made():
    for path in git_files():
        if path.suffix in {".png", ".gif", ".webp", ".safetensors"} or path == ROOT / "tests" / "test_repository.py":
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        assert not re.search(r"/root/|/home/\w+/|/work/|/tmp/\w", text), f"{name(path)} holds a path of a machine"
