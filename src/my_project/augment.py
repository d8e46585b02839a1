"""What is done to training images, on whole batches, on the device, with a draw of its own for each image.

An augmentation of your own is a key in ``AugmentConfig`` and some lines in ``Augmentation``. Take its random numbers
from ``uniforms`` or ``derive_seed``, as here: a run that was killed then goes on with the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from trainyard.config.data import AnyData, ImagesConfig
from trainyard.config.section import Section
from trainyard.training.randomness import derive_seed, uniforms

CROP_AREA = (0.25, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
"""Share of the area and aspect ratio of random crops (Szegedy et al. 2015; the smaller least area suits short runs)."""
LARGE_SIDE = 64
"""Above this side, in pixels, ``standard`` crops at random scales."""
DRAWS = 5
"""Uniform numbers that an image takes: two for the place, one for the flip, two for the size of a crop."""


class AugmentConfig(Section):
    """What is done to training images; with texts, leave it out."""

    kind: Literal["none", "light", "standard"] = "standard"
    """`light` shifts and flips, `standard` crops at random scales and flips above 64 pixels and is the same as `light`
    below."""
    flip: Literal["none", "random", "alternating"] = "random"
    """Horizontal flips: drawn for each image and epoch, or every other epoch (Jordan 2024, arXiv 2404.00498)."""
    shift: Annotated[int, Field(ge=0, le=64)] | None = None
    """Largest random shift in pixels; by default half of what `data.resize` leaves beyond `data.image_size`, and an
    eighth of `data.image_size` where it leaves nothing."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Parameter of the Beta distribution of mixup (Zhang et al. 2018); 0 is off."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """Parameter of the Beta distribution of CutMix (Yun et al. 2019); 0 is off. With `mixup` too, each image
    draws one of the two."""

    def check_data(self, data: AnyData) -> None:
        """Refuses what would change nothing."""
        if self != AugmentConfig() and not isinstance(data, ImagesConfig):
            raise ValueError("the section augment is for images: with data.kind=texts, leave it out")

    def build(self, data: AnyData, seed: int) -> Augmentation | None:
        """What does it; nothing, where the data aren't images."""
        return Augmentation(self, data.image_size, seed) if isinstance(data, ImagesConfig) else None


@dataclass(frozen=True)
class Mixture:
    """A batch in which each image is mixed with its neighbour.

    Attributes:
        images: ``[batch, 3, side, side] float32``.
        partners: Labels of the neighbours, ``[batch] int64``.
        shares: Share of each image's own label, ``[batch] float32``.
    """

    images: Tensor
    partners: Tensor
    shares: Tensor


