"""Parts of one's own in a file: known to commands, worker processes and table notebooks, and part of every name."""
import csv
import importlib.util
import sys
from contextlib import ExitStack

import pytest
import typer
from conftest import call

from prism_nb.cli import app
from prism_nb.condensed import CondensedSet
from prism_nb.core import source
from prism_nb.core.registry import REGISTRIES, load_plugin, temporary_parts
from prism_nb.report.papermill import package_hash
from prism_nb.report.tables import provenance_table
from prism_nb.study.executor import LocalExecutor
from prism_nb.study.profiles import get_config
from prism_nb.study.runner import get_records
from prism_nb.study.runs import make_runs
from prism_nb.study.statistics import summary_table
from prism_nb.study.verdicts import Claim, source_of

PARTS = '''
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prism_nb.condensed import SyntheticDataset
from prism_nb.core.errors import PrismError
from prism_nb.core.registry import METHODS, NETWORKS, OBJECTIVES, PARAMETERIZATIONS, SET_TYPES
from prism_nb.dm import DistributionMatching
from prism_nb.parameterization import FrameParameterization, KeyFrames
from prism_nb.recipe import Method


@OBJECTIVES.register('below-zero')
class BelowZero(DistributionMatching):
    "A loss that may be negative."
    title = 'Below zero'
    def loss(self, network, targets, videos, labels): return super().loss(network, targets, videos, labels) - 1e3


@PARAMETERIZATIONS.register('own-key-frames')
class OwnKeyFrames(KeyFrames):
    "Key frames under another name."
    title = 'Key frames of my own'


@SET_TYPES.register('GreySet')
@dataclass
class GreySet(SyntheticDataset):
    "Videos without colour."
    frames: Tensor          # (N,T,1,H,W)
    labels: Tensor
    num_frames: int
    class_names: list[str]
    metadata: dict
    TENSOR_FIELDS = {name: name for name in ('frames', 'labels')}

    @property
    def key_frames(self): return torch.zeros(len(self), self.num_frames, dtype=torch.bool)
    def videos(self, indices=slice(None)): return self.frames[indices].expand(-1, -1, 3, -1, -1)
    def frames_per_video(self): return [self.num_frames/3]*len(self)


@PARAMETERIZATIONS.register('grey')
class Grey(FrameParameterization):
    "Frames with one channel."
    title = 'Grey frames'
    STATE = ('frames',)

    def __init__(self, frames, options=None): self.frames = frames.mean(2, keepdim=True).requires_grad_()
    def dense(self, rows=slice(None)): return self.frames[rows].expand(-1, -1, 3, -1, -1)
    def frames_per_video(self): return self.frames.shape[1]/3
    def to_condensed(self, labels, class_names, inserted_at, **metadata):
        return GreySet(self.frames.detach(), labels, self.frames.shape[1], list(class_names), metadata)


@NETWORKS.register('one-convolution')
class OneConvolution(nn.Module):
    "A convolution, a mean, a linear layer."
    title = 'One convolution'

    def __init__(self, classes, frames, size, width=1.):
        super().__init__()
        self.convolution = nn.Conv3d(3, int(64*width), 5, stride=2)
        self.head = nn.Linear(int(64*width), classes)

    def embed(self, x): return self.convolution(x.transpose(1, 2)).relu().mean((2, 3, 4))
    def forward(self, x): return self.head(self.embed(x))


@NETWORKS.register('too-large')
class TooLarge(nn.Module):
    "Cannot be built."
    title = 'Too large'
    def __init__(self, classes, frames, size, width=1.): raise PrismError(f'{frames} frames are too few')


METHODS.register('mine', Method('Mine', dict(parameterization='own-key-frames', objective='below-zero', lr=7.)))
METHODS.register('grey', Method('Grey', dict(parameterization='grey', init='random', lr=7.)))
'''


@pytest.fixture
def plugin(tmp_path):
    """A file with parts."""
    file = tmp_path / "my-parts.py"
    file.write_text(PARTS)
    return file


@pytest.fixture
def registered(plugin, data_dir, monkeypatch):
    """A function that imports the file anew into this process, as a new process would; it is forgotten at the end."""
    monkeypatch.setenv("PRISM_DATA", str(data_dir))
    with ExitStack() as stack:
        def load():
            stack.close()
            for registry in REGISTRIES:
                stack.enter_context(temporary_parts(registry))
            module = load_plugin(plugin)
            stack.callback(sys.modules.pop, module.__name__)
            for cached in (source.module_path, source.parse_module, source.source_hash):
                stack.callback(cached.cache_clear)
            return plugin
        load()
        yield load


