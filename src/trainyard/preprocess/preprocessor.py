"""The one way from a raw item to tensors: in training, evaluation, export, the predictor and the server."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from trainyard.base.errors import BundleError, ItemError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Item: TypeAlias = bytes | Path | str | tuple[str, str]
"""A raw item: an image file (its bytes or its path), a text, or a pair of texts."""
Encoded: TypeAlias = NDArray[np.uint8] | NDArray[np.int32]
"""An encoded item: an image ``[height, width, 3] uint8``, or tokens ``[1 or 2, length] int32`` (ids, then segments)."""
Inputs: TypeAlias = dict[str, NDArray[np.uint8] | NDArray[np.int64]]
"""A batch as the model takes it, by argument name."""

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# Pillow warns of damaged metadata that doesn't touch the pixels; what can't be decoded raises. Said once for all, since
# `warnings.catch_warnings` around each image isn't safe where threads decode.
warnings.filterwarnings("ignore", module=r"PIL\.")

MAX_PIXELS = 50_000_000
"""An image with more pixels is refused before it is decoded: 50 MP are 150 MB as RGB."""
BAND_PIXELS = 1_000_000
"""What takes many bytes for a pixel is done to so many at a time."""

_TILE_SIZE = (322, 323)  # TIFF's tags
_SURROGATE = re.compile("[\ud800-\udfff]")


class Preprocessor(Protocol):
    """What an image and a text preprocessor have in common."""

    kind: ClassVar[str]

    def encode(self, item: Item) -> Encoded:
        """Encodes one raw item; raises ``ItemError`` when it can't."""
        ...

    def collate(self, encoded: Sequence[Encoded]) -> Inputs:
        """Joins encoded items into the model's inputs."""
        ...

    def to_dict(self) -> dict[str, object]:
        """The settings, as ``trainyard.json`` keeps them."""
        ...

    def save(self, folder: Path) -> None:
        """Writes what doesn't fit into ``to_dict`` (a tokenizer) into a bundle."""
        ...


@dataclass(frozen=True)
class ImagePreprocessor:
    """Decodes, turns upright, converts to RGB, resizes the shorter side and crops the centre.

    Normalisation isn't here: the model does it inside, so that a server moves bytes and nobody forgets the mean.

    Attributes:
        size: Side of the square that the model sees, in pixels.
        resize: The shorter side before the crop, in pixels.
        max_pixels: An image with more is refused.
    """

    size: int
    resize: int
    max_pixels: int = MAX_PIXELS
    kind: ClassVar[str] = "image"

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
        image = _open_image(item, self.max_pixels, draft=self.resize)
        side = min(image.size)
        left, top = ((length - side) / 2 for length in image.size)
        # The centre only: a strip of 50,000 x 1 pixels would otherwise grow to gigabytes on its way.
        square = (left, top, left + side, top + side)
        return np.asarray(image.resize((self.resize, self.resize), Image.Resampling.BILINEAR, square), dtype=np.uint8)

    def collate(self, encoded: Sequence[Encoded]) -> Inputs:
        """Gives ``{"images": [batch, 3, height, width] uint8}``."""
        return {"images": np.ascontiguousarray(np.stack(encoded).transpose(0, 3, 1, 2)).astype(np.uint8, copy=False)}

    def to_dict(self) -> dict[str, object]:
        """The settings, as ``trainyard.json`` keeps them."""
        return {"kind": self.kind, **asdict(self)}

    def save(self, folder: Path) -> None:
        """Nothing to write: the settings say it all."""


