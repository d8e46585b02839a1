"""Editors complete and check a config by a file: it must know every key that there is."""

from __future__ import annotations

import json
from pathlib import Path

from trainyard.config.schema import json_schema

SCHEMA = Path(__file__).parents[1] / "configs" / "schema.json"


def test_the_schema_that_editors_read_is_up_to_date() -> None:
    written = json.loads(SCHEMA.read_text(encoding="utf-8"))

    assert written == json_schema(), "run: trainyard config --schema > configs/schema.json"
