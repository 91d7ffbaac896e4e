"""The receipt: what a downloaded picture says about how it was made, and the proof.

A picture is saved as a PNG with two text chunks,

    parameters   the settings in the notation of AUTOMATIC1111's web interface, for other programs
    genkit       a JSON manifest: every setting, SHA-256 of model and pixels, versions, device

`read` restores the settings from either (the manifest first); `compare` says whether a picture
that was made again is the same to the last bit, and if not, by how much and why it may be.

A file that is read is not trusted: its first bytes, its length, its number of pixels and the
length of its texts are bounded before anything is decoded, and every setting is checked again.
"""

import hashlib
import io
import json
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from apps.settings import LIMITS, MAX_SEED, MODELS, Refused, Settings

__all__ = [
    "Difference",
    "Manifest",
    "Receipt",
    "TracedManifest",
    "changes",
    "compare",
    "encode",
    "pixels",
    "profiles",
    "read",
]

FORMAT = 1
MAX_BYTES = 8 * 1024 * 1024
MAX_PIXELS = 8_000_000
MAX_MANIFEST = 64 * 1024
MAX_VERSIONS = 20
BROKEN = (struct.error, zlib.error, ArithmeticError, EOFError, LookupError, TypeError)
"""What Pillow's decoder lets through when a chunk is shorter than it should be."""
MAGIC = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Manifest:
    """How one picture was made.

    Args:
        prompt, negative_prompt, n, seed, guidance_scale, num_inference_steps, sampler, model: The
            settings; `seed` is that of the first picture of the batch.
        index: Place of this picture in its batch, from 0.
        image_seed: Seed of this picture.
        size: Width and height in pixels.
        model_sha256: The fingerprint of the checkpoint `model`.
        versions: Program -> version (genkit, torch, python).
        dtype, device: Number type of the weights and where they were.
        pixels_sha256: SHA-256 of the RGB bytes.
    """

    prompt: str
    negative_prompt: str
    n: int
    seed: int
    index: int
    image_seed: int
    guidance_scale: float
    num_inference_steps: int
    sampler: str
    size: int
    model: str
    model_sha256: str
    versions: Mapping[str, str]
    dtype: str
    device: str
    pixels_sha256: str

    def json(self) -> str:
        """The text of the chunk `genkit`, in ASCII."""
        return json.dumps({"format": FORMAT} | asdict(self))

    def extra(self) -> str:
        """What the chunk `parameters` says beyond the usual fields."""
        return ""

    def parameters(self) -> str:
        """The text of the chunk `parameters`."""
        lines = [self.prompt]
        if self.negative_prompt:
            lines.append(f"Negative prompt: {self.negative_prompt}")
        lines.append(
            f"Steps: {self.num_inference_steps}, Sampler: {self.sampler}, "
            f"CFG scale: {self.guidance_scale:g}, Seed: {self.image_seed}, "
            f"Size: {self.size}x{self.size}, Model hash: {self.model_sha256[:10]}, "
            f"Model: {self.model}, {self.extra()}Version: genkit {self.versions.get('genkit', '')}"
        )
        return "\n".join(lines)


@dataclass(frozen=True)
class TracedManifest(Manifest):
    """How a picture was made that follows a drawing.

    Args:
        kind: Of the drawing, "sketch" or "map".
        drawing: The drawing itself (`ink.Drawing.file`).
        strength, start, stop, guess: How it was followed.
        control, control_sha256: The checkpoint of what follows.
    """

    kind: str
    drawing: str
    strength: float
    start: float
    stop: float
    guess: bool
    control: str
    control_sha256: str

    def extra(self) -> str:
        return f"Control: {self.control}, Control strength: {self.strength:g}, "


@dataclass(frozen=True)
class Receipt:
    """What a file says: its picture, its settings and, if genkit wrote it, its manifest."""

    image: Image.Image
    settings: dict[str, Any]
    manifest: Manifest | None


@dataclass(frozen=True)
class Difference:
    """The largest difference of two pictures (0 to 255) and the share of pixels that differ."""

    largest: int
    share: float


def encode(image: Image.Image, manifest: Manifest) -> bytes:
    """The PNG file of this picture with both texts."""
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", manifest.parameters())  # iTXt where Latin-1 does not suffice
    text.add_text("genkit", manifest.json())
    buffer = io.BytesIO()
    # A quarter of the usual time for a seventh more bytes: somebody waits for it.
    image.save(buffer, format="PNG", pnginfo=text, compress_level=2)
    return buffer.getvalue()


def pixels(image: Image.Image) -> str:
    """SHA-256 of the RGB bytes, as in the manifest."""
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def read(path: Path) -> Receipt:
    """The receipt of a file.

    Raises:
        Refused: No PNG, too large, damaged, or without settings.
    """
    image, text = _open(path)
    if "genkit" in text:
        manifest = _manifest(text["genkit"])
        return Receipt(image, _settings_of(manifest), manifest)
    if "parameters" in text:
        return Receipt(image, _parse_parameters(text["parameters"]), None)
    raise Refused("receipt.none")


def compare(first: Image.Image, second: Image.Image) -> Difference:
    """How far two pictures of the same size are apart.

    Raises:
        Refused: They differ in size.
    """
    if first.size != second.size:
        raise Refused(
            "receipt.size", value=f"{first.size[0]}×{first.size[1]}", limit=second.size[0]
        )
    a, b = (np.asarray(image.convert("RGB"), dtype=np.int16) for image in (first, second))
    apart = np.abs(a - b)
    return Difference(int(apart.max()), float((apart.max(axis=-1) > 0).mean()))


