"""Gives a copy of an archive another name, or other settings; what is deployed in it stays as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

from trainyard.artifacts.manifest import MANIFEST
from trainyard.torchserve.archive import MAR_MANIFEST, MODEL_CONFIG, MarManifest, as_json, entry_of
from trainyard.torchserve.settings import Settings, format_key, model_config, read_model_config


def restamp(source: Path, target: Path, name: str, settings: Settings) -> None:
    """Writes the archive ``target``: ``source``, which was checked, by this name and with these settings."""
    with ZipFile(source) as old, ZipFile(target, "w", ZIP_STORED) as new:
        changed = _changed(old, name, settings)
        for info in old.infolist():
            if info.filename in changed:
                new.writestr(info, changed[info.filename])
            else:
                with old.open(info) as content, new.open(info, "w") as copy:
                    shutil.copyfileobj(content, copy)


def _changed(old: ZipFile, name: str, settings: Settings) -> dict[str, bytes]:
    stamp = MarManifest.model_validate_json(old.read(MAR_MANIFEST))
    before = old.read(MODEL_CONFIG)
    config = model_config(settings, read_model_config(before).handler.format)
    renamed = stamp.model_copy(update={"model": stamp.model.model_copy(update={"modelName": name})})
    changed = {MAR_MANIFEST: renamed.to_json(), MODEL_CONFIG: config.to_yaml(format_key(before))}
    manifest = json.loads(old.read(MANIFEST))
    for place, content in changed.items():
        manifest["files"][place] = entry_of(content)
    return {**changed, MANIFEST: as_json(manifest)}
