"""``trainyard predict --url``: from what a user hands over to a server's answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from trainyard.base.errors import ItemError, UsageError
from trainyard.client.client import AsyncClient, Client
from trainyard.heads.base import Prediction
from trainyard.inference.inputs import answer, read_inputs
from trainyard.preprocess.base import Item


def ask(
    url: str, token_file: Path | None, model: str | None, words: Sequence[str], top_k: int
) -> list[tuple[str, Prediction | ItemError]]:
    """Has a server answer; the server says whether its model reads images or texts.

    Args:
        url: Of the server.
        token_file: Holds its token.
        model: Which of its models; may be left out if there is one.
        words: Files, folders, tables or texts, as of ``trainyard predict``.
        top_k: Classes to tell of each item.

    Raises:
        UsageError: a word, the URL or the token file is wrong, or the server has several models.
        ServerError: the server gave no answers.
    """
    with Client(url, token_file=token_file) as client:
        names = client.models() if model is None else [model]
        if len(names) != 1:
            raise UsageError(f"{client.url} has the models {', '.join(names) or 'none'}: choose one by --model")
        served = client.model(names[0])

    async def predict(items: list[Item]) -> Sequence[Prediction | ItemError]:
        async with AsyncClient(url, token_file=token_file) as client:
            return await client.predict(served.name, items, top_k)

    return answer(list(read_inputs(words, served.reads)), lambda items: asyncio.run(predict(items)))
