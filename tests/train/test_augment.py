"""Augmentation of images."""

import torch

from qfx.train import shift_and_mirror


def test_each_image_is_moved_and_half_of_them_are_mirrored() -> None:
    torch.manual_seed(0)
    images = torch.arange(1.0, 1 + 400 * 2 * 5 * 6).reshape(400, 2, 5, 6)
    seen = set()
    for before, after in zip(images, shift_and_mirror(images, 2), strict=True):
        padded = torch.nn.functional.pad(before, (2, 2, 2, 2))
        ways = {
            (top, left, mirrored): torch.flip(part, [2]) if mirrored else part
            for top in range(5)
            for left in range(5)
            for part in [padded[:, top : top + 5, left : left + 6]]
            for mirrored in (False, True)
        }
        seen |= {way for way, image in ways.items() if torch.equal(image, after)}
    assert len(seen) == 50  # every shift, straight and mirrored


def test_the_values_are_those_of_the_image_alone() -> None:
    images = torch.ones(8, 3, 4, 4)
    assert torch.equal(shift_and_mirror(images, 0), images)
    assert shift_and_mirror(images).unique().tolist() == [0.0, 1.0]