def _open_image(item: Item, max_pixels: int, draft: int) -> Image.Image:
    """An upright RGB image. ``draft``: a JPEG may be decoded smaller, down to twice this shorter side."""
    if not isinstance(item, bytes | Path):
        raise ItemError(f"an image is given by its bytes or its path, not as {type(item).__name__}")
    try:
        with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item, formats=IMAGE_FORMATS) as image:
            _check_size(image, max_pixels)
            image.draft("RGB", (2 * draft, 2 * draft))
            ImageOps.exif_transpose(image, in_place=True)
            return _rgb(image)
    except (ItemError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise ItemError(f"the image can't be decoded (it is of none of {', '.join(IMAGE_FORMATS)})") from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, where it knows the size before we do
        raise ItemError(f"the image has more than {max_pixels:,} pixels") from error
    except Exception as error:  # for damaged files, Pillow's decoders raise whatever happens to them
        raise ItemError(f"the image can't be decoded ({str(error)[:100] or type(error).__name__})") from error


def _check_size(image: Image.Image, max_pixels: int) -> None:
    """Raises ``ItemError`` if decoding would take more memory than an image of ``max_pixels``."""
    if image.width * image.height > max_pixels:
        raise ItemError(f"the image has {image.width} x {image.height} pixels, more than {max_pixels:,}")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # A tile may be larger than the image, and is decoded whole.
        width, height = (image.tag_v2.get(tag, 0) for tag in _TILE_SIZE)
        if width * height > max_pixels:
            raise ItemError(f"the image has tiles of {width} x {height} pixels, more than {max_pixels:,}")


def _rgb(image: Image.Image) -> Image.Image:
    """Converts any mode to RGB: grey of more than 8 bits is scaled (Pillow clips it), transparency lies on white."""
    if image.mode.startswith("I") or image.mode == "F":
        white = _white_of_floats(image) if image.mode == "F" else 65535.0
        return _in_bands(image, lambda band: _scaled(_floats(band), white))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _in_bands(image, _on_white)
    return image.convert("RGB")


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
    brightest = max(_floats(image.crop(box)).max(initial=0) for box in _bands(image))
    return next((white for white in (1.0, 255.0) if brightest <= white), 65535.0)


class TextPreprocessor:
    """Turns texts, or pairs of texts, into padded token ids with a Hugging Face ``tokenizers`` tokenizer.

    Args:
        tokenizer: With its normaliser, pre-tokeniser, model and post-processor; truncation and padding are set here.
        max_length: Tokens kept of an item, special tokens included.
        pad_id: Token id that fills short rows; masked by ``attention_mask``.
        segments: Whether the model takes ``token_type_ids`` (BERT does, RoBERTa and GPT-2 don't).
    """

    kind: ClassVar[str] = "text"

    def __init__(self, tokenizer: Tokenizer, max_length: int, pad_id: int = 0, segments: bool = False) -> None:
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.pad_id = pad_id
        self.segments = segments

    def encode(self, item: Item) -> NDArray[np.int32]:
        """Gives ``[1, length] int32`` token ids, or ``[2, length]`` with the segment ids below.

        Raises:
            ItemError: the text is empty, or not a text.
        """
        return self.encode_many([item])[0]

    def encode_many(self, items: Sequence[Item]) -> list[NDArray[np.int32]]:
        """Encodes all items over all cores; the same answers as ``encode`` one by one."""
        texts = [_clean_text(item) for item in items]
        return [
            np.asarray([row.ids, row.type_ids] if self.segments else [row.ids], dtype=np.int32)
            for row in self.tokenizer.encode_batch_fast(texts)
        ]

    def collate(self, encoded: Sequence[Encoded]) -> Inputs:
        """Pads to the longest: ``input_ids``, ``attention_mask`` (``token_type_ids``), ``[batch, length] int64``."""
        longest = max(row.shape[1] for row in encoded)
        tokens = np.zeros((2, len(encoded), longest), dtype=np.int64)
        tokens[0] = self.pad_id
        mask = np.zeros((len(encoded), longest), dtype=np.int64)
        for i, row in enumerate(encoded):
            tokens[: len(row), i, : row.shape[1]] = row
            mask[i, : row.shape[1]] = 1
        inputs: Inputs = {"input_ids": tokens[0], "attention_mask": mask}
        return inputs | {"token_type_ids": tokens[1]} if self.segments else inputs

    def to_dict(self) -> dict[str, object]:
        """The settings, as ``trainyard.json`` keeps them; the tokenizer has a file of its own."""
        return {"kind": self.kind, "max_length": self.max_length, "pad_id": self.pad_id, "segments": self.segments}

    def save(self, folder: Path) -> None:
        """Writes ``tokenizer.json``."""
        self.tokenizer.save(str(folder / "tokenizer.json"))


def _clean_text(item: Item) -> str | tuple[str, str]:
    parts = item if isinstance(item, tuple) else (item,)
    if not all(isinstance(part, str) for part in parts):
        raise ItemError(f"a text is a string or a pair of strings, not {type(parts[0]).__name__}")
    if not any(part.strip() for part in parts if isinstance(part, str)):
        raise ItemError("the text is empty")
    texts = [without_surrogates(str(part)) for part in parts]
    return (texts[0], texts[1]) if len(texts) > 1 else texts[0]


def without_surrogates(text: str) -> str:
    """Replaces lone surrogates by U+FFFD: half an emoji, as JSON may hold it, isn't Unicode, and tokenizers raise."""
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def load_preprocessor(settings: dict[str, object], folder: Path) -> ImagePreprocessor | TextPreprocessor:
    """Builds a preprocessor from ``to_dict``'s settings and the bundle's folder.

    Raises:
        BundleError: the settings are of no known kind.
    """
    values = {key: value for key, value in settings.items() if key != "kind"}
    if settings.get("kind") == ImagePreprocessor.kind:
        return ImagePreprocessor(**values)  # type: ignore[arg-type]
    if settings.get("kind") == TextPreprocessor.kind:
        from tokenizers import Tokenizer

        return TextPreprocessor(Tokenizer.from_file(str(folder / "tokenizer.json")), **values)  # type: ignore[arg-type]
    raise BundleError(f"{folder}: preprocessor of unknown kind {settings.get('kind')!r}; update trainyard")


def encode_all(preprocessor: Preprocessor, items: Iterable[Item]) -> list[Encoded]:
    """Encodes items in order, texts over all cores at once."""
    if isinstance(preprocessor, TextPreprocessor):
        return list(preprocessor.encode_many(list(items)))
    return [preprocessor.encode(item) for item in items]
