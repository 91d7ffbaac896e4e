"""The gate before Gradio's routes, which bound files but neither JSON nor the jobs of one client.

    a body of more than `MAX_BODY` bytes            413
    a job of more than `MAX_PARTS` values           413
    a job for an endpoint that is not there         404
    a job with too few values, or too many          400
    a job of a session that already has `MAX_JOBS`  429

Each answer is a sentence, under `detail`, where the page and Gradio's clients look for it. A
session is what a browser tab or a Gradio client calls itself: it keeps one visitor from filling
the queue by mistake. Addresses are not counted, because behind a tunnel or in a school everybody
has the same one.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.text import LANGUAGES, say

__all__ = ["MAX_BODY", "MAX_JOBS", "MAX_PARTS", "Gate"]

MAX_BODY = 12 * 1024 * 1024
"""Bytes of one request: a picture of 8 MB and its envelope."""
MAX_PARTS = 4000
"""Brackets and commas of one job: parsing a million small values stops everybody for seconds."""
MAX_JOBS = 3
"""Jobs of one session at a time: one runs, two wait."""


@final
class Gate:
    """ASGI middleware: refuses what is too long or too much, and passes the rest on unchanged.

    Args:
        app: What stands behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > MAX_BODY:
            return await _answer(413, _too_long(int(declared)))(scope, receive, send)
        receive = _bounded(receive)
        if scope["method"] == "POST" and not scope["path"].endswith("/upload"):
            try:
                messages = await _whole(receive)
            except HTTPException as error:
                return await _answer(413, error.detail)(scope, receive, send)
            if (parts := _parts(messages)) > MAX_PARTS:
                sentence = say("en", "gate.parts", value=parts, limit=MAX_PARTS)
                return await _answer(413, sentence)(scope, receive, send)
            if refused := _misfit(scope["app"], scope["path"], messages):
                return await refused(scope, receive, send)
            receive = _again(messages, receive)
        if scope["method"] == "POST" and scope["path"].endswith("/queue/join"):
            session, language = _asker(messages)
            jobs = _jobs(scope["app"], session)
            if jobs >= MAX_JOBS:
                sentence = say(language, "gate.busy", value=jobs, limit=MAX_JOBS)
                return await _answer(429, sentence)(scope, receive, send)
        await self.app(scope, receive, send)


def _answer(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"detail": sentence, "error": sentence}, status)


def _too_long(length: int) -> str:
    return say("en", "gate.long", value=length, limit=MAX_BODY)


def _bounded(receive: Receive) -> Receive:
    """`receive`, which ends a body of undeclared length at the limit."""
    length = 0

    async def bounded() -> Message:
        nonlocal length
        message = await receive()
        length += len(message.get("body", b""))
        if length > MAX_BODY:  # Starlette makes the answer of it
            raise HTTPException(413, _too_long(length))
        return message

    return bounded


async def _whole(receive: Receive) -> list[Message]:
    """The messages of a whole body."""
    messages = [await receive()]
    while messages[-1]["type"] == "http.request" and messages[-1].get("more_body", False):
        messages.append(await receive())
    return messages


def _again(messages: Iterable[Message], receive: Receive) -> Receive:
    """`receive` once more from the start of the body."""
    left = iter(messages)

    async def again() -> Message:
        for message in left:
            return message
        return await receive()

    return again


def _parts(messages: Iterable[Message]) -> int:
    """Not fewer than there are values in the JSON of a body: texts count with their commas."""
    bodies = (message.get("body", b"") for message in messages)
    return sum(body.count(mark) for body in bodies for mark in (b",", b"[", b"{"))


def _misfit(app: Any, path: str, messages: Iterable[Message]) -> JSONResponse | None:
    """The refusal of a job that names no endpoint or has another number of values than it."""
    if not (called := re.search(r"/call/([^/]+)$", path)):
        return None
    known = {fn.api_name: fn for fn in app.get_blocks().fns.values() if fn.api_name}
    name = called[1]
    if name not in known or known[name].api_visibility == "private":
        public = sorted(n for n, fn in known.items() if fn.api_visibility != "private")
        return _answer(404, say("en", "gate.name", choices=", ".join(public)))
    wanted = len(known[name].inputs)
    try:
        found = len(json.loads(b"".join(message.get("body", b"") for message in messages))["data"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None  # malformed: the route says so
    if found != wanted:
        return _answer(400, say("en", "gate.count", value=found, limit=wanted))
    return None


def _asker(messages: Iterable[Message]) -> tuple[str | None, str]:
    """Session and language of a job; the pages send their language as the first value."""
    try:
        body = json.loads(b"".join(message.get("body", b"") for message in messages))
        session, data = body["session_hash"], body["data"]
        language = data[0] if data and data[0] in tuple(LANGUAGES) else "en"
    except (ValueError, TypeError, KeyError, RecursionError):
        return None, "en"  # malformed: the route says so
    return session if isinstance(session, str) else None, language


def _jobs(app: Any, session: str | None) -> int:
    """The jobs of a session that run or wait."""
    if session is None:
        return 0
    queue = app.get_blocks()._queue  # tests/test_endpoint.py notices if Gradio renames these
    lines = [line.queue for line in queue.event_queue_per_concurrency_id.values()]
    events = (event for jobs in (*lines, *queue.active_jobs) if jobs for event in jobs)
    return sum(event.session_hash == session for event in events)
