"""The socket that others may reach."""

from __future__ import annotations

import contextlib
import resource
import socket

from trainyard.base.errors import UsageError

LOOPBACK = "127.0.0.1"
BACKLOG = 1024
"""Connections that wait to be accepted, as the system allows."""
MANY_FILES = 65_536
"""Open files that are enough: each connection is one, and the usual limit of 1,024 is soon reached."""


def listen(host: str, port: int, option: str = "--") -> socket.socket:
    """A listening socket of this address; port 0 takes a free one.

    Args:
        option: What the options by which they are chosen begin with.

    Raises:
        UsageError: the port is in use or not allowed, or the host isn't this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    is_dual = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=is_dual)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (while")[0]  # Python adds the address
        fix = f"choose another port by {option}port (0 takes a free one), or another host by {option}host"
        raise UsageError(f"can't listen on {host}:{port} ({why}): {fix}") from error


def url_of(listener: socket.socket) -> str:
    """The URL by which this machine reaches a listening socket."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = LOOPBACK
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def allow_many_files() -> None:
    """Raises this process's soft limit of open files as far as it may, for itself and what it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, MANY_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # some systems have a lower limit that they don't tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
