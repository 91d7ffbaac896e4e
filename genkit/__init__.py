"""genkit: every family of generative image model in one small PyTorch core.

Layer 0   `store`, `model` (recorded configuration, safe checkpoints), `distributions`, `runtime`,
          `data`, `sheet`
Layer 1   `nn` (networks), `diffusion` (schedules, denoisers, samplers: the calculus)
Layer 2   `models` (one family per file), `objectives` (what is minimised)
Layer 3   `hub` (a name becomes a model), `evaluate`, `recipe`, `train`, `publish`
Layer 4   `generate` (what the pages and the command line call)
Layer 5   `recipes` (one file per checkpoint), `doctor`, `cli`

Imports go down only. Conventions everywhere: a network's forward returns a distribution; time t
runs from 0 (data) to 1 (noise); pictures are "B C H W" in [-1, 1]; randomness is an argument
(`torch.Generator`); long work is a generator.

    >>> import genkit
    >>> model = genkit.load("book128_latent")          # doctest: +SKIP
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genkit.model import Model

__all__ = ["__version__", "load"]
__version__ = "0.1.0"


def load(name: str) -> "Model":
    """The model of a checkpoint name, a folder or a Hub id; see `genkit.hub.load`."""
    from genkit import hub  # imported here: `import genkit` stays light

    return hub.load(name)
