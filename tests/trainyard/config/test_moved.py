"""Keys of earlier releases: a test for each release that moved some, and what a config keeps when they are moved."""

from __future__ import annotations

import pytest

from trainyard.config.moved import MOVED, migrate, moved_keys
from trainyard.config.values import read_yaml


def test_each_release_moves_its_keys() -> None:
    for keys in MOVED.values():
        for old, new in keys.items():
            section, name = old.split(".")
            new_section, new_name = new.split(".")
            text, moves, left = migrate(f"{section}:\n  other: 1\n  {name}: 0.5\nlast: {{}}\n")
            assert (moves, left) == ({old: moved_keys()[old]}, [])
            assert read_yaml(text) == {section: {"other": 1}, new_section: {new_name: 0.5}, "last": {}}
            assert migrate(text) == (text, {}, [])


def test_0_2_0_gave_augmentation_a_section() -> None:
    before = """\
# Mine.
name: mine
data:
  kind: images
  # A mirrored digit is no digit.
  flip: none   # really
  path: "${DATA}"  # where it is
  augment: light

# The model.
model: {kind: resnet}
"""
    after = """\
# Mine.
name: mine
data:
  kind: images
  path: "${DATA}"  # where it is
augment:
  kind: light
  # A mirrored digit is no digit.
  flip: none   # really

# The model.
model: {kind: resnet}
"""
    moves = {"data.augment": "augment.kind", "data.flip": "augment.flip"}
    assert migrate(before) == (after, moves, [])
    assert migrate(before.replace("\n", "\r\n")) == (after.replace("\n", "\r\n"), moves, [])


def test_a_section_that_is_there_takes_them_at_its_end() -> None:
    text = "augment:\n    kind: none\n\ndata:\n  path: x\n  shift: ${SHIFT:-2}"
    assert migrate(text)[0] == "augment:\n    kind: none\n    shift: ${SHIFT:-2}\n\ndata:\n  path: x\n"


@pytest.mark.parametrize(
    "text",
    [
        "data: {path: x, flip: none}\n",
        "data:\n  path: x\n  flip:\n    none\n",
        "data:\n  path: x\n  flip: none\naugment: {kind: light}\n",
        "data:\n  path: x\n  flip: none\naugment:\n  flip: random\n",
        "data:\n  flip: none\n",
        "data: &all\n  path: x\n  flip: none\nother:\n  <<: *all\n",
        "data:\n  path: x\n  'flip': none\n",
    ],
)
def test_what_cannot_be_done_line_by_line_stays_and_is_said(text: str) -> None:
    kept, moves, [sentence] = migrate(text)
    assert (kept, moves) == (text, {})
    assert sentence.startswith("'data.flip' is 'augment.flip' now")


@pytest.mark.parametrize("text", ["", "- data\n", "data: none\n", "data:\n\tflip: [", "datas:\n  flip: 1\n"])
def test_what_is_no_config_of_before_stays(text: str) -> None:
    assert migrate(text) == (text, {}, [])