@dataclass(frozen=True)
class Augmentation:
    """Does what the section says.

    Args:
        config: The section ``augment``.
        size: Side of the square that the model sees, in pixels.
        seed: The run's.
    """

    config: AugmentConfig
    size: int
    seed: int

    def __call__(self, images: Tensor, examples: NDArray[np.int64], epoch: int) -> Tensor:
        """Augments a batch.

        Args:
            images: ``[batch, 3, side, side] uint8``, with the margin that ``data.resize`` leaves.
            examples: Each image's place in the training split, ``[batch]``.
            epoch: Counted from 0.

        Returns:
            ``[batch, 3, size, size]``, uint8 or float32.
        """
        if self.config.kind == "none":
            return center_crop(images, self.size)
        # Drawn on the CPU, so that a GPU gives the same images.
        draws = self.draws(examples, epoch).to(images.device, non_blocking=True)
        # Of a small image, a crop of a quarter of its area would leave nothing to recognise.
        if self.config.kind == "standard" and self.size > LARGE_SIDE:
            return resized_crop(images, draws, self.size)
        shift, margin = self.config.shift, (images.shape[-1] - self.size) // 2
        return shifted_crop(images, draws, self.size, (margin or self.size // 8) if shift is None else shift)

    def draws(self, examples: NDArray[np.int64], epoch: int) -> Tensor:
        """The random numbers of a batch, ``[batch, 5] float32``, on the CPU. The flip's is 0 or 1 here already."""
        # All are drawn, whether they are used or not: a key that is switched on moves none of the others.
        draws = uniforms(self.seed, epoch, examples, DRAWS)
        match self.config.flip:
            case "none":
                draws[:, 2] = 0
            case "random":
                draws[:, 2] = draws[:, 2] < 0.5
            case "alternating":
                # A coin in the first epoch, and the other side in every other one.
                coin = uniforms(self.seed, 0, examples, DRAWS)[:, 2] < 0.5
                draws[:, 2] = coin ^ bool(epoch % 2)
        return torch.from_numpy(draws)

    @property
    def mixes(self) -> bool:
        """Whether the config asks for any mixing."""
        return self.config.mixup > 0 or self.config.cutmix > 0

    def mix(self, images: Tensor, labels: Tensor, examples: NDArray[np.int64], epoch: int) -> Mixture:
        """Mixes ``[batch, 3, side, side]`` images with the batch rolled by one; with both ways on, a coin decides."""
        mixup, cutmix, batch = self.config.mixup, self.config.cutmix, len(labels)
        generator = np.random.default_rng(derive_seed(self.seed, "mixing", epoch, int(examples[0])))
        # Both ways are drawn for every image, so that the one doesn't depend on the other.
        use_mixup = generator.random(batch) < (0.5 if mixup and cutmix else float(mixup > 0))
        mixup_shares = generator.beta(mixup or 1, mixup or 1, batch)
        masks, cutmix_shares = _boxes(generator, cutmix, batch, images.shape[-1])
        shares = np.where(use_mixup, mixup_shares, cutmix_shares).astype(np.float32)
        weights = np.where(use_mixup[:, None, None], shares[:, None, None], masks).astype(np.float32)
        own = torch.from_numpy(weights).unsqueeze(1).to(images.device)
        # The neighbour in the batch is as good as any: the batch itself is a random draw.
        mixed = images.float() * own + images.roll(1, 0).float() * (1 - own)
        return Mixture(mixed, labels.roll(1, 0), torch.from_numpy(shares).to(images.device))


def center_crop(images: Tensor, size: int) -> Tensor:
    """The middle ``size`` x ``size`` pixels."""
    top = (images.shape[-1] - size) // 2
    return images[..., top : top + size, top : top + size]


def shifted_crop(images: Tensor, draws: Tensor, size: int, shift: int) -> Tensor:
    """Cuts ``size`` x ``size`` pixels up to ``shift`` pixels off the centre, mirrored at the edges, and flips."""
    batch, channels, side, _ = images.shape
    # The margin that `data.resize` leaves is real picture; only beyond it the edge is mirrored.
    offsets = (draws[:, :2] * (2 * shift + 1)).floor().long() + (side - size) // 2 - shift
    steps = torch.arange(size, device=images.device)
    flipped = torch.where(draws[:, 2:3] > 0.5, size - 1 - steps, steps)
    rows = _mirror(offsets[:, 0:1] + steps, side)
    columns = _mirror(offsets[:, 1:2] + flipped, side)
    # One gather over flat positions, the same for the three channels.
    places = (rows[:, :, None] * side + columns[:, None, :]).view(batch, 1, size * size)
    cut = images.reshape(batch, channels, side * side).gather(2, places.expand(-1, channels, -1))
    return cut.view(batch, channels, size, size)


def resized_crop(images: Tensor, draws: Tensor, size: int) -> Tensor:
    """Cuts a rectangle of random place, area and ratio and resizes it bilinearly to ``size`` x ``size``; flips."""
    low, high = CROP_AREA
    area = low + draws[:, 3] * (high - low)
    # Even in its logarithm, so that 3:4 comes as often as 4:3.
    ratio = torch.exp(np.log(CROP_RATIO[0]) + draws[:, 4] * (np.log(CROP_RATIO[1]) - np.log(CROP_RATIO[0])))
    height = (area / ratio).sqrt().clamp(max=1)
    width = (area * ratio).sqrt().clamp(max=1)
    # The sampling grid runs from -1 to 1; a crop of relative width w has its centre within 1 - w of the middle.
    center_x = (2 * draws[:, 0] - 1) * (1 - width)
    center_y = (2 * draws[:, 1] - 1) * (1 - height)
    # A grid that runs backwards is a flip, at no cost.
    direction = 1 - 2 * (draws[:, 2] > 0.5).float()
    zero = torch.zeros_like(width)
    rows = [width * direction, zero, center_x, zero, height, center_y]
    affine = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = functional.affine_grid(affine, [len(images), 3, size, size], align_corners=False)
    return functional.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)


def _mirror(index: Tensor, side: int) -> Tensor:
    """Reflects positions outside 0..side-1 back inside, without repeating the edge."""
    period = max(2 * (side - 1), 1)
    index = index.remainder(period)
    return torch.minimum(index, period - index).clamp(max=side - 1)


def _boxes(
    generator: np.random.Generator, cutmix: float, batch: int, side: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Masks ``[batch, side, side]`` that are 0 in the box taken from the neighbour, and the shares left."""
    lengths = side * np.sqrt(1 - generator.beta(cutmix or 1, cutmix or 1, batch))
    # The box may hang over the edge: the shares are then counted from what is really covered, by the masks.
    centers = generator.uniform(0, side, (batch, 2))
    position = np.arange(side) + 0.5
    inside = np.abs(position[None, None, :] - centers[:, :, None]) < lengths[:, None, None] / 2
    masks = 1 - (inside[:, 0, :, None] & inside[:, 1, None, :]).astype(np.float32)
    return masks, cast(NDArray[np.float64], masks.mean(axis=(1, 2), dtype=np.float64))
