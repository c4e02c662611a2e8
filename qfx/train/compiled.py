"""Training through torch.compile."""

import sysconfig
from pathlib import Path
from typing import cast

import torch
from torch import nn

from qfx.errors import TrainError
from qfx.nn.inputs import home
from qfx.train.settings import Settings


def compiled(model: nn.Module) -> nn.Module:
    """Return the network through torch.compile, for the device where it is.

    On a GPU reductions stay loops: Triton 3.6 cannot translate some that are held in registers (torch 2.11, H100).
    """
    options = {"triton.persistent_reductions": False} if home(model).type == "cuda" else None
    return cast(nn.Module, torch.compile(model, options=options))


def runnable(model: nn.Module, settings: Settings) -> nn.Module:
    """Return what computes the model's result in training: the model itself, or its compiled form.

    Raises:
        TrainError: the headers of Python are missing, which compiled code needs.
    """
    if not settings.compile:
        return model
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        version = sysconfig.get_python_version()
        raise TrainError(
            f"training.compile needs Python's headers, but {header} is missing: on Debian or Ubuntu apt install "
            f"python{version}-dev, or leave compile out"
        )
    return compiled(model)
