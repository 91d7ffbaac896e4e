"""Ways between two points: the straight line, and the arc around the origin.

    lerp(a, b, s) = (1 − s) a + s b
    slerp(a, b, s) = |x| [sin((1 − s)Ω) a/|a| + sin(sΩ) b/|b|]/sin Ω,    cos Ω = a·b/(|a| |b|)

with |x| = (1 − s)|a| + s|b|, so that the length goes on a straight line, too, and two points of
one length stay on their sphere. A draw of N(0, I) in D dimensions has a length near √D, and nearly
every two of them are at right angles: half way on the straight line the length is 0.71 √D, which
the Gaussian as good as never has, so a model was never trained on such points. The arc stays where
the Gaussian is.

References:
    Animating Rotation with Quaternion Curves (Shoemake, 1985)
        https://doi.org/10.1145/325334.325242
    Sampling Generative Networks (White, 2016; the arc in the latents of a generative model)
        https://arxiv.org/abs/1609.04468
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["angle", "lerp", "slerp"]

NARROW = 1e-6
"""Angle in radians below which the arc is the line: sin Ω in its denominator would be all
rounding. As near to π it has no direction."""


def lerp(
    a: Float[Tensor, "*S"], b: Float[Tensor, "..."], s: Float[Tensor, " N"]
) -> Float[Tensor, "N *S"]:
    """The points (1 − s) a + s b; s = 0 is `a` and s = 1 is `b` exactly.

    Raises:
        ValueError: The shapes differ, or a number is not finite.
    """
    _check(a, b)
    s = s.to(a)
    return _weighted(a, b, 1 - s, s)


def slerp(
    a: Float[Tensor, "*S"], b: Float[Tensor, "..."], s: Float[Tensor, " N"]
) -> Float[Tensor, "N *S"]:
    """The points on the arc around the origin; s = 0 is `a` and s = 1 is `b` exactly.

    Raises:
        ValueError: The shapes differ, a number is not finite, a point is the origin, or the two
            lie on opposite sides of it.
    """
    omega = angle(a, b)
    if omega < NARROW:
        return lerp(a, b, s)
    if omega > math.pi - NARROW:
        raise ValueError(
            "the two points lie on opposite sides of the origin, where every great circle joins "
            "them and none is the shortest: take the straight line, or move one of them"
        )
    first, last = _norm(a), _norm(b)
    s = s.cpu().double()
    length = (1 - s) * first + s * last
    of_a = ((1 - s) * omega).sin() / math.sin(omega) * length / first
    of_b = (s * omega).sin() / math.sin(omega) * length / last
    return _weighted(a, b, of_a.to(a), of_b.to(a))


def angle(a: Float[Tensor, "*S"], b: Float[Tensor, "..."]) -> float:
    """The angle between two points as seen from the origin, in radians, 0 … π.

    By 2 atan2(|u − v|, |u + v|) of the unit vectors, which is exact for small angles too.

    Raises:
        ValueError: The shapes differ, a number is not finite, or a point is the origin.
    """
    _check(a, b)
    if not (a.any() and b.any()):
        raise ValueError("a point is the origin, which has no direction: take the straight line")
    u, v = (x.cpu().double() / _norm(x) for x in (a, b))
    return 2 * math.atan2(_norm(u - v), _norm(u + v))


def _weighted(a: Tensor, b: Tensor, of_a: Tensor, of_b: Tensor) -> Tensor:
    ones = [-1, *[1] * a.dim()]
    return of_a.view(ones) * a + of_b.view(ones) * b


def _norm(x: Tensor) -> float:
    return torch.linalg.vector_norm(x.cpu().double()).item()


def _check(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(
            f"the points have shapes {tuple(a.shape)} and {tuple(b.shape)}; give two of one shape"
        )
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("a point holds a number that is NaN or infinite; give finite ones")
