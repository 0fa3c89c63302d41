"""The body of one request, and what may stand in it.

This module knows nothing of messages, or of how a body is sent.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID

from langchain_thinnest.errors import ThinnestRequestError


@dataclass(frozen=True)
class Request:
    """The body of one request; a field that is not set is left out, never sent as null.

    Attributes:
        agent_id: The agent to ask; `None` where it stands in the path.
        message: The one string to send.
        session_id: The server-side memory that the message belongs to.
        metadata: Context for the agent, such as who asks, from which page.
        asks_for_stream: Say that a stream is wanted, where the endpoint may do without.
    """

    agent_id: str | None
    message: str
    session_id: str | None = None
    metadata: Mapping[str, Any] | None = None
    asks_for_stream: bool = False

    def body(self) -> bytes:
        """Write the request as JSON.

        Raises:
            ThinnestRequestError: If it cannot be written as UTF-8 JSON.
        """
        fields: dict[str, Any] = {"agent_id": self.agent_id, "message": self.message}
        if self.agent_id is None:
            del fields["agent_id"]
        if self.session_id is not None:
            fields["session_id"] = self.session_id
        if self.metadata is not None:
            fields["metadata"] = self.metadata
        if self.asks_for_stream:
            fields["stream"] = True
        try:
            text = json.dumps(fields, ensure_ascii=False, allow_nan=False)
            return text.encode()
        except UnicodeEncodeError as error:
            problem = (
                "the text holds a lone surrogate (half of a character, "
                f"{error.object[error.start]!a}), which UTF-8 cannot carry"
            )
        except (TypeError, ValueError, RecursionError) as error:
            problem = f"request_metadata cannot be written as JSON ({error})"
        raise ThinnestRequestError(f"The request cannot be sent: {problem}.")


def checked_id(name: str, value: object) -> str:
    """Check an id that goes into a request.

    Args:
        name: The field's name, for the error.
        value: The id; a number or a UUID is taken as its text.

    Returns:
        The id as a string.

    Raises:
        ThinnestRequestError: If it is empty, has control characters, or is no id at all.
    """
    if isinstance(value, (int, UUID)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        problem: str | None = f"must be a string, not {type(value).__name__}"
    else:
        problem = _problem_of(name, value)
        if problem is None:
            return value
    raise ThinnestRequestError(f"{name} {problem}.")


@lru_cache(maxsize=1000)  # of a call's ids, most are the last call's
def _problem_of(name: str, value: str) -> str | None:
    if not value.strip():
        return "must not be empty"
    if has_control_characters(value):
        return "must not hold control characters"
    if value != value.strip() or (name == "agent_id" and " " in value):
        return f"must not hold spaces: {value!r:.80}"
    return None


def has_control_characters(text: str) -> bool:
    """Whether a text holds control characters or lone surrogates."""
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text)
