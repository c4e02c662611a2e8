"""The command line of qfx as a program, for torchrun; each rank leaves in the folder it is in what every `fit` gave."""

import os
from typing import Any

from safetensors.torch import save_file
from torch import nn

from qfx.cli import main
from qfx.train import runs


def kept(*arguments: Any) -> nn.Module:
    """Train, and write the weights of this rank, ``0.first.safetensors`` and so on."""
    model = fit(*arguments)
    state = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, f"{os.environ['RANK']}.{names.pop(0)}.safetensors")
    return model


if __name__ == "__main__":
    names = ["float", "first", "second"]
    fit, runs.fit = runs.fit, kept  # type: ignore[assignment]
    main()
