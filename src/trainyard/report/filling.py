"""Filling in the templates of the model card and of the report: the project's before the library's."""

from __future__ import annotations

import importlib.resources
import logging
import re
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import yaml

from trainyard.base.errors import UsageError
from trainyard.base.project import find_project
from trainyard.base.words import counted
from trainyard.report.markdown import number

log = logging.getLogger(__name__)

LIBRARY = Path(str(importlib.resources.files("trainyard.report"))) / "templates"
ABSOLUTE = re.compile(r"(?P<word>[^/~:]+:(?!//))?(?P<path>[/~].*)", re.DOTALL)
"""An absolute path, alone or behind the word of a source of data, as in ``hub:/data/set``."""


class Filling:
    """A template that can be filled in.

    Args:
        template: Its file; the project's, where it has one, and the library's, which is also ``trainyard/<file>``, so
            that a project's extends it.
        title: What its mistakes are mistakes of.
        filters: Besides those that all templates have.
        escapes: Whether what it says of the data is escaped, as HTML wants it.
    """

    def __init__(self, template: str, title: str, filters: Mapping[str, object], escapes: bool) -> None:
        self.template, self.title = template, title
        self._filters, self._escapes = filters, escapes

    def check(self) -> None:
        """Reads the template.

        Raises:
            UsageError: it has a mistake, or the folder of the project's templates isn't there.
        """
        for folder in _folders_of_project():
            if not folder.is_dir():
                raise UsageError(
                    f"the folder {folder}, which the project names for templates, is not there: make it, or mend that"
                )
        self._render(_folders_of_project(), None)

    def is_owned(self) -> bool:
        """Whether the project has a template of this name."""
        return any((folder / self.template).is_file() for folder in _folders_of_project())

    def fill_strictly(self, known: Mapping[str, object]) -> str:
        """Fills it in.

        Raises:
            UsageError: it has a mistake; names file and line.
        """
        return self._render(_folders_of_project(), known)

    def fill(self, known: Mapping[str, object]) -> str:
        """The same; where the project's fails, the library's stands in: no finished run is lost for it."""
        try:
            return self.fill_strictly(known)
        except UsageError as error:
            log.warning("%s; until then there is a plain one", error)
        return self._render([], known)

    def _render(self, folders: Sequence[Path], known: Mapping[str, object] | None) -> str:
        library = jinja2.FileSystemLoader(LIBRARY)
        loaders = [jinja2.FileSystemLoader(folders), library, jinja2.PrefixLoader({"trainyard": library})]
        environment = jinja2.Environment(
            loader=jinja2.ChoiceLoader(loaders),
            undefined=jinja2.StrictUndefined,
            autoescape=self._escapes,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters |= {"number": number, "counted": counted, "words": _in_words, "yaml": _as_yaml}
        environment.filters |= self._filters
        try:
            template = environment.get_template(self.template)
            return "" if known is None else template.render(known)
        except Exception as error:  # what a template calls may raise anything
            reason = " ".join(str(error).split())
            place = _place(error, self.template)
            raise UsageError(f"{self.title}'s template has a mistake in {place}: {reason}; mend it") from error


def _folders_of_project() -> list[Path]:
    project = find_project()
    if project is None or not project.templates:
        return []
    return [Path(str(importlib.resources.files(project.package))) / project.templates]


def _place(error: Exception, template: str) -> str:
    """File and line of a template, as Jinja writes them into the traceback."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"{error.filename or error.name}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".j2")]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else template


def _in_words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {child}" for key, child in value.items())
    if isinstance(value, float):
        return f"{value:.1f}"
    return "none" if value is None else str(value)


def _as_yaml(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip()


def without_folders(value: object) -> object:
    """Cuts absolute paths to their last part: where a folder lies on the machine is nobody's business."""
    if isinstance(value, dict):
        return {key: without_folders(child) for key, child in value.items()}
    if isinstance(value, list):
        return [without_folders(child) for child in value]
    return last_part(value) if isinstance(value, str) else value


def last_part(location: str) -> str:
    """Relative paths, names like ``embedded:digits`` and addresses stay whole, and so does the word of a source."""
    found = ABSOLUTE.fullmatch(location)
    return (found["word"] or "") + Path(found["path"]).name if found else location
