"""The shape of a decoder-only transformer, checked without torch; see `transformer_network`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from hpc.models.transformer_network import Transformer


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of a transformer. Raises ValueError for sizes that do not fit together."""

    declares_hidden_matrices: ClassVar[bool] = True

    context: int
    """Tokens of a training sequence; RoPE lets a served prompt be longer."""
    width: int
    """Numbers that stand for one position in the residual stream."""
    layers: int
    heads: int
    """Query heads; each is width / heads wide, an even number."""
    hidden: int
    """Inner width of the SwiGLU."""
    kv_heads: int | None = None
    """Key and value heads, shared by groups of query heads; None for as many as `heads`."""
    qk_norm: bool = True
    """RMS-normalise queries and keys per head: attention logits stay bounded at high rates."""
    tied: bool = True
    """Use the embedding as the output layer too."""
    softcap: float | None = None
    """Squash logits to ±softcap with a tanh; None leaves them alone."""
    rope_base: float = 10000.0
    norm_eps: float = 1e-6
    vocabulary: int | None = None
    """Tokens of the tokenizer, special ones included; None takes the dataset's."""

    def __post_init__(self) -> None:
        for name in ("context", "width", "layers", "heads", "hidden", "kv_heads", "vocabulary"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        for name in ("rope_base", "norm_eps", "softcap"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value}: must be above 0")
        if self.width % self.heads or self.head_width % 2:
            raise ValueError(
                f"width={self.width} with heads={self.heads}: width / heads must be an even whole "
                "number, since RoPE turns pairs"
            )
        if self.heads % self.groups:
            raise ValueError(f"kv_heads={self.kv_heads}: must divide heads={self.heads}")

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def groups(self) -> int:
        """Key and value heads."""
        return self.kv_heads or self.heads

    def build(self, vocabulary: int) -> Transformer:
        """A transformer for a tokenizer of `vocabulary` tokens, in fp32 with fresh weights.

        Raises ValueError when the config names another vocabulary.
        """
        from hpc.models.transformer_network import Transformer

        if self.vocabulary not in (None, vocabulary):
            raise ValueError(
                f"vocabulary={self.vocabulary}: the dataset's tokenizer has {vocabulary} tokens; "
                f"train with model.vocabulary={vocabulary}, or prepare with data.vocab_size"
            )
        return Transformer(replace(self, vocabulary=vocabulary))
