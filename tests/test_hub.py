"""Names: each finds its checkpoint, and nothing else is fetched or loaded."""

import hashlib
import json

import huggingface_hub
import pytest
import torch

import genkit
from genkit import hub
from genkit.model import Model
from genkit.models.autoencoder import Autoencoder

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture()
def shelf(tmp_path, monkeypatch):
    """A folder of two checkpoints, a broken one and a stray file, named by the environment."""
    monkeypatch.setenv("GENKIT_CHECKPOINTS", str(tmp_path / "shelf"))
    for name, channels in (("book_small", 2), ("book_large", 3)):
        model = Autoencoder(channels, (8, 8), (8, 8), (0, 0), (0, 0))
        model.save_pretrained(tmp_path / "shelf" / name, torch.float16)
    (tmp_path / "shelf" / "unfinished").mkdir()
    (tmp_path / "shelf" / "notes.txt").write_text("")
    return tmp_path / "shelf"


def test_names_are_the_complete_checkpoints(shelf, monkeypatch, tmp_path):
    assert hub.names() == ("book_large", "book_small")
    monkeypatch.setenv("GENKIT_CHECKPOINTS", str(tmp_path / "nowhere"))
    assert hub.names() == ()
    monkeypatch.delenv("GENKIT_CHECKPOINTS")
    assert hub.locate(".") is not None and isinstance(hub.names(), tuple)


def test_a_name_a_folder_and_a_path_are_one_model(shelf):
    by_name = genkit.load("book_small")
    for other in (hub.load(str(shelf / "book_small")), hub.load(shelf / "book_small")):
        assert other.sha256 == by_name.sha256 and other.config == by_name.config
    assert isinstance(by_name, Autoencoder)


def test_an_unknown_name_lists_near_ones(shelf):
    with pytest.raises(FileNotFoundError, match="choose one of book_small"):
        hub.load("book_smal")
    with pytest.raises(FileNotFoundError, match="book_large, book_small"):
        hub.load("zebra")
    for name in ("", "../../etc/passwd", "a/b/c", "/nowhere", "a b", "owner/repo@main", "x\x00y"):
        with pytest.raises((FileNotFoundError, ValueError)):
            hub.load(name)


def test_a_card_agrees_with_the_model_it_describes(shelf):
    card = hub.card("book_small")
    model = hub.load("book_small")
    assert card["family"] == "autoencoder" and card["class"] == "Autoencoder"
    assert card["sha256"] == model.sha256 and card["dtype"] == "float16"
    assert card["parameters"] == sum(t.numel() for t in model.state_dict().values())
    assert card["bytes"] == (shelf / "book_small" / "model.safetensors").stat().st_size
    assert json.loads(json.dumps(card)) == card and card["name"] == "book_small"


def test_a_card_of_a_damaged_checkpoint_is_a_sentence(shelf):
    (shelf / "book_small" / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match="missing or damaged"):
        hub.card("book_small")


def test_a_hub_id_is_pinned_and_fetches_data_only(shelf, monkeypatch):
    asked = []

    def snapshot(repo, revision=None, allow_patterns=None):
        asked.append((repo, revision, allow_patterns))
        return str(shelf / "book_small")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert isinstance(hub.load(f"owner/repo@{REVISION}"), Autoencoder)
    hub.load("owner/repo")
    assert [(repo, revision) for repo, revision, _ in asked] == [
        ("owner/repo", REVISION),
        ("owner/repo", None),
    ]
    assert all(p.endswith((".json", ".safetensors")) for _, _, ps in asked for p in ps)


def test_a_fetched_repository_is_verified_like_a_folder(shelf, monkeypatch):
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *_, **__: str(shelf / "book_small")
    )
    path = shelf / "book_small" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=f"SHA-256 is {found}"):
        hub.load("owner/repo")
    path.unlink()  # half a snapshot
    with pytest.raises(FileNotFoundError, match="incomplete"):
        hub.load("owner/repo")


def test_offline_fails_at_once_with_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE"):
        hub.load(f"owner/repo@{REVISION}")


def test_a_loaded_model_is_ready(shelf):
    model = genkit.load("book_large")
    assert isinstance(model, Model) and not model.training
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32}
