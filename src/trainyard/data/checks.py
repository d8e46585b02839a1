"""Parting items that can be used from those that can't, and finding those that are there more than once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.alike import first_alike
from trainyard.data.image_cache import inspect_images
from trainyard.data.labels import folded
from trainyard.data.records import BadExample, Rows, Split
from trainyard.data.report import Duplicates
from trainyard.preprocess.base import Item


@dataclass(frozen=True)
class Checked:
    """A split whose items can all be used.

    Attributes:
        rows: Its examples, with their pixels if they are cached.
        digests: SHA-256 of each item's content.
        near: What near copies have in common: a text without case, and without space and punctuation around its words;
            the first image that looks so.
        bad: The examples that were dropped.
    """

    rows: Rows
    digests: Sequence[bytes]
    near: Sequence[Hashable]
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
    facts, faults, decoded = inspect_images([rows.items for rows in splits.values()], data)
    brightest = facts["brightest"][facts["brightest"] >= 0]
    if 2 * len(brightest) > len(facts):
        bits = int(brightest.max()).bit_length()
        warnings.append(
            f"{len(brightest):,} images are grey in 16 bits, and their brightest value is "
            f"{brightest.max():,} of 65,535, as of {bits} bits: few of the shades are left in the model's 8 bits; "
            f"multiply the pixels by {2 ** (16 - bits):,} in the files"
        )
    near = np.array(first_alike(facts["look"]))
    checked = {}
    start = 0
    for split, rows in splits.items():
        bad = [i for i in range(len(rows)) if start + i in faults]
        good = np.setdiff1d(np.arange(len(rows)), bad)
        checked[split] = Checked(
            replace(rows.select(good), decoded=decoded and decoded.select(start + good)),
            facts["digest"][start + good].tolist(),
            near[start + good].tolist(),
            [BadExample(rows.sources[i], faults[start + i]) for i in bad],
        )
        start += len(rows)
    return checked


def fingerprint(checked: Mapping[Split, Checked]) -> str:
    """SHA-256 over contents and labels of each split, sorted: neither names nor the order of files matter."""
    digest = hashlib.sha256()
    for split, part in checked.items():
        contents = sorted(zip((one.hex() for one in part.digests), part.rows.labels, strict=True))
        digest.update(json.dumps([split, contents]).encode())
    return digest.hexdigest()


def find_duplicates(checked: Mapping[Split, Checked]) -> Duplicates:
    """Finds examples that lie in a split before theirs, that contradict an earlier one, or nearly are one.

    Args:
        checked: In the order train, val, test.
    """
    found = Duplicates()
    firsts: dict[bytes, tuple[Split, str, str]] = {}
    alike: dict[Hashable, tuple[bytes, str]] = {}
    for split, part in checked.items():
        columns = (part.digests, part.near, part.rows.labels, part.rows.sources)
        for digest, near, label, source in zip(*columns, strict=True):
            home, first_label, first = firsts.setdefault(digest, (split, label, source))
            if home != split:
                found.copies.add(first, source)
            if first_label != label:
                found.conflicting.add(first, source)
            like, other = alike.setdefault(near, (digest, source))
            if like != digest and first == source:
                found.near.add(other, source)
    return found


def _digest(text: Item) -> bytes:
    return hashlib.sha256(json.dumps(text).encode()).digest()


def _folded(text: Item) -> Item:
    if isinstance(text, tuple):
        return (str(_folded(text[0])), str(_folded(text[1])))
    return folded(str(text)).rstrip(".!?,;: ")
