"""The header by which a worker tells the gateway of a request: small, and nothing where it isn't ours."""

from __future__ import annotations

import numpy as np
import pytest

from trainyard.base.errors import ItemError
from trainyard.http.facts import Facts
from trainyard.http.request_types import MAX_ITEMS


def test_of_the_largest_request_it_is_small_and_comes_back_as_it_was() -> None:
    scores = [np.eye(1, 21_000, 20_999, dtype=np.float32)[0] * 0.98765] * MAX_ITEMS
    facts = Facts.of(scores, [{"length": 512.0, "unknown": 1 / 3}] * MAX_ITEMS, 1.23456, 2.0, 1024)

    assert len(facts.header()) < 4096, "aiohttp takes 8 kB"
    assert Facts.read(facts.header()) == facts
    assert (facts.preprocess_ms, facts.confidences[0], facts.measures["unknown"][0]) == (1234.56, 0.988, 0.333)


def test_an_item_that_failed_has_no_label() -> None:
    good = np.array([0.2, 0.8], np.float32)

    facts = Facts.of([ItemError("bad"), good, ItemError("odd")], [{}, {"length": 3.0}, {"length": 9.0}], 0.0, 0.0, None)

    assert (facts.items, facts.labels, facts.confidences, facts.measures) == (3, [1], [0.8], {"length": [3.0]})
    assert Facts.of([ItemError("bad")], [{}], 0.0, 0.0, None).measures == {}


@pytest.mark.parametrize("value", [None, "", "1", "[1,2]", "{bad", '["a",1,1,1,[],[],{}]'])
def test_what_isnt_ours_is_nothing(value: str | None) -> None:
    assert Facts.read(value) is None
