"""One picture alone against the same picture inside a batch of eight, in float32 and in bfloat16.

float32    largest difference of the decoded picture, values in [-1, 1]; wanted: ≤ 1e-5
bfloat16   PSNR of the 8-bit pictures in dB; wanted: ≥ 40

python -m benchmarks.batch
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchmarks import save
from genkit.asked import SAMPLERS
from genkit.diffusion.sample import noise
from genkit.fidelity import prompts
from genkit.generate import Picture, TextToImage
from genkit.runtime import detect

NAME = "book128_latent"


@torch.inference_mode()
def decoded(generator: TextToImage, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
    """Pictures as numbers, at the page's default settings."""
    model = generator.model
    rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
    start = noise(rngs, model.latent_shape(128, 128), device=generator.runtime.device)
    empty = generator.model.condition([""])
    denoiser = generator.guided(generator.model.denoiser, 3.0, empty)
    cond = generator.condition(texts)
    x = SAMPLERS["dpm++2m"](denoiser, start, 20, cond, rngs)
    return model.decode(x).mean


def shown(generator: TextToImage, texts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
    """Pictures as the page shows them, uint8."""
    events = generator(texts, seeds=seeds)
    return np.stack([np.asarray(e.image) for e in events if isinstance(e, Picture)])


def main() -> None:
    texts, seeds = [prompt.text for prompt in prompts(8)], list(range(8))
    exact = TextToImage.from_pretrained(NAME, replace(detect(), dtype=torch.float32))
    together = decoded(exact, texts, seeds)
    alone = torch.cat([decoded(exact, [t], [s]) for t, s in zip(texts, seeds, strict=True)])
    quick = TextToImage.from_pretrained(NAME, replace(detect(), dtype=torch.bfloat16))
    batch = shown(quick, texts, seeds).astype(float)
    single = np.concatenate([shown(quick, [t], [s]) for t, s in zip(texts, seeds, strict=True)])
    mse = ((batch - single) ** 2).mean(axis=(1, 2, 3))
    psnr = 10 * np.log10(255**2 / np.maximum(mse, 1e-9))
    save(
        "batch",
        {
            "float32 largest difference": (together - alone).abs().max().item(),
            "bfloat16 lowest PSNR dB": float(psnr.min()),
            "bfloat16 mean PSNR dB": float(psnr.mean()),
        },
    )


if __name__ == "__main__":
    main()
