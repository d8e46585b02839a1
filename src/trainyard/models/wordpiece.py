"""A WordPiece tokenizer, as BERT's, with a vocabulary learnt from one's own texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import WordPieceTrainer

from trainyard.preprocess.base import Item
from trainyard.preprocess.text import without_surrogates

PAD, UNKNOWN, START, SEPARATOR, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SPECIAL_NAMES = {
    "pad_token": PAD,
    "unk_token": UNKNOWN,
    "cls_token": START,
    "sep_token": SEPARATOR,
    "mask_token": MASK,
}
"""What Hugging Face calls them."""
MIN_FREQUENCY = 2
"""A piece that occurs once teaches nothing."""


def train_wordpiece(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learns a lower-cased vocabulary of about ``vocab_size`` pieces, the same one from the same texts every time.

    The library's trainer alone doesn't give the same one: it numbers the word-inner letters in the order of a hash map
    seeded per process, and breaks ties by these numbers. Here they are numbered before it starts.
    """
    texts = list(texts)
    tokenizer = _tokenizer({token: i for i, token in enumerate(SPECIAL_TOKENS)})
    initial, inner = _alphabet(tokenizer, texts, limit=vocab_size // 4)
    trainer = WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=[*SPECIAL_TOKENS, *(f"##{letter}" for letter in inner)],
        initial_alphabet=initial,
        limit_alphabet=len(initial),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # A new one, in which the word-inner letters are no special tokens.
    return _tokenizer(tokenizer.get_vocab())


def _alphabet(tokenizer: Tokenizer, texts: Iterable[str], limit: int) -> tuple[list[str], list[str]]:
    """The most frequent letters, and those of them that occur inside words; each sorted."""
    words: Counter[str] = Counter()
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text)
        words.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
    letters: Counter[str] = Counter()
    for word, count in words.items():
        for letter in word:
            letters[letter] += count
    frequent = sorted(letters, key=lambda letter: (-letters[letter], letter))[:limit]
    inner = {letter for word in words for letter in word[1:]}
    return sorted(frequent), sorted(inner.intersection(frequent))


def _tokenizer(vocab: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=UNKNOWN))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing((SEPARATOR, vocab[SEPARATOR]), (START, vocab[START]))
    return tokenizer


def item_texts(items: Iterable[Item]) -> Iterator[str]:
    """All texts of text items, those of a pair one by one."""
    for item in items:
        if isinstance(item, str):
            yield without_surrogates(item)
        elif isinstance(item, tuple):
            yield from map(without_surrogates, item)
