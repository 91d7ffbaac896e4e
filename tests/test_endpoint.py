"""The suite over HTTP without a browser: the endpoint, what is shut, and how it is launched."""

import re
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import gradio as gr
import httpx
import pytest
from fake import SAMPLERS, FakeTextToImage, fake_studio
from gradio_client import Client

import apps
from apps import PAGES, build, options, receipt
from apps.common import Studio
from apps.gate import MAX_BODY, MAX_JOBS, MAX_PARTS
from apps.settings import CAREFUL, FAST, MODELS
from genkit.data.picturebook import Scene


@pytest.fixture(scope="module")
def fake() -> FakeTextToImage:
    return FakeTextToImage()


@pytest.fixture(scope="module")
def suite(fake):
    blocks = build(fake_studio(fake))
    _, url, _ = blocks.launch(**options(), prevent_thread_lock=True, server_name="127.0.0.1")
    yield url
    blocks.close()


@pytest.fixture(scope="module")
def client(suite, tmp_path_factory) -> Client:
    return Client(suite, verbose=False, download_files=tmp_path_factory.mktemp("files"))


# The endpoint


def test_the_endpoint_draws_files_with_receipts(client) -> None:
    files, seed = client.predict("two pines", seed=11, randomize_seed=False, n=2,
                                 num_inference_steps=2, api_name="/generate")  # fmt: skip
    assert seed == 11 and len(files) == 2
    for index, file in enumerate(files):
        found = receipt.read(Path(file))
        assert found.manifest.image_seed == 11 + index
        assert found.image.tobytes() == Scene.random(11 + index).render(128).tobytes()


def test_the_endpoint_has_the_names_of_the_template(client) -> None:
    info = client.view_api(return_format="dict", print_info=False)
    names = ["/between", "/blur", "/bound", "/compare", "/dreams", "/generate", "/line", "/match"]
    names += ["/neighbours", "/noise", "/race", "/sketch", "/spaces", "/steer", "/traverse"]
    assert sorted(info["named_endpoints"]) == names
    assert not info["unnamed_endpoints"]
    endpoint = info["named_endpoints"]["/generate"]
    names = [parameter["parameter_name"] for parameter in endpoint["parameters"]]
    assert names[:8] == ["prompt", "negative_prompt", "seed", "randomize_seed", "width", "height",
                         "guidance_scale", "num_inference_steps"]  # fmt: skip
    assert names[-1] == "model"
    assert len(endpoint["returns"]) == 2


def test_the_endpoint_draws_with_either_model_as_it_draws_best(client, fake) -> None:
    client.predict("two pines", api_name="/generate")
    assert fake.requests[-1][3] == MODELS[CAREFUL]
    files, _ = client.predict("two pines", model=FAST, api_name="/generate")
    assert fake.requests[-1][3] == MODELS[FAST]
    assert receipt.read(Path(files[0])).manifest.model == FAST
    client.predict("two pines", guidance_scale=2, model=FAST, api_name="/generate")
    assert fake.requests[-1][3] == replace(MODELS[FAST], guidance=2)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"prompt": ""}, "empty"),
        ({"prompt": "x" * 100_000}, "at most 1000"),
        ({"seed": -1}, "from 0"),
        ({"seed": True}, "not a number"),
        ({"n": 100}, "from 1 to 8"),
        ({"guidance_scale": "7"}, "not a number"),
        ({"num_inference_steps": 10**9}, "from 1 to 100"),
        ({"width": 1024}, "128 × 128"),
        ({"height": "128"}, "128 × 128"),
        ({"width": "x" * 100_000}, "128 × 128 pixels only"),
        ({"sampler": "nothing"}, "unknown"),
        ({"model": "book128_reader"}, "choose one of book128_latent, book128_fast"),
        ({"model": None}, "unknown"),
        ({"language": "xx"}, "unknown"),
        ({"language": "vi", "n": 0}, "hãy chọn lại"),
    ],
)
def test_the_endpoint_refuses_in_a_sentence_and_works_again(client, changed, sentence) -> None:
    with pytest.raises(Exception, match=sentence):
        client.predict(**({"prompt": "two pines"} | changed), api_name="/generate")
    files, _ = client.predict("two pines", num_inference_steps=1, api_name="/generate")
    assert len(files) == 1


def test_cancel_stops_within_a_step(client, fake) -> None:
    fake.delay, closed = 0.2, fake.closed
    job = client.submit("two pines", num_inference_steps=100, api_name="/generate")
    while not job.outputs():
        time.sleep(0.05)
    job.cancel()
    deadline = time.monotonic() + 10
    while fake.closed == closed and time.monotonic() < deadline:
        time.sleep(0.05)
    fake.delay = 0.0
    assert fake.closed == closed + 1


# What is shut


def test_side_doors_are_shut(suite) -> None:
    with httpx.Client(base_url=suite) as web:
        assert web.get("/monitoring").status_code != 200
        assert web.get("/monitoring/summary").status_code != 200
        direct = web.post("gradio_api/run/generate", json={"data": ["two pines"]})
        assert direct.status_code == 404
        for path in ("/etc/passwd", "app.py", "../app.py"):
            assert web.get(f"gradio_api/file={path}").status_code in (403, 404)


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("route", ["queue/join", "call/generate", "run/predict"])
@pytest.mark.parametrize("declared", [True, False])
def test_a_body_beyond_the_limit_is_refused_in_a_sentence(suite, route, declared) -> None:
    whole = b'{"data": ["' + b"x" * MAX_BODY + b'"]}'
    pieces = (whole[start : start + 2**20] for start in range(0, len(whole), 2**20))
    content = whole if declared else pieces
    with httpx.Client(base_url=suite, timeout=60) as web:
        answer = web.post(f"gradio_api/{route}", content=content, headers=JSON)
        assert answer.status_code == 413
        assert f"at most {MAX_BODY}" in answer.json()["detail"]
        assert web.get("").status_code == 200


