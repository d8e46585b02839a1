"""Images: decoding whatever people send, within bounds of memory, and what others need to know of an image."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from trainyard.base.errors import ItemError, UsageError
from trainyard.preprocess.base import Encoded, Inputs, Item, Kind, Preprocessor
from trainyard.preprocess.folders import check_regular

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# Pillow warns of damaged metadata that doesn't touch the pixels; what can't be decoded raises. Said once for all, since
# `warnings.catch_warnings` around each image isn't safe where threads decode.
warnings.filterwarnings("ignore", module=r"PIL\.")

BAND_PIXELS = 1_000_000
"""What takes many bytes for a pixel is done to so many at a time."""
MAX_SAMPLE_BYTES = 200_000
"""A larger image is stored as the preprocessor sees it, without loss."""

_TILE_SIZE = (322, 323)  # TIFF's tags


@dataclass(frozen=True)
class ImagePreprocessor(Preprocessor):
    """Decodes, turns upright, converts to RGB, resizes the shorter side and crops the centre.

    Normalisation isn't here: the model does it inside, so that a server moves bytes and nobody forgets the mean.

    Attributes:
        size: Side of the square that the model sees, in pixels.
        resize: The shorter side before the crop, in pixels.
        max_pixels: An image with more is refused by its header: 50 million take Pillow 200 MB.
        max_reduced_pixels: The same of a JPEG that is decoded reduced, where that is more.
    """

    size: int
    resize: int
    max_pixels: int = field(default=50_000_000, compare=False)  # it changes no pixels
    max_reduced_pixels: int = field(default=0, compare=False)
    kind: ClassVar[Kind] = "image"
    synthetic_name: ClassVar[str] = "random pixels"
    unit: ClassVar[str] = "pixels"
    budget: ClassVar[int] = 100_000_000

    def encode(self, item: Item) -> NDArray[np.uint8]:
        """Gives ``[size, size, 3] uint8``.

        Raises:
            ItemError: not an image of a known format, damaged, or too large.
        """
        margin = (self.resize - self.size) // 2
        return self.encode_wide(item)[margin : margin + self.size, margin : margin + self.size]

    def encode_wide(self, item: Item) -> NDArray[np.uint8]:
        """Gives ``[resize, resize, 3] uint8``: with the margin that training's random crop plays in.

        ``encode`` is its centre, so that one cache of decoded images serves training and evaluation.
        """
        image = self._open(item)
        side = min(image.size)
        left, top = ((length - side) / 2 for length in image.size)
        # The centre only: a strip of 50,000 x 1 pixels would otherwise grow to gigabytes on its way.
        square = (left, top, left + side, top + side)
        return np.asarray(image.resize((self.resize, self.resize), Image.Resampling.BILINEAR, square), dtype=np.uint8)

    def cost(self, item: Item) -> int:
        """The pixels that its header tells of."""
        try:
            with self._opened(item) as image:
                return max(width * height for _, width, height in _areas(image))
        except ItemError:
            return 0

    def _open(self, item: Item) -> Image.Image:
        """An upright RGB image; of a JPEG, one decoded smaller, down to twice the shorter side that is wanted."""
        with self._opened(item) as image:
            image.draft("RGB", (2 * self.resize, 2 * self.resize))
            ImageOps.exif_transpose(image, in_place=True)
            return _rgb(image)

    @contextmanager
    def _opened(self, item: Item) -> Iterator[Image.Image]:
        """The image, of which the header is read; raises ``ItemError`` for whatever goes wrong with it."""
        if not isinstance(item, bytes | Path):
            raise ItemError(f"an image is given by its bytes or its path, not as {type(item).__name__}")
        try:
            if isinstance(item, Path):
                check_regular(item)
            with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item, formats=IMAGE_FORMATS) as image:
                self._check_size(image)
                yield image
        except (ItemError, MemoryError):
            raise
        except UnidentifiedImageError as error:
            raise ItemError(f"the image can't be decoded (it is of none of {', '.join(IMAGE_FORMATS)})") from error
        except Image.DecompressionBombError as error:  # Pillow's own limit, where it knows the size before we do
            raise ItemError(f"the image has more than {self.max_pixels:,} pixels (max_pixels)") from error
        except Exception as error:  # for damaged files, Pillow's decoders raise whatever happens to them
            raise ItemError(f"the image can't be decoded ({str(error)[:100] or type(error).__name__})") from error

    def _check_size(self, image: Image.Image) -> None:
        """Raises ``ItemError`` if decoding would take more memory than an image of ``max_pixels``."""
        limit = self.max_pixels
        if isinstance(image, JpegImagePlugin.JpegImageFile) and "progressive" not in image.info:
            limit = max(limit, self.max_reduced_pixels)  # a progressive one is whole in memory, however small it gets
        for what, width, height in _areas(image):
            if width * height > limit:
                raise ItemError(f"the image has {what}{width} x {height} pixels, more than {limit:,} (max_pixels)")

    def collate(self, encoded: Sequence[Encoded]) -> Inputs:
        """Gives ``{"images": [batch, 3, height, width] uint8}``."""
        return {"images": np.ascontiguousarray(np.stack(encoded).transpose(0, 3, 1, 2)).astype(np.uint8, copy=False)}

    def to_dict(self) -> dict[str, object]:
        """The settings, as ``trainyard.json`` keeps them."""
        return {"kind": self.kind, **asdict(self)}

    def save(self, folder: Path) -> None:
        """Nothing to write: the settings say it all."""

    @classmethod
    def load(cls, settings: Mapping[str, object], folder: Path) -> ImagePreprocessor:
        """Builds it from ``to_dict``'s settings; see ``load_preprocessor``."""
        return cls(**settings)  # type: ignore[arg-type]

    def store(self, item: Item, samples: Path, name: str) -> dict[str, object]:
        """Writes the image to a file of its own, whose suffix says its format."""
        assert isinstance(item, bytes | Path), "an image that was encoded is one"
        content = item if isinstance(item, bytes) else item.read_bytes()
        if len(content) > MAX_SAMPLE_BYTES:
            file = io.BytesIO()
            Image.fromarray(self.encode_wide(item)).save(file, "PNG")
            content = file.getvalue()
        with Image.open(io.BytesIO(content)) as image:
            path = samples / f"{name}.{(image.format or 'img').lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return {"image": path.relative_to(samples).as_posix()}

    @classmethod
    def stored(cls, record: Mapping[str, object], samples: Path) -> bytes:
        """The bytes of the file."""
        return (samples / str(record["image"])).read_bytes()

    def synthetic(self, count: int, generator: np.random.Generator) -> list[Encoded]:
        """Pixels of every value alike."""
        return list(generator.integers(0, 256, (count, self.size, self.size, 3), dtype=np.uint8))

    def measures(self, encoded: Encoded) -> dict[str, float]:
        """How bright an image is, from 0 to 1."""
        return {"brightness": float(encoded.mean()) / 255}

    def extremes(self, encoded: Sequence[Encoded], generator: np.random.Generator) -> list[Encoded]:
        """White, black, and noise."""
        shape = encoded[0].shape
        noise = generator.integers(0, 256, shape, dtype=np.uint8)
        return [np.full(shape, 255, np.uint8), np.zeros(shape, np.uint8), noise]

    def shapes(
        self, encoded: Sequence[Encoded], sizes: Sequence[int], generator: np.random.Generator
    ) -> Iterator[tuple[str, list[Encoded]]]:
        """A batch of each size, of the items in turn."""
        for size in sizes:
            yield f"batch {size}", [encoded[i % len(encoded)] for i in range(size)]

    def with_length(self, encoded: Sequence[Encoded], length: int) -> list[Encoded]:
        """Refuses: an image has no length.

        Raises:
            UsageError: always.
        """
        raise UsageError("--length is for texts, and this model takes images: leave it out")


