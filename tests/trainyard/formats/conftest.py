"""The models that are exported here: see ``support/untrained.py``."""

from untrained import build, copied_run, image_source, source_from, text_source  # noqa: F401 fixtures
