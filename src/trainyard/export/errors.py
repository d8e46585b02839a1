"""How a rung says that it can't be made."""

from __future__ import annotations


class Skip(Exception):
    """A rung can't be made here, for the reason that its row will give: a missing compiler, a layer without a kernel."""
