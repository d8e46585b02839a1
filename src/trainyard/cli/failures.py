"""What ends the program and isn't a mistake of ours: the exit code, and one sentence with the fix."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from trainyard.base.errors import EXIT_FAILED, EXIT_USAGE, TrainyardError

DISTRIBUTIONS = {
    "mlflow": "mlflow-skinny",
    "prometheus_client": "prometheus-client",
    "python_calamine": "python-calamine",
    "sklearn": "scikit-learn",
    "ts": "torchserve",
}
"""What brings a package, where it is called otherwise."""
BY_CONFIG = "choose another folder by out=... and data.cache=..."
BY_OUT = "choose another place by --out"
ADVICE = {
    "train": BY_CONFIG,
    "doctor": BY_CONFIG,
    "evaluate": "choose another folder by data.cache=...",
    "export": "copy the run elsewhere, and choose another folder by data.cache=...",
    "benchmark": BY_OUT,
    "predict": BY_OUT,
    "archive": BY_OUT,
    "serve": "choose another folder for its files by TMPDIR=...",
}
"""Where else a verb can write."""
SYSTEM_FIXES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EACCES: "give yourself access to it",
    errno.EPERM: "give yourself access to it",
    errno.EROFS: "nothing can be written there",
}
"""What to do about an error of the operating system. One that isn't here may be a mistake of ours."""


class Failure(NamedTuple):
    """How the program ends; ``others_know_more``: another process of the job most likely says it better."""

    code: int
    message: str
    others_know_more: bool


def explain(error: BaseException, verb: str = "") -> Failure | None:
    """The failure behind a verb's error; none if it is a mistake of ours, whose traceback is wanted."""
    if isinstance(error, KeyboardInterrupt):
        return Failure(130, "interrupted", others_know_more=False)
    if isinstance(error, RuntimeError) and _is_lost_connection(error):
        message = f"the connection to another process of this job is lost: {str(error).splitlines()[0]}"
        return Failure(EXIT_FAILED, message, others_know_more=True)
    found = _known(error, verb)
    return Failure(*found, others_know_more=int(os.environ.get("RANK", "0")) > 0) if found else None


def _known(error: BaseException, verb: str) -> tuple[int, str] | None:
    """What each process of a job says of itself: the exit code and the sentence."""
    match error:
        case TrainyardError():
            return error.exit_code, str(error)
        case ModuleNotFoundError():
            package = (error.name or "").partition(".")[0]
            extra = _extra_with(DISTRIBUTIONS.get(package, package))
            fix = f"run scripts/setup.sh, or pip install -e '.[{extra}]'"
            return (EXIT_USAGE, f"the package {package} isn't installed: {fix}") if extra else None
        case OSError(errno=errno.EMFILE):
            return EXIT_FAILED, f"{error.strerror}; allow more open files: ulimit -n 65536"
        case OSError() if error.errno in SYSTEM_FIXES:
            place = f"{error.filename}: " if error.filename else ""
            fixes = filter(None, (SYSTEM_FIXES[error.errno], ADVICE.get(verb)))
            return EXIT_FAILED, f"{place}{error.strerror}; {', or '.join(fixes)}"
    return None


def _extra_with(distribution: str) -> str | None:
    """The first extra of pyproject.toml that brings a distribution."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement

    try:
        declared = map(Requirement, requires("trainyard") or [])
    except PackageNotFoundError:  # a folder on the PYTHONPATH: its traceback must do
        return None
    extras = (str(one.marker).partition("extra == ")[2] for one in declared if one.name == distribution != "trainyard")
    return next((extra.split('"')[1] for extra in extras if extra), None)


def _is_lost_connection(error: RuntimeError) -> bool:
    """Whether a collective operation failed; gloo gives such an error no type of its own."""
    if "LOCAL_RANK" not in os.environ:
        return False
    from torch.distributed import DistError

    return isinstance(error, DistError) or "/gloo/" in str(error)
