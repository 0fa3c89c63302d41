"""Bytes → JSON payloads: an answer that is one JSON object, as the sibling endpoints give it.

    {"response": "...", "session_id": "...", "usage": {...}, "tool_calls": [...]}

It becomes the events that a stream would have had, so that every view of the answer works: the
tools (nobody says where in the text they ran, but the text is what came of them), one text,
then `done`. Nothing is known before the object is whole, and nothing of a cut one is shown.

| what | under |
|---|---|
| the text | `response`, else `content`, `text` or `answer`: a string |
| the session | `session_id` |
| token counts | `usage`, else `tokens_used` |
| tools | `tool_calls`: entries with a `name`, `args` or `arguments`, and maybe a `result` |
| a failure | `"success": false`; `error` or `detail` where there is no text |
| all of this | `data`, where it is not outside: it is looked into once |

What else stands there is kept in `rest`, for the message's metadata.
This module knows nothing of HTTP, and not what a sequence of events means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from langchain_thinnest._answer.events import as_args, as_id, error_message, usage_of
from langchain_thinnest._answer.sse import Payload, read_json
from langchain_thinnest.errors import (
    ThinnestInterruptedError,
    ThinnestProtocolError,
    ThinnestStreamError,
)

_BOM = b"\xef\xbb\xbf"
_TEXTS = ("response", "content", "text", "answer")
_REASONS = ("error", "detail", "message", "reason", "msg")


class JSONAnswer:
    """Feed it bytes as they come; at the body's end it gives the payloads.

    Attributes:
        rest: What a whole object holds beside the answer, once it was read.
        unanswered: The ids of calls whose result it does not tell.
    """

    def __init__(self, max_bytes: int, without_key: Callable[[str], str]) -> None:
        """Begin an answer.

        Args:
            max_bytes: The most bytes that it may have.
            without_key: Takes the API key from a text, in which the server may tell it back.
        """
        self.rest: dict[str, Any] = {}
        self.unanswered: set[str] = set()
        self._without_key = without_key
        self._max = max_bytes
        self._size = 0
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            ThinnestProtocolError: If there are too many.
        """
        self._size += len(data)
        if self._size > self._max:
            raise ThinnestProtocolError(
                f"The answer in JSON is larger than max_event_bytes ({self._max}). "
                "If the agent says that much, or its tools return it, raise max_event_bytes."
            )
        self._parts.append(data)

    def finish(self, reason: ThinnestStreamError) -> list[Payload]:
        """Read the object, now that nothing more comes.

        Args:
            reason: Why nothing more comes; it is raised if the object is not whole.

        Returns:
            The payloads of the contract's events, `done` or `error` last.

        Raises:
            ThinnestInterruptedError: If the body stalled before the object was whole.
            ThinnestProtocolError: If it was cut, or is no object with an answer.
        """
        body = b"".join(self._parts).removeprefix(_BOM)
        value, problem = _parsed(body)
        if problem and (isinstance(reason, ThinnestInterruptedError) or "EOF" in problem):
            raise reason
        if not isinstance(value, dict):
            raise _unreadable("is not a JSON object", body)
        said = _unwrapped(value)
        payloads = _payloads_of(said)
        if not payloads:
            raise _unreadable("has no answer in it", body)
        results = {p["id"] for p in payloads if p["type"] == "tool_result"}
        self.unanswered = {p["id"] for p in payloads if p["type"] == "tool_call"} - results
        if payloads[-1]["type"] == "done":
            told = {key: value for key, value in said.items() if value is not None}
            self.rest = self._cleaned(told)
        return payloads

    def _cleaned(self, value: Any) -> Any:
        """Mask the API key in a value: metadata goes into traces."""
        if isinstance(value, str):
            return self._without_key(value)
        if isinstance(value, list):
            return [self._cleaned(item) for item in value]
        if isinstance(value, dict):
            return {self._without_key(k): self._cleaned(v) for k, v in value.items()}
        return value


