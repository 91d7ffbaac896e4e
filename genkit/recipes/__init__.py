"""One short file a checkpoint: `python -m genkit train NAME`, then `publish NAME`, remakes it."""

__all__: list[str] = []
