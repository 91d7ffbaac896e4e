"""One short file a checkpoint: `python -m genkit train NAME` reproduces checkpoints/NAME."""

__all__: list[str] = []
