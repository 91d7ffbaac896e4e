"""The entry of a Hugging Face Space (and of `python app.py`): the whole suite."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch

try:
    import spaces  # ZeroGPU: must be imported before torch
except ImportError:
    spaces = None

from dataclasses import replace

from apps import launch
from apps.common import embedded
from apps.settings import CONTROLS, MODELS
from genkit import hub


def main() -> None:
    """Serves on all interfaces inside a Space, on this machine alone elsewhere."""
    hosted = "SPACE_ID" in os.environ or os.environ.get("SYSTEM") == "spaces"
    studio = embedded()
    if spaces is not None and os.environ.get("SPACES_ZERO_GPU"):
        # A short request waits less: 8 pictures of 100 steps take seconds on such a GPU.
        studio = replace(studio, on_gpu=spaces.GPU(duration=30))
        for name in set(MODELS) & set(hub.names()):
            studio.generator(name)  # ZeroGPU wants the weights on cuda before the first request
            for control in set(CONTROLS.values()) & set(hub.names()):
                studio.tracer(control, name)
    launch(listen=hosted, studio=studio)


if __name__ == "__main__":
    main()
