"""Data that genkit trains on and is measured with: the picture book."""

__all__: list[str] = []
