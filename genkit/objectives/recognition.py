"""Of models that recognise: maximum likelihood of labels, classes, kinds, parts and captions."""

from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genkit.data.picturebook.scene import LABELS
from genkit.data.picturebook.source import to_unit
from genkit.distributions import Categorical
from genkit.models.classifier import NoisyClassifier, class_of
from genkit.models.encoders import Contrastive, ConvEncoder, ViTEncoder, kinds_of
from genkit.models.segmenter import Segmenter
from genkit.objectives.base import Batch, Loss, drawn_times, steps_of

__all__ = [
    "Contrasting",
    "NoisyClassification",
    "Reading",
    "Recognition",
    "Segmentation",
    "label_losses",
]


class Reading:
    """Maximum likelihood of a scene's labels: −log p(labels | picture or caption), label by label.

    A caption often says nothing of a label; its likelihood is then best at the label's frequency
    among the scenes that fit the caption, so no mask is needed.

    Args:
        model: What is trained.
        answer: Its distributions for a batch, one for every label of the picture book.
    """

    def __init__(
        self, model: nn.Module, answer: Callable[[Batch], Mapping[str, Categorical]]
    ) -> None:
        self.answer = answer
        self.players = {"model": model}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        parts = label_losses(self.answer(batch), batch["labels"])
        yield Loss("model", torch.stack(list(parts.values())).mean(), parts)


def label_losses(
    answers: Mapping[str, Categorical], labels: Int[Tensor, "B K"]
) -> dict[str, Float[Tensor, ""]]:
    """−log p of each label in nats, the mean over the batch."""
    columns = zip(LABELS, labels.unbind(dim=1), strict=True)
    return {name: -answers[name].log_prob(label).mean() for name, label in columns}


class NoisyClassification:
    """Maximum likelihood of the class of a noisy picture: −ln P(y | x_t), at every step alike.

    Args:
        model: The classifier, on a chain.

    References:
        Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021), section 4
            https://arxiv.org/abs/2105.05233
    """

    def __init__(self, model: NoisyClassifier) -> None:
        self.model = model
        self.steps = steps_of(model.schedule)
        self.players = {"model": model}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        x0, y = to_unit(batch["picture"]), class_of(batch["labels"])
        t = drawn_times(len(x0), self.steps)
        answer = self.model(self.model.schedule.diffuse(x0, t, torch.randn_like(x0)), t)
        right = (answer.mode == y).float().mean()
        yield Loss("model", -answer.log_prob(y).mean(), {"right": right})


class Recognition:
    """Maximum likelihood of the kinds of things in a picture: −Σ_k ln P(k is there or is not).

    Args:
        model: The classifier.
    """

    def __init__(self, model: ConvEncoder | ViTEncoder) -> None:
        self.model = model
        self.players = {"model": model}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        there = kinds_of(batch["labels"])
        answer = self.model(to_unit(batch["picture"]))
        right = ((answer.logits > 0) == (there > 0)).all(dim=1).float().mean()
        yield Loss("model", -answer.log_prob(there).sum(dim=1).mean(), {"right": right})


class Contrasting:
    """InfoNCE: a picture finds its caption among those of its batch, a caption its picture.

        loss = −½ mean_i [ ln P(caption i | picture i) + ln P(picture i | caption i) ]

    Both are a softmax over the batch of v_i·w_j/τ. Two scenes of which a short caption is true
    alike count as different, which costs a little and is rare.

    Args:
        model: The two towers.

    References:
        Representation Learning with Contrastive Predictive Coding (van den Oord et al., 2018)
            https://arxiv.org/abs/1807.03748
        Learning Transferable Visual Models From Natural Language Supervision (Radford et al.,
            2021; both ways), https://arxiv.org/abs/2103.00020
    """

    def __init__(self, model: Contrastive) -> None:
        self.model = model
        self.players = {"model": model}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        caption = self.model(to_unit(batch["picture"]), batch["tokens"])
        picture = Categorical(caption.logits.T)
        own = torch.arange(len(caption.logits), device=caption.logits.device)
        right = (caption.mode == own).float().mean()
        total = -(caption.log_prob(own) + picture.log_prob(own)).mean() / 2
        yield Loss("model", total, {"right": right, "heat": self.model.heat})


class Segmentation:
    """Maximum likelihood of the part that every pixel shows, with a little grain on the picture.

    Pictures that were generated are never as clean as rendered ones.

    Args:
        model: The segmenter.
        grain: Standard deviation of the grain, at most; a picture is in [−1, 1].
    """

    def __init__(self, model: Segmenter, grain: float = 0.1) -> None:
        self.model, self.grain = model, grain
        self.players = {"model": model}

    def __call__(self, batch: Batch) -> Iterator[Loss]:
        x, part = to_unit(batch["picture"]), batch["map"].long()
        grain = self.grain * torch.rand(len(x), 1, 1, 1, device=x.device)
        answer = self.model(x + grain * torch.randn_like(x))
        right = (answer.mode == part).float().mean()
        yield Loss("model", -answer.log_prob(part).mean(), {"right": right})
