"""The WordPiece vocabulary learnt from one's own texts."""

from __future__ import annotations

import os
import subprocess
import sys

import transformers

from trainyard.models.wordpiece import item_texts, train_wordpiece

TEXTS = [
    f"{verb} {noun}, Café number {i}"
    for i, verb in enumerate(["send", "cancel", "refund"])
    for noun in ["orders", "invoices", "subscriptions", "passwords", "tickets"]
]
PRINT_DIGEST = """
import hashlib, sys
from trainyard.models.wordpiece import train_wordpiece
tokenizer = train_wordpiece(sys.stdin.read().splitlines(), 120)
print(hashlib.sha256(tokenizer.to_str().encode()).hexdigest())
"""


def test_same_vocabulary_in_every_process() -> None:
    digests = set()
    for seed in ("1", "2", "3"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", PRINT_DIGEST]
        done = subprocess.run(
            command, input="\n".join(TEXTS), env=environment, capture_output=True, text=True, check=True
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_same_ids_as_a_bert_tokenizer_with_this_vocabulary() -> None:
    ours = train_wordpiece(TEXTS, 150)
    theirs = transformers.BertTokenizer(vocab=ours.get_vocab(), do_lower_case=True)
    for text in [*TEXTS, "CAFÉ refunding!", "unknown 東京 🙂", "##s [SEP] [MASK]"]:
        assert ours.encode(text).ids == theirs(text)["input_ids"]
    pair = ours.encode("send orders", "cancel")
    expected = theirs("send orders", "cancel")
    assert pair.ids == expected["input_ids"]
    assert pair.type_ids == expected["token_type_ids"]


def test_special_tokens_come_first_and_size_is_kept() -> None:
    tokenizer = train_wordpiece(TEXTS, 120)
    assert [tokenizer.id_to_token(i) for i in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.get_vocab_size() <= 120
    assert tokenizer.token_to_id("refund") is not None
    assert "[UNK]" not in tokenizer.encode("Refunds, ordered cafe passes").tokens


def test_rare_letters_leave_room_for_words() -> None:
    rare = [chr(0x4E00 + i) for i in range(500)]
    tokenizer = train_wordpiece([*TEXTS, *rare], 200)
    assert tokenizer.get_vocab_size() <= 200
    assert tokenizer.token_to_id("refund") is not None


def test_both_texts_of_a_pair_are_learnt_from() -> None:
    assert list(item_texts(["one", ("two", "three")])) == ["one", "two", "three"]


def test_half_an_emoji_is_replaced() -> None:
    assert list(item_texts(["a\ud83d", ("b", "\ude00c")])) == ["a\ufffd", "b", "\ufffdc"]
