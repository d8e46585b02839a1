"""What a config file may say of the data."""

from __future__ import annotations

import codecs
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from trainyard.config.section import Section, changes

Fraction = Annotated[float, Field(ge=0, lt=1)]
Column = str | int


def _tab(value: object) -> object:
    value = {"tab": "\t", "\\t": "\t"}.get(str(value), value)
    if isinstance(value, str) and len(value) != 1:
        raise ValueError(f"a delimiter is one character, or `tab`: {value!r} isn't")
    return value


def _known_encoding(value: str) -> str:
    try:
        return codecs.lookup(value).name
    except LookupError:
        raise ValueError(f"Python knows no encoding {value!r}: name one such as utf-8, cp1252 or latin-1") from None


class AnyData(Section):
    """The keys that images and texts have in common."""

    path: Annotated[str, changes("place")]
    """Where the data is: a folder, a file, `embedded:NAME`, or `hub:ID` (a Hugging Face dataset's id, or a
    local folder in the hub's layout)."""
    subset: str | None = None
    """Name of the configuration of a hub dataset (`sst2` of `hub:nyu-mll/glue`)."""
    label: Column = "label"
    """Column of the label, by name or position (0 is the first), in tables and hub datasets."""
    header: bool | None = None
    """Whether the first row of a CSV or TSV holds column names; found out where it is left out."""
    delimiter: Annotated[str, BeforeValidator(_tab)] | None = None
    """What parts the fields of a CSV or TSV (`;`, `tab`); found out where it is left out."""
    encoding: Annotated[str, AfterValidator(_known_encoding)] | None = None
    """Encoding of a table that isn't UTF-8; cp1252 where it is left out and the text is Western."""
    quoting: bool | None = None
    """Whether fields between quotes may hold delimiters and line breaks; by default in CSV, and in TSV with such."""
    split: Column | None = "split"
    """Column of a table that divides it into `train`, `val` and `test`, if it is there; `null` for none."""
    val_fraction: Fraction = 0.1
    """Share of the training examples held out for validation where the data has no validation split."""
    test_fraction: Fraction = 0.1
    """Share of the examples held out for the test where the data has no test split."""
    split_seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Seed of what is held out and of `limit`; by default `seed`. Set it to compare runs of several seeds."""
    limit: Annotated[Annotated[int, Field(ge=1)] | None, changes("batches")] = None
    """Read at most this many examples of each split (stratified, seeded): for a quick trial."""
    max_bad: Annotated[Fraction, changes("batches")] = 0.001
    """Share of unreadable images, empty texts and missing labels that is skipped; past it the run fails."""
    batch_size: Annotated[int, Field(ge=1), changes("batches")] = 32
    """Examples of a step in each process."""
    cache: Annotated[str, changes("nothing")] = "~/.cache/trainyard"
    """Folder for decoded images and tokenised texts, shared by all runs and processes of a machine."""


class ImagesConfig(AnyData):
    """Images: `<split>/<class>/file`, `<class>/file`, a CSV or Parquet of paths and labels, or a hub dataset."""

    kind: Annotated[Literal["images"], changes("inputs")]
    """What an example is."""
    image: Column = "image"
    """Column of the image in tables (its path, relative to the table) and hub datasets, by name or position."""
    image_size: Annotated[int, Field(ge=4, le=2048), changes("inputs")] = 224
    """Side of the square that the model sees, in pixels."""
    resize: Annotated[Annotated[int, Field(ge=4, le=2560)] | None, changes("inputs")] = None
    """Shorter side before the centre crop, in pixels, not below `image_size`; by default `image_size` up to 64 and 8/7
    of it above."""
    max_pixels: Annotated[Annotated[int, Field(ge=1, le=178_000_000)] | None, changes("inputs")] = None
    """An image with more pixels is bad, also when the model is served. By default 64 million, and 108 million for JPEG
    files, which are decoded reduced (progressive ones aren't)."""
    cache_gb: Annotated[Annotated[float, Field(ge=0)] | None, changes("nothing")] = None
    """Most that decoded images may take on the disk, in GB; by default a quarter of its free space. Larger sets are
    read from their files at each epoch."""
    workers: Annotated[Annotated[int, Field(ge=0)] | None, changes("nothing")] = None
    """Threads that prepare batches of images ahead; by default one per core that this rank has where images aren't
    cached, and one or none where they are."""

    @model_validator(mode="after")
    def _the_crop_lies_inside(self) -> Self:
        if self.resize is not None and self.resize < self.image_size:
            raise ValueError(
                f"data.resize={self.resize} is smaller than data.image_size={self.image_size}: "
                f"set it to {self.image_size} or more, or leave it out"
            )
        return self

    @property
    def resize_to(self) -> int:
        """The shorter side before the centre crop, in pixels."""
        if self.resize is not None:
            return self.resize
        return self.image_size if self.image_size <= 64 else round(self.image_size * 8 / 7)

    @property
    def pixel_limits(self) -> tuple[int, int]:
        """``max_pixels`` and ``max_reduced_pixels`` of the preprocessor."""
        return (64_000_000, 108_000_000) if self.max_pixels is None else (self.max_pixels, 0)


class TextsConfig(AnyData):
    """Texts: CSV, TSV, JSONL or Parquet, one file or one per split; `<split>/<class>/file.txt`; or a hub dataset."""

    kind: Annotated[Literal["texts"], changes("inputs")]
    """What an example is."""
    text: Column | Annotated[list[Column], Field(min_length=1)] = "text"
    """Column of the text, by name or position; of a list, the columns are joined by a space."""
    pair: Annotated[bool, changes("inputs")] = False
    """Read the two columns of `text` as a sentence pair."""
    max_length: Annotated[int, Field(ge=4, le=8192), changes("inputs")] = 128
    """Tokens kept of each text, special tokens included."""
    bucket: Annotated[bool, changes("batches")] = True
    """Batch texts of similar length together, so that little is padded."""

    @model_validator(mode="after")
    def _pairs_have_two_columns(self) -> Self:
        columns = self.text if isinstance(self.text, list) else [self.text]
        if self.pair and len(columns) != 2:
            raise ValueError("data.pair=true needs two columns, such as data.text=[premise,hypothesis]")
        return self


DataConfig = Annotated[ImagesConfig | TextsConfig, Field(discriminator="kind")]
DATA_KINDS: dict[str, type[ImagesConfig] | type[TextsConfig]] = {"images": ImagesConfig, "texts": TextsConfig}
