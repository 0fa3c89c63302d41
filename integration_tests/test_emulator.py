"""The emulator, as its users see it: over HTTP, and through `ChatThinnest`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.language_models import (
    BaseChatModel,
    FakeListChatModel,
    FakeListLLM,
    GenericFakeChatModel,
)
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableGenerator, RunnableLambda
from langchain_core.tools import tool

from integration_tests.conftest import KEY, echo_agent, example_agent
from langchain_thinnest import (
    ChatThinnest,
    ThinnestGenerationError,
    ThinnestInterruptedError,
    ThinnestNotFoundError,
    ThinnestRateLimitError,
    ThinnestServerError,
)
from langchain_thinnest.emulator import Fault, Session, ThinnestEmulator, demo_agent
from unit_tests.contract import EVENTS, TEXT, as_printed, as_sse

Event = dict[str, Any]


@pytest.fixture
def serve() -> Iterator[Any]:
    """Begins an emulator; agents go by name."""
    with ExitStack() as stack:

        def serve(agents: Any = None, **options: Any) -> ThinnestEmulator:
            given = {"ag_echo": echo_agent} if agents is None else agents
            return stack.enter_context(ThinnestEmulator(given, api_keys=[KEY], **options))

        yield serve


def post(
    emulator: ThinnestEmulator, body: Any = None, key: str = KEY, path: str = "/chat/stream"
) -> httpx.Response:
    given = {"agent_id": "ag_echo", "message": "hi"} if body is None else body
    content = given if isinstance(given, bytes) else json.dumps(given)
    return httpx.post(
        emulator.base_url + path,
        content=content,
        headers={"Authorization": f"Bearer {key}"},
        trust_env=False,
    )


def ask(emulator: ThinnestEmulator, agent: str = "ag_echo", **fields: Any) -> list[Event]:
    """The events of an answer, without what an emulator's usage says."""
    response = post(emulator, {"agent_id": agent, "message": "hi", **fields})
    assert response.status_code == 200, response.text
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line]
    assert events[-1].pop("usage", None) or events[-1]["type"] != "done"
    return events


def texts(*pieces: str) -> list[Event]:
    """An answer that is text."""
    return [*({"type": "text", "content": piece} for piece in pieces), {"type": "done"}]


def model_of(emulator: ThinnestEmulator, agent: str, **fields: Any) -> ChatThinnest:
    return ChatThinnest(
        agent_id=agent, api_key=KEY, base_url=emulator.base_url, max_retries=0, **fields
    )


# --- what is refused ---


@pytest.mark.parametrize("sent", [None, "Bearer wrong", "Bearer", KEY, f"Basic {KEY}"])
def test_a_missing_or_wrong_key(emulator: ThinnestEmulator, sent: str | None) -> None:
    response = httpx.post(
        f"{emulator.base_url}/chat/stream",
        json={"agent_id": "ag_echo", "message": "hi"},
        headers={} if sent is None else {"Authorization": sent},
        trust_env=False,
    )
    assert response.status_code == 401
    assert isinstance(response.json()["detail"], str)
    assert emulator.requests == []


def test_each_of_its_keys() -> None:
    with ThinnestEmulator(api_keys=["ak_1", "ak_2"]) as emulator:
        body = {"agent_id": "ag_demo", "message": "hi"}
        assert [post(emulator, body, key).status_code for key in ("ak_1", "ak_2", KEY)] == [
            200,
            200,
            401,
        ]
        assert emulator.api_key == "ak_1"


