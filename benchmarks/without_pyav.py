"""Let `prism_nb` be imported on a machine without PyAV, where no video can be decoded.

`import without_pyav`, before `prism_nb`; tests without one of PyAV run by `python -m pytest -p without_pyav`.
"""
import importlib
import sys
from unittest.mock import MagicMock

MODULES = ["av", "av.container", "av.error", "av.format", "av.logging", "av.packet", "av.stream", "av.video",
           "av.video.reformatter", "av.video.stream"]


def install():
    """Put stand-ins for PyAV's modules where they are missing."""
    try:
        importlib.import_module("av")
    except ImportError:
        sys.modules.update({name: MagicMock(name=name, __version__="missing") for name in MODULES})


install()
