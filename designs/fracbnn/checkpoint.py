"""The published checkpoint as one of this design's network, for training in fixed point.

    python designs/fracbnn/checkpoint.py fracbnn_cifar10_float.npz designs/fracbnn/build/fracbnn_cifar10.safetensors

There a BatchNorm is a factor and a summand alone. Here it gets the mean and the variance that its input has over
training images, and the weight and bias that leave its result as it is, so that training can go on by the statistics of
batches. Needs QFX_CIFAR10: see README.md.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from model import data, published
from safetensors.torch import save_file
from torch import Tensor, nn

IMAGES = 2048


@torch.no_grad()
def with_statistics(net: nn.Module, images: Tensor, batch: int = 128) -> nn.Module:
    """Give each BatchNorm the moments of its input over ``images``; what the network computes stays."""
    norms = {name: layer for name, layer in net.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    sums = {name: torch.zeros(2, layer.num_features, dtype=torch.float64) for name, layer in norms.items()}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
            rows = given[0].double().transpose(0, 1).flatten(1)
            sums[name] += torch.stack([rows.mean(1), (rows * rows).mean(1)]) * len(given[0]) / len(images)

        return hook

    hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in norms.items()]
    for x in images.split(batch):
        net(x)
    for hook in hooks:
        hook.remove()
    for name, layer in norms.items():
        mean, var = sums[name][0], sums[name][1] - sums[name][0] ** 2
        factor = layer.weight.double() / torch.sqrt(layer.running_var.double() + layer.eps)
        layer.weight.copy_(factor * torch.sqrt(var + layer.eps))
        layer.bias.add_(factor * (mean - layer.running_mean))
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(var)
    return net


def main() -> None:
    """Write the file that design.yaml names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the published arrays, an npz")
    parser.add_argument("target", type=Path, help="the file to write, which training.float.checkpoint names")
    arguments = parser.parse_args()
    target = arguments.target
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(with_statistics(published(arguments.source), data().train_x[:IMAGES]).state_dict(), target)


if __name__ == "__main__":
    main()
