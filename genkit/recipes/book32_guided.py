"""Pictures of 32² by guided diffusion: as book32_ddpm, and the network says how sure it is.

The hybrid loss teaches a variance to every pixel, which makes the bound tighter and short chains
better; guidance is classifier-free, or by book32_classifier.
"""

from genkit.data.picturebook.scene import SPLITS
from genkit.data.picturebook.source import Pictures
from genkit.diffusion.denoise import Epsilon
from genkit.diffusion.schedule import LinearBeta
from genkit.diffusion.variance import LearnedVariance
from genkit.models.diffusion import PixelDiffusion, PixelUNet
from genkit.objectives import Hybrid
from genkit.recipe import Recipe
from genkit.recipes.book32_ddpm import drawn

__all__ = ["RECIPE"]

PICTURES = SPLITS["train"][:60_000]


def model() -> PixelDiffusion:
    """A fresh network, whose variance lies half-way between β̃ and β."""
    # Six channels: what to subtract, and how sure it is, for each of three colours.
    return PixelDiffusion(LearnedVariance(PixelUNet(out=6), LinearBeta(), Epsilon()))


RECIPE = Recipe(
    name="book32_guided",
    model=model,
    objective=Hybrid,
    data=lambda: Pictures(PICTURES, 32),
    steps=8000,
    batch=64,
    lr=1e-3,
    warmup=300,
    ema=0.999,
    # Twice the difference that the class makes: where samples are clearest.
    sheet=lambda net: drawn(net, 2.0),
)
