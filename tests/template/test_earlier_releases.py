"""What an earlier release sealed opens and answers the same: bundles, exports and archives.

Each minor version has one fixture, of its first release (``scripts/release.sh``); ``fixtures/make.py`` says how it is
made. One that is there isn't made anew and doesn't go: it stands for what people have.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.export_record import open_trusted
from trainyard.base.errors import ItemError, UsageError
from trainyard.client.client import Client
from trainyard.inference.predictor import Predictor
from trainyard.preprocess.base import Item, load_preprocessor
from trainyard.torchserve.archive import unpack
from trainyard.torchserve.running import running

FIXTURES = Path(__file__).parent / "fixtures"
RELEASES = sorted(path.parent for path in FIXTURES.glob("*/answers.json"))
ARCHIVED = ("tickets", "onnx")
INT8_TOLERANCE = 2e-2
"""Of a probability: int8 kernels differ by processor."""
TOLERANCE = 1e-5
CASES = [
    pytest.param(release, model, format, id=f"{release.name} {model} {format}")
    for release in RELEASES
    for model, answers in json.loads((release / "answers.json").read_text()).items()
    for format in answers["probabilities"]
]
EARLIER = pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)

# What a bundle seals of its preprocessor, and what a key means that a bundle is without: what release 0.1 did. A new
# key is added here with that value, which then stays for good; the default for new bundles may be another.
REQUIRED = {"image": {"size": 8, "resize": 8}, "text": {"max_length": 64}}
WHERE_MISSING = {"image": {"max_pixels": 50_000_000, "max_reduced_pixels": 0}, "text": {"pad_id": 0, "segments": False}}


@pytest.mark.parametrize(("release", "model", "format"), CASES)
def test_an_earlier_release_answers_the_same(release: Path, model: str, format: str) -> None:
    items, earlier = answers_of(release, model, format)
    predictor = open_predictor(release / model, format)

    answers = dict(zip(items, predictor.score(list(items.values())), strict=True))
    labels = dict(zip(items, predictor.predict(list(items.values()), top_k=1), strict=True))

    tolerance = INT8_TOLERANCE if format.endswith("int8") else TOLERANCE
    for name, probabilities in earlier.items():
        answer, label = answers[name], labels[name]
        if probabilities is None:
            assert isinstance(answer, ItemError), f"{name} was refused"
            continue
        assert not isinstance(answer, ItemError), f"{name} was answered: {answer}"
        assert not isinstance(label, ItemError), f"{name} was answered: {label}"
        assert answer.tolist() == pytest.approx(probabilities, abs=tolerance), name
        # The same class, or one that was as good as the best.
        given = probabilities[predictor.bundle.labels.index(label.label)]
        assert given >= max(probabilities) - 2 * tolerance, f"{name} was another class than {label.label}"


@EARLIER
def test_the_archive_of_an_earlier_release_passes_the_checks(release: Path, tmp_path: Path) -> None:
    model, format = ARCHIVED
    opened = open_trusted(release / model, format)
    assert opened.export is not None

    found = unpack(release / f"{model}.mar", tmp_path, [opened.export.digest])

    assert (found.name, found.settings.format, found.opened.bundle.digest) == (model, format, opened.bundle.digest)


@pytest.mark.slow
@EARLIER
def test_an_earlier_archive_is_served_and_answers_the_same(release: Path) -> None:
    model, format = ARCHIVED
    items, earlier = answers_of(release, model, format)
    labels = Bundle.open(release / model).labels

    archive = release / f"{model}.mar"
    with (
        running([archive], ["--workers", "1"]) as server,
        Client(server.inference_url, server.token) as client,
    ):
        answers = dict(zip(items, client.predict(model, items.values(), top_k=len(labels)), strict=True))

    for name, probabilities in earlier.items():
        answer = answers[name]
        if probabilities is None:
            assert isinstance(answer, ItemError), f"{name} was refused"
            continue
        assert not isinstance(answer, ItemError), f"{name} was answered: {answer}"
        assert dict(answer.top) == pytest.approx(dict(zip(labels, probabilities, strict=True)), abs=TOLERANCE), name
        assert answer.label == labels[int(np.argmax(probabilities))], name


@EARLIER
@pytest.mark.parametrize("model", ["digits", "tickets"])
def test_what_a_bundle_seals_of_its_preprocessor(release: Path, model: str) -> None:
    bundle = Bundle.open(release / model)
    sealed = bundle.facts.preprocess

    assert {"kind": bundle.kind, **REQUIRED[bundle.kind]}.items() <= sealed.items()
    assert bundle.preprocessor.to_dict() == {**WHERE_MISSING[bundle.kind], **sealed}


@EARLIER
@pytest.mark.parametrize("model", ["digits", "tickets"])
def test_a_key_that_a_bundle_is_without_means_what_release_0_1_did(release: Path, model: str) -> None:
    bundle = Bundle.open(release / model)
    required: dict[str, object] = {"kind": bundle.kind, **REQUIRED[bundle.kind]}

    assert load_preprocessor(required, bundle.path).to_dict() == {**required, **WHERE_MISSING[bundle.kind]}


@EARLIER
def test_a_fixture_is_small(release: Path) -> None:
    """As every clone downloads it, compressed."""
    assert sum(len(zlib.compress(path.read_bytes())) for path in release.rglob("*") if path.is_file()) < 2_000_000


def answers_of(release: Path, model: str, format: str) -> tuple[dict[str, Item], Mapping[str, list[float] | None]]:
    """Items by their names, and what the release answered to each."""
    answers = json.loads((release / "answers.json").read_text())[model]
    items: dict[str, Item] = {
        name: item if isinstance(item, str) else base64.b64decode(item["base64"])
        for name, item in answers["items"].items()
    }
    return items, answers["probabilities"][format]


def open_predictor(run: Path, format: str) -> Predictor:
    """Skips what can't run here for a good reason."""
    try:
        return Predictor(run, format, device="cpu", batch_size=1, threads=1)
    except UsageError as error:
        if format == "eager" and "kind" in str(error):
            pytest.skip("the project has no such model any more")
        if format.endswith("int8") and "needs a processor" in str(error):
            pytest.skip("made for other processors")
        raise