def test_an_unknown_agent(emulator: ThinnestEmulator) -> None:
    response = post(emulator, {"agent_id": "ag_unknown", "message": "hi"})
    assert (response.status_code, response.json()) == (404, {"detail": "Agent not found"})


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        ({"message": "hi"}, [("agent_id", "missing")]),
        ({"agent_id": "ag_echo"}, [("message", "missing")]),
        ({}, [("agent_id", "missing"), ("message", "missing")]),
        (
            {"agent_id": 1, "message": []},
            [("agent_id", "string_type"), ("message", "string_type")],
        ),
        (
            {"agent_id": "ag_echo", "message": "", "session_id": 7},
            [("session_id", "string_type")],
        ),
        (
            {"agent_id": "ag_echo", "message": "", "session_id": None},
            [("session_id", "string_type")],
        ),
        ({"agent_id": "ag_echo", "message": "", "metadata": "x"}, [("metadata", "dict_type")]),
        ([{"agent_id": "ag_echo"}], [(None, "dict_type")]),
        (b'"agent_id"', [(None, "dict_type")]),
        (b"agent_id=ag_echo", [(None, "json_invalid")]),
        (b"", [(None, "json_invalid")]),
        (b'"\xff"', [(None, "json_invalid")]),
    ],
)
def test_a_body_that_is_not_a_request(
    emulator: ThinnestEmulator, body: Any, problems: list[Any]
) -> None:
    response = post(emulator, body)
    assert response.status_code == 422
    detail = response.json()["detail"]
    assert [(problem["loc"], problem["type"]) for problem in detail] == [
        (["body"] if name is None else ["body", name], kind) for name, kind in problems
    ]
    assert all(isinstance(problem["msg"], str) for problem in detail)
    assert emulator.requests == []


def test_an_unknown_path_or_method(emulator: ThinnestEmulator) -> None:
    response = post(emulator, path="/chat/streams")
    assert response.status_code == 404
    assert response.json() == {"detail": "There is no POST /chat/streams"}
    response = httpx.get(f"{emulator.base_url}/chat/stream", trust_env=False)
    assert response.status_code == 404
    assert response.json() == {"detail": "There is no GET /chat/stream"}


# --- what is answered ---


@pytest.mark.parametrize(("blank_lines", "printed"), [(True, as_sse), (False, as_printed)])
def test_the_stream_as_bytes(serve: Any, blank_lines: bool, printed: Any) -> None:
    emulator = serve({"ag_example": example_agent}, blank_lines=blank_lines)
    response = post(emulator, {"agent_id": "ag_example", "message": "hi"})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.content.rstrip(b"\n") == printed(*EVENTS).rstrip(b"\n")
    assert model_of(emulator, "ag_example").invoke("hi").text == TEXT


def test_the_requests_that_it_took(emulator: ThinnestEmulator) -> None:
    bodies = [
        {"agent_id": "ag_echo", "message": "hi"},
        {"agent_id": "ag_echo", "message": "ho", "session_id": "s", "metadata": {"a": [1]}},
        {"agent_id": "ag_unknown", "message": "hi", "extra": None},
    ]
    for body in bodies:
        post(emulator, body)
    assert emulator.requests == bodies


def test_a_session_is_of_one_agent(serve: Any) -> None:
    emulator = serve({"ag_1": echo_agent, "ag_2": echo_agent})
    asked = [("ag_1", "s"), ("ag_1", "s"), ("ag_2", "s"), ("ag_1", "t"), ("ag_1", "s")]
    answers = [ask(emulator, agent, session_id=session)[0] for agent, session in asked]
    assert [answer["content"] for answer in answers] == [
        f"{turns}: hi" for turns in (0, 1, 0, 0, 2)
    ]


def test_no_memory_without_a_session(emulator: ThinnestEmulator) -> None:
    for _ in range(3):
        assert ask(emulator) == texts("0: hi")


def test_what_an_agent_knows_of_its_session(serve: Any) -> None:
    seen: list[Any] = []

    def agent(message: str, session: Session) -> str:
        session.state["count"] = session.state.get("count", 0) + 1
        past = [(turn.type, turn.text) for turn in session.messages]
        seen.append(
            (session.id, session.agent_id, session.metadata, past, session.state["count"])
        )
        return "ho"

    emulator = serve({"ag_1": agent})
    ask(emulator, "ag_1")
    ask(emulator, "ag_1", session_id="s", metadata={"page": "/"})
    ask(emulator, "ag_1", session_id="s")
    assert seen == [
        (None, "ag_1", {}, [], 1),
        ("s", "ag_1", {"page": "/"}, [], 1),
        ("s", "ag_1", {}, [("human", "hi"), ("ai", "ho")], 2),
    ]


def test_usage_is_counted(emulator: ThinnestEmulator) -> None:
    usage = model_of(emulator, "ag_echo").invoke("one two three").usage_metadata
    assert usage == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}


# --- limits ---


