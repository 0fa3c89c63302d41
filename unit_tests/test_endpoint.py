"""The endpoint: which paths are taken, where the agent's id goes, what keys are told."""

from __future__ import annotations

import pickle
from typing import Any

import httpx
import pytest
from langchain_core.load import dumpd, load
from pydantic import ValidationError

from langchain_thinnest import ChatThinnest, ThinnestRequestError
from langchain_thinnest._request import endpoint as paths
from langchain_thinnest._request.endpoint import (
    checked_endpoint,
    key_hint,
    path_of,
    repeated_in,
)

KEY = "ak_0123456789abcdef"
AGENT = "/v1/agents/{agent_id}/chat"


@pytest.fixture(autouse=True)
def _nothing_is_known() -> None:
    """What an earlier test asked about a path must not answer for this one."""
    paths._problem_of.cache_clear()


def make(**fields: Any) -> ChatThinnest:
    return ChatThinnest(**{"agent_id": "ag_1", "api_key": KEY, **fields})


TAKEN = [
    "/chat/stream",
    "/chat",
    AGENT,
    "/chat/",
    "/",
    "/v2/{agent_id}",
    "/a/{agent_id}/b/{agent_id}",
    "/tenant-7/~me/chat;v=1/a:b@c",
    "/caf%C3%A9/chat",
    "/a...b/..c",
]
REFUSED = [
    ("", "begins with '/'"),
    ("chat", "begins with '/'"),
    ("https://elsewhere.example/chat", "begins with '/'"),
    ("{agent_id}", "begins with '/'"),
    ("//elsewhere.example/chat", "empty part"),
    ("/a//b", "empty part"),
    ("/chat?stream=1", "no query"),
    ("/chat#top", "no fragment"),
    ("/{agent}/chat", "no placeholder but"),
    ("/{agent_id/chat", "no placeholder but"),
    ("/agent_id}/chat", "no placeholder but"),
    ("/{}/chat", "no placeholder but"),
    ("/{{agent_id}}/chat", "no placeholder but"),
    ("/{agent_id!r}/chat", "no placeholder but"),
    ("/../chat", "'..'"),
    ("/v1/..", "'..'"),
    ("/./chat", "'..'"),
    ("/%2e%2E/chat", "'..'"),
    ("/a%2f../chat", "'..'"),
    ("/a%5C..%5cchat", "'..'"),
    ("/.{agent_id}/chat", "'..'"),
    ("/chat\n", "no path has"),
    ("/chat\x00", "no path has"),
    ("/chat\x7f", "no path has"),
    ("/chat\u0085", "no path has"),
    ("/chat\ud83d", "no path has"),
    ("/ch at", "no path has"),
    ("/café", "no path has"),
    ("/a\\b", "no path has"),
    ("/100%", "no path has"),
    ("/a%zz", "no path has"),
    ("/chat%0d%0aX-A:b", "control characters"),
    ("/chat%00", "control characters"),
]


@pytest.mark.parametrize("endpoint", TAKEN)
def test_a_path_that_is_taken(endpoint: str) -> None:
    assert make(endpoint=endpoint).endpoint == endpoint


@pytest.mark.parametrize(("endpoint", "said"), REFUSED)
def test_a_path_that_is_refused(endpoint: str, said: str) -> None:
    with pytest.raises(ValidationError, match="endpoint") as caught:
        make(endpoint=endpoint)
    assert said in str(caught.value)
    assert KEY not in str(caught.value) + repr(caught.value.errors())


@pytest.mark.parametrize("endpoint", [7, ["/chat"], httpx.URL("https://a/chat")])
def test_what_is_no_string(endpoint: Any) -> None:
    with pytest.raises(ValidationError, match="endpoint"):
        make(endpoint=endpoint)


def test_no_endpoint_is_the_default() -> None:
    assert make().endpoint == make(endpoint=None).endpoint == "/chat/stream"


