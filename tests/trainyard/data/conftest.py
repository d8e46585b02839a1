"""Small data of every kind, and configs that keep their cache in the test's own folder."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainyard.config.data import ImagesConfig, TextsConfig


@pytest.fixture
def images(tmp_path: Path) -> Callable[..., ImagesConfig]:
    """Makes the config of images at a path."""

    def make(path: Path | str, **keys: object) -> ImagesConfig:
        settings = {"kind": "images", "path": str(path), "image_size": 8, "cache": str(tmp_path / "cache")}
        return ImagesConfig.model_validate(settings | keys)

    return make


@pytest.fixture
def texts(tmp_path: Path) -> Callable[..., TextsConfig]:
    """Makes the config of texts at a path."""

    def make(path: Path | str, **keys: object) -> TextsConfig:
        settings = {"kind": "texts", "path": str(path), "cache": str(tmp_path / "cache")}
        return TextsConfig.model_validate(settings | keys)

    return make


@pytest.fixture
def write_images() -> Callable[..., None]:
    """Writes different small images to ``folder/<class>/<number>.png``."""
    numbers = itertools.count()

    def write(folder: Path, classes: dict[str, int], size: tuple[int, int] = (10, 12)) -> None:
        for name, count in classes.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = np.random.default_rng(next(numbers)).integers(0, 256, (*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / name / f"{i:03d}.png")

    return write


@pytest.fixture
def write_csv() -> Callable[..., Path]:
    """Writes ``text,label`` rows, all different, classes ``a`` and ``b`` in turn."""

    def write(path: Path, count: int, prefix: str = "text") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"{prefix} {i},{'ab'[i % 2]}" for i in range(count)]
        path.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
        return path

    return write
