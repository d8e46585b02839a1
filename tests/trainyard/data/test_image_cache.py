"""Images are decoded once, by one process, and read again quickly; those that don't fit stream."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from PIL import Image

from trainyard.base.errors import DataError, UsageError
from trainyard.config.data import ImagesConfig
from trainyard.data import image_cache
from trainyard.data.cache import load_array
from trainyard.data.load import load_dataset
from trainyard.preprocess.image import ImagePreprocessor

Images = Callable[..., ImagesConfig]

LOAD = """
import logging, sys
from trainyard.config.data import ImagesConfig
from trainyard.data.load import load_dataset
logging.basicConfig(level="INFO", stream=sys.stdout)
data = ImagesConfig(kind="images", path=sys.argv[1], cache=sys.argv[2], image_size=8, max_bad=0.1)
dataset = load_dataset(data, seed=0)
print("fingerprint", dataset.fingerprint, dataset.splits["train"].decoded.pixels().sum())
"""

SLOW = r"""
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background of a shell ignore it
from trainyard.config.data import ImagesConfig
from trainyard.data.load import load_dataset
from trainyard.preprocess.image import ImagePreprocessor
def sleep(*_):
    os.write(1, b"decoding\n")  # as a whole, from several threads
    time.sleep(300)
ImagePreprocessor.encode_wide = sleep
load_dataset(ImagesConfig(kind="images", path=sys.argv[1], cache=sys.argv[2], image_size=8), seed=0)
"""


@pytest.fixture
def folder(tmp_path: Path, write_images: Callable[..., None]) -> Path:
    write_images(tmp_path / "pets", {"cat": 20, "dog": 20})
    return tmp_path / "pets"


@pytest.fixture
def decoded_counts(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    """How often a cache was built."""
    caplog.set_level(logging.INFO)
    return lambda: caplog.text.count("this once")


def test_pixels_are_those_of_the_preprocessor(folder: Path, images: Images) -> None:
    for records in load_dataset(images(folder, resize=10), seed=0).splits.values():
        decoded = records.decoded
        assert decoded is not None
        assert decoded.preprocessor == ImagePreprocessor(size=8, resize=10)
        expected = [decoded.preprocessor.encode_wide(item) for item in records.items]
        np.testing.assert_array_equal(decoded.pixels()[decoded.rows], expected)


def test_a_second_start_decodes_nothing(folder: Path, images: Images, decoded_counts: Callable[[], int]) -> None:
    first = load_dataset(images(folder), seed=0)
    again = load_dataset(images(folder), seed=0)
    other_seed = load_dataset(images(folder, val_fraction=0.3), seed=1)

    assert decoded_counts() == 1
    assert first.fingerprint == again.fingerprint
    assert other_seed.splits["val"].sources != first.splits["val"].sources


@pytest.mark.parametrize("change", ["content", "time", "new file"])
def test_what_changed_is_decoded_again(
    folder: Path, images: Images, write_images: Callable[..., None], decoded_counts: Callable[[], int], change: str
) -> None:
    load_dataset(images(folder), seed=0)
    if change == "new file":
        (folder / "cat" / "new.png").write_bytes((folder / "cat" / "000.png").read_bytes())
    elif change == "time":
        os.utime(folder / "cat" / "000.png", ns=(1, 1))
    else:
        write_images(folder, {"cat": 1})

    load_dataset(images(folder), seed=0)

    assert decoded_counts() == 2


def test_another_resize_is_another_cache_and_another_crop_is_not(
    folder: Path, images: Images, decoded_counts: Callable[[], int]
) -> None:
    load_dataset(images(folder, resize=10), seed=0)
    load_dataset(images(folder, resize=10, image_size=6), seed=0)
    assert decoded_counts() == 1

    load_dataset(images(folder, resize=9), seed=0)
    assert decoded_counts() == 2


def test_what_is_larger_than_cache_gb_is_checked_once_and_not_kept(
    folder: Path, images: Images, tmp_path: Path, decoded_counts: Callable[[], int]
) -> None:
    (folder / "cat" / "000.png").write_bytes(b"damaged")
    size = 40 * 8 * 8 * 3
    streamed = images(folder, cache_gb=0.99 * size / 1e9, max_bad=0.1)

    for _ in range(2):
        dataset = load_dataset(streamed, seed=0)
        assert [bad.where for bad in dataset.report.bad] == ["cat/000.png"]
        assert dataset.splits["train"].decoded is None
    assert decoded_counts() == 1
    assert not list((tmp_path / "cache").rglob("images.npy"))

    kept = load_dataset(images(folder, cache_gb=1.01 * size / 1e9, max_bad=0.1), seed=0)
    assert kept.splits["train"].decoded is not None
    assert kept.fingerprint == dataset.fingerprint


def test_a_quarter_of_the_free_disk_is_the_limit_by_default(
    folder: Path, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 40 * 8 * 8 * 3
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda place: SimpleNamespace(free=4 * size - 1))
    assert load_dataset(images(folder), seed=0).splits["train"].decoded is None

    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda place: SimpleNamespace(free=4 * size))
    assert load_dataset(images(folder), seed=0).splits["train"].decoded is not None

    # What is there already is used, though it took the room itself.
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda place: SimpleNamespace(free=0))
    assert load_dataset(images(folder), seed=0).splits["train"].decoded is not None


def test_embedded_images_are_known_by_content(images: Images, decoded_counts: Callable[[], int]) -> None:
    for seed in (0, 1):
        load_dataset(images("embedded:digits"), seed=seed)

    assert decoded_counts() == 1


def test_two_processes_build_one_cache_once(folder: Path, tmp_path: Path) -> None:
    (folder / "dog" / "003.png").write_bytes(b"damaged")
    command = [sys.executable, "-c", LOAD, str(folder), str(tmp_path / "cache")]

    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    assert sum(output.count("this once") for output in outputs) == 1
    assert len({output.strip().splitlines()[-1] for output in outputs}) == 1
    assert len([path for path in (tmp_path / "cache" / "images").iterdir() if path.is_dir()]) == 1


def test_a_killed_builder_leaves_nothing_that_counts(
    folder: Path, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(image_cache.np, "save", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            load_dataset(images(folder), seed=0)

    assert not [path for path in (tmp_path / "cache" / "images").iterdir() if path.is_dir()]
    assert len(load_dataset(images(folder), seed=0).splits["train"]) == 32


def test_a_cache_that_cannot_be_written_names_the_key(folder: Path, images: Images, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageError, match=r"data\.cache=FOLDER"):
        load_dataset(images(folder, cache=str(tmp_path / "file")), seed=0)


def test_an_array_is_mapped_where_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", np.arange(1000))
    size = (tmp_path / "a.npy").stat().st_size
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=4 * size, total=10**9))
    monkeypatch.setattr("trainyard.base.memory.CGROUPS", tmp_path)

    assert not isinstance(load_array(tmp_path / "a.npy"), np.memmap)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert isinstance(load_array(tmp_path / "a.npy"), np.memmap)


def test_ctrl_c_does_not_wait_for_what_is_being_decoded(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SLOW, str(folder), str(tmp_path / "cache")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "decoding\n"

    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)  # a fifth of what one image takes
    finally:
        process.kill()

    assert process.returncode == -signal.SIGINT
    assert errors.strip().endswith("KeyboardInterrupt")
    assert not [path for path in (tmp_path / "cache" / "images").iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("brightest", "warned"), [(4095, "12 bits"), (1000, "10 bits"), (16383, "14 bits"), (40_000, "")]
)
@pytest.mark.parametrize("cache_gb", [None, 0])
def test_grey_of_few_bits_in_images_of_16_is_warned_of(
    folder: Path, images: Images, brightest: int, warned: str, cache_gb: float | None
) -> None:
    for number, path in enumerate(sorted(folder.glob("*/*.png"))):
        grey = np.random.default_rng(number).integers(0, brightest + 1, (10, 10), dtype=np.uint16)
        grey[0, 0] = brightest
        Image.fromarray(grey).save(path)

    for _ in range(2):  # told again when nothing is decoded
        warnings = load_dataset(images(folder, cache_gb=cache_gb), seed=0).report.warnings
        told = f"40 images are grey in 16 bits, and their brightest value is {brightest:,} of 65,535, as of {warned}"
        assert [told in warning for warning in warnings] == ([True] if warned else [])


def test_a_dark_image_among_others_is_no_finding(folder: Path, images: Images) -> None:
    Image.fromarray(np.full((9, 9), 100, dtype=np.uint16)).save(folder / "cat" / "000.png")
    Image.fromarray(np.zeros((9, 9, 3), dtype=np.uint8)).save(folder / "cat" / "001.png")

    assert not load_dataset(images(folder), seed=0).report.warnings


@pytest.mark.parametrize(("split", "refused"), [("train", False), ("test", True)])
def test_a_class_of_which_no_image_can_be_decoded_is_named(
    tmp_path: Path, images: Images, write_images: Callable[..., None], split: str, refused: bool
) -> None:
    for name in ("train", "val", "test"):
        write_images(tmp_path / "d" / name, {"cat": 9, "dog": 9})
        if name == split or not refused:
            write_images(tmp_path / "d" / split, {"fox": 1})
            (tmp_path / "d" / split / "fox" / "000.png").write_bytes(b"damaged")
        if refused:
            write_images(tmp_path / "d" / "train", {"fox": 1})
    data = images(tmp_path / "d", max_bad=0.5)

    if refused:
        with pytest.raises(DataError, match="no example of 'fox' in the test split can be used"):
            load_dataset(data, seed=0)
    else:
        warnings = load_dataset(data, seed=0).report.warnings
        assert any("no example of 'fox' in the train split can be used" in warning for warning in warnings)


def test_max_pixels_decides_which_images_are_bad(folder: Path, images: Images) -> None:
    assert len(load_dataset(images(folder, max_pixels=120), seed=0).report.bad) == 0

    with pytest.raises(DataError, match=r"10 x 12 pixels, more than 119 \(max_pixels\)|12 x 10 pixels, more than 119"):
        load_dataset(images(folder, max_pixels=119), seed=0)
