"""Augmentation: each image has its own draw, which follows from (seed, epoch, example id) alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainyard.training.randomness import derive_seed, uniforms

from my_project.augment import Augmentation, AugmentConfig, shifted_crop


def augmentation(seed: int = 1, size: int = 8, **keys: object) -> Augmentation:
    return Augmentation(AugmentConfig.model_validate(keys), size, seed)


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def ramp(batch: int, side: int = 8) -> Tensor:
    """Images whose pixels tell their place: columns count up, so a flip or shift shows."""
    return torch.arange(side, dtype=torch.uint8).expand(batch, 3, side, side).contiguous()


def test_flips_differ_within_a_batch() -> None:
    """torchvision's v2 transforms would draw once for all of it (torchvision #8484)."""
    augment = augmentation(shift=0)
    example_ids = np.arange(64)

    flipped = augment(ramp(64), example_ids, 0)[:, 0, 0, 0] == 7

    assert 16 < int(flipped.sum()) < 48


@pytest.mark.parametrize("keys", [{}, {"size": 96}, {"flip": "alternating"}])
def test_an_image_is_augmented_alike_alone_and_in_any_company(keys: dict[str, object]) -> None:
    augment = augmentation(**keys)
    side = 110 if augment.size == 96 else 8
    images = torch.randint(0, 256, (5, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    together = augment(images, ids(7, 3, 9, 1, 4), epoch=2)

    alone = augment(images[2:3], ids(9), epoch=2)

    torch.testing.assert_close(together[2:3], alone)


def test_epochs_seeds_and_examples_get_other_draws() -> None:
    base = uniforms(1, 0, ids(5), 8)

    assert np.array_equal(base, uniforms(1, 0, ids(5), 8))
    for other in (uniforms(2, 0, ids(5), 8), uniforms(1, 1, ids(5), 8), uniforms(1, 0, ids(6), 8)):
        assert not np.isclose(base, other).any()


def test_draws_are_uniform_and_independent() -> None:
    draws = uniforms(3, 4, np.arange(20_000), 4)

    assert draws.min() >= 0
    assert draws.max() < 1
    np.testing.assert_allclose(draws.mean(axis=0), 0.5, atol=0.01)
    np.testing.assert_allclose(draws.var(axis=0), 1 / 12, atol=0.002)
    np.testing.assert_allclose(np.corrcoef(draws.T) - np.eye(4), 0, atol=0.03)
    np.testing.assert_allclose(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1], 0, atol=0.03)


def test_alternating_flips_show_each_side_every_other_epoch() -> None:
    augment = augmentation(flip="alternating", shift=0)
    example_ids = np.arange(32)
    first, second, third = (augment.draws(example_ids, epoch)[:, 2] for epoch in range(3))

    assert torch.equal(first, 1 - second)
    assert torch.equal(first, third)
    assert 4 < int(first.sum()) < 28


def test_no_flip_and_no_shift_change_nothing() -> None:
    augment = augmentation(flip="none", shift=0)
    images = ramp(4)

    assert torch.equal(augment(images, np.arange(4), 0), images)


def test_augment_none_takes_the_centre() -> None:
    augment = augmentation(kind="none")
    images = ramp(2, side=12)

    assert torch.equal(augment(images, np.arange(2), 0), images[..., 2:10, 2:10])


def test_light_shifts_large_images_within_their_margin() -> None:
    augment = augmentation(kind="light", size=96, flip="none")

    left = augment(ramp(64, side=104), np.arange(64), 0)[:, 0, 0, 0]

    assert left.min() >= 0
    assert left.max() <= 8
    assert len(left.unique()) > 5


def test_standard_crops_large_images_at_random_scales() -> None:
    augment = augmentation(size=96, flip="none")

    crops = augment(ramp(64, side=104), np.arange(64), 0)
    widths = crops[:, 0, 0, -1] - crops[:, 0, 0, 0]

    assert crops.shape == (64, 3, 96, 96)
    assert widths.min() < 70
    assert widths.max() > 90


@given(st.integers(0, 2), st.floats(0, 0.999), st.floats(0, 0.999), st.booleans())
def test_a_shift_moves_the_image_and_mirrors_its_edge(shift: int, y: float, x: float, flip: bool) -> None:
    image = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(1, 3, 8, 8)
    draws = torch.tensor([[y, x, float(flip), 0, 0]])
    dy, dx = int(y * (2 * shift + 1)) - shift, int(x * (2 * shift + 1)) - shift
    padded = torch.nn.functional.pad(image.float(), (2, 2, 2, 2), mode="reflect")

    expected = padded[:, :, 2 + dy : 10 + dy, 2 + dx : 10 + dx]

    assert torch.equal(shifted_crop(image, draws, 8, shift).float(), expected.flip(-1) if flip else expected)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_mixing_keeps_the_share_of_each_label(mixup: float, cutmix: float) -> None:
    labels = torch.arange(16)
    images = torch.arange(16.0).view(16, 1, 1, 1).expand(16, 3, 8, 8) * 10

    mixture = augmentation(0, mixup=mixup, cutmix=cutmix).mix(images, labels, np.arange(16), epoch=0)

    assert torch.equal(mixture.partners, labels.roll(1))
    expected = images[:, 0, 0, 0] * mixture.shares + images.roll(1, 0)[:, 0, 0, 0] * (1 - mixture.shares)
    torch.testing.assert_close(mixture.images.mean(dim=(1, 2, 3)), expected)
    assert len(mixture.shares.unique()) > 4, "each image has a draw of its own"


def test_cutmix_pastes_a_box_and_mixup_blends() -> None:
    images = torch.tensor([0.0, 100.0]).view(2, 1, 1, 1).expand(2, 3, 16, 16)
    labels = torch.tensor([0, 1])

    pasted = augmentation(0, cutmix=1.0).mix(images, labels, np.arange(2), epoch=0).images
    blended = augmentation(0, mixup=1.0).mix(images, labels, np.arange(2), epoch=0).images

    assert set(pasted.unique().tolist()) == {0.0, 100.0}
    assert len(blended[0].unique()) == 1
    assert 0 < blended[0, 0, 0, 0] < 100


def test_seeds_are_derived_from_all_their_parts() -> None:
    seeds = {derive_seed(1, "a", 0), derive_seed(1, "a", 1), derive_seed(1, "b", 0), derive_seed(2, "a", 0)}

    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, "a", 0) == derive_seed(1, "a", 0)