def commands(group, name="prism-nb"):
    """All commands with their full names."""
    for command in group.commands.values():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} {command.name}")
        else:
            yield f"{name} {command.name}", command


def test_every_command_takes_a_plugin():
    found = dict(commands(typer.main.get_command(app)))
    assert {"prism-nb condense", "prism-nb data verify", "prism-nb study"} <= {*found}
    without = [name for name, command in found.items() if not any("--plugin" in param.opts for param in command.params)]
    assert without == []


def test_condense_and_evaluate_with_parts_of_a_file(plugin, data_dir):
    out = data_dir / "set.safetensors"
    command = ("condense", "--profile", "smoke", "--method", "mine", "--out", out, "--plugin", plugin)
    done = call("prism-nb", *command, PRISM_DATA=data_dir)
    assert done.returncode == 0, done.stderr
    assert CondensedSet.load(out).metadata["recipe"]["objective"] == "below-zero"
    command = ("evaluate", out, "--profile", "smoke", "--network", "one-convolution")
    done = call("prism-nb", *command, "--plugin", plugin, PRISM_DATA=data_dir)
    assert done.returncode == 0, done.stderr
    without = call("prism-nb", *command, PRISM_DATA=data_dir)
    assert without.returncode == 2
    assert without.stderr.startswith("prism-nb: network is 'one-convolution', but must be one of: cnn-gru")