def _parsed(body: bytes) -> tuple[Any, str]:
    """Parse a body; return its value, and the parser's error if it is no JSON."""
    try:
        return read_json(body), ""
    except ValueError as error:
        return None, str(error)


def _unreadable(problem: str, body: bytes) -> ThinnestProtocolError:
    shown = body[:200].decode("utf-8", "replace")
    return ThinnestProtocolError(
        f"The server's answer in JSON {problem}: {shown!r}{'...' if len(body) > 200 else ''}. "
        "The agent may have acted all the same."
    )


def _unwrapped(value: dict[str, Any]) -> dict[str, Any]:
    """Merge an object with what a generic wrapper holds in `data`."""
    data = value.get("data")
    if isinstance(value.get(_TEXTS[0]), str) or not isinstance(data, dict):
        return dict(value)
    said = {**value, **data}
    if "data" not in data:
        del said["data"]
    if value.get("success") is False:
        said["success"] = False
    return said


def _payloads_of(said: dict[str, Any]) -> list[Payload]:
    """Pop the answer from an object, as events; none if it holds no answer."""
    texts = [key for key in _TEXTS if isinstance(said.get(key), str)]
    has_failed = said.get("success") is False or (
        not texts and bool(said.get("error") or said.get("detail"))
    )
    if not texts and not has_failed:
        return []
    text: str = said.pop(texts[0]) if texts else ""
    payloads = _tools_of(said)
    if isinstance(said.get("success"), bool):
        del said["success"]
    if has_failed:
        known = (said.get(key) for key in _REASONS)
        given = next((it for it in known if it and isinstance(it, str | dict | list)), None)
        if given is not None and text:
            payloads.append({"type": "text", "content": text})
        reason = error_message({"message": given or text})
        return [*payloads, {"type": "error", "message": reason}]
    payloads.append({"type": "text", "content": text})
    return [*payloads, {"type": "done", **_ending_of(said)}]


def _ending_of(said: dict[str, Any]) -> dict[str, Any]:
    """Pop the session and the token counts, in the form of `done`."""
    ending: dict[str, Any] = {
        "usage": usage_of(said),
        "session_id": as_id(said.get("session_id")),
    }
    if ending["usage"] is not None:
        said.pop("usage", None)
        said.pop("tokens_used", None)
    if ending["session_id"] is not None:
        del said["session_id"]
    return ending


def _tools_of(said: dict[str, Any]) -> list[Payload]:
    """Pop the calls, each followed by its result; other entries stay."""
    entries = said.get("tool_calls")
    if not isinstance(entries, list):
        return []
    payloads: list[Payload] = []
    left: list[Any] = []
    ids: set[str] = set()
    for entry in entries:
        found = _tool_of(entry, ids)
        payloads += found
        left += [] if found else [entry]
    said["tool_calls"] = left or None
    return payloads


def _tool_of(entry: Any, ids: set[str]) -> list[Payload]:
    """Return a call and its result, if there is one; nothing if the entry is no call.

    They have an id, the server's or one made here: a later result of the same name would
    else go to a call that has none.
    """
    function = entry.get("function") if isinstance(entry, dict) else None
    inner = function if isinstance(function, dict) else entry
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        return []
    args: Any = inner.get("args", inner.get("arguments"))
    try:
        args = as_args(args)
    except ValueError:
        return []
    if not inner["name"] or not isinstance(args, dict):
        return []
    id_ = as_id(entry.get("tool_call_id")) or as_id(entry.get("id"))
    if id_ is None or id_ in ids:
        id_ = f"call_{uuid4().hex}"
    ids.add(id_)
    call = {"type": "tool_call", "name": inner["name"], "args": args, "id": id_}
    if "result" not in entry:
        return [call]
    result = {"type": "tool_result", "name": inner["name"], "id": id_}
    return [call, {**result, "result": entry["result"]}]
