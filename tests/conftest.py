"""Where the tests find the repository, its commands and, where they are, the real clips."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
REAL = Path(os.environ.get("PRISM_REAL", ROOT.parent / "shared" / "real"))


def call(*command, **environment):
    """Run a command from the repository's root; returns the finished process."""
    program, *rest = map(str, command)
    return subprocess.run([BIN / program, *rest], cwd=ROOT, capture_output=True, text=True, timeout=300,
                          env={**os.environ, **{k: str(v) for k, v in environment.items()}})


@pytest.fixture(scope="session")
def real():
    if not (REAL / "jhmdb").is_dir():
        pytest.skip("the real clips are not here; PRISM_REAL says where they are")
    return REAL