@pytest.mark.parametrize("send_retry_after", [True, False])
def test_requests_in_a_window(serve: Any, send_retry_after: bool) -> None:
    emulator = serve(requests_per_window=2, send_retry_after=send_retry_after)
    responses = [post(emulator) for _ in range(4)]
    assert [response.status_code for response in responses] == [200, 200, 429, 429]
    headers = [response.headers for response in responses]
    assert [head["x-ratelimit-limit"] for head in headers] == ["2"] * 4
    assert [head["x-ratelimit-remaining"] for head in headers] == ["1", "0", "0", "0"]
    assert len({head["x-ratelimit-reset"] for head in headers}) == 1
    waits = [head.get("retry-after") for head in headers]
    assert waits[:2] == [None, None]
    assert (waits[2] is not None and 55 <= int(waits[2]) <= 60) == send_retry_after
    assert len(emulator.requests) == 2


def test_each_key_has_its_own_window() -> None:
    with ThinnestEmulator(api_keys=["ak_1", "ak_2"], requests_per_window=1) as emulator:
        body = {"agent_id": "ag_demo", "message": "hi"}
        keys = ("ak_1", "ak_1", "ak_2")
        assert [post(emulator, body, key).status_code for key in keys] == [200, 429, 200]


def test_no_limit_no_headers(emulator: ThinnestEmulator) -> None:
    assert not [name for name in post(emulator).headers if name.startswith("x-ratelimit")]


def test_a_window_ends(serve: Any) -> None:
    emulator = serve(requests_per_window=1, window_seconds=0.2)
    statuses = [post(emulator).status_code]
    while len(statuses) == 1 or statuses[-1] == 429:
        statuses.append(post(emulator).status_code)
    assert statuses[0] == statuses[-1] == 200
    assert len(emulator.requests) == 2


def test_connections_at_once(serve: Any) -> None:
    may_end = threading.Event()

    def agent(message: str, session: Session) -> Iterator[str]:
        yield "begun"
        assert may_end.wait(10)

    emulator = serve({"ag_1": agent, "ag_echo": echo_agent}, max_connections=2)
    model = model_of(emulator, "ag_1")
    streams = [model.stream("hi") for _ in range(2)]
    assert [next(stream).text for stream in streams] == ["begun", "begun"]
    with pytest.raises(ThinnestRateLimitError, match="concurrent"):
        model_of(emulator, "ag_echo").invoke("hi")
    may_end.set()
    for stream in streams:
        assert list(stream)[-1].chunk_position == "last"
    assert model_of(emulator, "ag_echo").invoke("hi").text == "0: hi"


def test_a_client_that_leaves_frees_its_connection(serve: Any) -> None:
    left = threading.Event()

    async def agent(message: str, session: Session) -> Any:
        import asyncio

        try:
            yield "begun"
            await asyncio.sleep(60)
        finally:
            left.set()

    emulator = serve({"ag_1": agent, "ag_echo": echo_agent}, max_connections=1)
    for chunk in model_of(emulator, "ag_1").stream("hi"):
        assert chunk.text == "begun"
        break
    assert left.wait(10)
    assert ask(emulator) == texts("0: hi")


# --- faults ---


def test_a_status_on_request(emulator: ThinnestEmulator) -> None:
    emulator.fail_next(
        Fault.status(503, "Down", retry_after=7, headers={"X-Team": "blue"}), times=2
    )
    responses = [post(emulator) for _ in range(3)]
    assert [response.status_code for response in responses] == [503, 503, 200]
    assert responses[0].json() == {"detail": "Down"}
    assert responses[0].headers["retry-after"] == "7"
    assert responses[0].headers["x-team"] == "blue"
    assert "retry-after" not in responses[2].headers


def test_faults_come_in_the_order_given(emulator: ThinnestEmulator) -> None:
    emulator.fail_next(Fault.status(500))
    emulator.fail_next(Fault.status(404))
    model = model_of(emulator, "ag_echo")
    with pytest.raises(ThinnestServerError):
        model.invoke("hi")
    with pytest.raises(ThinnestNotFoundError):
        model.invoke("hi")
    assert model.invoke("hi").text == "0: hi"


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize(
    ("fault", "raised"),
    [(Fault.cut, ThinnestInterruptedError), (Fault.error, ThinnestGenerationError)],
)
def test_an_answer_that_fails_after_some_events(
    emulator: ThinnestEmulator, fault: Any, raised: Any, after: int
) -> None:
    emulator.fail_next(fault(after=after))
    with pytest.raises(raised) as caught:
        model_of(emulator, "ag_example").invoke("hi")
    came = "".join(event["content"] for event in EVENTS[:after])
    assert caught.value.partial.text == came
    assert model_of(emulator, "ag_example").invoke("hi").text == TEXT


