"""Families of models, one per file; a network's forward returns a distribution."""

__all__: list[str] = []