@pytest.mark.parametrize(
    ("agent_id", "path"),
    [
        ("ag_c47e7c97_b2f2", "/v1/agents/ag_c47e7c97_b2f2/chat"),
        ("a/b", "/v1/agents/a%2Fb/chat"),
        ("../admin", "/v1/agents/..%2Fadmin/chat"),
        ("a?b#c", "/v1/agents/a%3Fb%23c/chat"),
        ("100%", "/v1/agents/100%25/chat"),
        ("%2e%2e", "/v1/agents/%252e%252e/chat"),
        ("grüße", "/v1/agents/gr%C3%BC%C3%9Fe/chat"),
        ("{agent_id}", "/v1/agents/%7Bagent_id%7D/chat"),
        ("a\\b;c&d=e+f", "/v1/agents/a%5Cb%3Bc%26d%3De%2Bf/chat"),
    ],
)
def test_the_agent_stands_in_the_path(agent_id: str, path: str) -> None:
    assert path_of(AGENT, agent_id) == path
    assert httpx.URL("https://api.thinnest.ai" + path).raw_path == path.encode()


@pytest.mark.parametrize("agent_id", [".", ".."])
def test_an_agent_that_leads_elsewhere(agent_id: str) -> None:
    with pytest.raises(ThinnestRequestError, match="agent_id cannot stand"):
        make(agent_id=agent_id, endpoint=AGENT).invoke("hi")
    assert path_of("/chat", agent_id) == "/chat"


@pytest.mark.parametrize(
    ("base_url", "endpoint", "said"),
    [
        ("https://a.example/chat/stream", "/chat/stream", "which is added to it"),
        ("https://a.example/chat/stream/", "/chat/stream", "which is added to it"),
        ("https://a.example/chat", "/chat", "which is added to it"),
        ("https://a.example/chat", "/chat/stream", 'set endpoint="/chat"'),
        ("https://a.example/proxy/chat/stream", AGENT, 'set endpoint="/chat/stream"'),
        ("https://a.example/v1/agents/ag_1/chat", AGENT, "/v1/agents/ag_1/chat, which is"),
        ("https://a.example/v1/agents/ag_1/chat", "/chat/stream", f'set endpoint="{AGENT}"'),
        ("https://a.example/v1/agents/{agent_id}/chat", AGENT, "which is added to it"),
        ("https://a.example/ask/ag_1", "/ask/{agent_id}", "which is added to it"),
        ("https://a.example/own", "/own", "which is added to it"),
    ],
)
def test_a_base_url_that_ends_in_an_endpoint(base_url: str, endpoint: str, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make(base_url=base_url, endpoint=endpoint)
    assert said in str(caught.value)


@pytest.mark.parametrize("path", ["", "/v1", "/chats", "/my-chat", "/v1/agents", "/chat/v1"])
@pytest.mark.parametrize("endpoint", ["/chat/stream", "/chat", AGENT, "/"])
def test_a_base_url_that_does_not(path: str, endpoint: str) -> None:
    make(base_url=f"https://a.example{path}", endpoint=endpoint)


def test_copies_keep_it() -> None:
    model = make(endpoint=AGENT)
    for copy in (
        model.model_copy(),
        pickle.loads(pickle.dumps(model)),
        load(
            dumpd(model),
            secrets_map={"THINNEST_API_KEY": KEY},
            valid_namespaces=["langchain_thinnest"],
            allowed_objects=[ChatThinnest],
        ),
    ):
        assert copy.endpoint == AGENT


def test_a_model_of_an_older_release_has_the_default() -> None:
    model = make()
    state = model.__getstate__()
    del state["__dict__"]["endpoint"]
    older = ChatThinnest.model_construct()
    older.__setstate__(state)
    assert older.endpoint == "/chat/stream"


def test_caches_tell_endpoints_apart() -> None:
    copied = make().model_copy(update={"endpoint": "/chat"})
    models = make(), make(endpoint=AGENT), copied
    keys = {model._get_llm_string() for model in models}
    keys.add(make()._get_llm_string(endpoint="/own"))
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("key", "endpoint", "said"),
    [
        ("ak_1234", "/chat/stream", f'endpoint="{AGENT}"'),
        ("agno_1234", "/chat/stream", f'endpoint="{AGENT}"'),
        ("ak_1234", "/chat", f'endpoint="{AGENT}"'),
        ("ak_1234", AGENT, None),
        ("ak_1234", "/own/{agent_id}", None),
        ("ta_live_1234", "/chat/stream", "newer API"),
        ("ta_live_1234", AGENT, "newer API"),
        ("thns_sk_1234", "/chat/stream", None),
        ("eyJhbGciOi.x.y", "/chat/stream", None),
        ("bak_1234", "/chat/stream", None),
    ],
)
def test_what_a_key_is_told(key: str, endpoint: str, said: str | None) -> None:
    hint = key_hint(key, endpoint)
    assert (said in hint) if said and hint else hint is said is None
    assert "1234" not in (hint or "")


