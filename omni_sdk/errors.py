"""Every error that leaves the SDK on purpose.

Each is an `OmniError` and also a built-in, so `except ValueError` keeps working. Messages say what was
expected, what was found and what to do. This module imports nothing.
"""

from __future__ import annotations


class OmniError(Exception):
    """Base of all errors raised on purpose by omni_sdk, omni_export and omni_training."""


class OptionError(OmniError, ValueError):
    """An option has a value that it cannot have, or two options contradict each other."""


class MediaError(OmniError, RuntimeError):
    """A video, image or sound cannot be opened, or nothing in it can be decoded."""


class LimitError(OmniError, ValueError):
    """An input exceeds a limit that the caller may change (`MediaLimits`, bundle limits)."""


class QueryError(OmniError, ValueError):
    """The question is empty, too long for the model, or not text."""


class PromptError(OmniError, ValueError):
    """Boxes, points or frames handed in by the caller are malformed."""


class ResultError(OmniError, ValueError):
    """A result is malformed, holds no masks, or cannot be written where it was asked to be."""


class MaskError(OmniError, ValueError):
    """A run-length mask is malformed, or does not fit the size that it comes with."""


class DatasetError(OmniError, ValueError):
    """Annotations or predictions are missing, malformed, or do not fit each other."""


class BundleError(OmniError, ValueError):
    """A bundle or a checkpoint is incomplete, altered, or not of a known layout."""


class EngineError(OmniError, RuntimeError):
    """An inference engine refused a graph or failed while running it."""


class BackendUnavailableError(OmniError, ImportError):
    """The library behind a backend is not installed; the message names the pip extra."""


class ModelOutputError(OmniError, ValueError):
    """A model's text could not be parsed. `text` holds the raw completion."""

    def __init__(self, message: str, text: str = "") -> None:
        super().__init__(message)
        self.text = text


class ParityError(OmniError, RuntimeError):
    """A graph's output differs from its reference by more than its stated tolerance."""


class MemoryBudgetError(OmniError, RuntimeError):
    """A plan does not fit the memory that it was given."""
