from __future__ import annotations

import torch

from training.starter.augment import batch_blur, batch_colour, batch_crop, batch_erase, pixels_normalise


def halves(count: int) -> torch.Tensor:
    """Photos whose left half is dark and right half is bright, (count, 3, 16, 16)."""
    images = -torch.ones(count, 3, 16, 16)
    images[:, :, :, 8:] = 1.0
    return images


def test_pixels_are_standardised_and_channels_come_first() -> None:
    pixels = torch.tensor([[[[0, 255, 0], [255, 0, 255]]]], dtype=torch.uint8)
    images = pixels_normalise(pixels)
    assert images.shape == (1, 3, 1, 2)
    assert images[0, :, 0, 0].tolist() == [-1.0, 1.0, -1.0]


def test_only_the_named_photos_are_mirrored() -> None:
    torch.manual_seed(0)
    cropped = batch_crop(halves(2), 16, 1.0, torch.tensor([False, True]))
    left, right = cropped[:, :, :, :6].mean((1, 2, 3)), cropped[:, :, :, 10:].mean((1, 2, 3))
    assert left[0] < -0.9
    assert right[0] > 0.9
    assert left[1] > 0.9
    assert right[1] < -0.9


def test_crops_have_the_size_asked_for_and_differ() -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(-1, 1, 16).expand(2, 3, 16, 16).contiguous()
    cropped = batch_crop(ramp, 8, 0.5, torch.zeros(2, dtype=torch.bool))
    assert cropped.shape == (2, 3, 8, 8)
    assert not torch.equal(cropped[0], cropped[1])
    assert cropped.abs().max() <= 1.0 + 1e-6


def test_colours_change_within_the_given_strength() -> None:
    torch.manual_seed(0)
    grey = torch.full((8, 3, 4, 4), 0.25)
    changed = batch_colour(grey, 0.2)
    assert (changed - grey).abs().max() <= 0.2 + 1e-6
    assert len(changed[:, 0, 0, 0].unique()) == 8
    assert torch.allclose(batch_colour(grey, 0.0), grey)


def test_blurring_takes_detail_from_a_share_of_the_photos() -> None:
    torch.manual_seed(0)
    images = torch.randn(200, 3, 16, 16)
    blurred = batch_blur(images, 8, 0.25)
    changed = (blurred != images).flatten(1).any(1)
    assert 30 < changed.sum() < 70
    assert blurred[changed].var() < 0.5 * images[changed].var()
    assert torch.allclose(batch_blur(torch.ones(4, 3, 16, 16), 8, 1.0), torch.ones(4, 3, 16, 16))


def test_a_share_of_photos_loses_one_box_of_a_fifth_to_half_of_each_side() -> None:
    torch.manual_seed(0)
    lost = batch_erase(torch.ones(400, 3, 40, 60), 0.4) == 0.0
    boxes = lost[:, 0]
    assert torch.equal(lost, boxes[:, None].expand_as(lost))
    erased = boxes.any(2).any(1)
    assert 0.3 < erased.float().mean() < 0.5
    heights, widths = boxes.any(2).sum(1)[erased], boxes.any(1).sum(1)[erased]
    assert torch.equal(boxes.sum((1, 2))[erased], heights * widths)
    assert 7 <= heights.min() < heights.max() <= 21
    assert 11 <= widths.min() < widths.max() <= 31