# --- what users read ---

NO_CHARACTER = "holds a character that no path has; percent-encode it"
SET = "leave that out, and set endpoint"


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("chat", "must be a path that begins with '/', such as '/chat/stream': 'chat'."),
        ("/{x}", "must have no placeholder but {agent_id}: '/{x}'."),
        ("/a?b", "must have no query and no fragment: '/a?b'."),
        ("/a#b", "must have no query and no fragment: '/a#b'."),
        ("/a b", f"{NO_CHARACTER}: '/a b'."),
        ("/a//b", "must have no empty part ('//'): '/a//b'."),
        ("/a/..", "must have no part '.' or '..': '/a/..'."),
        ("/a%1f", "must not hold control characters: '/a%1f'."),
        ("/a%7F", "must not hold control characters: '/a%7F'."),
        ("/ " + "x" * 99, f"{NO_CHARACTER}: '/ {'x' * 77}."),
    ],
)
def test_what_is_wrong_with_a_path(endpoint: str, said: str) -> None:
    with pytest.raises(ThinnestRequestError) as raised:
        checked_endpoint(endpoint)
    assert str(raised.value) == f"endpoint {said}"


@pytest.mark.parametrize(("value", "name"), [(7, "int"), (None, "NoneType"), (["/"], "list")])
def test_what_is_no_path(value: object, name: str) -> None:
    with pytest.raises(ThinnestRequestError) as raised:
        checked_endpoint(value)
    assert str(raised.value) == (
        f"endpoint must be a path such as '/chat/stream', not {name}."
    )


@pytest.mark.parametrize("path", ["/a%20b", "/a%80", "/%C3%A9"])
def test_what_is_no_control_character(path: str) -> None:
    assert checked_endpoint(path) == path


def test_an_agent_that_leads_elsewhere_is_told() -> None:
    with pytest.raises(ThinnestRequestError) as raised:
        path_of(AGENT, "..")
    assert str(raised.value) == f"agent_id cannot stand in the path {AGENT}: '..'."


@pytest.mark.parametrize(
    ("base_path", "endpoint", "said"),
    [
        (
            "/v1/chat/stream",
            "/chat/stream",
            "must not end in /chat/stream, which is added to it: leave that out",
        ),
        ("/own/", "/own/", "must not end in /own, which is added to it: leave that out"),
        ("/chat/stream", "/", f'must not end in /chat/stream: {SET}="/chat/stream"'),
        (
            "/chat/",
            "/chat/stream",
            f'must not end in /chat: {SET}="/chat"',
        ),
        (
            "/v1/agents/a/chat",
            "/chat/stream",
            (f'must not end in /v1/agents/a/chat: leave that out, and set endpoint="{AGENT}"'),
        ),
        ("/v1/agents/a/b/chat", AGENT, f'must not end in /chat: {SET}="/chat"'),
        ("/chatXstream", "/chat.stream", None),
        ("", "/", None),
        ("/", "/", None),
        ("/chat/v1", "/chat", None),
    ],
)
def test_what_is_wrong_with_a_base_url(
    base_path: str, endpoint: str, said: str | None
) -> None:
    assert repeated_in(base_path, endpoint) == said


@pytest.mark.parametrize("kind", ["ak_", "agno_"])
def test_what_an_agents_key_is_told(kind: str) -> None:
    assert key_hint(f"{kind}1", "/chat") == (
        f"A key that begins with {kind} is one agent's, which the vendor takes at another "
        f'endpoint: set endpoint="{AGENT}".'
    )


def test_what_a_newer_key_is_told() -> None:
    assert key_hint("ta_live_1", AGENT) == (
        "A key that begins with ta_live_ belongs to thinnest.ai's newer API, which this "
        "package does not speak."
    )
