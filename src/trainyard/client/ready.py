"""The probe: whether a server answers right, by a real prediction of each of its models."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

from trainyard.base.errors import TrainyardError
from trainyard.client.access import check_url

DEEP = "/v2/health/ready?deep=1"
"""Has the server ask each model one of its golden requests; needs no token, and costs nothing when asked again soon."""


class NotReadyError(TrainyardError):
    """The server can't be reached, or a model of it doesn't answer right."""


def check_ready(url: str, seconds: float) -> None:
    """Asks a server whether each model has just answered a golden request right.

    The standard library is enough for this: a probe runs every few seconds, and must start fast.

    Raises:
        UsageError: the URL isn't one.
        NotReadyError: it isn't ready.
    """
    request = urllib.request.Request(check_url(url) + DEEP)
    # Surroundings may name a proxy, which is not for a probe.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=seconds) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        error.close()
        reason = "it isn't ready" if error.code == 503 else f"it answers {error.code} to {DEEP}"
        raise NotReadyError(f"{url}: {reason}") from error
    except (OSError, ValueError) as error:
        raise NotReadyError(f"{url} can't be reached ({getattr(error, 'reason', error)})") from error
    if not isinstance(answer, dict) or answer.get("ready") is not True:
        raise NotReadyError(f"{url}: it doesn't say that it is ready")
