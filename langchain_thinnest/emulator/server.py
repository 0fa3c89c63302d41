"""`ThinnestEmulator`: the HTTP side, after the vendor's page."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from typing_extensions import Self

from langchain_thinnest.emulator.agents import Agent, Session, answer
from langchain_thinnest.emulator.demo import demo_agent
from langchain_thinnest.emulator.faults import Fault
from langchain_thinnest.emulator.limits import Limits

DEMO_AGENT_ID = "ag_demo"
_FIELDS: dict[str, tuple[type, bool]] = {
    "agent_id": (str, True),
    "message": (str, True),
    "session_id": (str, False),
    "metadata": (dict, False),
}


class ThinnestEmulator:
    """The vendor's `POST /chat/stream`, served on loopback: a context manager.

    It checks bearer keys, knows agents by id, keeps each agent's memory of each session,
    answers with the contract's five events and its errors, and fails on request.

    Attributes:
        requests: The bodies of the requests that it took, in order: for tests to look at.
    """

    def __init__(
        self,
        agents: Mapping[str, Agent] | None = None,
        *,
        api_keys: Sequence[str] = ("ak_emulator",),
        host: str = "127.0.0.1",
        port: int = 0,
        requests_per_window: int | None = None,
        window_seconds: float = 60.0,
        max_connections: int | None = None,
        send_retry_after: bool = True,
        blank_lines: bool = True,
    ) -> None:
        """Make an emulator; it serves once it is entered.

        Args:
            agents: Agents by id. Default: the demo agent, as `ag_demo`.
            api_keys: The keys that it takes.
            host: The address to listen on.
            port: The port to listen on; 0 takes a free one.
            requests_per_window: Requests a key may make in a window; `None` is no limit.
            window_seconds: How long a window is.
            max_connections: Streams that a key may have open at once; `None` is no limit.
            send_retry_after: Whether a refusal by the window's limit has `Retry-After`.
            blank_lines: Whether a blank line ends each event. The vendor's page shows none.
        """
        self.agents: dict[str, Agent] = dict(
            {DEMO_AGENT_ID: demo_agent} if agents is None else agents
        )
        self.requests: list[dict[str, Any]] = []
        self._keys = tuple(api_keys)
        self._limits = Limits(requests_per_window, window_seconds, max_connections)
        self._send_retry_after = send_retry_after
        self._event_end = "\n\n" if blank_lines else "\n"
        self._faults: deque[Fault] = deque()
        self._sessions: dict[tuple[str, str], Session] = {}
        self._address = (host, port)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None

    @property
    def api_key(self) -> str:
        """A key that it takes."""
        return self._keys[0]

    @property
    def base_url(self) -> str:
        """Where it is, once it serves."""
        if self._socket is None:
            raise RuntimeError("The emulator has no address until it is entered (`with`).")
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def fail_next(self, fault: Fault, *, times: int = 1) -> None:
        """Make the next requests fail.

        Args:
            fault: What goes wrong.
            times: With how many requests.
        """
        self._faults.extend([fault] * times)

    def __enter__(self) -> Self:
        """Begin to serve, in a thread."""
        self._server = self._listen()
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), daemon=True
        )
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("The emulator's server did not start.")
            self._thread.join(0.005)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop serving; streams that are open are cut."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
        if self._socket is not None:
            self._socket.close()
        self._server = self._thread = self._socket = None

    def serve(self) -> None:
        """Serve in this thread, until interrupted."""
        with suppress(KeyboardInterrupt):
            self._listen().run([self._socket] if self._socket else None)

    def listen(self) -> None:
        """Take the address, so that `base_url` is known before `serve`."""
        if self._socket is None:
            family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
            self._socket = socket.create_server(self._address, family=family, backlog=2048)
            # asyncio sets this for protocol 6 only, and `create_server` leaves it 0. What is
            # accepted inherits it.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _listen(self) -> uvicorn.Server:
        self.listen()
        app = Starlette(
            routes=[Route("/chat/stream", self._chat_stream, methods=["POST"])],
            exception_handlers={404: _not_found, 405: _not_found},
        )
        return uvicorn.Server(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                log_level="critical",
                server_header=False,
                timeout_graceful_shutdown=0,
            )
        )

    async def _chat_stream(self, request: Request) -> Response:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or key not in self._keys:
            return _refuse(401, "Missing or invalid authentication")
        within = self._limits.take(key)
        headers = self._limits.headers(key)
        if not within:
            if self._send_retry_after:
                headers["Retry-After"] = str(self._limits.seconds_left(key))
            return _refuse(429, "Rate limit exceeded", headers)
        if not self._limits.connect(key):
            return _refuse(429, "Too many concurrent connections", headers)
        try:
            return await self._stream_or_refuse(request, key, headers)
        except BaseException:
            self._limits.disconnect(key)
            raise

    async def _stream_or_refuse(
        self, request: Request, key: str, headers: dict[str, str]
    ) -> Response:
        refusal: Response | None = None
        fault = self._faults.popleft() if self._faults else None
        body: Any = None
        try:
            body = json.loads(await request.body())
        except (ValueError, ClientDisconnect):
            problems = [{"loc": ["body"], "msg": "JSON decode error", "type": "json_invalid"}]
        else:
            problems = _problems(body)
        if fault is not None and fault.kind == "status":
            refusal = _refuse(fault.code, fault.message, {**headers, **fault.headers})
        elif problems:
            refusal = _refuse(422, problems, headers)
        elif body["agent_id"] not in self.agents:
            refusal = _refuse(404, "Agent not found", headers)
        if problems == []:
            self.requests.append(body)
        if refusal is not None:
            self._limits.disconnect(key)
            return refusal
        return StreamingResponse(
            self._body(body, key, fault),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", **headers},
        )

    async def _body(
        self, body: dict[str, Any], key: str, fault: Fault | None
    ) -> AsyncIterator[str]:
        try:
            events = _with_fault(self._events(body), fault)
            async for event in events:
                text = json.dumps(event, ensure_ascii=False, default=str)
                yield f"data: {text}{self._event_end}"
        finally:
            self._limits.disconnect(key)

    async def _events(self, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        agent_id, session_id = body["agent_id"], body.get("session_id")
        session = Session(session_id, agent_id)
        if session_id is not None:
            session = self._sessions.setdefault((agent_id, session_id), session)
        session.metadata = body.get("metadata") or {}
        try:
            async for event in answer(self.agents[agent_id], body["message"], session):
                yield event
        except Exception as error:  # noqa: BLE001  # whatever an agent raises
            yield {"type": "error", "message": f"{type(error).__name__}: {error}"}


class _Cut(Exception):  # noqa: N818  # no error of anybody's: it was asked for
    """Ends a body without its end, for which the server closes the connection."""


async def _with_fault(
    events: AsyncIterator[dict[str, Any]], fault: Fault | None
) -> AsyncIterator[dict[str, Any]]:
    sent = 0
    async for event in events:
        if fault is not None and sent == fault.after:
            if fault.kind == "cut":
                raise _Cut
            if fault.kind == "error":
                yield {"type": "error", "message": fault.message}
                return
            await asyncio.sleep(fault.seconds)
        yield event
        sent += 1


def _problems(body: Any) -> list[dict[str, Any]]:
    """What FastAPI, which the vendor's errors look like, would say of the body."""
    if not isinstance(body, dict):
        return [
            {"loc": ["body"], "msg": "Input should be a valid dictionary", "type": "dict_type"}
        ]
    problems: list[dict[str, Any]] = []
    for name, (kind, is_required) in _FIELDS.items():
        if name not in body:
            if is_required:
                problems.append(
                    {"loc": ["body", name], "msg": "Field required", "type": "missing"}
                )
        elif not isinstance(body[name], kind):
            word = "string" if kind is str else "dictionary"
            problems.append(
                {
                    "loc": ["body", name],
                    "msg": f"Input should be a valid {word}",
                    "type": "string_type" if kind is str else "dict_type",
                }
            )
    return problems


def _refuse(status: int, detail: Any, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"detail": detail}, status, headers)


async def _not_found(request: Request, _: Exception) -> Response:
    return _refuse(404, f"There is no {request.method} {request.url.path}")
