"""From images to pixels, however odd they are, and what others ask of them."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from trainyard.base.errors import ItemError, UsageError
from trainyard.preprocess import image as preprocess_image
from trainyard.preprocess.base import load_sample
from trainyard.preprocess.image import MAX_SAMPLE_BYTES, ImagePreprocessor


def encoded_image(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)  # type: ignore[arg-type]
    return file.getvalue()


@given(st.integers(1, 90), st.integers(1, 90))
def test_every_shape_becomes_a_square(width: int, height: int) -> None:
    preprocessor = ImagePreprocessor(size=16, resize=20)
    item = encoded_image(Image.new("RGB", (width, height), (200, 10, 30)))

    assert preprocessor.encode(item).shape == (16, 16, 3)
    assert preprocessor.encode_wide(item).shape == (20, 20, 3)
    assert preprocessor.encode(item).reshape(-1, 3).max(axis=0).tolist() == [200, 10, 30]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    format = "TIFF" if mode in ("CMYK", "F") else "PNG"
    item = encoded_image(Image.new(mode, (8, 8)), format)

    assert ImagePreprocessor(8, 8).encode(item).shape == (8, 8, 3)


@pytest.mark.parametrize(("value", "grey"), [(255, 1), (256, 1), (32768, 128), (65535, 255)])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_alike_whatever_the_image_holds(value: int, grey: int, format: str) -> None:
    pixels = np.full((8, 8), value, dtype=np.uint16)

    encoded = ImagePreprocessor(8, 8).encode(encoded_image(Image.fromarray(pixels), format))

    assert np.unique(encoded).tolist() == [grey]


def test_32_bit_integers_have_the_scale_of_16_bits() -> None:
    pixels = np.full((8, 8), 255, dtype=np.int32)

    assert ImagePreprocessor(8, 8).encode(encoded_image(Image.fromarray(pixels), "TIFF")).max() == 1


@pytest.mark.parametrize(("values", "greys"), [([0, 0.5, 1], [0, 128, 255]), ([0, 51, float("nan")], [0, 51])])
def test_floats_up_to_one_are_scaled_by_one(values: list[float], greys: list[int]) -> None:
    pixels = np.repeat(np.array(values, dtype=np.float32)[:, None], 3, axis=1)

    encoded = ImagePreprocessor(3, 3).encode(encoded_image(Image.fromarray(pixels), "TIFF"))

    assert np.unique(encoded).tolist() == greys


def test_transparency_lies_on_white() -> None:
    item = encoded_image(Image.new("RGBA", (8, 8), (0, 0, 0, 0)))

    assert ImagePreprocessor(8, 8).encode(item).min() == 255


def test_the_orientation_of_a_photo_is_honoured() -> None:
    image = Image.new("RGB", (8, 8), "white")
    image.paste("black", (0, 0, 8, 4))  # upper half black
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees

    upright = ImagePreprocessor(8, 8).encode(encoded_image(image, exif=exif))

    assert upright[:4].min() == 255
    assert upright[4:].max() == 0


@pytest.mark.parametrize("item", [b"", b"not an image", encoded_image(Image.effect_noise((64, 64), 9))[:900]])
def test_what_is_no_image_is_an_item_error(item: bytes) -> None:
    with pytest.raises(ItemError, match="can't be decoded"):
        ImagePreprocessor(8, 8).encode(item)


def test_a_huge_image_is_refused_before_it_is_decoded() -> None:
    item = encoded_image(Image.new("1", (3000, 3000)))

    with pytest.raises(ItemError, match="3000 x 3000 pixels"):
        ImagePreprocessor(8, 8, max_pixels=1_000_000).encode(item)


def with_header(item: bytes, marker: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header (``marker`` is that of its frame) says another size."""
    start = item.index(marker) + 5
    return item[:start] + struct.pack(">HH", height, width) + item[start + 4 :]