def brightest_of_16_bits(content: bytes) -> int | None:
    """The brightest value of a grey image whose pixels have more than 8 bits; ``None`` of every other image."""
    with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
        return int(_brightest(image)) if image.mode.startswith("I") else None


def _areas(image: Image.Image) -> Iterator[tuple[str, int, int]]:
    """Width and height of what is decoded as a whole, each after what it is of: the image, and the tiles of a TIFF."""
    yield "", image.width, image.height
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # of which one may be larger than the image
        width, height = (image.tag_v2.get(tag, 0) for tag in _TILE_SIZE)
        yield "tiles of ", width, height


def _rgb(image: Image.Image) -> Image.Image:
    """Converts any mode to RGB: grey of more than 8 bits is scaled (Pillow clips it), transparency lies on white."""
    if image.mode.startswith("I") or image.mode == "F":
        white = _white_of_floats(image) if image.mode == "F" else 65535.0
        return _in_bands(image, lambda band: _scaled(_floats(band), white))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _in_bands(image, _on_white)
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it: 4 bytes a pixel


def _in_bands(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Converts an image to RGB, a few rows at a time: as a whole it would take up to a gigabyte on the way."""
    converted = Image.new("RGB", image.size)
    for box in _bands(image):
        converted.paste(convert(image.crop(box)), box)
    return converted


def _bands(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(top + rows, image.height)


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _floats(image: Image.Image) -> NDArray[np.float32]:
    return np.nan_to_num(np.asarray(image, dtype=np.float32))


def _scaled(pixels: NDArray[np.float32], white: float) -> Image.Image:
    return Image.fromarray(np.rint(pixels / white * 255).clip(0, 255).astype(np.uint8)).convert("RGB")


def _white_of_floats(image: Image.Image) -> float:
    """What white is in an image of floats, whose format doesn't say. Integers are of 16 bits, also in Pillow's mode I,
    however dark the image: a scale that followed the content would make one grey value black here and white there.
    """
    brightest = _brightest(image)
    return next((white for white in (1.0, 255.0) if brightest <= white), 65535.0)


def _brightest(image: Image.Image) -> float:
    return max(float(_floats(image.crop(box)).max(initial=0)) for box in _bands(image))
