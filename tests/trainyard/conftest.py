"""One small training that many tests look at, and exports of it: made up, or with a real ONNX file."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings
from tables import FILES
from toy.train import Config, train

from trainyard.artifacts import manifest
from trainyard.artifacts.export_record import FACTS, SCHEMA_VERSION, ExportFacts, FormatRow
from trainyard.artifacts.manifest import digest, write_manifest
from trainyard.base.files import write_json
from trainyard.base.project import VARIABLE

MakeExport = Callable[..., Path]
SUPPORT = Path(__file__).parent / "support"

# No test asserts a time, and a loaded machine is slow.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Each test here, with its fixtures and processes, has the toy project, and none has the owner's."""
    with pytest.MonkeyPatch.context() as patched:
        if Path(__file__).parent in item.path.parents:  # pytest asks this of every test, wherever it is
            patched.setenv(VARIABLE, "toy")
            patched.setenv("PYTHONPATH", str(SUPPORT), prepend=os.pathsep)
        return (yield)


TRAINER = {"devices": "cpu", "threads": 1, "loggers": [], "log_every": 1000}


def digits(folder: Path, **sections: dict[str, object]) -> Config:
    """A run on a few digits that takes a second; the sections are overrides."""
    return Config.model_validate(
        {
            "name": "digits",
            "out": folder / "runs",
            "data": {
                "kind": "images",
                "path": "embedded:digits",
                "image_size": 8,
                "batch_size": 16,
                "limit": 64,
                "cache": str(folder / "cache"),
                **sections.get("data", {}),
            },
            "model": {"kind": "cnn", **sections.get("model", {})},
            "optim": {"lr": 0.05, **sections.get("optim", {})},
            "trainer": {
                "max_epochs": 2,
                "devices": "cpu",
                "threads": 1,
                "log_every": 1,
                "loggers": [],
                **sections.get("trainer", {}),
            },
        }
    )


@pytest.fixture(autouse=True)
def no_inherited_tracking() -> None:
    """MLflow exports where it tracks, so that a test's processes would log into another test's folder."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture
def digits_experiment(tmp_path: Path) -> Callable[..., Config]:
    """Makes such an experiment in the test's own folder, as in ``digits_experiment(optim={"lr": 0.1})``."""
    return partial(digits, tmp_path)


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs with four steps each, tracked by TensorBoard and MLflow; don't change it."""
    return train(digits(tmp_path_factory.mktemp("digits"), trainer={"loggers": ["tensorboard", "mlflow"]}))


def train_small(folder: Path, **sections: object) -> Path:
    experiment = {"name": "model", "out": folder / "runs", "trainer": {"max_epochs": 6, **TRAINER}, **sections}
    return train(Config.model_validate(experiment))


@pytest.fixture(scope="session")
def image_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that reads digits; don't change it."""
    folder = tmp_path_factory.mktemp("images")
    data = {"kind": "images", "path": "embedded:digits", "image_size": 8, "limit": 600, "cache": str(folder / "cache")}
    return train_small(folder, data=data, model={"kind": "cnn"}, optim={"lr": 0.1})


@pytest.fixture(scope="session")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small transformer that reads tickets; don't change it."""
    folder = tmp_path_factory.mktemp("texts")
    data = {"kind": "texts", "path": "embedded:tickets", "limit": 600, "max_length": 64, "cache": str(folder / "cache")}
    model = {"kind": "encoder", "vocab_size": 2000}
    return train_small(folder, data=data, model=model, optim={"name": "adamw", "lr": 1e-3})


def exported(run: Path, folder: Path) -> Path:
    """A run folder with a bundle and an export of its ONNX format."""
    from trainyard.artifacts.bundle import Bundle
    from trainyard.verify import rank
    from trainyard.verify.export import Options, export

    shutil.copytree(run / "bundle", folder / "bundle")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rank, "SECONDS", 0.5)  # its speed doesn't matter here
        export(Bundle.open(folder), Options(("onnx",), threads=1), [])
    return folder


@pytest.fixture(scope="session")
def exported_images(image_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that reads digits and has an ONNX export; don't change it."""
    return exported(image_run, tmp_path_factory.mktemp("exported") / "images")


@pytest.fixture(scope="session")
def exported_texts(text_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that reads tickets and has an ONNX export; don't change it."""
    return exported(text_run, tmp_path_factory.mktemp("exported") / "texts")


@pytest.fixture
def bare_run(digits_run: Path, tmp_path: Path) -> Path:
    """A run folder with nothing but the bundle."""
    shutil.copytree(digits_run / "bundle", tmp_path / "run" / "bundle")
    return tmp_path / "run"


@pytest.fixture
def make_export(bare_run: Path) -> MakeExport:
    """Seals an export of these rows beside the bundle; ``files`` are contents by name."""

    def make(*rows: FormatRow, id: str = "one", files: dict[str, bytes] | None = None, **facts: object) -> Path:
        folder = bare_run / "exports" / id
        folder.mkdir(parents=True)
        for row in rows:
            if row.file:
                (folder / row.file).write_bytes((files or {}).get(row.file, row.name.encode()))
        recommended = next((row.name for row in rows if row.name != "eager"), "eager")
        values = {"schema_version": SCHEMA_VERSION, "bundle": digest(bare_run / "bundle"), "id": id, "created": "now",
                  "formats": rows, "recommended": recommended, "gate": {}, "data": {}, "machine": {},
                  **facts}  # fmt: skip
        write_json(folder / FACTS, ExportFacts.model_validate(values).model_dump())
        write_manifest(folder)
        latest = folder.parent / "latest"
        latest.unlink(missing_ok=True)
        latest.symlink_to(id)
        return folder

    return make


def row(name: str, status: str = "passed", throughput: float = 100, **values: object) -> FormatRow:
    there = {} if status in ("refused", "skipped") else {"file": FILES.get(name), "throughput": throughput}
    return FormatRow.model_validate({"name": name, "status": status, **there, **values})


@pytest.fixture(name="row")
def row_fixture() -> Callable[..., FormatRow]:
    """Makes a row of ``export.json``, as in ``row("onnx", "no_gain", needs=["avx2"])``."""
    return row


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command line changes what belongs to the whole process."""
    for variable in ("TRAINYARD_DEBUG", "TRAINYARD_EXPECT"):
        monkeypatch.setenv(variable, "")  # of a variable that isn't there, delenv notes nothing to restore
        monkeypatch.delenv(variable)
    levels = {name: logging.getLogger(name).level for name in ("trainyard.data", "")}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that are hashed, and JSON that is parsed."""
    seen = []
    sha256_file, read_text = manifest.sha256_file, Path.read_text
    monkeypatch.setattr(manifest, "sha256_file", lambda path: (seen.append(path), sha256_file(path))[1])
    monkeypatch.setattr(Path, "read_text", lambda path, **options: (seen.append(path), read_text(path, **options))[1])
    return seen


@pytest.fixture(scope="session")
def onnx_file(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's model as an ONNX file."""
    import torch

    from trainyard.artifacts.bundle import Bundle
    from trainyard.artifacts.samples import calibration_samples
    from trainyard.verify.source import load_source

    bundle = Bundle.open(digits_run)
    source = load_source(bundle, [sample.item for sample in calibration_samples(bundle.path)])
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    with warnings.catch_warnings(action="ignore"):  # what the exporter says of its own insides
        torch.onnx.export(
            source.graph, source.examples, file, input_names=source.names, dynamo=True, external_data=False,
            verbose=False, dynamic_shapes=(tuple({0: "batch"} for _ in source.names),),
        )  # fmt: skip
    return file
