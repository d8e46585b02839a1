"""The rehearsal of what is shipped changes no weight: with augmentation, mixing, averaging, batch norm and dropout."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trainyard.artifacts.manifest import sha256_file
from trainyard.training.run import Run

from my_project.train import Config, train

DROPOUT = {"dropout": 0.2, "vocab_size": 300}


@pytest.mark.parametrize("kind", ["resnet", "bert"])
def test_a_run_ends_with_the_same_bytes_as_without_it(
    kind: str, digits_experiment: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    mixing = {"mixup": 0.2, "cutmix": 1.0} if kind == "resnet" else {}
    config = digits_experiment(augment=mixing, optim={"ema": 0.9, "clip": 1.0}, trainer={"accumulate": 3})
    if kind == "bert":
        data = {"kind": "texts", "path": "embedded:tickets", "limit": 100, "max_length": 32, "cache": config.data.cache}
        config = Config.model_validate(config.model_dump() | {"data": data, "model": {"kind": "bert", **DROPOUT}})
    rehearsed = train(config)
    monkeypatch.setattr(Run, "rehearse", lambda *_: None)
    plain = train(config)

    assert rehearsed != plain
    one, other = (sha256_file(run / "bundle" / "model.safetensors") for run in (rehearsed, plain))
    assert one == other
