"""One picture, three ways."""

from typing import Any

from apps.common import Studio
from apps.text import Words

__all__ = ["section"]


def section(words: Words, studio: Studio, language: Any, picture: Any, seed: Any) -> None:
    """Lays out the section and says what its controls do."""
