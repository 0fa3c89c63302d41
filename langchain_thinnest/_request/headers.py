"""The headers that a caller adds to requests: which may be set, and how they are kept unseen.

This module knows nothing of how a request is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from typing_extensions import override

from langchain_thinnest._request.body import has_control_characters
from langchain_thinnest.errors import ThinnestRequestError

_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)  # RFC 9110, 5.6.2
_OF_THE_CONNECTION = frozenset({"connection", "content-length", "transfer-encoding"})
# What else one call may not set: who is asked and how, and what the body is.
_OF_THE_REQUEST = frozenset(
    {
        "accept",
        "accept-encoding",
        "content-encoding",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
    }
)


def problem_of(headers: Mapping[str, str]) -> str | None:
    """Return why headers cannot be sent along, if they cannot. It tells no value."""
    for name, content in headers.items():
        if name.lower() == "authorization":
            return "must not hold Authorization: pass the key as api_key"
        if name.lower() in _OF_THE_CONNECTION:
            return f"must not hold {name}: the connection's own headers are set"
        if not (name + content).isascii() or has_control_characters(name + content):
            return f"holds control or non-ASCII characters in {name!a}"
        if not _NAME.fullmatch(name):
            return f"holds {name!a}, which is no name of a header"
        if content != content.strip():
            return f"holds spaces around the value of {name!a}"
    return None


class ExtraHeaders(Mapping[str, str]):
    """The headers of one call; neither a repr nor a serialised form shows them."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        """Check the headers.

        Raises:
            ThinnestRequestError: If one of them cannot be set for one call.
        """
        if problem := _problem_of_call(headers):
            raise ThinnestRequestError(f"extra_headers {problem}.")
        self._headers = dict(headers)

    @override
    def __getitem__(self, name: str) -> str:
        return self._headers[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._headers)

    @override
    def __len__(self) -> int:
        return len(self._headers)

    @override
    def __repr__(self) -> str:
        return f"<{len(self)} headers>"


def with_extra(
    headers: Mapping[str, str] | None, extra: Mapping[str, str] | None
) -> Mapping[str, str]:
    """Add a call's headers to the model's; a call's own one takes the place of the model's.

    Raises:
        ThinnestRequestError: If one of the call's cannot be set.
    """
    if extra is None:
        return headers or {}
    if not isinstance(extra, ExtraHeaders):
        extra = ExtraHeaders(extra)
    own = {name.lower() for name in extra}
    kept = {name: text for name, text in (headers or {}).items() if name.lower() not in own}
    return {**kept, **extra}


def _problem_of_call(headers: object) -> str | None:
    if not isinstance(headers, Mapping):
        return f"must be a dict of strings, not {type(headers).__name__}"
    names: set[str] = set()
    for name, content in headers.items():
        if not isinstance(name, str) or not isinstance(content, str):
            return f"must be a dict of strings; {name!a:.80} is none or holds none"
        if name.lower() in _OF_THE_REQUEST or name.lower().startswith("proxy-"):
            return f"must not hold {name}, which the package or the proxy settings set"
        if name.lower() in names:
            return f"holds {name!a} twice"
        names.add(name.lower())
    return problem_of(headers)
