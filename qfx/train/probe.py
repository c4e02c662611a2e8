"""A network as it is before training: found by name, converted, and calibrated on random inputs."""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qfx.errors import DesignError
from qfx.fixed import Fixed
from qfx.nn import Recipe, calibrate, convert

_BATCH = 2


def find_network(reference: str) -> nn.Module:
    """Return what ``pkg.mod:Net`` or ``path/model.py:Net`` names: a module, or what makes one without arguments.

    Raises:
        DesignError: there is no such thing, or it cannot be made; the sentence says why.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier():
        raise DesignError(f"a network must be named as pkg.mod:Net or path/model.py:Net, not {reference!r}")
    if place.endswith(".py") and not Path(place).is_file():
        raise DesignError(f"{place} must exist, but there is no such file")
    if not place.endswith(".py"):
        _require_own(place, name)
    try:
        module = _from_file(Path(place)) if place.endswith(".py") else _from_path(place)
    except (Exception, SystemExit) as error:
        raise DesignError(f"{place} must be importable, but {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        known = sorted(key for key, value in vars(module).items() if _makes_module(value, module.__name__))
        raise DesignError(f"{place} must have {name!r}, but has {', '.join(known) or 'no network'}")
    found = getattr(module, name)
    try:
        with torch.random.fork_rng():  # the same weights, and so the same answer, each time
            torch.manual_seed(0)
            model = found if isinstance(found, nn.Module) else found()
    except (Exception, SystemExit) as error:
        raise DesignError(
            f"{reference} must make a network when called without arguments, but {type(error).__name__}: {error}"
        ) from error
    if not isinstance(model, nn.Module):
        raise DesignError(f"{reference} must make a torch.nn.Module, not {type(model).__name__}")
    return model


def untrained(
    model: nn.Module, shape: tuple[int, ...], fixed: Fixed, recipe: Mapping[str, Any], seed: int = 0
) -> tuple[nn.Module, Tensor]:
    """Return the fixed-point copy of ``model``, calibrated on random codes, and the input that it saw.

    Args:
        shape: of one input as torch takes it, channels first.
    """
    codes = torch.randint(
        fixed.min_code, fixed.max_code + 1, (_BATCH, *shape), generator=torch.Generator().manual_seed(seed)
    )
    x = codes.float() * 2.0**-fixed.scalar_frac
    Recipe(recipe)  # refuses what is none, before a default is added
    default = {"input": str(fixed), **(recipe.get("default") or {})}
    converted = convert(model.eval(), {**recipe, "default": default}, x)
    return calibrate(converted, [x]), x


def _require_own(place: str, name: str) -> None:
    """Refuse a module here whose name is that of one of Python's, or of one from elsewhere that is loaded already."""
    top = place.partition(".")[0]
    here = Path.cwd()
    if not ((here / f"{top}.py").is_file() or (here / top).is_dir()):
        return
    file = getattr(sys.modules.get(top), "__file__", None)
    elsewhere = top in sys.modules and (file is None or here not in Path(file).resolve().parents)
    if top in sys.stdlib_module_names or elsewhere:
        raise DesignError(
            f"{place} must not have the name of another module, {top!r}, which Python takes instead: rename it, or "
            f"name the file, {place.replace('.', '/')}.py:{name}"
        )


def _from_path(name: str) -> Any:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(here)


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"qfx_checked_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # a .py file always has them
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


def _makes_module(value: Any, module: str) -> bool:
    return isinstance(value, nn.Module) or (
        isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module
    )
