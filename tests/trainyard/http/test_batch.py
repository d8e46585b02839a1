"""What the gateway and a worker send each other: it comes back as it was, whatever bodies hold."""

from __future__ import annotations

import numpy as np
import pytest

from trainyard.base.errors import ItemError
from trainyard.http.batch import Facts, Reply, Sent, read_replies, read_requests, write_replies, write_requests
from trainyard.http.request_types import MAX_ITEMS

BODIES = [b"", b"\n", b"[[1]]\n", bytes(range(256)), b"x" * 100_000]


def test_requests_come_back_as_they_were() -> None:
    requests = [Sent(type, body) for type in ("image/png", 'text/plain; x="\\\xe4]"', "") for body in BODIES]

    assert read_requests(b"".join(write_requests(requests))) == requests


def test_replies_come_back_as_they_were() -> None:
    scores = np.eye(1, 21_000, 20_999, dtype=np.float32)[0] * 0.98765
    facts = Facts.of([(scores, {"length": 512.0, "unknown": 1 / 3})] * MAX_ITEMS, 1.23456, 2.0, 1024)
    assert (facts.preprocess_ms, facts.confidences[0], facts.measures["unknown"][0]) == (1234.56, 0.988, 0.333)
    replies = [Reply(200, body, "application/octet-stream", {"A": "b"}, facts) for body in BODIES]
    replies += [Reply(415, body) for body in BODIES]

    assert read_replies(write_replies(replies)) == replies


@pytest.mark.parametrize("body", [b"", b"\n", b"{}", b'[[1,"a","",{},null]]\n', b'{"code": 1}\n', b"\xff\n"])
def test_what_isnt_ours_is_told(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        read_replies(body)


def test_an_item_that_failed_has_no_label() -> None:
    good = np.array([0.2, 0.8], np.float32)

    facts = Facts.of(
        [(ItemError("bad"), {}), (good, {"length": 3.0}), (ItemError("odd"), {"length": 9.0})], 0.0, 0.0, None
    )

    assert (facts.items, facts.labels, facts.confidences, facts.measures) == (3, [1], [0.8], {"length": [3.0]})
    assert Facts.of([(ItemError("bad"), {})], 0.0, 0.0, None).measures == {}
