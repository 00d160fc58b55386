"""The tokenizer of a thinker's checkpoint as TRL wants it: with its ends and padding named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def open_tokenizer(path: str, config: PretrainedConfig, *, revision: str | None = None) -> Any:
    """Open a checkpoint's tokenizer.

    A checkpoint that holds tokenizer.json alone, as the nano ones do, does not say which token ends a turn
    and which pads; the thinker's configuration does.

    Args:
        path: directory or hub id.
        config: the thinker's.
        revision: of a hub id.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, padding_side="left")
    text = config.get_text_config()
    if tokenizer.eos_token is None:
        ends = text.eos_token_id
        first = ends[0] if isinstance(ends, (list, tuple)) else ends
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(first)
    if tokenizer.pad_token is None:
        pad = text.pad_token_id
        tokenizer.pad_token = (
            tokenizer.eos_token if pad is None else tokenizer.convert_ids_to_tokens(pad)
        )
    return tokenizer
