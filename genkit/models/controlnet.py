"""ControlNet: a latent diffusion model that already draws learns to follow a hint.

The way down of the U-Net is copied. The copy sees the hint as well, and what it finds is added to
the maps from which the frozen U-Net starts its way up, through 1×1 convolutions Z that are zero
at first:

    x_t, t, text ──→ way down ─────────── skip, bottom ──────(+)────→ way up ──→ F
          │                                                   ↑
          └────────→ copy of it ──→ skip', bottom' ──→ Z ──→ strength
                        ↑
                 hint encoder(hint)

So training starts from the model as it was, to the last bit, and the base is never changed: one
base serves many controls, and several add up, `Controlled(Controlled(base, sketch), map)`.

A hint is "B K H W" at the resolution of the picture: K = 1 of ink (1 where a line is), or one
plane for each part of a semantic map (all zero where nothing is painted). A hint that is zero
everywhere controls nothing, exactly. Guidance therefore has its choice of the negative: with the
same hint it exaggerates the words only; with an empty one the hint, too, which is the paper's
guess mode and works without words.

References:
    Adding Conditional Control to Text-to-Image Diffusion Models (Zhang et al., 2023)
        https://arxiv.org/abs/2302.05543
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from genkit.diffusion.denoise import NOTHING, Condition, Denoiser, Wrapper
from genkit.distributions import Distribution
from genkit.nn.convnet import ConvBlock, Patchify
from genkit.nn.layers import zeros
from genkit.nn.unet import Contraction, UNet

__all__ = ["Control", "Controlled"]

FACTOR = 8
"""Pixels of a side of a cell of the latents."""


class Control(Contraction):
    """A trained copy of a U-Net's way down that sees a hint.

    Args:
        name: Of the hint among the conditions, as "sketch".
        planes: Channels K of a hint.
        latent, channels, blocks, heads, text, dim: Of the U-Net (see `UNet`).

    References:
        Adding Conditional Control to Text-to-Image Diffusion Models (Zhang et al., 2023)
            https://arxiv.org/abs/2302.05543
    """

    def __init__(
        self,
        name: str,
        planes: int,
        latent: int = 8,
        channels: tuple[int, int] = (128, 256),
        blocks: tuple[int, int] = (2, 4),
        heads: tuple[int, int] = (2, 4),
        text: int = 192,
        dim: int = 256,
    ) -> None:
        super().__init__(latent, channels, blocks, heads, text, dim)
        self.name, self.planes = name, planes
        fine, coarse = channels
        self.hint = nn.Sequential(
            Patchify(planes, fine // 2, FACTOR // 2),
            ConvBlock(fine // 2),
            Patchify(fine // 2, fine, 2),
            ConvBlock(fine),
            zeros(nn.Conv2d(fine, fine, 1)),
        )
        self.across = zeros(nn.Conv2d(fine, fine, 1))
        self.bottom = zeros(nn.Conv2d(coarse, coarse, 1))

    @classmethod
    def of(cls, unet: UNet, name: str, planes: int, depth: int | None = None) -> "Control":
        """The copy of a U-Net, before it has learned anything.

        Args:
            unet: Its way down is copied.
            name: Of the hint among the conditions.
            planes: Channels of the hint.
            depth: How many of the blocks at the bottom are copied, the first ones; None: all, as
                in the paper. Where a hint is to say how lines run, half of them do, at little
                more than half the time and size.
        """
        config = {key: _plain(value) for key, value in unet.config.items()}
        fine, coarse = config["blocks"]
        config["blocks"] = (fine, coarse if depth is None else depth)
        control = cls(name, planes, **config)
        known = control.state_dict()
        copied = {key: value for key, value in unet.state_dict().items() if key in known}
        control.load_state_dict(known | copied)
        return control

    def forward(
        self,
        x: Float[Tensor, "B C h w"],
        time: Float[Tensor, " B"],
        text: Float[Tensor, "B S E"],
        hint: Float[Tensor, "B K H W"],
    ) -> tuple[Float[Tensor, "B F h w"], Float[Tensor, "B G h2 w2"]]:
        """Returns what is added at the full size and at the bottom, before the strength.

        Args:
            x: Noisy latents, already scaled by c_in.
            time: c_noise, one per picture.
            text: Scene tokens of the caption.
            hint: At the resolution of the picture.

        Raises:
            ValueError: If the hint has other planes, or does not fit the latents.
        """
        expected = (self.planes, FACTOR * x.shape[-2], FACTOR * x.shape[-1])
        if tuple(hint.shape[1:]) != expected:
            raise ValueError(
                f"The hint {self.name!r} has shape {tuple(hint.shape[1:])}; this control and "
                f"picture need {expected}."
            )
        text = text.to(self.summary.weight.dtype)
        c = self.vector(time, text)
        skip, x = self.contract(x, c, text, self.hint(hint))
        return self.across(skip), self.bottom(x)


@dataclass(frozen=True, eq=False)
class Controlled(Wrapper):
    """A denoiser that follows a hint, the condition that has the control's name.

    A picture whose hint is zero everywhere is drawn as without control, bit for bit.

    Args:
        denoiser: The base, or a base under another control.
        control: What reads the hint.
        strength: Factor of what the control adds; 0 is none, 1 as it was trained.
        start, stop: From which share of the way from noise (0) to the picture (1) the control
            acts, and before which: of steps that begin at 0, ¼, ½ and ¾, [0, ½) are the first two.

    Raises:
        ValueError: The strength is not in [0, 2], or not 0 ≤ start < stop ≤ 1; a hint is missing
            or does not fit.
    """

    control: Control
    strength: float = 1.0
    start: float = 0.0
    stop: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 2:  # a NaN is refused, too
            raise ValueError(f"The strength is {self.strength}: use 0 to 2, 1 is as trained.")
        if not 0 <= self.start < self.stop <= 1:
            raise ValueError(
                f"The control acts from {self.start} to {self.stop} of the way: both must lie "
                "from 0 to 1, and the start before the stop."
            )

    def __call__(
        self, x_t: Float[Tensor, "B C H W"], t: Float[Tensor, "B"], cond: Condition = NOTHING
    ) -> Distribution:
        name = self.control.name
        if name not in cond:
            raise ValueError(f"The control asks for the condition {name!r}, which is missing.")
        rest = {key: value for key, value in cond.items() if key != name}
        acts = self._acts(t, cond[name]).to(x_t.device)
        if self.strength == 0 or not bool(acts.any()):
            return self.denoiser(x_t, t, rest)
        added = self._added(x_t, t, cond, acts)
        for key, value in zip(("skip", "bottom"), added, strict=True):
            rest[key] = rest[key] + value if key in rest else value
        return self.denoiser(x_t, t, rest)

    def _acts(self, t: Float[Tensor, "B"], hint: Float[Tensor, "B K H W"]) -> Bool[Tensor, "B"]:
        """Which pictures are controlled now: those on the part of the way, with a hint."""
        way = (1 - t).to(hint.device, torch.float32)
        return hint.flatten(1).any(dim=1) & (way >= self.start) & (way < self.stop)

    def _added(
        self,
        x_t: Float[Tensor, "B C h w"],
        t: Float[Tensor, "B"],
        cond: Condition,
        acts: Bool[Tensor, "B"],
    ) -> tuple[Tensor, Tensor]:
        """What the control adds to the skip and at the bottom of each picture."""
        base = self.denoiser
        while isinstance(base, Wrapper):
            base = base.denoiser
        assert isinstance(base, Denoiser)
        x, time, named = base.inputs(x_t, base.coefficients(t), cond)
        skip, bottom = self.control(x, time, named["text"], named[self.control.name])
        factor = (self.strength * acts.to(skip.dtype))[:, None, None, None]
        return factor * skip, factor * bottom


def _plain(value: object) -> object:
    """A recorded argument of a U-Net: lists were tuples."""
    return tuple(value) if isinstance(value, list) else value