def changes(old: Manifest, new: Manifest) -> tuple[tuple[str, str, str], ...]:
    """What differs between two makings: (what, then, now), the reasons for another picture."""
    pairs = {
        "model": (f"{old.model} {old.model_sha256[:10]}", f"{new.model} {new.model_sha256[:10]}"),
        "control": (_control(old), _control(new)),
        "sampler": (old.sampler, new.sampler),
        "guidance": (f"{old.guidance_scale:g}", f"{new.guidance_scale:g}"),
        "dtype": (old.dtype, new.dtype),
        "device": (old.device, new.device),
    }
    for name in sorted({*old.versions, *new.versions}):
        pairs[name] = (old.versions.get(name, "?"), new.versions.get(name, "?"))
    return tuple((name, a, b) for name, (a, b) in pairs.items() if a != b)


def profiles(data: bytes) -> int:
    """How many colour profiles a PNG file holds: the standard allows one, and Pillow unpacks all.

    Args:
        data: A whole file of any kind; of another kind it is 0.
    """
    found, place = 0, len(MAGIC)
    while data.startswith(MAGIC) and place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        found += name == b"iCCP"
        place += length + 12  # length, name and checksum stand around what a chunk holds
    return found


def _control(manifest: Manifest) -> str:
    if not isinstance(manifest, TracedManifest):
        return ""
    return f"{manifest.control} {manifest.control_sha256[:10]}"


def _open(path: Path) -> tuple[Image.Image, dict[str, str]]:
    """The picture in RGB, and the texts of its file."""
    length = path.stat().st_size
    if length > MAX_BYTES:
        raise Refused("receipt.bytes", value=length, limit=MAX_BYTES)
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise Refused("receipt.png")
    if profiles(path.read_bytes()) > 1:
        raise Refused("receipt.damaged")
    try:
        image = Image.open(path, formats=["PNG"])
        if image.width * image.height > MAX_PIXELS:
            value = f"{image.width}×{image.height}"
            raise Refused("receipt.pixels", value=value, limit=MAX_PIXELS)
        image.load()  # texts may follow the pixels
        text = {name: text for name, text in image.info.items() if isinstance(text, str)}
        image = image.convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Refused("receipt.pixels", value="?", limit=MAX_PIXELS) from error
    except (*BROKEN, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused("receipt.damaged") from error
    return image, text


def _manifest(text: str) -> Manifest:
    """The manifest of the chunk `genkit`, each value of the right type."""
    try:
        if len(text) > MAX_MANIFEST:
            raise ValueError(f"{len(text)} characters")
        values = json.loads(text, parse_constant=_no_constant)
        if values.pop("format") != FORMAT:
            raise ValueError("format")
        versions = values["versions"]
        if len(versions) > MAX_VERSIONS:
            raise ValueError("versions")
        if not all(_short(text, 100) for text in (*versions, *versions.values())):
            raise ValueError("versions")
        traced = "control" in values
        manifest = (TracedManifest if traced else Manifest)(**values)
        texts = ("model", "model_sha256", "sampler", "dtype", "device", "pixels_sha256")
        for name in (*texts, *(("kind", "control", "control_sha256") if traced else ())):
            if not _short(values[name], 200):
                raise ValueError(name)
        if type(manifest.guidance_scale) not in (int, float) or not (
            0 <= manifest.guidance_scale <= LIMITS["guidance_scale"][1]
        ):
            raise ValueError("guidance_scale")
        for name in ("index", "image_seed", "size"):
            if type(values[name]) is not int or not 0 <= values[name] <= MAX_SEED:
                raise ValueError(name)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Refused("receipt.manifest") from error
    return manifest


def _short(value: Any, limit: int) -> bool:
    """A string that can be shown: bounded, and without controls or halves of characters."""
    return isinstance(value, str) and len(value) <= limit and value.isprintable()


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _settings_of(manifest: Manifest) -> dict[str, Any]:
    names = (n for n in Settings.__dataclass_fields__ if n != "randomize_seed")
    return {name: getattr(manifest, name) for name in names} | {"randomize_seed": False}


def _parse_parameters(text: str) -> dict[str, Any]:
    """Settings of the chunk `parameters`, as this and other programs write it."""
    prompt, negative, fields = _split(text[:MAX_MANIFEST])
    parts = (field.partition(":") for field in fields.split(","))
    found = {name.strip(): value.strip() for name, _, value in parts}
    settings: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": negative,
        "n": 1,
        "randomize_seed": False,
    }
    numbers = {"Steps": "num_inference_steps", "CFG scale": "guidance_scale", "Seed": "seed"}
    for theirs, name in numbers.items():
        if re.fullmatch(r"\d{1,12}(\.\d{1,6})?", found.get(theirs, "")):
            settings[name] = float(found[theirs]) if "." in found[theirs] else int(found[theirs])
    if "Sampler" in found:
        settings["sampler"] = found["Sampler"]
    if found.get("Model") in MODELS:  # that of another program is none of ours: the default
        settings["model"] = found["Model"]
    return settings


def _split(text: str) -> tuple[str, str, str]:
    """Prompt, negative prompt and the line of fields of a `parameters` text."""
    *lines, fields = text.strip().splitlines() or [""]
    if not fields.startswith("Steps:"):
        lines, fields = [*lines, fields], ""
    start = next((i for i, l in enumerate(lines) if l.startswith("Negative prompt:")), len(lines))
    negative = "\n".join(lines[start:]).removeprefix("Negative prompt:").strip()
    return "\n".join(lines[:start]).strip(), negative, fields
