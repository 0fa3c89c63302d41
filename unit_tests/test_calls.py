"""Calls: what goes out, and the whole answer in every view; sync and async."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.runnables import RunnableLambda

from langchain_thinnest import ThinnestError, ThinnestRequestError
from langchain_thinnest._answer import message
from unit_tests.answers import END, chunk, refusal, stream
from unit_tests.conftest import KEY, Make
from unit_tests.contract import BLOCKS, EVENTS, OFFSET, TEXT, USAGE, as_sse, without_ids
from unit_tests.network import VIEWS, Network, Side, Wait

HEADERS = {
    "X-Request-ID": "req_7",
    "X-RateLimit-Limit": "60",
    "X-RateLimit-Remaining": "59",
}
WHOLE = stream(as_sse(*EVENTS), headers=HEADERS)


@pytest.fixture(params=VIEWS)
def view(request: pytest.FixtureRequest) -> str:
    return request.param


# --- the answer ---


def test_the_example_in_every_view(
    network: Network, side: Side, make: Make, view: str
) -> None:
    network.answer(WHOLE)
    answer = side.ask(view, make(session_id="s1"), "hi")
    assert answer.text == TEXT
    assert without_ids(answer.content_blocks) == BLOCKS
    assert answer.usage_metadata == USAGE
    metadata = dict(answer.response_metadata)
    metadata.pop("output_version", None)
    assert metadata == {
        "model_provider": "thinnest",
        "model_name": "ag_1",
        "finish_reason": "stop",
        "session_id": "s1",
        "rate_limit": {"limit": 60, "remaining": 59},
        "request_id": "req_7",
    }


@pytest.mark.parametrize("cut", [1, 7, 10_000])
def test_however_the_network_cuts_it(
    network: Network, side: Side, make: Make, view: str, cut: int
) -> None:
    data = b"".join(WHOLE)
    network.answer([data[at : at + cut] for at in range(0, len(data), cut)])
    assert side.ask(view, make(), "hi").text == TEXT


def test_pieces_come_one_by_one(network: Network, side: Side, make: Make) -> None:
    """Each as soon as the server has sent it."""
    network.answer([WHOLE[0], *(x for e in EVENTS for x in (Wait(1.0), chunk(as_sse(e))))])
    began, seen = network.clock.now, []
    for piece in side.stream(make(), "hi"):
        seen.append((round(network.clock.now - began), piece.text))
    texts = [event.get("content", "") for event in EVENTS]
    assert seen == [*enumerate(texts, 1)]


@pytest.mark.parametrize("output_version", ["v0", "v1"])
def test_an_answer_in_json(
    network: Network, side: Side, make: Make, view: str, output_version: str
) -> None:
    tools = [{"name": "web_search", "args": {"query": "x"}, "result": "..."}]
    answer = {"response": TEXT, "tool_calls": tools, "usage": USAGE, "cost": 7}
    network.answer(refusal(200, answer))
    message = side.ask(view, make(endpoint="/chat", output_version=output_version), "hi")
    assert message.text == TEXT
    kinds = [block["type"] for block in message.content_blocks]
    assert kinds == ["server_tool_call", "server_tool_result", "text"]
    assert message.response_metadata["cost"] == 7
    assert network.requests[0].line == "POST /chat HTTP/1.1"
    assert network.requests[0].json["stream"] is True


def test_what_the_server_adds_takes_no_name_of_ours(
    network: Network, side: Side, make: Make, view: str
) -> None:
    answer = {"response": "So.", "model_name": "theirs", "cost": 7, "session_id": "theirs"}
    network.answer(refusal(200, answer))
    metadata = side.ask(view, make(session_id="ours"), "hi").response_metadata
    assert (metadata["model_name"], metadata["server_model_name"]) == ("ag_1", "theirs")
    assert (metadata["session_id"], metadata["server_session_id"]) == ("ours", "theirs")
    assert metadata["cost"] == 7
    metadata = side.ask(view, make(), "hi").response_metadata
    assert metadata["session_id"] == "theirs"
    assert "server_session_id" not in metadata


def test_text_ends_at_a_stop_sequence(
    network: Network, side: Side, make: Make, view: str
) -> None:
    network.answer([WHOLE[0], *(chunk(as_sse(event)) for event in EVENTS[:2]), Wait()])
    for fields, kwargs in [({"stop": ["artificial"]}, {}), ({}, {"stop": ["artificial"]})]:
        answer = side.ask(view, make(**fields), "hi", **kwargs)
        assert answer.text == "Machine learning is a subset of "
        assert answer.response_metadata["finish_reason"] == "stop_sequence"
        assert answer.usage_metadata is None
        assert network.open_wires == 0  # the server need not go on


def test_a_part_of_an_answer_is_told_with_its_error(
    network: Network, side: Side, make: Make, view: str
) -> None:
    network.answer(stream(as_sse(*EVENTS[:5]), headers=HEADERS))
    with pytest.raises(ThinnestError) as caught:
        side.ask(view, make(), "hi")
    error: Any = caught.value
    assert error.request_id == "req_7"
    assert error.partial.text == TEXT[:OFFSET]
    assert without_ids(error.partial.content_blocks) == BLOCKS[:3]
    assert "finish_reason" not in error.partial.response_metadata


# --- v3 events ---


def test_blocks_open_and_close_in_their_place(
    network: Network, side: Side, make: Make
) -> None:
    network.answer(WHOLE)
    events = side.events(make(), "hi")
    assert [(e["event"].removeprefix("content-block-"), e.get("index")) for e in events] == [
        ("message-start", None),
        *[("start", 0), ("delta", 0), ("delta", 0), ("delta", 0), ("finish", 0)],
        *[("start", 1), ("finish", 1), ("start", 2), ("finish", 2)],
        *[("start", 3), ("delta", 3), ("finish", 3)],
        ("message-finish", None),
    ]
    finished = [e["content"] for e in events if e["event"] == "content-block-finish"]
    assert without_ids(finished) == BLOCKS


LOCAL = [
    {"type": "text", "content": 'Let me see. <tool_call>{"name": "look", "argu'},
    {"type": "tool_call", "name": "server", "args": {}},
    {"type": "text", "content": 'ments": {"at": "it"}}</tool_call>'},
    {"type": "text", "content": "<tool_call>{nothing}</tool_call>"},
    {"type": "done"},
]


def look(at: str) -> str:
    """Look at something."""
    return at


@pytest.mark.parametrize("output_version", ["v0", "v1"])
def test_calls_of_local_tools(
    network: Network, side: Side, make: Make, view: str, output_version: str
) -> None:
    network.answer(stream(*(as_sse(event) for event in LOCAL)))
    model: Any = make(output_version=output_version).bind_tools([look])
    answer = (
        side.ask(view, model, "hi")
        if view != "v3"
        else side.output(model.bound, "hi", **model.kwargs)
    )
    assert answer.text == "Let me see. "
    assert [(c["name"], c["args"]) for c in answer.tool_calls] == [("look", {"at": "it"})]
    (invalid,) = answer.invalid_tool_calls
    assert (invalid["args"] or "").startswith("{nothing}")
    assert "look" in network.requests[0].json["message"]


# --- the request ---


def test_the_request(network: Network, side: Side, make: Make, view: str) -> None:
    network.answer(WHOLE)
    model = make(
        session_id="s1",
        request_metadata={"page": "/"},
        default_headers={"X-Team": "blue", "accept": "text/html"},
    )
    text = "  Grüße,\r\n\u2028\tWelt \U0001f600 \\u0041 "
    side.ask(view, model, text)
    (request,) = network.requests
    assert request.line == "POST /chat/stream HTTP/1.1"
    assert request.json == {
        "agent_id": "ag_1",
        "message": text,
        "session_id": "s1",
        "metadata": {"page": "/"},
    }
    expected = {
        "authorization": f"Bearer {KEY}",
        "content-type": "application/json",
        "accept": "text/event-stream",
        "accept-encoding": "identity",
        "user-agent": f"langchain-thinnest/{version('langchain-thinnest')}",
        "x-team": "blue",
    }
    assert {name: request.headers[name] for name in expected} == expected


CONFIG = {"configurable": {"session_id": "config", "thread_id": "thread"}}


@pytest.mark.parametrize(
    ("kwargs", "config", "fields", "sent"),
    [
        ({"session_id": "arg"}, CONFIG, {"session_id": "field"}, "arg"),
        ({}, CONFIG, {"session_id": "field"}, "config"),
        ({}, None, {"session_id": "field"}, "field"),
        ({}, CONFIG, {"session_key": "thread_id"}, "thread"),
        ({}, {"configurable": {"thread_id": "thread"}}, {}, None),
        ({"session_id": 7}, None, {}, "7"),
    ],
)
def test_a_session_is_named_by_argument_config_or_field(
    network: Network,
    side: Side,
    make: Make,
    view: str,
    kwargs: Any,
    config: Any,
    fields: Any,
    sent: str | None,
) -> None:
    network.answer(WHOLE)
    answer = side.ask(view, make(**fields), "hi", config, **kwargs)
    assert network.requests[0].json.get("session_id") == sent
    assert answer.response_metadata.get("session_id") == sent


def test_metadata_is_given_by_argument_config_or_field(
    network: Network, side: Side, make: Make, view: str
) -> None:
    network.answer(WHOLE)
    config = {"configurable": {"request_metadata": {"from": "config"}}}
    model = make(request_metadata={"from": "field"})
    side.ask(view, model, "hi", config, request_metadata={"from": "argument"})
    side.ask(view, model, "hi", config)
    side.ask(view, model, "hi")
    sent = [request.json["metadata"]["from"] for request in network.requests]
    assert sent == ["argument", "config", "field"]


def test_what_a_session_has_heard_is_not_sent_again(
    network: Network, side: Side, make: Make
) -> None:
    """Also where a page kept the words alone, in a session of this process."""
    network.answer(WHOLE)
    model = make(session_id=f"s{network.base_url}")
    first = side.invoke(model, [SystemMessage("Be brief."), HumanMessage("one")])
    history = [SystemMessage("Be brief."), HumanMessage("one"), first, HumanMessage("two")]
    side.invoke(model, history)
    side.invoke(model, [HumanMessage("one"), AIMessage("1"), HumanMessage("three")])
    new = make(session_id=f"new{network.base_url}")
    side.invoke(new, [HumanMessage("a"), AIMessage("b"), HumanMessage("c")])
    assert [request.json["message"] for request in network.requests] == [
        "System: Be brief.\n\nUser: one",
        "two",
        "three",
        "User: a\n\nAssistant: b\n\nUser: c",
    ]


def test_the_session_of_the_surrounding_run_counts(network: Network, make: Make) -> None:
    """Also for `generate`, which takes no config."""
    network.answer(WHOLE)
    model = make()
    outer = RunnableLambda(lambda text: model.generate([[HumanMessage(text)]]))
    outer.invoke("hi", {"configurable": {"session_id": "outer"}})
    assert network.requests[0].json["session_id"] == "outer"


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"sesion_id": "s"}, "did you mean 'session_id'"),
        ({"request_metadat": {}}, "did you mean 'request_metadata'"),
        ({"session_id": "a\nb"}, "session_id"),
        ({"agent_id": "a\nb"}, "agent_id"),
        ({"endpoint": "chat"}, "begins with '/'"),
        ({"stop": [""]}, "stop must hold strings"),
        ({"stop": 7}, "stop must be a string"),
        ({"tool_choice": "look"}, "tool"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_sent(
    network: Network, side: Side, make: Make, view: str, kwargs: Any, said: str
) -> None:
    with pytest.raises(ThinnestRequestError, match=said):
        side.ask(view, make(), "hi", **kwargs)
    assert not network.requests


def test_what_means_nothing_here_is_told_and_not_sent(
    network: Network, side: Side, make: Make, view: str
) -> None:
    network.answer(WHOLE)
    with pytest.warns(UserWarning, match=r"ignores the unknown call argument\(s\) top_p"):
        side.ask(view, make(), "hi", top_p=0.5)
    with pytest.warns(UserWarning, match="temperature without effect"):
        side.ask(view, make(), "hi", temperature=0.5)
    assert all(r.json.keys() == {"agent_id", "message"} for r in network.requests)


def test_the_key_goes_nowhere_in_the_clear(
    network: Network, side: Side, make: Make, view: str
) -> None:
    """Assignments and copies are not validated, so it is looked at again."""
    model = make().model_copy(update={"base_url": "http://thinnest.example"})
    with pytest.raises(ThinnestRequestError, match="in the clear"):
        side.ask(view, model, "hi")
    assert not network.wires


# --- what the framework sees ---


class Starts(BaseCallbackHandler):
    run_inline = True

    def __init__(self) -> None:
        self.params: list[dict[str, Any]] = []
        self.metadata: list[dict[str, Any]] = []

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.params.append(kwargs["invocation_params"])
        self.metadata.append(kwargs["metadata"])


def test_a_trace_shows_what_was_asked_for(
    network: Network, side: Side, make: Make, view: str
) -> None:
    network.answer(WHOLE)
    starts = Starts()
    config = {"callbacks": [starts], "configurable": {"session_id": "s"}, "tags": ["t"]}
    side.ask(view, make(), "hi", config, request_metadata={"page": "/"}, agent_id="ag_2")
    (params,) = starts.params
    assert params["model"] == params["model_name"] == "ag_2"
    assert params["session_id"] == "s"
    assert params["request_metadata"] == {"page": "/"}
    assert not any(name.startswith("_thinnest") for name in params)
    assert KEY not in json.dumps(params)
    assert starts.metadata[0]["ls_provider"] == "thinnest"
    assert starts.metadata[0]["ls_model_name"] == "ag_2"


def test_the_cache_answers_the_same_question(network: Network, side: Side, make: Make) -> None:
    network.answer(WHOLE)
    model = make(cache=InMemoryCache())
    for _ in range(2):
        assert side.invoke(model, "hi").text == TEXT
    assert len(network.requests) == 1
    side.invoke(model, "hi", agent_id="ag_2")
    side.invoke(model, "hi", stop=["x"])
    assert len(network.requests) == 3
    for number in (4, 5):  # a session's answers depend on what it has heard
        side.invoke(model, "hi", session_id="s")
        assert len(network.requests) == number


def test_a_batch(network: Network, side: Side, make: Make) -> None:
    network.answer(WHOLE)
    model = make()
    side.invoke(model, "first")
    found = side.either(model.batch, model.abatch, ["a", "b", "c"])
    assert [answer.text for answer in found] == [TEXT] * 3


@pytest.mark.parametrize("turn", [EVENTS[3:4], [{"type": "new"}], EVENTS[0:1]])
def test_each_event_ends_a_silence(
    network: Network, side: Side, make: Make, view: str, turn: Any
) -> None:
    """Heartbeats are none, but whatever else comes is: a tool that takes long, say."""
    wait, beat = Wait(4.0), chunk(b": beat\n\n")
    event = chunk(as_sse(*turn))
    rest = chunk(as_sse(*EVENTS[4:]))
    network.answer([WHOLE[0], event, wait, beat, wait, event, wait, beat, wait, rest, END])
    side.ask(view, make(stall_timeout=10.0), "hi")


@pytest.mark.parametrize("normalizes", [False, True])
@pytest.mark.parametrize(
    ("turn", "reason"), [(EVENTS, "stop"), (LOCAL[:3] + LOCAL[-1:], "tool_call")]
)
def test_the_reason_to_finish_that_all_providers_share(
    network: Network,
    side: Side,
    make: Make,
    view: str,
    monkeypatch: pytest.MonkeyPatch,
    turn: Any,
    reason: str,
    normalizes: bool,
) -> None:
    """A core that reads it, from 1.8.4 on, is told; earlier ones know no such key."""
    monkeypatch.setattr(message, "NORMALIZES", normalizes)
    network.answer(stream(*(as_sse(event) for event in turn)))
    model: Any = make().bind_tools([look])
    answer = (
        side.ask(view, model, "hi")
        if view != "v3"
        else side.output(model.bound, "hi", **model.kwargs)
    )
    assert answer.response_metadata["finish_reason"] == "stop"
    found = answer.response_metadata.get("normalized_finish_reason")
    assert found == (reason if normalizes else None)


class Tools(BaseCallbackHandler):
    """Keeps what a tool's run is told beside its call."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_tool_start(
        self, *_: Any, tags: Any = None, metadata: Any = None, **__: Any
    ) -> None:
        self.told.append((tags, metadata))


def test_tool_runs_are_told_the_same_in_every_view(
    network: Network, side: Side, make: Make, view: str
) -> None:
    """Of the config and the session: traces gather a conversation's runs by it."""
    network.answer(WHOLE)
    model = make(session_id="ada", tags=["own"], metadata={"own": 1})
    tools = Tools()
    config = {"callbacks": [tools], "tags": ["config"], "metadata": {"config": 2}}
    side.ask(view, model, "hi", config)
    assert tools.told == [(["config"], {"config": 2, "session_id": "ada"})]
