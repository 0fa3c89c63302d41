"""`ThinnestEmulator`: the HTTP side, after the vendor's pages."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any
from uuid import uuid4

import uvicorn
from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from typing_extensions import NotRequired, Self, TypedDict

from langchain_thinnest.emulator.agents import Agent, Events, Fault, Session, answer, scripted
from langchain_thinnest.emulator.demo import demo_agent

DEMO_AGENT_ID = "ag_demo"
CONTRACT = "/chat/stream"
PATHS = (CONTRACT, "/chat", "/v1/agents/{agent_id}/chat")


class _Body(TypedDict):
    agent_id: str
    message: str
    session_id: NotRequired[str]
    metadata: NotRequired[dict[str, Any]]
    stream: NotRequired[bool]


_JSON, _BODY = TypeAdapter(Any), TypeAdapter(_Body)
_json = partial(json.dumps, ensure_ascii=False, default=str)


class Received(dict[str, Any]):
    """The body of a request, as it came; `path` is where it came."""

    path: str = CONTRACT


class _Server(uvicorn.Server):
    """uvicorn's server, but it does not sleep for 0.1 s twice before it ends."""

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # noqa: ASYNC110  # the tick that renews `Date`
            await asyncio.sleep(0.005)

    async def shutdown(self, sockets: Any = None) -> None:  # noqa: ARG002
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()  # asyncio cancels its task, and waits for it


