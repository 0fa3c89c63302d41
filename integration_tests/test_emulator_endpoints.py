"""The emulator's three endpoints: their bodies, their answers, their keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from langchain_thinnest.emulator import Fault, ThinnestEmulator

ACCOUNT, ONE, OTHER = "thns_sk_1", "ak_one", "ak_other"
CALLS = [
    {"type": "tool_call", "name": "a", "args": {"n": 1}},
    {"type": "tool_call", "name": "a", "args": {"n": 2}},
    {"type": "tool_result", "name": "a", "result": "first"},
    {"type": "tool_result", "name": "b", "result": [3]},
]
PATHS = {"account": "/chat", "agent": "/v1/agents/ag_one/chat"}


@pytest.fixture
def emulator() -> Iterator[ThinnestEmulator]:
    agents = {"ag_one": ["It ", *CALLS, "is."], "ag_count": lambda _, s: str(len(s.messages))}
    keys = {ONE: "ag_one", OTHER: "ag_other"}
    with ThinnestEmulator(agents, api_keys=[ACCOUNT], agent_keys=keys) as emulator:
        yield emulator


def post(emulator: ThinnestEmulator, path: str, key: str = ACCOUNT, **body: Any) -> Any:
    if path != PATHS["agent"]:
        body = {"agent_id": "ag_one", **body}
    return httpx.post(
        emulator.base_url + path,
        json={"message": "hi", **body},
        headers={"Authorization": f"Bearer {key}"},
        trust_env=False,
    )


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("stream", [{}, {"stream": False}], ids=["default", "false"])
def test_a_whole_answer_in_json(emulator: Any, path: str, stream: Any) -> None:
    response = post(emulator, path, session_id="s", **stream)
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "response": "It is.",
        "session_id": "s",
        "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        "tool_calls": [
            {"name": "a", "args": {"n": 1}, "result": "first"},
            {"name": "a", "args": {"n": 2}},
            {"name": "b", "args": {}, "result": [3]},
        ],
    }
    assert emulator.requests[0].path == path
    assert ("agent_id" in emulator.requests[0]) == (path == "/chat")


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_siblings_stream(emulator: Any, path: str) -> None:
    response = post(emulator, path, stream=True, session_id="s")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert [json.loads(line[6:]) for line in response.text.splitlines() if line] == [
        {"type": "content", "content": "It "},
        *CALLS,
        {"type": "content", "content": "is."},
        {"type": "done", "session_id": "s", "tokens_used": 3},
    ]


def test_a_session_is_made_where_none_is_named(emulator: Any) -> None:
    first = post(emulator, "/chat", agent_id="ag_count").json()
    again = {"agent_id": "ag_count", "session_id": first["session_id"]}
    assert first["response"] == "0"
    assert post(emulator, "/chat", **again).json()["response"] == "2"
    other = post(emulator, "/chat", agent_id="ag_count").json()
    assert other["response"] == "0"
    assert other["session_id"] != first["session_id"]


@pytest.mark.parametrize(
    ("key", "path", "status"),
    [
        *((ACCOUNT, path, 200) for path in ("/chat/stream", *PATHS.values())),
        (ONE, PATHS["agent"], 200),
        (ONE, "/chat", 401),
        (ONE, "/chat/stream", 401),
        (OTHER, PATHS["agent"], 403),
        ("ak_unknown", PATHS["agent"], 401),
    ],
)
def test_which_key_opens_what(emulator: Any, key: str, path: str, status: int) -> None:
    response = post(emulator, path, key)
    assert response.status_code == status
    assert len(emulator.requests) == (status == 200)
    assert key not in response.text


def test_what_is_refused(emulator: Any) -> None:
    for path in PATHS.values():
        (problem,) = post(emulator, path, stream="yes").json()["detail"]
        assert (problem["loc"], problem["type"]) == (["body", "stream"], "bool_type")
    assert post(emulator, "/chat", agent_id="ag_none").status_code == 404
    (problem,) = post(emulator, PATHS["agent"], message=1).json()["detail"]
    assert problem["loc"] == ["body", "message"]


def test_limits_are_of_the_key_whatever_the_endpoint() -> None:
    with ThinnestEmulator({"ag_one": ["hi"]}, requests_per_window=2) as emulator:
        key = emulator.api_key
        paths = ("/chat/stream", *PATHS.values())
        assert [post(emulator, path, key).status_code for path in paths] == [200, 200, 429]
    with ThinnestEmulator({"ag_one": ["hi"]}, max_connections=1) as emulator:
        for path in (*PATHS.values(), *PATHS.values()):  # each frees its connection
            assert post(emulator, path, emulator.api_key).status_code == 200
            assert post(emulator, path, emulator.api_key, message=1).status_code == 422


def test_faults_of_answers_in_json(emulator: Any) -> None:
    emulator.fail_next(Fault.error("Out of ideas", after=1))
    assert post(emulator, "/chat").json() == {"success": False, "error": "Out of ideas"}
    emulator.fail_next(Fault.status(503))
    assert post(emulator, "/chat").status_code == 503
    emulator.fail_next(Fault.stall(0.01, after=1))
    assert post(emulator, "/chat").json()["response"] == "It is."
    emulator.fail_next(Fault.cut(after=1))
    with pytest.raises(httpx.RemoteProtocolError):
        post(emulator, "/chat")
