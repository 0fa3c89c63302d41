"""What the page on the fast transport says of it; `make test-fast` has the rest."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from integration_tests.conftest import Make
from integration_tests.test_lifetime import WHOLE
from integration_tests.transports import fails_whole_answers
from integration_tests.wire import Close, WireServer
from langchain_thinnest import ThinnestConnectionError
from unit_tests.contract import TEXT

pytest.importorskip("aiohttp")


def test_what_watches_clients_sees_the_calls(
    wired: Make, wire: WireServer, way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire.answer(WHOLE)
    seen: list[httpx.Request] = []
    for kind in (httpx.Client, httpx.AsyncClient):

        def send(client: Any, request: Any, *, send: Any = kind.send, **more: Any) -> Any:
            seen.append(request)
            return send(client, request, **more)

        monkeypatch.setattr(kind, "send", send)
    assert way(wired(transport="fast"), "hi").text == TEXT
    assert [request.url.path for request in seen] == ["/chat/stream"] * len(wire.requests)
    assert seen


@pytest.mark.parametrize("size", [1_000, 100_000])
def test_whether_a_message_arrived(wired: Make, wire: WireServer, way: Any, size: int) -> None:
    """aiohttp does not tell when a long one has left."""
    wire.answer([Close()])
    with pytest.raises(ThinnestConnectionError) as caught:
        way(wired(transport="fast"), "x" * size)
    is_async = fails_whole_answers(way, "fast")
    is_unknown = "not known whether the message arrived" in str(caught.value)
    assert is_unknown == (is_async and size > 64 * 1024)
