"""Which session a turn of a LangGraph thread belongs to, so that sessions follow forks.

A hosted agent remembers on the server, and LangGraph lets people go back, edit, and generate
an answer again. The graph's state is the truth. Of each session one value is kept, `Seen`:
digests of the messages up to the last turn that the session saw. Where a thread's messages
begin with those, what follows them goes out. Where they do not, all of them go out, to a new
session: its id is made of the thread's and of their digest, so that workers agree on it. The
session of a branch stands in the metadata of its own answers, which are in the state.

A turn counts as seen once its stream was opened, whatever became of its answer.
This module knows nothing of graphs, or of where the values are kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import count
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from typing_extensions import Self

from langchain_thinnest._names import PROVIDER

# How many of the last messages may have begun a branch that has no answer yet.
_LATEST = 50


@dataclass(frozen=True)
class Seen:
    """What a session has seen.

    Attributes:
        whole: The digest of the messages up to its last turn, and of the turn's answer.
        brief: The same where only the answer's last message is kept, as supervisors do.
        asked: The same without the answer, which a run that is stopped leaves out.
        step: LangGraph's number of the turn's step, by which that is noticed.
    """

    whole: str
    brief: str | None = None
    asked: str | None = None
    step: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what a store keeps."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Read what a store has kept; keys of other versions are left out."""
        return cls(
            str(value.get("whole")), value.get("brief"), value.get("asked"), value.get("step")
        )


@dataclass(frozen=True)
class NextTurn:
    """A turn that is to come: a thread's messages, and where LangGraph is.

    Attributes:
        thread: The thread's id, which is the id of its first session.
        agent_id: The agent that is asked.
        messages: The thread's messages, oldest first.
        step: LangGraph's number of the step.
        is_replay: The run begins at a checkpoint that the caller named.
    """

    thread: str
    agent_id: str
    messages: Sequence[BaseMessage]
    step: int | None = None
    is_replay: bool = False


@dataclass(frozen=True)
class Place:
    """Where a turn goes.

    Attributes:
        session_id: The session.
        seen: How many of the messages the session has seen; `None` if that is not known.
        asked: The digest of the messages.
    """

    session_id: str
    seen: int | None
    asked: str


def place_of(turn: NextTurn) -> Generator[str, Seen | None, Place]:
    """Find the session of a turn.

    Yields:
        The ids of sessions, to be sent what is known of them.

    Returns:
        The turn's place.
    """
    digests = digests_of(turn.messages)
    at, session_id = _last_answer(turn)
    seen = yield session_id
    if seen is None:
        return Place(session_id, None, digests[-1])
    if (known := _seen_part(seen, digests, turn)) is not None:
        return Place(session_id, known, digests[-1])
    if at == len(turn.messages) and digests[-1] in (seen.whole, seen.brief):
        return Place(session_id, at, digests[-1])  # there is nothing to say
    # A branch: a new one, or one of whose answers none has reached the state.
    new = ""
    first = min(max(at, len(turn.messages) - _LATEST), len(turn.messages) - 1)
    for size in range(len(turn.messages), first, -1):
        for attempt in count():
            session_id = _branch(turn.thread, digests[size], attempt)
            seen = yield session_id
            if seen is None:
                new = new or session_id
                break
            if (known := _seen_part(seen, digests, turn)) is not None:
                return Place(session_id, known, digests[-1])
    return Place(new, 0, digests[-1])


def after(asked: str, answer: Sequence[BaseMessage], step: int | None) -> Seen:
    """Return what a session has seen once it has answered."""
    kept = 2 if isinstance(answer[-1], ToolMessage) else 1
    return Seen(
        whole=digests_of(answer, asked)[-1],
        brief=digests_of(answer[-kept:], asked)[-1],
        asked=asked,
        step=step,
    )


def digests_of(messages: Sequence[BaseMessage], start: str = "") -> list[str]:
    """Return a digest of each beginning of a conversation: none, one message, two, ...

    What a session hears is digested: who says it, the text, calls and results. Ids are not:
    pages that keep role and text alone have new ones each time.
    """
    digests = [start]
    for message in messages:
        said: list[Any] = [_kind(message), message.content]
        if isinstance(message, AIMessage):
            said.append([[call["name"], call["args"]] for call in message.tool_calls])
        elif isinstance(message, ToolMessage):
            said.append(message.status)
        text = json.dumps([digests[-1], said], sort_keys=True, default=str)
        digests.append(blake2b(text.encode(), digest_size=16).hexdigest())
    return digests


def _kind(message: BaseMessage) -> str:
    return "ai" if isinstance(message, AIMessage) else message.type


def _seen_part(seen: Seen, digests: Sequence[str], turn: NextTurn) -> int | None:
    """Return how many messages a session has seen, if it has seen these and no others.

    A turn with nothing new is one that is run again: its answer is not to be remembered.
    """
    expected = [seen.whole, seen.brief]
    # A run that was stopped behind its answer leaves no other trace than its step: LangGraph
    # takes two to begin the next run, and one more for what has come into the state.
    if seen.step is not None and turn.step == seen.step + 2 and not turn.is_replay:
        expected.append(seen.asked)
    sizes = [digests.index(digest) for digest in expected if digest in digests]
    return next((size for size in sizes if size < len(digests) - 1), None)


def _last_answer(turn: NextTurn) -> tuple[int, str]:
    """Return the agent's last answer on this thread: its end, and its session."""
    for at in range(len(turn.messages), 0, -1):
        message = turn.messages[at - 1]
        if not isinstance(message, (AIMessage, ToolMessage)):
            continue
        metadata = message.response_metadata
        session_id = metadata.get("session_id")
        if (
            metadata.get("model_provider") == PROVIDER
            and metadata.get("model_name") in (turn.agent_id, None)
            and isinstance(session_id, str)
            and _is_of_thread(session_id, turn.thread)
        ):
            return at, session_id
    return 0, turn.thread


def _branch(thread: str, digest: str, attempt: int) -> str:
    """Return the id of a branch's session; a turn that is run again begins one more."""
    text = f"{digest}-{attempt}".encode()
    return f"{thread}-{blake2b(text, digest_size=8).hexdigest()}"


def _is_of_thread(session_id: str, thread: str) -> bool:
    return session_id == thread or bool(
        re.fullmatch(re.escape(thread) + "-[0-9a-f]{16}", session_id)
    )