@pytest.mark.parametrize("name, text, message", [
    ("none.py", None, "none.py: no such file"),
    ("parts.txt", "", "parts.txt: not a Python file (.py)"),
    ("typo.py", "def broken(:\n", "typo.py: SyntaxError: invalid syntax"),
    ("lacks.py", "\nimport nothing_here\n", "lacks.py, line 2: ModuleNotFoundError: No module named 'nothing_here'"),
    ("two.py", "raise ValueError('one\\ntwo')\n", "two.py, line 1: ValueError: one two"),
    ("ends.py", "import sys\nsys.exit()\n", "ends.py, line 2: SystemExit: "),
    ("taken.py", "from prism_nb.core.registry import METHODS\nMETHODS.register('dm', 3)\n",
     "taken.py, line 2: method 'dm' is registered twice: in prism_nb.recipe and in prism_plugin_taken"),
])
def test_a_file_that_cannot_be_imported_is_one_line(tmp_path, expect_error, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    shown = expect_error("show", "x.safetensors", "--out", "x.png", "--plugin", tmp_path / name)
    assert shown.startswith("prism-nb: plug-in ")
    assert message in shown
    assert not [name for name in sys.modules if name.startswith("prism_plugin_")]


def whose(rows, better, worse):
    """Whose claim it is that one row is above another, where the paper prints such a difference."""
    return source_of(Claim.above("", better, worse, printed=1.), rows)


def test_worker_processes_know_the_parts_and_claims_are_not_the_papers(registered):
    config = get_config("smoke", "motionshapes")
    records = get_records(make_runs(config, ["random", "mine", "dm"]), LocalExecutor(workers=2))
    rows = {name: [r for r in records if r["method"] == name] for name in ("random", "mine", "dm")}
    table = summary_table(rows).set_index("row")
    assert table.title["mine"] == "Mine"
    assert table.n["mine"] == 2
    assert table.failed["mine"] == ""
    assert all(loss < 0 for r in rows["mine"] for loss in r["losses"])
    assert whose(rows, "mine", "dm") == "ours"
    assert whose(rows, "dm", "mine") == "ours"
    assert whose(rows, "dm", "random") == "the paper's"
    other_objective = get_records(make_runs(config, ["prism"], objective="below-zero"), LocalExecutor(workers=1))
    assert whose({**rows, "prism": other_objective}, "prism", "dm") == "ours"
    assert "epsilon=0.0" in provenance_table(rows)


def test_records_are_shown_where_the_plugin_is_not_loaded():
    run = {"config": {"num_eval": 1}, "recipe": {"vpc": 1, "iterations": 3}, "network": "one-convolution"}
    cost = dict.fromkeys(("storage", "condense_seconds", "target_seconds", "evaluate_seconds", "peak_mb"), 1.)
    scores = [{"top1": 30., "top5": 60.}]
    record = {"method": "mine", "run": run, "seed": 0, "scores": scores, "key_frames": [2], "losses": [3., 2.], **cost}
    rows = {"mine": [record], "dm": [{**record, "method": "dm"}]}
    assert summary_table(rows).title.tolist() == ["mine", "DM"]
    assert whose(rows, "mine", "dm") == "ours"


def test_results_are_named_after_the_code_of_the_file(registered, plugin):
    config = get_config("smoke", "motionshapes")

    def name(method): return make_runs(config, [method])[0].record_path().name

    names, pages = {name("mine")}, {package_hash()}
    plugin.write_text("# a comment\n" + PARTS.replace("Key frames under", "Key frames, under"))
    registered()
    assert {name("mine")} == names
    moved = plugin.parent / "elsewhere"
    moved.mkdir()
    plugin.rename(moved / plugin.name)
    plugin.symlink_to(moved / plugin.name)
    registered()
    assert {name("mine")} == names
    of_paper = name("dm")
    plugin.write_text(PARTS.replace("1e3", "1e4"))
    registered()
    assert name("mine") not in names
    assert package_hash() not in pages     # so pages are built again
    assert name("dm") == of_paper


def papermill(table, plugin, data, out, parameters):
    """Run a table notebook by hand, as a person with a plug-in would."""
    return call("papermill", "--no-progress-bar", f"nbs/tables/{table}.ipynb", out / f"{table}.ipynb", "-y",
                f"{{{parameters}, out: {out}}}", PRISM_DATA=data, PRISM_PLUGINS=plugin)


@pytest.mark.slow
def test_table_3_with_a_network_of_a_file(tmp_path, plugin, data_dir):
    done = papermill("table3", plugin, data_dir, tmp_path, "methods: [dm, mine], networks: [minic3d, one-convolution]")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {row["row"]: row for row in csv.DictReader((tmp_path / "table3.csv").open())}
    assert [*rows] == ["DM, ConvNet3D", "Mine, ConvNet3D", "DM, One convolution", "Mine, One convolution"]
    assert rows["DM, ConvNet3D"]["paper_mean"] == "15.3"
    assert [rows[row]["paper_mean"] for row in [*rows][1:]] == [""]*3
    assert {row["n"] for row in rows.values()} == {"2"}


def test_table_3_finds_what_is_wrong_before_it_computes(tmp_path, plugin, data_dir):
    done = papermill("table3", plugin, data_dir, tmp_path, "methods: [dm], networks: [minic3d, too-large]")
    assert done.returncode != 0
    assert "PrismError: 8 frames are too few" in done.stdout + done.stderr
    assert not (data_dir / "results").exists()


@pytest.mark.slow
@pytest.mark.parametrize("table", ["table1", "table2", "figures"])
def test_tables_with_methods_of_a_file(tmp_path, plugin, data_dir, table):
    done = papermill(table, plugin, data_dir, tmp_path, "methods: [random, dm, prism, mine, grey]")
    assert done.returncode == 0, done.stderr[-2000:]
    if table == "table1":
        whose = {row["claim"]: row["whose"] for row in csv.DictReader((tmp_path / "table1_claims.csv").open())}
        assert whose["Mine above DM, VPC 1"] == "ours"
        assert whose["DM + PRISM above DM, VPC 1"] == "the paper's"


@pytest.mark.slow
def test_a_study_gives_the_parts_to_its_notebooks_and_builds_pages_again(tmp_path, plugin, data_dir):
    page = tmp_path / "reports" / "smoke" / "table1.html"
    scores = data_dir / "results" / "scores"

    def study():
        command = ("study", "--profile", "smoke", "--tables", "1", "--methods", "random,mine", "--plugin", plugin)
        done = call("prism-nb", *command, PRISM_DATA=data_dir, PRISM_REPORTS=tmp_path / "reports")
        assert done.returncode == 0, done.stderr[-2000:]
        return page.stat().st_mtime_ns, len([*scores.iterdir()])

    built, records = study()
    assert records == 12   # two seeds of both methods, of three kinds of real clips, and of all clips
    assert "Mine" in page.read_text()
    assert study() == (built, 12)
    plugin.write_text(PARTS.replace("1e3", "1e4"))
    rebuilt, records = study()
    assert rebuilt > built
    assert records == 14


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is not installed: pip install 'prism-nb[ray]'")
def test_ray_jobs_know_the_parts(plugin, data_dir):
    def condense(out, *engine):
        command = ("condense", "--profile", "smoke", "--method", "mine", "--out", out, "--plugin", plugin, *engine)
        done = call("prism-nb", *command, PRISM_DATA=data_dir)
        assert done.returncode == 0, done.stderr[-2000:]
        return out.read_bytes()
    here = condense(data_dir / "here.safetensors")
    assert condense(data_dir / "there.safetensors", "--engine", "ray", "--shards", "2") == here
