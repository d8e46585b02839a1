"""What a model answered to each test example: a run's ``predictions.parquet``, for its report and for comparisons."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainyard.artifacts.run import PREDICTIONS
from trainyard.base.errors import UsageError
from trainyard.base.files import atomic_write

if TYPE_CHECKING:
    from trainyard.data.records import Records

CLASSES = b"trainyard.classes"
"""Metadata of the file: the names of the classes, in the order of the probabilities, as a list in JSON."""
SHOWN_AS = {"characters": "text", "brightness": "picture"}
"""The column with what is shown of the examples, by what is measured of them."""


@dataclass(frozen=True)
class Predictions:
    """The answers to a split, example by example.

    Attributes:
        classes: Names, in the order of the probabilities.
        ids: Of the examples; see ``example_ids``.
        sources: Where each is from: a relative path, or ``file.csv:12``.
        labels: The true classes, ``[examples] int64``.
        probabilities: ``[examples, classes] float32``, calibrated.
        trait: What ``traits`` are: ``characters`` of texts (how many), ``brightness`` (0 to 1) of images.
        traits: ``[examples] float32``; NaN where it wasn't looked at.
        shown: The beginning of the text or a small picture (PNG or JPEG) of the examples that a report may show.
    """

    classes: tuple[str, ...]
    ids: Sequence[str]
    sources: Sequence[str]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    trait: str
    traits: NDArray[np.float32]
    shown: list[str | bytes | None]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable classes, ``[examples] int64``."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which answers are right, ``[examples] bool``."""
        return np.asarray(self.predicted == self.labels)

    @property
    def confidence(self) -> NDArray[np.float32]:
        """The probabilities of the answers, ``[examples] float32``."""
        return np.asarray(self.probabilities.max(axis=1))

    @property
    def order(self) -> list[int]:
        """Indices, the most telling first: the surest mistakes, then the right answers that are least sure."""
        return list(map(int, np.lexsort((np.where(self.right, 1, -1) * self.confidence, self.right))))


def example_ids(records: Records) -> list[str]:
    """What an example is called in every run on the same data: by its content, whatever its file and place.

    The second of equal contents is ``<digest>-2``.
    """
    seen: Counter[bytes] = Counter()
    ids = []
    for digest in records.digests:
        seen[digest] += 1
        ids.append(digest.hex()[:32] + (f"-{seen[digest]}" if seen[digest] > 1 else ""))
    return ids


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Writes them as Parquet, atomically: ``id``, ``source``, ``label`` and ``predicted`` (names), ``probabilities``
    (float32, as many as classes), the trait by its name, and ``text`` or ``picture``.
    """
    import pyarrow as pa
    from pyarrow import parquet

    names, made = np.array(predictions.classes, dtype=object), predictions
    shown_as = SHOWN_AS[made.trait]
    probabilities = pa.array(made.probabilities.ravel())
    columns = {
        "id": pa.array(made.ids, pa.string()),
        "source": pa.array([source.encode(errors="replace").decode() for source in made.sources], pa.string()),
        "label": pa.array(names[made.labels], pa.string()),
        "predicted": pa.array(names[made.predicted], pa.string()),
        "probabilities": pa.FixedSizeListArray.from_arrays(probabilities, len(names)),
        made.trait: pa.array(made.traits),
        shown_as: pa.array(made.shown, pa.string() if shown_as == "text" else pa.binary()),
    }
    table = pa.table(columns).replace_schema_metadata({CLASSES: json.dumps(made.classes)})
    with atomic_write(path) as file:
        parquet.write_table(table, file, compression="zstd")


def read_predictions(run: Path) -> Predictions:
    """Reads those of a run.

    Raises:
        UsageError: the run has none.
    """
    from pyarrow import parquet

    path = run / PREDICTIONS
    if not path.is_file():
        raise UsageError(
            f"{run} has no {PREDICTIONS}: it isn't a finished run, or one of an earlier release; train again"
        )
    table = parquet.read_table(path)
    classes = tuple(json.loads(table.schema.metadata[CLASSES]))
    code = {name: code for code, name in enumerate(classes)}
    trait = next(name for name in SHOWN_AS if name in table.column_names)
    return Predictions(
        classes=classes,
        ids=table["id"].to_pylist(),
        sources=table["source"].to_pylist(),
        labels=np.array([code[name] for name in table["label"].to_pylist()], dtype=np.int64),
        probabilities=np.stack(table["probabilities"].to_numpy()),
        trait=trait,
        traits=table[trait].to_numpy(),
        shown=table[SHOWN_AS[trait]].to_pylist(),
    )
