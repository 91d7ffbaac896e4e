"""Bridge: nine pictures between two, in each model, on the straight line and on the arc.

Each model writes a picture as a point z of its own; the way leads from z_A to z_B, and every point
on it is turned back into a picture:

    cross         z is the picture itself: a cross-fade
    autoencoder   z = L⁻¹ (f(x) − m), in which the Gaussian N(m, L Lᵀ) of its codes is N(0, I)
    vae           z = E q(z | x)
    hvae          the same at every level, all levels as one point
    diffusion     z = x_T, the noise from which `SAMPLER` ends at the picture: `STEPS` evaluations
                  up (`genkit.diffusion.invert`: DDIM's way, by a rule of second order), as many
                  down

    straight   (1 − s) z_A + s z_B
    arc        around the origin, where N(0, I) lives on a sphere (`genkit.interpolation`)
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from apps.forward import check_whole
from apps.quartet import check_families, finite, load
from apps.settings import Refused
from genkit.diffusion.denoise import Condition, Denoises
from genkit.diffusion.grid import LogSNR
from genkit.diffusion.invert import FIRST, invert
from genkit.diffusion.sample import DPMPP2M
from genkit.interpolation import angle, lerp, slerp
from genkit.model import Model
from genkit.models.autoencoder import DeterministicAutoencoder
from genkit.models.diffusion import PixelDiffusion

__all__ = ["COUNT", "PATHS", "STEPS", "Request", "Way", "checked", "cross"]

PATHS = {"straight": lerp, "arc": slerp}
COUNT = 9
"""Pictures of a way, with both ends."""
STEPS = 25
"""Evaluations of the network up to the noise, and down again."""
SAMPLER = DPMPP2M(grid=LogSNR(low=1e-3, high=1e4))
"""With it the way back ends 2 grey levels off; with Euler's rule, DDIM itself, it was 17."""
Picture = Float[Tensor, "1 3 H W"]


@dataclass(frozen=True, eq=False)
class Request:
    """A request that has been checked; the two pictures differ."""

    a: Picture
    b: Picture
    count: int
    families: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Way:
    """What lies between the two pictures in one model.

    Args:
        family: Its name, or "cross".
        pictures: On the straight line, then on the arc.
        lengths: |z| of the same points.
        angle: Between z_A and z_B, in degrees.
        dims: Numbers of z.
    """

    family: str
    pictures: Float[Tensor, "2 N 3 H W"]
    lengths: Float[Tensor, "2 N"]
    angle: float
    dims: int

    def half(self, path: int) -> float:
        """|z| half way over the mean of its ends."""
        length = self.lengths[path]
        return (length[len(length) // 2] / length[[0, -1]].mean()).item()


def checked(a: Picture, b: Picture, count: Any, families: Any) -> Request:
    """The request of these values.

    Raises:
        Refused: The pictures are the same, or a value is unknown or out of its limits.
    """
    if torch.equal(a, b):
        raise Refused("bridge.same")
    return Request(a, b, check_whole("count", count, 3, 25), check_families(families))


def cross(of: Callable[[str], Model], request: Request) -> Generator[Way | None]:
    """A way for the pixels and for each family; None after every step on the way there.

    Args:
        of: Gives the model of a checkpoint.
        request: Checked.

    Raises:
        ValueError: Two codes have no arc between them.
    """
    ends = torch.cat((request.a, request.b))
    s = torch.linspace(0, 1, request.count)
    # The arc of two pictures around grey means nothing: a cross-fade is a straight line.
    faded = lerp(*ends, s)
    yield _way("cross", ends, [faded, faded], finite(torch.stack((faded, faded))))
    for family in request.families:
        model = load(family, of)
        if isinstance(model, PixelDiffusion):
            yield from _through_noise(model, ends, s)
        else:
            yield _through_latents(family, model, ends, s)


@torch.no_grad()
def _through_latents(family: str, model: Any, ends: Tensor, s: Float[Tensor, " N"]) -> Way:
    device = next(model.parameters()).device
    codes = _encode(model, ends.to(device))
    shapes = [one.shape[1:] for one in codes]
    z = torch.cat([one.flatten(1) for one in codes], dim=1)
    points = [path(*z, s) for path in PATHS.values()]
    parts = torch.cat(points).split([shape.numel() for shape in shapes], dim=1)
    latents = [part.unflatten(1, shape) for part, shape in zip(parts, shapes)]
    pictures = finite(_decode(model, latents)).unflatten(0, (2, -1))
    return _way(family, z, points, pictures)


def _encode(model: Any, x: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B C h w"]]:
    if isinstance(model, DeterministicAutoencoder):
        return [_white(model, model.encode(x))]
    return [level.z for level in model.encode(x)]


def _white(
    model: DeterministicAutoencoder, z: Float[Tensor, "B C h w"]
) -> Float[Tensor, "B C h w"]:
    """L⁻¹ (z − m): the draw of N(0, I) from which the fitted Gaussian would make this code."""
    apart, root = (z.flatten(1) - model.mean).cpu().double(), model.root.cpu().double()
    return torch.linalg.solve_triangular(root, apart.T, upper=False).T.reshape(z.shape)


def _decode(model: Any, latents: Sequence[Float[Tensor, "B C h w"]]) -> Float[Tensor, "B 3 H W"]:
    if not isinstance(model, DeterministicAutoencoder):
        return model.decode(latents).mean
    (z,) = latents
    mean, root = model.mean.cpu().double(), model.root.cpu().double()
    flat = mean + z.cpu().flatten(1) @ root.T
    return model.decode(flat.to(model.mean).reshape(z.shape)).mean


def _through_noise(
    model: PixelDiffusion, ends: Tensor, s: Float[Tensor, " N"]
) -> Generator[Way | None]:
    cond = model.condition([None] * len(ends))
    denoiser, x = model.denoiser, ends.to(cond["label"].device)
    for state in invert(denoiser, x, STEPS, cond, SAMPLER):
        x = state.x
        yield None
    points = [path(*x, s) for path in PATHS.values()]
    cond = model.condition([None] * (2 * len(s)))
    for picture in _down(denoiser, torch.cat(points), cond):
        if picture is None:
            yield None
        else:
            pictures = finite(picture).unflatten(0, (2, -1))
    yield _way("diffusion", x, points, pictures)


def _down(denoiser: Denoises, x: Tensor, cond: Condition) -> Generator[Tensor | None]:
    """The way back from noise to the pictures; None after every step, at last the pictures."""
    for state in SAMPLER.trajectory(denoiser, x, STEPS, cond, stop=FIRST):
        x = state.x
        yield None
    yield x / denoiser.schedule.level(FIRST).alpha


def _way(
    family: str, z: Tensor, points: Sequence[Tensor], pictures: Float[Tensor, "2 N 3 H W"]
) -> Way:
    lengths = torch.stack([torch.linalg.vector_norm(one.flatten(1), dim=1) for one in points])
    degrees = math.degrees(angle(*z)) if family != "cross" else math.nan
    return Way(family, pictures, lengths.float().cpu(), degrees, z[0].numel())
