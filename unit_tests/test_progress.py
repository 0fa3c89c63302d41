"""How far a request got, as httpcore's steps tell it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from langchain_thinnest._http.progress import Progress, Sent

TCP, TLS, PROXY = object(), object(), object()
Step = tuple[str, dict[str, Any]]


def head(method: bytes = b"POST", **info: Any) -> dict[str, Any]:
    return {"request": SimpleNamespace(method=method), **info}


def after(*steps: Step) -> Progress:
    progress = Progress()
    for name, info in steps:
        progress.trace(name, info)
    return progress


TCP_BEGINS: Step = ("connection.connect_tcp.started", {})
TCP_IS_MADE: Step = ("connection.connect_tcp.complete", {"return_value": TCP})
TLS_IS_MADE: Step = ("connection.start_tls.complete", {"return_value": TLS})
HEAD_BEGINS: Step = ("http11.send_request_headers.started", head())
HEAD_IS_SENT: Step = ("http11.send_request_headers.complete", {"return_value": None})
BODY_BEGINS: Step = ("http11.send_request_body.started", head())
BODY_IS_SENT: Step = ("http11.send_request_body.complete", {"return_value": None})
CONNECT: Step = ("http11.send_request_headers.started", head(b"CONNECT"))


def test_nothing_is_known_at_first() -> None:
    progress = Progress()
    assert progress.sent is None
    assert progress.networks == []
    assert progress.is_connecting is False
    assert progress.stream_id is None


@pytest.mark.parametrize(
    ("steps", "sent", "networks", "is_connecting"),
    [
        ([TCP_BEGINS], Sent.NO, [], False),
        ([TCP_IS_MADE], Sent.NO, [TCP], True),
        ([TCP_IS_MADE, TLS_IS_MADE], Sent.NO, [TCP, TLS], True),
        ([TCP_IS_MADE, HEAD_BEGINS], Sent.NO, [TCP], False),
        ([HEAD_BEGINS], Sent.NO, [], False),
        ([HEAD_BEGINS, HEAD_IS_SENT], Sent.UNKNOWN, [], False),
        ([HEAD_BEGINS, HEAD_IS_SENT, BODY_BEGINS], Sent.UNKNOWN, [], False),
        ([HEAD_BEGINS, HEAD_IS_SENT, BODY_BEGINS, BODY_IS_SENT], Sent.YES, [], False),
        # Without a beginning (a transport that tells of less), the request is the message's.
        ([HEAD_IS_SENT], Sent.UNKNOWN, [], False),
        ([BODY_IS_SENT], Sent.YES, [], False),
    ],
)
def test_each_step(
    steps: list[Step], sent: Sent, networks: list[object], is_connecting: bool
) -> None:
    progress = after(*steps)
    assert progress.sent is sent
    assert progress.networks == networks
    assert progress.is_connecting is is_connecting


@pytest.mark.parametrize(
    "name",
    [
        "connection.connect_tcp.failed",
        "connection.start_tls.failed",
        "connection.start_tls.started",
        "http11.send_request_headers.failed",
        "http11.send_request_body.failed",
        "http11.receive_response_headers.started",
        "http2.send_connection_init.complete",
        "complete",
        "",
    ],
)
def test_another_step_changes_nothing(name: str) -> None:
    before = after(TCP_IS_MADE)
    before.trace(name, {})
    assert vars(before) == vars(after(TCP_IS_MADE))


def test_a_step_after_the_message_leaves_it_sent() -> None:
    progress = after(HEAD_BEGINS, HEAD_IS_SENT, BODY_IS_SENT)
    progress.trace("http11.receive_response_headers.started", {})
    assert progress.sent is Sent.YES


def test_what_a_proxy_is_sent_is_not_the_message() -> None:
    progress = after(TCP_IS_MADE, CONNECT, HEAD_IS_SENT, BODY_IS_SENT)
    assert progress.sent is Sent.NO
    for step, sent in (
        (TLS_IS_MADE, Sent.NO),
        (HEAD_BEGINS, Sent.NO),
        (HEAD_IS_SENT, Sent.UNKNOWN),
        (BODY_IS_SENT, Sent.YES),
    ):
        progress.trace(*step)
        assert progress.sent is sent
    assert progress.networks == [TCP, TLS]


@pytest.mark.parametrize(
    ("info", "stream_id"), [({"stream_id": 7}, 7), ({}, None), ({"stream": 7}, None)]
)
def test_the_number_of_a_request_in_http2(info: dict[str, Any], stream_id: int | None) -> None:
    progress = after(("http2.send_request_headers.started", head(**info)))
    assert progress.stream_id == stream_id


async def test_the_async_twin() -> None:
    progress = Progress()
    for step in (TCP_IS_MADE, HEAD_BEGINS, HEAD_IS_SENT, BODY_IS_SENT):
        await progress.atrace(*step)
    assert vars(progress) == vars(after(TCP_IS_MADE, HEAD_BEGINS, HEAD_IS_SENT, BODY_IS_SENT))
