"""The vendor's endpoints: the path below the base URL, and whose key opens which.

| endpoint | the vendor gives it to |
|---|---|
| `/chat/stream` | a token of the account (the contract, and the default) |
| `/chat` | the same |
| `/v1/agents/{agent_id}/chat` | an agent's key (`ak_*`, once `agno_*`), or the account's |

This module knows nothing of HTTP, or of what is sent there.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote, unquote

from langchain_thinnest.errors import ThinnestRequestError

STREAM = "/chat/stream"
ACCOUNT = "/chat"
AGENT = "/v1/agents/{agent_id}/chat"
PLACEHOLDER = "{agent_id}"
_AGENT_KEYS = ("ak_", "agno_")
_NEWER_KEYS = ("ta_live_",)
# RFC 3986, 3.3: what a path may hold. All else is percent-encoded.
_LEGAL = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")


def checked_endpoint(value: object) -> str:
    """Check a path that requests go to.

    Args:
        value: The path, in which `{agent_id}` stands for the agent's id.

    Returns:
        The path as it is.

    Raises:
        ThinnestRequestError: If it is no such path.
    """
    if not isinstance(value, str):
        raise ThinnestRequestError(
            f"endpoint must be a path such as {STREAM!r}, not {type(value).__name__}."
        )
    if problem := _problem_of(value):
        raise ThinnestRequestError(f"endpoint {problem}: {value!r:.80}.")
    return value


@lru_cache(maxsize=100)
def _problem_of(endpoint: str) -> str | None:
    path = endpoint.replace(PLACEHOLDER, "")
    if not endpoint.startswith("/"):
        return f"must be a path that begins with '/', such as {STREAM!r}"
    if "{" in path or "}" in path:
        return f"must have no placeholder but {PLACEHOLDER}"
    if "?" in path or "#" in path:
        return "must have no query and no fragment"
    if not _LEGAL.fullmatch(path):
        return "holds a character that no path has; percent-encode it"
    if "//" in endpoint:
        return "must have no empty part ('//')"
    if _has_dots(path) or _has_dots(endpoint):
        return "must have no part '.' or '..'"
    if any(ord(character) < 32 or ord(character) == 127 for character in unquote(path)):
        return "must not hold control characters"
    return None


def _has_dots(path: str) -> bool:
    """Whether a path has `.` or `..` segments, which clients and servers resolve."""
    parts = re.split(r"[/\\]", unquote(path))
    return any(part in (".", "..") for part in parts)


def path_of(endpoint: str, agent_id: str) -> str:
    """The path for an agent, whose id is percent-encoded in it.

    Raises:
        ThinnestRequestError: If the id would lead to another path.
    """
    path = endpoint.replace(PLACEHOLDER, quote(agent_id, safe=""))
    if any(part in (".", "..") for part in path.split("/")):
        raise ThinnestRequestError(
            f"agent_id cannot stand in the path {endpoint}: {agent_id!r}."
        )
    return path


def repeated_in(base_path: str, endpoint: str) -> str | None:
    """Say what is wrong with a base URL that ends in an endpoint; `None` if it does not.

    Args:
        base_path: The path of the base URL.
        endpoint: The endpoint that is added to it.
    """
    for known in (endpoint, STREAM, AGENT, ACCOUNT):
        pattern = re.escape(known.rstrip("/")).replace(re.escape(PLACEHOLDER), "[^/]+")
        found = re.search(f"{pattern}$", base_path.rstrip("/")) if pattern else None
        if found is None:
            continue
        if known == endpoint:
            return f"must not end in {found[0]}, which is added to it: leave that out"
        return f'must not end in {found[0]}: leave that out, and set endpoint="{known}"'
    return None


def key_hint(key: str, endpoint: str) -> str | None:
    """What to try where the server refuses a key; `None` if nothing is known.

    Args:
        key: The key. Of it no more than its kind is told.
        endpoint: The endpoint that was asked.
    """
    kind = next(filter(key.startswith, (*_AGENT_KEYS, *_NEWER_KEYS)), None)
    if kind in _NEWER_KEYS:
        return (
            f"A key that begins with {kind} belongs to thinnest.ai's newer API, which this "
            "package does not speak."
        )
    if kind in _AGENT_KEYS and PLACEHOLDER not in endpoint:
        return (
            f"A key that begins with {kind} is one agent's, which the vendor takes at another "
            f'endpoint: set endpoint="{AGENT}".'
        )
    return None
