"""The keys that a release moved: what an error says of them, and configs that are brought along line by line."""

from __future__ import annotations

import copy
import re

import yaml

from trainyard.config.values import read_yaml

MOVED: dict[str, dict[str, str]] = {
    "0.2.0": {
        "data.augment": "augment.kind",
        "data.flip": "augment.flip",
        "data.shift": "augment.shift",
        "data.mixup": "augment.mixup",
        "data.cutmix": "augment.cutmix",
    },
}
"""Of each release, the keys that have another place or name since; a key is ``section.name``, and its values stay."""


def moved_keys() -> dict[str, str]:
    """Today's name of each key that was moved."""
    today: dict[str, str] = {}
    for keys in MOVED.values():
        today = {old: keys.get(new, new) for old, new in today.items()} | keys
    return today


def migrate(text: str) -> tuple[str, dict[str, str], list[str]]:
    """Moves the keys of a config, each with its line and the comments above it; all else stays byte for byte.

    A move is made only if what YAML reads from the new text is exactly that move.

    Returns:
        The text, the keys that were moved in it with their names of today, and a sentence for each that could not be.
    """
    moves: dict[str, str] = {}
    left: list[str] = []
    for old, new in moved_keys().items():
        tree = _read(text)
        section, name = old.split(".")
        if section not in tree or name not in tree[section]:
            continue
        moved = _move(text, old, new)
        if _read(moved) == _expected(tree, old, new):
            text, moves[old] = moved, new
        else:
            left.append(f"'{old}' is '{new}' now, which can't be done line by line here: move it by hand")
    return text, moves, left


def _read(text: str) -> dict[str, dict[str, object]]:
    """The sections of a config, without what isn't one."""
    try:
        tree = read_yaml(text)
    except yaml.YAMLError:
        return {}
    return {key: value for key, value in tree.items() if isinstance(value, dict)} if isinstance(tree, dict) else {}


def _expected(tree: dict[str, dict[str, object]], old: str, new: str) -> dict[str, dict[str, object]] | None:
    """The sections after a move; ``None`` where the key of today has a value already."""
    tree = copy.deepcopy(tree)
    (section, name), (new_section, new_name) = old.split("."), new.split(".")
    if new_name in tree.setdefault(new_section, {}):
        return None
    tree[new_section][new_name] = tree[section].pop(name)
    return tree


def _move(text: str, old: str, new: str) -> str:
    """The text with a line, and the comments right above it, at the end of another section, which may be new.

    Wrong where a section is written in another way than one key a line.
    """
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    (section, name), (new_section, new_name) = old.split("."), new.split(".")
    start, end = _section(lines, section)
    for last in range(start, end):
        if match := re.match(rf"(\s+){name}(\s*:(?=\s))", lines[last]):
            break
    else:
        return text
    first = last
    while first > start and lines[first - 1].startswith(f"{match[1]}#"):
        first -= 1
    taken = [*lines[first:last], f"{match[1]}{new_name}{lines[last][match.end(2) - len(match[2]) :]}"]
    newline = "\r\n" if taken[-1].endswith("\r\n") else "\n"
    taken = [line.rstrip("\r\n") + newline for line in taken]
    del lines[first : last + 1]
    start, place = _section(lines, new_section)
    if not place:
        place = _section(lines, section)[1]
        taken.insert(0, f"{new_section}:{newline}")
    elif indent := re.match(r"\s+", lines[place - 1]):
        taken = [indent[0] + line.lstrip() for line in taken]
    if place and not lines[place - 1].endswith("\n"):
        lines[place - 1] += newline
    return "".join([*lines[:place], *taken, *lines[place:]])


def _section(lines: list[str], name: str) -> tuple[int, int]:
    """Where a section's keys begin and end, as indices of lines; ``(0, 0)`` where there is none of one key a line."""
    for start, line in enumerate(lines, 1):
        if re.fullmatch(rf"{name}:\s*(#.*)?\r?\n?", line):
            ends = [place for place, line in enumerate(lines[start:], start) if line.strip() and line[0] not in " \t#"]
            inside = lines[start : ends[0] if ends else len(lines)]
            while inside and (not inside[-1].strip() or inside[-1][0] == "#"):
                inside.pop()
            return start, start + len(inside)
    return 0, 0
