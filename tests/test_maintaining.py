"""The examples of docs/maintaining.md work as they are printed."""
import re

import numpy as np
import pytest
from conftest import ROOT

from prism_nb.core import registry
from prism_nb.core.registry import temporary_parts
from prism_nb.data.clips import from_array

TEXT = (ROOT / "docs" / "maintaining.md").read_text()
EXAMPLES = dict(re.findall(r"^### (How to add an? [\w ]+)\n.*?^```python\n(.*?)^```$", TEXT, re.M | re.S))
REGISTRIES = [value for value in vars(registry).values() if isinstance(value, registry.Registry)]


@pytest.fixture
def clips():
    """Two classes of four clips of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 48, 48, 3), dtype=np.uint8)
    return from_array(pixels, [0]*4 + [1]*4, ["run", "walk"])


def test_there_is_an_example_for_every_kind_of_part():
    kinds = {title.split()[-1] for title in EXAMPLES}
    assert kinds == {"objective", "parameterization", "initialization", "network", "augmentation", "method", "set"}


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_works(title, clips, tmp_path, monkeypatch):
    monkeypatch.setenv("PRISM_DATA", str(tmp_path))
    restore = [temporary_parts(kind) for kind in REGISTRIES]
    for parts in restore:
        parts.__enter__()
    try:
        exec(compile(EXAMPLES[title], title, "exec"), {"clips": clips, "__name__": "an_example"})
    finally:
        for parts in restore:
            parts.__exit__(None, None, None)
