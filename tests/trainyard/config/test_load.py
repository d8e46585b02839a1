"""Configs: files, overrides, the environment, and the sentences of their errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainyard.base.errors import UsageError
from trainyard.config.experiment import Experiment
from trainyard.config.kinds import model_classes
from trainyard.config.load import apply_overrides, dump_yaml, load_experiment, parse_data
from trainyard.config.schema import json_schema

MINIMAL = """\
name: trial
data: {kind: images, path: embedded:digits}
model: {kind: cnn}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "trial.yaml"
    path.write_text(MINIMAL)
    return path


def test_overrides_win_over_the_file_and_have_types(config: Path) -> None:
    experiment = load_experiment(config, ["optim.lr=3e-4", "trainer.max_epochs=2", "trainer.loggers=[mlflow]"])

    assert (experiment.optim.lr, experiment.trainer.max_epochs) == (3e-4, 2)
    assert experiment.trainer.loggers == ["mlflow"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["lr=0.1"], "there is no key 'lr'; did you mean 'optim.lr'?"),
        (["data.batchsize=3"], "there is no key 'data.batchsize'; did you mean 'data.batch_size'?"),
        (["trainer.epochs=3"], "there is no key 'trainer.epochs'; did you mean 'trainer.max_epochs'?"),
        (["modle.name=x"], "there is no key 'modle'; did you mean 'model'?"),
        (["data.max_length=9"], "there is no key 'data.max_length'; did you mean"),
        (["optim.lr=fast"], "'optim.lr' must be a number above 0, not 'fast'"),
        (["optim.lr=-1"], "'optim.lr' must be a number above 0, not -1"),
        (
            ["trainer.devices=gpu"],
            ": 'trainer.devices' must be 'auto', 'cpu' or a whole number of at least 1, not 'gpu'",
        ),
        (["trainer.precision=64"], ": 'trainer.precision' must be '32', 'bf16-mixed' or '16-mixed', not 64"),
        (["trainer.loggers=csv"], "must be a list (each 'tensorboard', 'mlflow' or 'wandb'), not 'csv'"),
        (["trainer.resume=null"], ": 'trainer.resume' must be true, false or text, not null"),
        (["model.pretrained=[1]"], ": 'model.pretrained' must be true, false or text, not [1]"),
        (["data.limit=few"], "'data.limit' must be a whole number of at least 1 or null, not 'few'"),
        (["data.image_size=3000"], "'data.image_size' must be a whole number of at least 4 and at most 2048, not 3000"),
        (["model.mean=[1]"], "'model.mean' must be a list of 3 (each a number"),
        (["name=null"], "'name' must be text that matches ^[A-Za-z0-9]"),
        (["trainer=3"], "'trainer' must be a section with keys, not 3"),
        (["data=none"], "'data' must be a section with keys, not 'none'"),
        (["bundle.samples=maybe", "seed=-1"], "not -1; 'bundle.samples' must be true or false, not 'maybe'"),
        (["model.kind=rnn"], "'model.kind' must be one of cnn, torchvision, encoder"),
        (["trainer.max_epochs"], "'trainer.max_epochs' isn't key=value"),
        (["name.x=1"], "'name' is a value, not a section with keys; write name=..."),
        (
            ["data.resize=100"],
            "data.resize=100 is smaller than data.image_size=224: set it to 224 or more, or leave it",
        ),
    ],
)
def test_a_mistake_is_one_sentence_with_the_fix(config: Path, words: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        load_experiment(config, words)

    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("name: trial\ndata: {kind: images}\nmodel: {name: plain}\n")

    with pytest.raises(UsageError) as error:
        load_experiment(path)

    assert "the key 'data.path' is missing: add it to the file, or data.path=... to the command" in str(error.value)

    # The library's own sections come first; the model's is read by the project's code.
    path.write_text("name: trial\ndata: {kind: images, path: x}\nmodel: {name: plain}\n")
    with pytest.raises(UsageError, match=r"the key 'model\.kind' is missing: it is one of cnn, torchvision, "):
        load_experiment(path)


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("name: trial\nmodel: {kind: encoder}\n")

    with pytest.raises(UsageError, match="the section 'data' is missing: add it to the file"):
        load_experiment(path)


def test_a_union_is_one_sentence(config: Path) -> None:
    with pytest.raises(UsageError) as error:
        load_experiment(config, ["trainer.devices=gpu", "seed=x", "data.label={a: 1}"])

    assert str(error.value).count("; ") == 2
    assert str(error.value).count("'data.label' must be text or a whole number, not {'a': 1}") == 1


def test_a_missing_file_names_the_nearest(config: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean .*trial\.yaml"):
        load_experiment(config.with_name("trail.yaml"))


@pytest.mark.parametrize(
    ("content", "fix"),
    [
        (b"- a\n- b\n", "write it like configs/digits_resnet.yaml"),
        (b"", "write it like configs/digits_resnet.yaml"),
        (b"a: [1\n", "mend it, or put the value in quotes: .* line 2"),
        (b"a: !!int x\n", "mend it, or put the value in quotes"),
        (b"a: \xff\n", "give a UTF-8 file that you may read"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: bytes, fix: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)

    with pytest.raises(UsageError, match=fix):
        load_experiment(path)


def test_values_come_from_the_environment(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text(MINIMAL + "seed: ${SEED:-7}\nout: ${ROOT:-runs}/mine\n")

    assert load_experiment(config).seed == 7
    monkeypatch.setenv("SEED", "11")
    monkeypatch.setenv("ROOT", "elsewhere")
    experiment = load_experiment(config)
    assert (experiment.seed, experiment.out) == (11, Path("elsewhere/mine"))


def test_an_unset_variable_without_default_is_an_error(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)

    with pytest.raises(UsageError, match="wants the environment variable NOWHERE"):
        load_experiment(config, ["name=${NOWHERE}"])


def test_the_resolved_config_reads_back_as_itself(config: Path, tmp_path: Path) -> None:
    experiment = load_experiment(config, ["optim.clip=2.5", "data.val_fraction=0.2"])
    saved = tmp_path / "resolved.yaml"
    saved.write_text(dump_yaml(experiment))

    assert load_experiment(saved) == experiment


def test_the_data_section_alone() -> None:
    tree: dict[str, object] = {"data": {"kind": "texts", "path": "a.csv"}}
    apply_overrides(tree, ["data.text=[title, body]"])
    assert parse_data(tree).path == "a.csv"

    with pytest.raises(UsageError, match=r"did you mean 'data\.text'"):
        parse_data({"data": {"kind": "texts", "path": "a.csv", "texts": 1}})


def test_the_schema_describes_every_key() -> None:
    schema = json_schema()
    definitions = schema["$defs"]
    assert isinstance(definitions, dict)

    undescribed = [
        f"{name}.{key}"
        for name, definition in {**definitions, "Experiment": schema}.items()
        for key, value in definition.get("properties", {}).items()
        if not value.get("description") and "$ref" not in value
    ]
    assert undescribed == []
    assert schema["additionalProperties"] is False


def test_every_section_refuses_unknown_keys() -> None:
    assert {model.model_config["extra"] for model in (Experiment, *model_classes())} == {"forbid"}