def test_an_error_event_says_what_was_asked(emulator: ThinnestEmulator) -> None:
    emulator.fail_next(Fault.error("Out of ideas", after=1))
    assert ask(emulator, "ag_example") == [
        EVENTS[0],
        {"type": "error", "message": "Out of ideas"},
    ]


def test_a_stall_is_a_pause(emulator: ThinnestEmulator) -> None:
    emulator.fail_next(Fault.stall(0.3, after=2), times=2)
    assert model_of(emulator, "ag_example").invoke("hi").text == TEXT
    with pytest.raises(ThinnestInterruptedError) as caught:
        model_of(emulator, "ag_example", timeout=0.1).invoke("hi")
    assert caught.value.partial.text == EVENTS[0]["content"] + EVENTS[1]["content"]


def test_a_failed_answer_is_not_remembered(emulator: ThinnestEmulator) -> None:
    for fault in (Fault.status(500), Fault.error()):
        emulator.fail_next(fault)
        post(emulator, {"agent_id": "ag_echo", "message": "hi", "session_id": "s"})
    assert ask(emulator, session_id="s") == texts("0: hi")


# --- agents that are functions ---

CALL = {"type": "tool_call", "name": "clock", "args": {"zone": "UTC"}}
RESULT = {"type": "tool_result", "name": "clock", "result": {"hour": 7}}


def generator(message: str, session: Session) -> Any:
    yield "It is "
    yield CALL
    yield RESULT
    yield "seven."


async def async_generator(message: str, session: Session) -> Any:
    for item in generator(message, session):
        yield item


def list_of_items(message: str, session: Session) -> Any:
    return list(generator(message, session))


async def coroutine(message: str, session: Session) -> Any:
    return list(generator(message, session))


def returns_a_generator(message: str, session: Session) -> Any:
    return generator(message, session)


def returns_an_async_generator(message: str, session: Session) -> Any:
    return async_generator(message, session)


def returns_a_coroutine(message: str, session: Session) -> Any:
    return coroutine(message, session)


@pytest.mark.parametrize(
    "agent",
    [
        generator,
        async_generator,
        list_of_items,
        coroutine,
        returns_a_generator,
        returns_a_coroutine,
        returns_an_async_generator,
    ],
)
def test_an_agent_that_is_a_function(serve: Any, agent: Any) -> None:
    emulator = serve({"ag_1": agent})
    it_is, seven, done = texts("It is ", "seven.")
    assert ask(emulator, "ag_1") == [it_is, CALL, RESULT, seven, done]
    blocks = model_of(emulator, "ag_1").invoke("hi").content_blocks
    assert [block["type"] for block in blocks] == [
        "text",
        "server_tool_call",
        "server_tool_result",
        "text",
    ]


def test_an_agent_that_returns_one_item(serve: Any) -> None:
    agents = {
        "ag_text": lambda message, session: message.upper(),
        "ag_event": lambda message, session: CALL,
    }
    emulator = serve(agents)
    assert ask(emulator, "ag_text") == texts("HI")
    assert ask(emulator, "ag_event") == [CALL, {"type": "done"}]


def test_an_agent_with_its_own_done(serve: Any) -> None:
    done = {"type": "done", "usage": {"input_tokens": 9}, "session_id": "theirs"}

    def agent(message: str, session: Session) -> Any:
        yield "Bye."
        yield done
        yield "Nobody hears this."

    emulator = serve({"ag_1": agent})
    response = post(emulator, {"agent_id": "ag_1", "message": "hi"})
    assert response.content == as_sse({"type": "text", "content": "Bye."}, done)