def test_what_fits_no_endpoint_is_refused_in_a_sentence(suite) -> None:
    many = {"data": [{"a": []}] * MAX_PARTS}
    with httpx.Client(base_url=suite, timeout=60) as web:
        for path, body, status, sentence in (
            ("call/noise", many, 413, f"at most {MAX_PARTS} are accepted"),
            ("queue/join", many, 413, f"at most {MAX_PARTS} are accepted"),
            ("call/nope", {"data": []}, 404, "choose one of between, blur, bound"),
            ("call/noise", {"data": []}, 400, "has 0 values, and this endpoint takes 7"),
            ("call/steer", {"data": ["sea, night"] * 9}, 400, "has 9 values"),
        ):
            answer = web.post(f"gradio_api/{path}", json=body)
            assert answer.status_code == status and sentence in answer.json()["detail"]
        assert web.get("").status_code == 200


def test_malformed_bodies_do_no_harm(suite, client) -> None:
    bodies = (b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"session_hash": {}, "data": 7}')
    with httpx.Client(base_url=suite) as web:
        for body in bodies:
            answer = web.post("gradio_api/queue/join", content=body, headers=JSON)
            assert 400 <= answer.status_code < 500
    assert client.predict("two pines", num_inference_steps=1, api_name="/generate")


def test_one_session_has_three_jobs_and_another_is_served(suite, fake, client) -> None:
    """Also notices a Gradio whose queue has other names: then nothing would be refused."""
    config = httpx.get(f"{suite}config").json()
    [index] = [d["id"] for d in config["dependencies"] if d["api_name"] == "generate"]
    data = ["two pines", "", 1, False, 128, 128, 3.0, 20, 1, "dpm++2m", "en"]
    data.append(CAREFUL)
    job = {"data": data, "fn_index": index, "session_hash": "greedy"}
    fake.delay = 0.5
    try:
        with httpx.Client(base_url=suite) as web:
            answers = [web.post("gradio_api/queue/join", json=job) for _ in range(MAX_JOBS + 1)]
            answers.append(web.post("gradio_api/queue/join", json=job | {"data": ["vi"]}))
    finally:
        fake.delay = 0.0
    assert [answer.status_code for answer in answers] == [200] * MAX_JOBS + [429] * 2
    english, vietnamese = (answer.json()["detail"] for answer in answers[-2:])
    assert "3 jobs" in english and "hãy đợi" in vietnamese
    files, _ = client.predict("two pines", num_inference_steps=1, api_name="/generate")
    assert len(files) == 1


def test_an_upload_beyond_the_limit_is_refused(suite) -> None:
    for length in (9 * 2**20, MAX_BODY + 1):
        files = {"files": ("picture.png", b"\0" * length, "image/png")}
        assert httpx.post(f"{suite}gradio_api/upload", files=files).status_code == 413


@pytest.mark.parametrize("path", ["", *(page.path for page in PAGES)])
def test_pages_load_nothing_from_elsewhere(suite, path) -> None:
    text = httpx.get(suite + path).text
    loaded = re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(https?://[^"]+)', text)
    assert not [url for url in loaded if not url.startswith(suite)]
    assert "fonts.g" not in text


# Launching


def test_an_unknown_page_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="home, prompt"):
        build(fake_studio(FakeTextToImage()), "nothing")


def test_a_port_in_use_is_told_with_a_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} is in use.*--port {port + 1}"):
            apps.launch(port=port, studio=fake_studio(FakeTextToImage()))


@pytest.mark.parametrize("port", ["abc", "0", "65536", "-1", "٣", "9" * 5000])
def test_a_port_that_is_none_is_told(monkeypatch, port) -> None:
    monkeypatch.setenv("GRADIO_SERVER_PORT", port)
    with pytest.raises(ValueError, match="from 1 to 65535"):
        apps.launch(studio=fake_studio(FakeTextToImage()))


@pytest.mark.parametrize("auth", ["user", "user:", ":password", ""])
def test_a_login_without_both_parts_is_refused(auth) -> None:
    with pytest.raises(ValueError, match="user:password"):
        apps.launch(auth=auth, studio=fake_studio(FakeTextToImage()))


def test_listening_without_a_login_warns(monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        gr.Blocks, "launch", lambda self, **named: (None, named["server_name"], None)
    )
    monkeypatch.setattr(gr.Blocks, "block_thread", lambda self: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    apps.launch(listen=True, port=port, studio=fake_studio(FakeTextToImage()))
    assert "--auth" in capsys.readouterr().err
    apps.launch(listen=True, port=port, auth="a:b", studio=fake_studio(FakeTextToImage()))
    told = capsys.readouterr().err
    assert "--auth" not in told and "0.0.0.0" in told


def test_both_models_are_loaded_once_whoever_asks_first() -> None:
    loads: list[str] = []
    studio = Studio(
        lambda name: loads.append(name) or time.sleep(0.05) or FakeTextToImage(),
        lambda: None,
        SAMPLERS,
    )
    threads = [threading.Thread(target=studio.generator) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == ["book128_latent"]


@pytest.mark.parametrize("page", PAGES)
def test_each_page_stands_alone(page) -> None:
    blocks = build(fake_studio(FakeTextToImage()), page.name)
    assert [path for path, *_ in blocks.pages] == [""]
    assert 'href="./prompt"' not in str(blocks.config["components"])
