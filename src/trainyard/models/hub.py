"""Finding a transformer in a local folder, in Hugging Face's cache or on its hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download

from trainyard.base.errors import UsageError

CONFIG = "config.json"
SETTINGS_AND_VOCABULARY = ["*.json", "*.txt", "*.model"]
WEIGHTS = ["model*.safetensors"]
OLD_WEIGHTS = ["pytorch_model*.bin"]


def find_model(source: str) -> Path:
    """The folder of a model: ``source`` itself, the bundle of a run folder, or a hub id's folder in the local cache.

    What is complete in the cache is used as it is; the network is asked for nothing but what lacks.

    Raises:
        UsageError: there is no such folder, nor such an id on the hub, or the folder isn't complete.
    """
    path = Path(source).expanduser()
    for folder in (path, path / "bundle"):
        if (folder / CONFIG).is_file():
            return _complete(folder, source)
    if path.exists() or path.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1:
        raise UsageError(f"{source} is no model folder: it has no {CONFIG}; give one, or the id of a model on the hub")
    return _complete(_find_on_hub(source), source)


def _find_on_hub(model_id: str) -> Path:
    try:
        cached = Path(snapshot_download(model_id, local_files_only=True))
        if not _missing(cached):
            return cached
    except (OSError, ValueError):
        pass  # nothing of it is cached: it is downloaded below
    try:
        patterns = SETTINGS_AND_VOCABULARY + WEIGHTS
        folder = Path(snapshot_download(model_id, allow_patterns=patterns, ignore_patterns=["*/*"]))
        if not _has(folder, WEIGHTS):
            snapshot_download(model_id, allow_patterns=OLD_WEIGHTS, ignore_patterns=["*/*"])
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"{model_id} is neither a folder here nor to be had from the Hugging Face hub ({reason}): "
            "check the spelling and the connection, or set model.pretrained to the folder of a copy"
        ) from error
    return folder


def _complete(folder: Path, source: str) -> Path:
    missing = _missing(folder)
    if missing:
        raise UsageError(f"{source} has no {missing}: complete it from where it is from, or choose another model")
    return folder


def _missing(folder: Path) -> str:
    """What a model folder lacks. Transformers itself would go on with an empty vocabulary."""
    if not _has(folder, [CONFIG]):
        return CONFIG
    if not _has(folder, ["tokenizer.json", "vocab.txt", "vocab.json", "*.model"]):
        return "tokenizer.json or vocabulary"
    return "" if _has(folder, WEIGHTS + OLD_WEIGHTS) else "model.safetensors"


def _has(folder: Path, patterns: list[str]) -> bool:
    return any(True for pattern in patterns for _ in folder.glob(pattern))