def test_an_agent_that_raises(serve: Any) -> None:
    def late(message: str, session: Session) -> Any:
        yield "Well,"
        raise KeyError("gone")

    def early(message: str, session: Session) -> Any:
        raise ValueError("no")

    emulator = serve({"ag_late": late, "ag_early": early, "ag_none": lambda *_: None})
    assert ask(emulator, "ag_late") == [
        {"type": "text", "content": "Well,"},
        {"type": "error", "message": "KeyError: 'gone'"},
    ]
    assert ask(emulator, "ag_early") == [{"type": "error", "message": "ValueError: no"}]
    (event,) = ask(emulator, "ag_none")
    assert event["type"] == "error"
    with pytest.raises(ThinnestGenerationError, match="gone") as caught:
        model_of(emulator, "ag_late").invoke("hi")
    assert caught.value.partial.text == "Well,"


# --- agents that are runnables ---


class Plain(BaseChatModel):
    """A chat model that does not stream: it says how many messages it got."""

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        answer = AIMessage(f"{len(messages)} so far.")
        return ChatResult(generations=[ChatGeneration(message=answer)])

    @property
    def _llm_type(self) -> str:
        return "plain"


@tool
def clock(zone: str) -> dict[str, int]:
    """Tell the hour."""
    return {"hour": 7}


def look(message: str) -> str:
    return f"It is {clock.invoke({'zone': 'UTC'})['hour']}."


async def spell(messages: AsyncIterator[str]) -> AsyncIterator[str]:
    async for message in messages:
        for letter in message:
            yield letter


PROMPT = ChatPromptTemplate([("human", "{question}")])


@pytest.mark.parametrize(
    ("agent", "answer"),
    [
        (RunnableLambda(lambda message: message.upper()), texts("HI")),
        (RunnableGenerator(spell), texts("h", "i")),
        (FakeListChatModel(responses=["abc"]), texts("a", "b", "c")),
        (FakeListLLM(responses=["abc"]), texts("abc")),
        (Plain(), texts("1 so far.")),
        (PROMPT | Plain(), texts("1 so far.")),
        (PROMPT | FakeListChatModel(responses=["abc"]), texts("a", "b", "c")),
        (
            PROMPT | FakeListChatModel(responses=["abc"]) | StrOutputParser(),
            texts("a", "b", "c"),
        ),
        (RunnableLambda(look), [CALL, RESULT, *texts("It is 7.")]),
        (PROMPT | RunnableLambda(look), [CALL, RESULT, *texts("It is 7.")]),
    ],
)
def test_an_agent_that_is_a_runnable(serve: Any, agent: Any, answer: list[Event]) -> None:
    assert ask(serve({"ag_1": agent}), "ag_1") == answer


def test_a_chat_model_streams(serve: Any) -> None:
    agent = GenericFakeChatModel(messages=iter([AIMessage("Hello there, you")]))
    emulator = serve({"ag_1": agent})
    chunks = [chunk.text for chunk in model_of(emulator, "ag_1").stream("hi")]
    assert [text for text in chunks if text] == ["Hello", " ", "there,", " ", "you"]


def test_a_chat_model_has_the_sessions_messages(serve: Any) -> None:
    emulator = serve({"ag_1": Plain()})
    for count in (1, 3, 5):
        assert ask(emulator, "ag_1", session_id="s") == texts(f"{count} so far.")
    assert ask(emulator, "ag_1") == texts("1 so far.")


def test_a_runnable_knows_its_session(serve: Any) -> None:
    def agent(message: str, config: Any) -> str:
        known = config["configurable"]
        return f"{known.get('session_id')} {known.get('thread_id')}"

    emulator = serve({"ag_1": RunnableLambda(agent)})
    assert ask(emulator, "ag_1", session_id="s") == texts("s ag_1/s")
    assert ask(emulator, "ag_1") == texts("None None")


def test_a_runnable_that_raises(serve: Any) -> None:
    def agent(message: str) -> str:
        raise ValueError("no")

    emulator = serve({"ag_1": RunnableLambda(agent)})
    assert ask(emulator, "ag_1") == [{"type": "error", "message": "ValueError: no"}]


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: PROMPT | model])
def test_another_emulators_agent_is_an_agent(serve: Any, wrap: Any) -> None:
    """What its tools did is told once, though the model tells of it in two ways."""
    inner = serve({"ag_1": generator})
    outer = serve({"ag_1": wrap(model_of(inner, "ag_1"))})
    events = ask(outer, "ag_1")
    assert [event["type"] for event in events] == [
        "text",
        "tool_call",
        "tool_result",
        "text",
        "done",
    ]
    assert events[1] == CALL


# --- begin and end ---


