"""What ends the program: the sentences with a fix, and the mistakes of ours that keep their traceback."""

from __future__ import annotations

import errno
import os
import re
from importlib.metadata import packages_distributions, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from trainyard.base.errors import DataError, UsageError
from trainyard.cli import app
from trainyard.cli.failures import ADVICE, DISTRIBUTIONS, explain


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("extra", ["train", "tracking", "export", "serve"])
def test_a_missing_package_of_an_extra_is_named_with_it(extra: str) -> None:
    wanted = [Requirement(line) for line in requires("trainyard") or []]
    names = {one.name for one in wanted if one.marker and f'extra == "{extra}"' in str(one.marker)}
    assert names
    imported = packages_distributions()
    for name in names:
        package = next((module for module, brings in DISTRIBUTIONS.items() if brings == name), name)
        assert name in map(canonicalize_name, imported[package])
        failure = explain(ModuleNotFoundError(name=f"{package}.inner"))
        assert failure is not None, name
        assert failure.code == 2
        assert re.search(
            rf"the package {package} isn't installed: .*\[(train|tracking|export|serve)\]", failure.message
        )


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (UsageError("do it so"), 2, "do it so"),
        (DataError("bad rows"), 1, "bad rows"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ModuleNotFoundError(name="wandb.sdk"), 2, "the package wandb isn't installed: .*'.\\[tracking\\]'"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 1, "No space left on device; free some space"),
        (
            PermissionError(errno.EACCES, "Permission denied", "x.csv"),
            1,
            "x.csv: Permission denied; give yourself access",
        ),
        (OSError(errno.EROFS, "Read-only file system", "/r"), 1, "/r: Read-only file system; nothing can be written"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 1, "No space left on device; free some space$"),
        (OSError(errno.EMFILE, "Too many open files"), 1, "Too many open files; .*ulimit -n"),
    ],
)
def test_what_a_user_can_mend_is_a_sentence(error: BaseException, code: int, sentence: str) -> None:
    failure = explain(error)

    assert failure is not None
    assert failure.code == code
    assert re.match(sentence, failure.message)
    assert not failure.others_know_more


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError(name="trainyard.nothing"),
        ModuleNotFoundError(name="nothing"),
        ImportError("cannot import name 'x'"),
        FileNotFoundError(errno.ENOENT, "No such file", "x"),
        OSError("libcudart.so: cannot open shared object file"),
        RuntimeError("a bug in /gloo/"),
    ],
)
def test_a_mistake_of_ours_keeps_its_traceback(error: Exception) -> None:
    assert explain(error) is None


@pytest.mark.parametrize(
    ("verb", "advice"),
    [
        ("train", "out=..."),
        ("evaluate", "data.cache=..."),
        ("predict", "--out"),
        ("serve", "TMPDIR=..."),
        ("ready", ""),
    ],
)
def test_the_other_place_is_one_that_the_verb_can_write_to(verb: str, advice: str) -> None:
    failure = explain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x"), verb)

    assert failure is not None
    assert failure.message.startswith("x: No space left on device; free some space")
    assert advice in failure.message
    assert ("out=..." in failure.message) == (verb == "train")


def test_every_advice_is_for_a_verb() -> None:
    assert ADVICE.keys() <= {command.name or command.callback.__name__ for command in app.registered_commands}


def test_rank_1_lets_rank_0_say_it_and_a_lost_connection_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")

    mistake, lost = explain(UsageError("do it so")), explain(RuntimeError("/gloo/pair.cc: closed\nmore"))
    assert mistake is not None
    assert lost is not None
    assert mistake.others_know_more
    assert lost.others_know_more
    assert lost.message == "the connection to another process of this job is lost: /gloo/pair.cc: closed"