class ThinnestEmulator:
    """The vendor's three chat endpoints, served on loopback: a context manager.

    `POST /chat/stream` streams; `POST /chat` and `POST /v1/agents/{agent_id}/chat` answer in
    JSON, or stream if the body has `"stream": true`.

    Attributes:
        agents: Agents by id; `"*"` answers for every id that has none.
        api_key: A key that it takes.
        requests: The bodies that it took, in order; each has the `path` it came to.
        refused: How many requests it refused by its limits.
        errors: What agents raised; the client is sent an `error` event.
    """

    def __init__(
        self,
        agents: Mapping[str, Agent] | None = None,
        *,
        api_keys: Sequence[str] = ("ak_emulator",),
        agent_keys: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        requests_per_window: int | None = None,
        window_seconds: float = 60.0,
        max_connections: int | None = None,
        send_retry_after: bool = True,
        blank_lines: bool = True,
        siblings_stream: bool = True,
    ) -> None:
        """Make an emulator; it serves once it is entered.

        The keys of `api_keys` open every endpoint; those of `agent_keys` (key to agent id)
        open `/v1/agents/{agent_id}/chat` of that agent alone. Port 0 is a free one. Limits
        are of a key: requests in a window, and streams open at once; `None` is no limit, and
        `send_retry_after` is for refusals by the window's. Without `agents` it has the demo
        agent, as `ag_demo`. The vendor's page shows no `blank_lines` between events. Without
        `siblings_stream` the other endpoints answer in JSON, whatever is asked.
        """
        self.agents = dict({DEMO_AGENT_ID: demo_agent} if agents is None else agents)
        for agent_id in self.agents:
            self._agent(agent_id)  # a script is checked now
        self.requests: list[Received] = []
        self.refused = 0
        self.errors: list[Exception] = []
        self._keys: dict[str, str | None] = {**dict.fromkeys(api_keys), **(agent_keys or {})}
        self.api_key = next(iter(self._keys))
        self._limits = requests_per_window, window_seconds, max_connections
        self._send_retry_after = send_retry_after
        self._windows: dict[str, tuple[float, int]] = {}  # key → (its end, requests in it)
        self._open: Counter[str] = Counter()  # streams by key
        self._siblings_stream = siblings_stream
        self._end = "\n\n" if blank_lines else "\n"
        self._faults: deque[Fault] = deque()
        self._sessions: dict[tuple[str, str], Session] = {}
        self._address = (host, port)
        self._socket: socket.socket | None = None
        self._ending = ExitStack()

    @property
    def base_url(self) -> str:
        """Where it is, once it serves."""
        if self._socket is None:
            raise RuntimeError("The emulator has no address until it is entered (`with`).")
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def fail_next(self, fault: Fault, *, times: int = 1) -> None:
        """Make the next requests fail, so many times."""
        self._faults.extend([fault] * times)

    def __enter__(self) -> Self:
        """Take the address, and begin to serve, in a thread."""
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        self._socket = socket.create_server(self._address, family=family, backlog=2048)
        # asyncio sets this for protocol 6 only, and `create_server` leaves it 0. What is
        # accepted inherits it.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        app = Starlette(
            routes=[Route(path, self._chat, methods=["POST"]) for path in PATHS],
            exception_handlers={404: _not_found, 405: _not_found},
        )
        quiet: Any = {"log_config": None, "log_level": "critical", "server_header": False}
        config = uvicorn.Config(app, lifespan="off", **quiet)
        server = _Server(config)
        thread = threading.Thread(target=server.run, args=([self._socket],), daemon=True)
        self._ending.callback(self._socket.close)
        self._ending.callback(thread.join)
        self._ending.callback(setattr, server, "should_exit", True)
        thread.start()
        while thread.is_alive() and not server.started:
            thread.join(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving; streams that are open are cut."""
        self._ending.close()
        self._socket = None

    def serve(self) -> None:
        """Serve until interrupted."""
        with self, suppress(KeyboardInterrupt):
            threading.Event().wait()

    def _agent(self, agent_id: str) -> Agent:
        name = agent_id if agent_id in self.agents else "*"
        if isinstance(agent := self.agents[name], list):
            agent = self.agents[name] = scripted(agent)
        return agent

    async def _chat(self, request: Request) -> Response:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        of_agent = self._keys.get(key)
        is_closed = of_agent is not None and not request.path_params
        if scheme.lower() != "bearer" or key not in self._keys or is_closed:
            return _refuse(401, "Missing or invalid authentication")
        if of_agent not in (None, request.path_params.get("agent_id")):
            return _refuse(403, "This key is another agent's")
        return self._respond(request, await request.body(), key)  # which waits for nothing

    def _respond(self, request: Request, body: bytes, key: str) -> Response:
        refused, headers = self._take(key)
        if refused:
            self.refused += 1
            return _refuse(429, refused, headers)
        fault = self._faults.popleft() if self._faults else None
        asked, problems = _read(body, request.path_params)
        if not problems:
            self.requests.append(Received(json.loads(body)))
            self.requests[-1].path = request.url.path
        if fault is not None and fault.kind == "status":
            return _refuse(fault.code, fault.message, {**headers, **fault.headers})
        if problems:
            return _refuse(422, problems, headers)
        if not {asked["agent_id"], "*"} & self.agents.keys():
            return _refuse(404, "Agent not found", headers)
        sibling = None
        if request.url.path != CONTRACT:
            sibling = asked.setdefault("session_id", f"sess_{uuid4().hex}")
        events = fault.spoil(self._events(asked)) if fault else self._events(asked)
        kind, written = "text/event-stream", _as_stream(events, sibling, self._end)
        if sibling and not (asked.get("stream") and self._siblings_stream):
            kind, written = "application/json", _as_json(events, sibling)
        self._open[key] += 1
        return StreamingResponse(self._counted(written, key), 200, headers, kind)

    def _take(self, key: str) -> tuple[str, dict[str, str]]:
        """Count a request. Gives why it is refused, if it is, and the headers that tell."""
        most, seconds, most_open = self._limits
        now = time.time()
        end, used = self._windows.get(key, (0.0, 0))
        if now >= end:
            end, used = now + seconds, 0
        is_full = most is not None and used >= most
        is_busy = most_open is not None and self._open[key] >= most_open
        used += not (is_full or is_busy)
        self._windows[key] = end, used
        headers = {"Cache-Control": "no-cache"}
        if is_full and self._send_retry_after:
            headers["Retry-After"] = str(max(1, math.ceil(end - now)))
        if most is not None:
            headers["X-RateLimit-Limit"] = str(most)
            headers["X-RateLimit-Remaining"] = str(most - used)
            headers["X-RateLimit-Reset"] = str(math.ceil(end))
        refused = "Too many concurrent connections" if is_busy else ""
        return "Rate limit exceeded" if is_full else refused, headers

    async def _counted(self, pieces: AsyncIterator[str], key: str) -> AsyncIterator[str]:
        try:
            async for piece in pieces:
                yield piece
        finally:
            self._open[key] -= 1

    async def _events(self, asked: dict[str, Any]) -> Events:
        agent_id, session_id = asked["agent_id"], asked.get("session_id")
        session = Session(session_id, agent_id)
        if session_id is not None:
            session = self._sessions.setdefault((agent_id, session_id), session)
        session.metadata = asked.get("metadata") or {}
        try:
            async for event in answer(self._agent(agent_id), asked["message"], session):
                yield event
        except Exception as error:  # noqa: BLE001  # whatever an agent raises
            self.errors.append(error)
            yield {"type": "error", "message": f"{type(error).__name__}: {error}"}


def _read(body: bytes, in_path: Mapping[str, str]) -> tuple[Any, list[Any]]:
    """What is asked, and what is wrong with it, as FastAPI and so the vendor would say it."""
    try:
        asked = _JSON.validate_json(body)
        asked = {**asked, **in_path} if isinstance(asked, dict) else asked
        return _BODY.validate_python(asked, strict=True), []
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        return None, [{**problem, "loc": ["body", *problem["loc"]]} for problem in found]


async def _as_stream(events: Events, sibling: str | None, end: str) -> AsyncIterator[str]:
    """An answer as the contract streams it, or as the other endpoints do, with a session."""
    async for event in events:
        told = event
        if sibling and event["type"] == "text":
            told = {**event, "type": "content"}
        elif sibling and event["type"] == "done":
            tokens = (event.get("usage") or {}).get("total_tokens")
            told = {"type": "done", "session_id": sibling, "tokens_used": tokens}
        yield f"data: {_json(told)}{end}"


async def _as_json(events: Events, session_id: str | None) -> AsyncIterator[str]:
    """A whole answer as one JSON object; nothing of one that is cut."""
    calls: list[dict[str, Any]] = []
    answer: dict[str, Any] = {"response": "", "session_id": session_id, "tool_calls": calls}
    async for event in events:
        if event["type"] == "text":
            answer["response"] += event["content"]
        elif event["type"] == "tool_call":
            calls.append({"name": event["name"], "args": event["args"]})
        elif event["type"] == "tool_result":  # answers calls by name, the first one first
            name = event["name"]
            waiting = (c for c in calls if c["name"] == name and "result" not in c)
            if (call := next(waiting, None)) is None:
                calls.append(call := {"name": name, "args": {}})
            call["result"] = event["result"]
        elif event["type"] == "done":
            answer["usage"] = event.get("usage")
        elif event["type"] == "error":
            answer = {"success": False, "error": event["message"]}
    yield _json(answer)


def _refuse(status: int, detail: Any, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"detail": detail}, status, headers)


async def _not_found(request: Request, _: Exception) -> Response:
    return _refuse(404, f"There is no {request.method} {request.url.path}")
