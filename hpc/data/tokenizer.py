"""Byte-level BPE tokenizers, trained on a dataset's own text."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers


def train_byte_bpe(
    texts: Iterable[str], vocab_size: int, special_token: str, pretokenizer: str = ""
) -> Tokenizer:
    """A byte-level BPE: any text has tokens, and tokens decode to exactly that text.

    `special_token` is id 0. Merges never cross the matches of the regular expression
    `pretokenizer`, or of GPT-2's where it is empty.
    """
    tokenizer = Tokenizer(models.BPE())
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not pretokenizer)
    if pretokenizer:
        pieces = pre_tokenizers.Split(Regex(pretokenizer), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, bytewise])
    else:
        tokenizer.pre_tokenizer = bytewise
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[special_token],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
