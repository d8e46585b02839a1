"""Parting items that can be used from those that can't, and hashing their contents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.image_cache import DecodedImages, Inspection, inspect_images
from trainyard.data.labels import folded
from trainyard.data.records import BadExample, Rows, Split
from trainyard.preprocess.base import Item


@dataclass(frozen=True)
class Checked:
    """A split whose items can all be used.

    Attributes:
        rows: Its examples.
        digests: SHA-256 of each item's content.
        near: The same of a text without case, and without space and punctuation around its words.
        decoded: The pixels, if they are cached.
        bad: The examples that were dropped.
    """

    rows: Rows
    digests: list[bytes]
    near: list[bytes] = field(default_factory=list)
    decoded: DecodedImages | None = None
    bad: list[BadExample] = field(default_factory=list)


def check_items(
    splits: Mapping[Split, Rows], data: ImagesConfig | TextsConfig, warnings: list[str]
) -> dict[Split, Checked]:
    """Decodes images and drops those that can't be; texts were found empty or not when they were read.

    Args:
        warnings: What decoding tells of all images is added.
    """
    if isinstance(data, TextsConfig):
        return {
            split: Checked(rows, list(map(_digest, rows.items)), [_digest(_folded(text)) for text in rows.items])
            for split, rows in splits.items()
        }
    inspection = inspect_images([rows.items for rows in splits.values()], data)
    brightest = inspection.facts["brightest"]
    dim, most = np.count_nonzero(brightest >= 0), max(brightest.tolist(), default=0)
    if 2 * dim > len(brightest):
        bits = most.bit_length()
        warnings.append(
            f"{dim:,} images are grey in 16 bits, and their brightest value is "
            f"{most:,} of 65,535, as of {bits} bits: few of the shades are left in the model's 8 bits; "
            f"multiply the pixels by {2 ** (16 - bits):,} in the files"
        )
    checked = {}
    start = 0
    for split, rows in splits.items():
        checked[split] = _check_images(rows, start, inspection)
        start += len(rows)
    return checked


def fingerprint(checked: Mapping[Split, Checked]) -> str:
    """SHA-256 over contents and labels of each split, sorted: neither names nor the order of files matter."""
    digest = hashlib.sha256()
    for split, part in checked.items():
        contents = sorted(zip((one.hex() for one in part.digests), part.rows.labels, strict=True))
        digest.update(json.dumps([split, contents]).encode())
    return digest.hexdigest()


def _check_images(rows: Rows, start: int, inspection: Inspection) -> Checked:
    faults = {i: inspection.faults[start + i] for i in range(len(rows)) if start + i in inspection.faults}
    good = [i for i in range(len(rows)) if i not in faults]
    return Checked(
        rows.select(good),
        inspection.facts["digest"][start + np.array(good, dtype=np.int64)].tolist(),
        [],
        inspection.decoded.select(start + np.array(good, dtype=np.int64)) if inspection.decoded else None,
        [BadExample(rows.sources[i], reason) for i, reason in faults.items()],
    )


def _digest(text: Item) -> bytes:
    return hashlib.sha256(json.dumps(text).encode()).digest()


def _folded(text: Item) -> Item:
    if isinstance(text, tuple):
        return (str(_folded(text[0])), str(_folded(text[1])))
    return folded(str(text)).rstrip(".!?,;: ")