@pytest.mark.parametrize(
    ("progressive", "width", "height", "refused"),
    [
        (False, 8_192, 6_144, False),
        (False, 12_000, 9_000, False),
        (False, 12_001, 9_000, True),
        (True, 8_000, 8_000, False),
        (True, 8_000, 8_001, True),
    ],
)
def test_a_jpeg_that_is_decoded_reduced_may_be_larger(
    progressive: bool, width: int, height: int, refused: bool
) -> None:
    small = encoded_image(Image.new("RGB", (16, 16)), "JPEG", progressive=progressive)
    item = with_header(small, b"\xff\xc2" if progressive else b"\xff\xc0", width, height)
    preprocessor = ImagePreprocessor(8, 8, 64_000_000, 108_000_000)

    if refused:
        with pytest.raises(ItemError, match=rf"{width} x {height} pixels, more than .*\(max_pixels\)"):
            preprocessor.encode(item)
    else:  # the pixels that aren't there are grey
        assert preprocessor.encode(item).shape == (8, 8, 3)


def test_a_limit_counts_alike_for_every_format() -> None:
    for format in ("PNG", "JPEG"):
        item = encoded_image(Image.new("RGB", (30, 30)), format)
        assert ImagePreprocessor(8, 8, max_pixels=900).encode(item).shape == (8, 8, 3)
        with pytest.raises(ItemError, match=r"30 x 30 pixels, more than 899 \(max_pixels\)"):
            ImagePreprocessor(8, 8, max_pixels=899).encode(item)


def test_a_tile_is_not_larger_than_an_image_may_be() -> None:
    with pytest.raises(ItemError, match="tiles of 20000 x 20000 pixels"):
        ImagePreprocessor(8, 8).encode(with_tile(20_000))


def with_tile(side: int) -> bytes:
    """An image of 64 x 64 pixels in a tile: a file of a few bytes may have a large one, and all of it is decoded."""
    sizes = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 200, 325: 9}
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sizes.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(sizes)) + tags + bytes(100)


def test_an_image_costs_the_pixels_that_would_be_decoded(tmp_path: Path) -> None:
    preprocessor, item = ImagePreprocessor(8, 8), encoded_image(Image.new("L", (30, 20)))
    (tmp_path / "image.png").write_bytes(item)

    assert [preprocessor.cost(one) for one in (item, tmp_path / "image.png", with_tile(5000))] == [600, 600, 25_000_000]
    assert [preprocessor.cost(one) for one in (b"", item[:20], with_tile(20_000), "a text")] == [0, 0, 0, 0]


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    item = encoded_image(Image.new("1", (20_000, 20_000)))

    with pytest.raises(ItemError, match="more than 50,000,000 pixels"):
        ImagePreprocessor(8, 8).encode(item)


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_texts_in_an_image_are_not_unpacked_without_bound(kind: bytes) -> None:
    chunk = kind + b"k\0\0" + zlib.compress(bytes(50_000_000))
    packed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    item = encoded_image(Image.new("L", (8, 8)))

    with pytest.raises(ItemError, match="too large"):
        ImagePreprocessor(8, 8).encode(item[:33] + packed + item[33:])


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("of what"), AttributeError(), RuntimeError("x" * 999), zlib.error()]
)
def test_whatever_a_decoder_raises_is_an_item_error(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)

    with pytest.raises(ItemError, match=r"^the image can't be decoded \(.{1,100}\)$"):
        ImagePreprocessor(8, 8).encode(encoded_image(Image.new("RGB", (8, 8))))


def test_that_the_machine_is_out_of_memory_is_nobodys_item(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)

    with pytest.raises(MemoryError):
        ImagePreprocessor(8, 8).encode(encoded_image(Image.new("RGB", (8, 8))))


@pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP"])
def test_the_first_picture_of_an_animation_counts(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    item = encoded_image(frames[0], format, save_all=True, append_images=frames[1:])

    red = ImagePreprocessor(8, 8).encode(item).reshape(-1, 3).astype(int)

    assert red.min(axis=0)[0] > 245
    assert red.max(axis=0)[2] < 10


@pytest.mark.parametrize(("mode", "format"), [("RGBA", "PNG"), ("I;16", "PNG"), ("F", "TIFF"), ("P", "GIF")])
def test_an_image_is_converted_alike_in_bands_of_any_height(
    mode: str, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (31, 17, 4), dtype=np.uint8)
    image = Image.fromarray(noise)
    if mode in ("I;16", "F"):
        image = Image.fromarray(noise.astype("uint16" if mode == "I;16" else "float32")[..., 0] * 3)
    item = encoded_image(image.convert("P") if mode == "P" else image, format)
    whole = ImagePreprocessor(8, 8).encode(item)

    for pixels in (1, 50, 500):
        monkeypatch.setattr(preprocess_image, "BAND_PIXELS", pixels)
        np.testing.assert_array_equal(ImagePreprocessor(8, 8).encode(item), whole)


def test_a_missing_file_and_a_text_are_item_errors(tmp_path: Path) -> None:
    for item in (tmp_path / "none.png", "a text"):
        with pytest.raises(ItemError):
            ImagePreprocessor(8, 8).encode(item)


def test_a_file_that_is_waited_for_without_end_is_an_item_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")

    for name in ("pipe.png", "device.png"):
        with pytest.raises(ItemError, match=f"{name} isn't a regular file"):
            ImagePreprocessor(8, 8).encode(tmp_path / name)


def test_images_are_collated_channels_first() -> None:
    preprocessor = ImagePreprocessor(8, 8)
    item = encoded_image(Image.new("RGB", (8, 8), (1, 2, 3)))

    images = preprocessor.collate(preprocessor.encode_many([item, item]))["images"]

    assert images.shape == (2, 3, 8, 8)
    assert images.dtype == np.uint8
    assert images[1, :, 0, 0].tolist() == [1, 2, 3]


def noise_file(path: Path, side: int) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side + 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_large_image_is_stored_as_the_preprocessor_sees_it(tmp_path: Path) -> None:
    large = noise_file(tmp_path / "large.png", 400)
    preprocessor = ImagePreprocessor(size=32, resize=40)
    assert large.stat().st_size > MAX_SAMPLE_BYTES

    stored = preprocessor.store(large, tmp_path / "samples", "golden/0007")

    file = tmp_path / "samples" / "golden" / "0007.png"
    assert stored == {"image": "golden/0007.png"}
    assert file.stat().st_size < 10_000
    loaded = load_sample(stored, tmp_path / "samples")
    np.testing.assert_array_equal(preprocessor.encode(loaded), preprocessor.encode(large))


def test_a_small_image_is_stored_as_it_is(tmp_path: Path) -> None:
    small = noise_file(tmp_path / "small.jpeg", 20)

    for item in (small, small.read_bytes()):
        stored = ImagePreprocessor(8, 8).store(item, tmp_path / "samples", "calibration/0000")
        assert stored == {"image": "calibration/0000.jpeg"}
        assert load_sample(stored, tmp_path / "samples") == small.read_bytes()


@pytest.mark.parametrize(("color", "expected"), [((255, 0, 0), 1 / 3), ((0, 0, 0), 0), ((255, 255, 255), 1)])
def test_the_brightness_of_an_image_is_that_of_all_channels(color: tuple[int, ...], expected: float) -> None:
    image = np.full((8, 8, 3), color, np.uint8)

    assert ImagePreprocessor(8, 8).measures(image) == {"brightness": pytest.approx(expected)}


def test_synthetic_images_are_as_the_model_sees_them() -> None:
    images = np.stack(ImagePreprocessor(8, 10).synthetic(3, np.random.default_rng(0)))

    assert images.shape == (3, 8, 8, 3)
    assert images.dtype == np.uint8


def test_an_image_has_one_shape_and_no_length() -> None:
    preprocessor = ImagePreprocessor(8, 8)
    images = preprocessor.synthetic(3, np.random.default_rng(0))

    assert preprocessor.of_one_shape(images) == images
    assert not list(preprocessor.paddings(images))
    assert not preprocessor.widest(images, np.random.default_rng(0))
    with pytest.raises(UsageError, match="this model takes images: leave it out"):
        preprocessor.with_length([], 8)
