"""Images that show the same: copies that were saved again, in another format or smaller."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE = 8
NEIGHBOURS = 4
"""Images that each is compared with for a quarter of its bits: few are as near by chance, but for plain ones."""
MOST_BITS = 14
"""Of 56 that may differ. By chance 21 do, where a quarter is the same."""
MOST, SHARE = 8.0, 0.15
"""How far near copies are apart at most (root of the mean square): in levels of 255, and of the image's own deviation,
by which plain backgrounds aren't alike. Of JPEG at quality 60, few are further.
"""


def looks(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images ``[n, side, side, 3]`` at a glance, ``[n, 8, 8]``: means of green, which is most of what is bright."""
    edges = np.arange(SIDE) * pixels.shape[1] // SIDE
    size = np.maximum(1, np.diff([*edges, pixels.shape[1]]))
    rows = np.add.reduceat(pixels[..., 1], edges, axis=1, dtype=np.uint32)
    means: NDArray[np.uint8] = (np.add.reduceat(rows, edges, axis=2) / np.outer(size, size)).astype(np.uint8)
    return means


def first_alike(seen: NDArray[np.uint8]) -> list[int]:
    """The first image that each is a near copy of, which is itself for most.

    Whether it gets brighter from each pixel to the next is what saving leaves as it is (dHash: N. Krawetz, "Kind of
    Like That", hackerfactor.com, 2013). Images that agree in a quarter of these bits, and stand beside each other by
    their brightness, are compared in full.

    Args:
        seen: What ``looks`` gave, ``[n, 8, 8]``.
    """
    # Seven bits of each line of eight pixels, and two lines to a number.
    bits = np.packbits(seen[:, :, 1:] > seen[:, :, :-1], axis=2).reshape(-1, SIDE).view(np.uint16)
    brightness = seen.mean(axis=(1, 2), dtype=np.float32)
    pairs: set[tuple[int, int]] = set()
    for key in bits.T:
        order = np.lexsort((brightness, key))
        keys, bright = key[order], brightness[order]
        for distance in range(1, NEIGHBOURS + 1):
            near = (keys[distance:] == keys[:-distance]) & (bright[distance:] - bright[:-distance] < MOST)
            one, other = np.sort([order[:-distance][near], order[distance:][near]], axis=0)
            few = np.bitwise_count(bits[one] ^ bits[other]).sum(axis=1) <= MOST_BITS
            one, other = one[few], other[few]
            apart = np.sqrt(np.square(seen[one] - seen[other].astype(np.float32)).mean(axis=(1, 2)))
            alike = (apart < MOST) & (apart < SHARE * seen[one].std(axis=(1, 2)))
            pairs.update(zip(one[alike].tolist(), other[alike].tolist(), strict=True))
    first = list(range(len(seen)))
    for one, other in sorted(pairs):
        first[other] = min(first[other], first[one])
    return first
