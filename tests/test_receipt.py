"""The receipt: what is written can be read back, and what is damaged is refused in a sentence."""

import json
import struct
import zlib
from dataclasses import replace

import pytest
from PIL import Image, PngImagePlugin

from apps import receipt
from apps.receipt import Manifest, changes, compare, encode, pixels, read
from apps.settings import CAREFUL, FAST, Refused, check, defaults
from genkit.data.picturebook import Scene

PICTURE = Scene.random(3).render(64)


def manifest(**changed) -> Manifest:
    values = {
        "prompt": "một ngôi nhà màu đỏ, núi tuyết, “ban đêm”",
        "negative_prompt": "mây",
        "n": 4,
        "seed": 2**31 - 2,
        "index": 3,
        "image_seed": 1,
        "guidance_scale": 3.5,
        "num_inference_steps": 20,
        "sampler": "dpm++2m",
        "size": 64,
        "model": "fake",
        "model_sha256": "ab" * 32,
        "versions": {"genkit": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
        "dtype": "bfloat16",
        "device": "cpu",
        "pixels_sha256": pixels(PICTURE),
    }
    return Manifest(**(values | changed))


def written(tmp_path, data: bytes):
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    return path


def with_text(tmp_path, **texts: str):
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    PICTURE.save(tmp_path / "picture.png", pnginfo=info)
    return tmp_path / "picture.png"


def test_write_then_read_is_the_identity(tmp_path) -> None:
    found = read(written(tmp_path, encode(PICTURE, manifest())))
    assert found.manifest == manifest()
    assert found.image.tobytes() == PICTURE.tobytes()
    assert pixels(found.image) == found.manifest.pixels_sha256
    assert found.settings["seed"] == 2**31 - 2 and found.settings["randomize_seed"] is False
    assert found.settings["model"] == "fake"


OLD = """{"format": 1, "prompt": "two pines", "negative_prompt": "", "n": 1, "seed": 7, "index": 0,
"image_seed": 7, "guidance_scale": 3.0, "num_inference_steps": 20, "sampler": "dpm++2m",
"size": 128, "model": "book128_latent", "model_sha256": "ab", "versions": {"genkit": "0.1.0"},
"dtype": "float32", "device": "cpu", "pixels_sha256": "cd"}"""
"""As it was written when there was one model."""


def test_a_receipt_from_before_there_were_two_models_is_read(tmp_path) -> None:
    settings = read(with_text(tmp_path, genkit=OLD)).settings
    assert check(settings, ("dpm++2m",)) == replace(
        defaults(CAREFUL), prompt="two pines", seed=7, randomize_seed=False
    )


def test_other_programs_read_the_parameters(tmp_path) -> None:
    text = Image.open(written(tmp_path, encode(PICTURE, manifest()))).info["parameters"]
    prompt, negative, fields = text.split("\n")
    assert prompt == manifest().prompt
    assert negative == "Negative prompt: mây"
    assert fields == (
        "Steps: 20, Sampler: dpm++2m, CFG scale: 3.5, Seed: 1, Size: 64x64, "
        "Model hash: ababababab, Model: fake, Version: genkit 0.1.0"
    )


def test_parameters_of_other_programs_are_read(tmp_path) -> None:
    text = (
        "a red house,\nSteps: many\nNegative prompt: rain\nSteps: 30, Sampler: Euler a, "
        "CFG scale: 7, Seed: 42, Size: 512x512, Model hash: 1234567890, Version: v1.10.1"
    )
    found = read(with_text(tmp_path, parameters=text))
    assert found.manifest is None
    assert found.settings == {
        "prompt": "a red house,\nSteps: many",
        "negative_prompt": "rain",
        "n": 1,
        "randomize_seed": False,
        "num_inference_steps": 30,
        "guidance_scale": 7,
        "seed": 42,
        "sampler": "Euler a",
    }


@pytest.mark.parametrize(
    ("model", "settings"), [(FAST, {"model": FAST}), ("sd_xl_base_1.0", {}), ("[]", {})]
)
def test_parameters_name_a_model_of_ours_or_none(tmp_path, model, settings) -> None:
    text = f"two pines\nSteps: 4, Sampler: euler, Model: {model}, Version: genkit 0.1.0"
    found = read(with_text(tmp_path, parameters=text)).settings
    assert {name: value for name, value in found.items() if name == "model"} == settings


def test_a_prompt_alone_is_enough(tmp_path) -> None:
    assert read(with_text(tmp_path, parameters="two pines")).settings["prompt"] == "two pines"


def test_compare_counts_the_largest_difference() -> None:
    other = PICTURE.copy()
    red, green, blue = other.getpixel((5, 6))
    other.putpixel((5, 6), (red, (green + 100) % 256, blue))
    apart = compare(PICTURE, other)
    assert apart.largest == abs((green + 100) % 256 - green)
    assert apart.share == pytest.approx(1 / 64**2)
    assert compare(PICTURE, PICTURE.copy()).largest == 0
    with pytest.raises(Refused, match="65×64"):
        compare(PICTURE.resize((65, 64)), PICTURE)


def test_changes_name_what_differs() -> None:
    now = replace(manifest(), dtype="float32", versions={"genkit": "0.1.0", "torch": "2.8.0"})
    assert changes(manifest(), manifest()) == ()
    assert changes(manifest(), now) == (
        ("dtype", "bfloat16", "float32"),
        ("python", "3.11.2", "?"),
        ("torch", "2.13.0", "2.8.0"),
    )


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "not a PNG"),
        (b"GIF89a" + b"\0" * 50, "not a PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a PNG"),
        (receipt.MAGIC, "damaged"),
        (receipt.MAGIC + b"\xff" * 200, "damaged"),
        (encode(PICTURE, manifest())[:900], "damaged"),
    ],
)
def test_what_is_no_whole_png_is_refused(tmp_path, data, sentence) -> None:
    with pytest.raises(Refused, match=sentence):
        read(written(tmp_path, data))


