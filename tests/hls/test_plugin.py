"""hls4ml finds the plug-in, whichever package is imported first."""

import os
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from qfx import resources


@pytest.mark.parametrize("first", ["import hls4ml", "import qfx_hls4ml", "import qfx.emit"])
def test_hls4ml_registers_the_backend_without_a_warning(first: str) -> None:
    """The loader prints a warning and goes on when a registration fails, so nothing may be printed but the answer."""
    hls = resources.path("hls")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(hls), str(hls.parent)]),
        "HLS4ML_BACKEND_PLUGINS": "" if _installed() else "qfx_hls4ml",
    }
    code = f"{first}\nimport hls4ml\nprint([b for b in hls4ml.backends.get_available_backends() if 'qfx' in b])"
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == "['qfxvitis']\n"


def _installed() -> bool:
    """Whether the entry point is there; loading the plug-in a second time would rightly be refused."""
    return any(entry.value.startswith("qfx_hls4ml") for entry in entry_points(group="hls4ml.backends"))
