"""What the environment says of connections: proxies, and certificates to trust."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import httpcore
import pytest

from langchain_thinnest import ThinnestConnectionError, ThinnestRequestError
from unit_tests.answers import head, stream
from unit_tests.conftest import Make
from unit_tests.contract import EVENTS, TEXT, as_sse
from unit_tests.network import Clock, Fails, Network, Side
from unit_tests.test_refusals import fails

WHOLE = stream(as_sse(*EVENTS))
CONNECTED = [b"HTTP/1.1 200 Connected\r\n\r\n"]
REMOTE = "https://thinnest.example"


@pytest.mark.parametrize(
    ("base_url", "variables", "host"),
    [
        (REMOTE, {"HTTPS_PROXY": "http://proxy.example:8080"}, "proxy.example"),
        (REMOTE, {"HTTPS_PROXY": " proxy.example:8080 "}, "proxy.example"),
        (REMOTE, {"ALL_PROXY": "http://user:secret@proxy.example"}, "proxy.example"),
        (REMOTE, {"HTTPS_PROXY": "", "ALL_PROXY": "proxy.example"}, "proxy.example"),
        (REMOTE, {"HTTP_PROXY": "http://proxy.example"}, "thinnest.example"),
        (REMOTE, {"NO_PROXY": "example"}, "thinnest.example"),
        (REMOTE, {"NO_PROXY": ".example"}, "thinnest.example"),
        (REMOTE, {"NO_PROXY": "thinnest.example:443"}, "thinnest.example"),
        (REMOTE, {"NO_PROXY": "*"}, "thinnest.example"),
        (REMOTE, {"NO_PROXY": "other.example, [::1], 10.0.0.0/8"}, "proxy.example"),
        ("https://[2001:db8::1]", {"NO_PROXY": "2001:db8::1"}, "2001:db8::1"),
        ("https://[2001:db8::1]", {"NO_PROXY": "[2001:db8::1]"}, "2001:db8::1"),
        ("https://[2001:db8::1]:84", {"NO_PROXY": "[2001:db8::1]:84"}, "2001:db8::1"),
        ("https://[2001:db8::1]", {"NO_PROXY": "2001:db8::2"}, "proxy.example"),
        ("https://localhost:1", {}, "localhost"),
        ("https://a.localhost.", {}, "a.localhost."),
        ("https://127.8.0.1", {}, "127.8.0.1"),
        ("https://[::1]", {}, "::1"),
    ],
)
def test_which_host_is_connected_to(
    network: Network,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    base_url: str,
    variables: dict[str, str],
    host: str,
) -> None:
    for name, value in {"ALL_PROXY": "http://proxy.example", **variables}.items():
        if name != "ALL_PROXY" or "HTTP_PROXY" not in variables:
            monkeypatch.setenv(name, value)
    network.answer([head(403, {"Content-Length": "0"})])
    with pytest.raises(Exception, match="403"):
        make(base_url=base_url).invoke("hi")
    assert [wire.host for wire in network.wires] == [host]


def test_a_call_through_a_proxy(
    network: Network, side: Side, make: Make, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy.example:8080")
    network.answer(CONNECTED, WHOLE)
    model = make(base_url=REMOTE, transport=transport)  # the fast one knows no proxies
    assert side.invoke(model, "hi").text == TEXT
    assert side.invoke(model, "hi").text == TEXT
    connect, *posts = network.requests
    assert connect.line == "CONNECT thinnest.example:443 HTTP/1.1"
    assert "authorization" not in connect.headers
    assert [post.line for post in posts] == ["POST /chat/stream HTTP/1.1"] * 2
    assert "proxy-authorization" not in posts[0].headers
    assert len(network.wires) == 1


@pytest.mark.parametrize(
    ("answer", "said", "is_retryable"),
    [
        ([head(403, {"Content-Length": "0"})], "403", False),
        ([head(407, {"Content-Length": "0"})], "407", False),
        ([head(502, {"Content-Length": "0"})], "502", True),
        (CONNECTED, "handshake", True),
    ],
)
def test_a_proxy_that_does_not_let_through(
    network: Network,
    side: Side,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    answer: list[bytes],
    said: str,
    is_retryable: bool,
) -> None:
    """What was sent was the request for a tunnel, and never the message."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    network.answer(answer, [Fails("tls", httpcore.ConnectError("handshake"))])
    error = fails(side, make(base_url=REMOTE, max_retries=0))
    assert type(error) is ThinnestConnectionError
    assert said in str(error)
    assert "was not sent" in str(error)
    assert error.is_retryable is is_retryable
    assert network.open_wires == 0


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        (
            "gopher://user:secret@proxy.example",
            "begins with gopher://; use one of http, https",
        ),
        ("socks://user:secret@proxy.example", "begins with socks://"),
        ("http://user:secret@", "names no host"),
        ("http://user:secret@proxy.example:0", "names no host"),
        ("http://user:secret@proxy:port", "is no URL"),
        pytest.param(
            "socks5://user:secret@proxy.example",
            r"pip install \"httpx\[socks\]\"",
            marks=pytest.mark.skipif(find_spec("socksio") is not None, reason="has SOCKS"),
        ),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(
    network: Network,
    side: Side,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    proxy: str,
    said: str,
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ThinnestRequestError, match=f"ALL_PROXY.*{said}.*not sent") as caught:
        side.invoke(make(base_url=REMOTE), "hi")
    assert "secret" not in str(caught.value)
    network.answer(WHOLE)
    assert side.invoke(make(), "hi").text == TEXT  # loopback has no proxy


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", None])
def test_certificates_that_cannot_be_read(
    network: Network,
    side: Side,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variable: str | None,
) -> None:
    (tmp_path / "empty.pem").touch()
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "empty.pem"))
    else:  # the package's own are damaged
        import certifi

        from langchain_thinnest._http import environment

        environment._tls.cache_clear()
        monkeypatch.setattr(certifi, "where", lambda: str(tmp_path / "empty.pem"))
    error = fails(side, make(base_url=REMOTE))
    assert type(error) is ThinnestConnectionError
    assert "CA certificates could not be read" in str(error)
    assert ("environment's SSL_CERT_FILE" in str(error)) is bool(variable)
    assert "was not sent" in str(error)
    assert not network.wires


def test_the_fast_transport_needs_its_extra_for_async_calls(
    network: Network, make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "langchain_thinnest._http.fast_async", None)
    side = Side(clock, is_async=True)
    with pytest.raises(ThinnestRequestError, match=r"langchain-thinnest\[fast\]"):
        side.invoke(make(transport="fast"), "hi")
    side.close_loop()