def test_a_flipped_bit_is_refused_or_harmless(tmp_path) -> None:
    data = bytearray(encode(PICTURE, manifest()))
    for place in range(8, len(data), 37):
        flipped = bytearray(data)
        flipped[place] ^= 1
        try:
            found = read(written(tmp_path, bytes(flipped)))
        except Refused:
            continue
        assert found.manifest in (manifest(), None), f"byte {place} changed the receipt unnoticed"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    for side in (3_000, 13_000, 30_000):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
        path = written(
            tmp_path, receipt.MAGIC + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
        )
        with pytest.raises(Refused, match="pixels are read"):
            read(path)


def test_too_many_bytes_are_refused(tmp_path) -> None:
    with pytest.raises(Refused, match="8388608"):
        read(written(tmp_path, receipt.MAGIC + b"\0" * receipt.MAX_BYTES))


def chunk(kind: bytes, body: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + check


def grey(*chunks: bytes, width: int = 1, height: int = 1, pixels: bytes = b"\0\0") -> bytes:
    """A PNG of 8-bit grey with these chunks before its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(pixels))
    return b"".join((receipt.MAGIC, header, *chunks, data, chunk(b"IEND", b"")))


@pytest.mark.parametrize(
    ("chunks", "sentence"),
    [
        ((chunk(b"tRNS", b"\1"),), "damaged"),
        ((chunk(b"gAMA", b""),), "damaged"),
        ((chunk(b"zTXt", b"genkit\0\0" + zlib.compress(b" " * 7 * 2**20)),), "damaged"),
        ((chunk(b"tEXt", b"genkit\0" + b"[" * 7 * 2**20),), "damaged or of another version"),
        ((chunk(b"tEXt", b"genkit\0" + b" " * 9 * 2**20),), "8388608"),
    ],
)
def test_hostile_chunks_are_refused(tmp_path, chunks, sentence) -> None:
    with pytest.raises(Refused, match=sentence):
        read(written(tmp_path, grey(*chunks)))


def test_a_long_thin_picture_is_read(tmp_path) -> None:
    texts = chunk(b"tEXt", b"parameters\0two pines")
    data = grey(texts, width=30_000, pixels=b"\0" * 30_001)
    assert read(written(tmp_path, data)).image.size == (30_000, 1)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("blanks", [" ", "a ", "a:", "\t"])
def test_parameters_are_read_in_linear_time(tmp_path, blanks) -> None:
    """A pattern that may share blanks out between its parts takes years for this line."""
    text = "two pines\nSteps: 7, " + blanks * 30_000 + "x"
    found = read(with_text(tmp_path, parameters=text))
    assert found.settings["prompt"] == "two pines" and found.settings["num_inference_steps"] == 7


def test_no_settings(tmp_path) -> None:
    with pytest.raises(Refused, match="carries no settings"):
        read(with_text(tmp_path, Comment="a holiday"))


def broken(**changed) -> str:
    return json.dumps(json.loads(manifest().json()) | changed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        "[" * 10_000,
        manifest().json().replace("3.5", "NaN"),
        broken(format=99),
        broken(extra=1),
        broken(size="64"),
        broken(index=-1),
        broken(index=True),
        broken(model=None),
        broken(versions=[]),
        broken(versions={"torch": {}}),
        broken(versions={"torch": "x" * 1000}),
        broken(prompt="x" * 100_000),
        broken(size=10**4000),
        broken(image_seed=2**31),
        manifest().json().replace('"index": 3', f'"index": {"9" * 5000}'),
        broken(model="half of a character: \ud800"),
        broken(device="cpu\x1b[2J"),
        broken(versions={str(number): "1" for number in range(1000)}),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path, text) -> None:
    with pytest.raises(Refused, match="damaged or of another version"):
        read(with_text(tmp_path, genkit=text))
