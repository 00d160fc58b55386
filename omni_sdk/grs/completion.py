"""From generated token ids to a completion's text, with stop texts taken out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from omni_sdk.grs.parser import awaits_answer
from omni_sdk.grs.request import Completion

CLOSE_THOUGHT = "</think><answer>"
"""What is put into a thought's mouth that outlasts its budget: the grammar's way from thought to answer."""
_LIST = "["


class CompletionBuilder:
    """Collects the tokens of one row until it ends.

    Args:
        tokenizer: decodes the tokens.
        eos: ids that end a completion.
        stop: texts that end a completion.
        max_new_tokens: bound on tokens, at least 1.
        thinking_budget: tokens after which `CLOSE_THOUGHT` is forced if no answer has begun; None: never.
        moments: see `awaits_answer`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        eos: Sequence[int],
        stop: Sequence[str],
        max_new_tokens: int,
        *,
        thinking_budget: int | None = None,
        moments: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._eos = frozenset(eos)
        self._stop = tuple(stop)
        self._max_new_tokens = max_new_tokens
        self._ids: list[int] = []
        self._cut: int | None = None
        self._thinking_budget = thinking_budget
        self._moments = moments
        self._thinking_cut = False
        self._forced: list[int] = []
        self._begins_list = False
        self.finish: str | None = None
        """"eos", "stop" or "length" once the row has ended."""

    def forced(self) -> int | None:
        """Return the token that has to come next, or None where the model is free to choose."""
        if self.finish is not None:
            return None
        spent = self._thinking_budget is not None and len(self._ids) >= self._thinking_budget
        if spent and awaits_answer(self._decode(self._ids), moments=self._moments):
            self._thinking_budget = None  # once is enough
            self._thinking_cut = True
            encoding = self._tokenizer.encode(CLOSE_THOUGHT, add_special_tokens=False)
            self._forced = encoding.ids[::-1]
            self._begins_list = self._moments
        return self._forced.pop() if self._forced else None

    def allowed(self) -> list[int] | None:
        """Return the tokens of which the next one has to be one, or None where all are allowed.

        After a thought that was closed for it the model chooses how its list begins, not whether.
        """
        if self._forced or not self._begins_list or self.finish is not None:
            return None
        self._begins_list = False
        special = {
            id for id, token in self._tokenizer.get_added_tokens_decoder().items() if token.special
        }
        found = [id for piece, id in self._tokenizer.get_vocab().items() if piece.startswith(_LIST)]
        return [id for id in found if id not in special] or None

    def add(self, token: int) -> bool:
        """Take the next token; return whether the row has ended. Ended rows ignore tokens."""
        if self.finish is not None:
            return True
        if token in self._eos:
            self.finish = "eos"
            return True
        self._ids.append(token)
        if self._stop:
            text = self._decode(self._ids)
            found = [at for stop in self._stop if (at := text.find(stop)) >= 0]
            if found:
                self.finish, self._cut = "stop", min(found)
        if self.finish is None and len(self._ids) >= self._max_new_tokens:
            self.finish = "length"
        return self.finish is not None

    def build(self, prefill_ms: float, generate_ms: float) -> Completion:
        """Return the completion; times are as in `Completion`."""
        ids, text = self._ids, self._decode(self._ids)
        if self._cut is not None:
            text = text[: self._cut]
            while ids and not text.startswith(self._decode(ids)):
                ids = ids[:-1]  # a token that reaches into the stop text goes with it
        return Completion(
            token_ids=np.array(ids, np.int64),
            text=text,
            finish=self.finish or "length",
            prefill_ms=prefill_ms,
            generate_ms=generate_ms,
            thinking_cut=self._thinking_cut,
        )

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)