def test_no_address_before_it_is_entered() -> None:
    emulator = ThinnestEmulator()
    with pytest.raises(RuntimeError, match="entered"):
        _ = emulator.base_url
    with emulator:
        url = emulator.base_url
        assert post(emulator, {}, emulator.api_key).status_code == 422
    with pytest.raises(RuntimeError, match="entered"):
        _ = emulator.base_url
    with pytest.raises(httpx.ConnectError):
        httpx.post(url, trust_env=False)


def test_an_end_cuts_what_is_open() -> None:
    async def agent(message: str, session: Session) -> Any:
        import asyncio

        yield "begun"
        await asyncio.sleep(60)

    with ThinnestEmulator({"ag_1": agent}, api_keys=[KEY]) as emulator:
        stream = model_of(emulator, "ag_1").stream("hi")
        assert next(stream).text == "begun"
    with pytest.raises(ThinnestInterruptedError):
        list(stream)


def test_the_demo_agent_is_the_default() -> None:
    with ThinnestEmulator(api_keys=[KEY]) as emulator:
        assert "1554" in model_of(emulator, "ag_demo").invoke("What is 37 * 42?").text
        assert emulator.agents == {"ag_demo": demo_agent}


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="This machine has no IPv6 loopback.")
def test_an_address_of_ipv6(serve: Any) -> None:
    emulator = serve(host="::1")
    assert emulator.base_url.startswith("http://[::1]:")
    assert model_of(emulator, "ag_echo").invoke("hi").text == "0: hi"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        pytest.param(
            "::1",
            marks=pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 loopback here"),
        ),
    ],
)
def test_small_writes_are_not_held_back(serve: Any, host: str) -> None:
    """An answer's head and body are two writes: Nagle's algorithm would hold the second."""
    options: list[int] = []

    def agent(message: str, session: Session) -> str:
        port = int(emulator.base_url.rpartition(":")[2])
        for descriptor in range(3, 1024):
            with (
                contextlib.suppress(OSError),
                socket.socket(fileno=os.dup(descriptor)) as held,
            ):
                if _is_taken(held, port):
                    options.append(held.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        return "ho"

    emulator = serve({"ag_1": agent}, host=host)
    assert ask(emulator, "ag_1") == texts("ho")
    assert options
    assert all(options)


def _is_taken(held: socket.socket, port: int) -> bool:
    """Whether it is a connection that the server of a port has accepted."""
    try:
        return held.getsockname()[1:2] == (port,) and bool(held.getpeername())
    except OSError:  # closed, or listening
        return False


# --- from the command line ---

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "langchain_thinnest.emulator"]


def test_from_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a child inherits SIG_IGN
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", "--api-key", KEY, "--requests-per-window", "1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(4)]
            settings = dict(re.findall(r"export (\w+)=(\S+)", "".join(lines)))
            for name, value in settings.items():
                monkeypatch.setenv(name, value)
            model = ChatThinnest(agent_id=os.environ["THINNEST_AGENT_ID"], max_retries=0)
            assert settings["THINNEST_BASE_URL"].startswith("http://127.0.0.1:")
            assert "1554" in model.invoke("What is 37 * 42?").text
            with pytest.raises(ThinnestRateLimitError):
                model.invoke("What is 37 * 42?")
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=20) == ("", "")
            assert process.returncode == 0
        finally:
            process.kill()
            signal.signal(signal.SIGINT, before)


def test_serving_until_interrupted() -> None:
    code = (
        "import os, signal, threading, time\n"
        "from langchain_thinnest.emulator import ThinnestEmulator\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "emulator = ThinnestEmulator()\n"
        "def interrupt():\n"
        "    while emulator._socket is None: time.sleep(0.01)\n"
        "    print(emulator.base_url)\n"
        "    time.sleep(0.2)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=interrupt).start()\n"
        "emulator.serve()\n"
        "print('ended')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+\nended\n", done.stdout)


def test_a_port_that_is_taken(emulator: ThinnestEmulator) -> None:
    port = emulator.base_url.rpartition(":")[2]
    for wrong in (port, "65536"):
        done = subprocess.run(
            [*COMMAND, "--port", wrong],
            check=False,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert f"cannot listen on 127.0.0.1 port {wrong}" in done.stderr
        assert "Traceback" not in done.stderr
