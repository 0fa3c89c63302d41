"""What can go wrong, one class each.

    ThinnestError
    ├── ThinnestAuthenticationError    401
    ├── ThinnestBalanceError           402
    ├── ThinnestPermissionError        403
    ├── ThinnestNotFoundError          404
    ├── ThinnestRequestError           400, 422, any other 4xx, or refused before it was sent
    ├── ThinnestRateLimitError         429
    ├── ThinnestServerError            5xx
    ├── ThinnestConnectionError        no connection, or lost before an answer began
    ├── ThinnestTimeoutError           too slow before an answer began
    └── ThinnestStreamError            an answer that began and is not whole; see `partial`
        ├── ThinnestGenerationError    an `error` event, or JSON that tells of a failure
        ├── ThinnestInterruptedError   the stream ended, was cut or stalled before `done`
        └── ThinnestProtocolError      bytes that cannot be the contract

Every class is also LangChain's own class for the same failure, so code that handles any
provider handles this one. Instances survive `pickle`, and never hold the API key.
This module knows nothing of HTTP or of how an error came about.
"""

from __future__ import annotations

from langchain_core.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    ModelRateLimitError,
    ModelTimeoutError,
)
from langchain_core.messages import AIMessage


class ThinnestError(ModelError):
    """Base of every error that this package raises for a call.

    The framework's classes call server, connection and timeout failures retryable. That
    holds for a stateless model; here the agent may have acted, so every class says no, and
    an instance says yes only for what was surely not taken.

    Attributes:
        status_code: The HTTP status, where the server answered with one.
        detail: What the server said was wrong, where it said anything.
        request_id: The server's `X-Request-ID`, where it sent one: quote it to support.
        retry_after: Seconds after which the server wants to be asked again, where known.
        is_retryable: Whether sending the same message again is safe. It is true only where
            the server surely did not take the message (429, 503 with `Retry-After`, a
            connection that was never made); after anything else the agent's tools may
            have acted, and its session may remember.
    """

    is_retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        detail: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        is_retryable: bool = False,
    ) -> None:
        """Make an error; see the class for what the arguments mean."""
        super().__init__(message)
        self.status_code = status_code
        self.detail = detail
        self.request_id = request_id
        self.retry_after = retry_after
        self.is_retryable = is_retryable


def is_retryable(error: BaseException) -> bool:
    """Whether sending the same message again is safe: for retry helpers of any kind.

    It says yes only for what the server surely did not take; see `ThinnestError`. For errors
    that are not of this package it says no.

    Example:
        ```python
        from tenacity import retry, retry_if_exception

        ask = retry(retry=retry_if_exception(is_retryable))(model.invoke)
        ```
    """
    return isinstance(error, ThinnestError) and error.is_retryable


class ThinnestAuthenticationError(ThinnestError, ModelAuthenticationError):
    """The API key is missing or invalid (401)."""


class ThinnestBalanceError(ThinnestError, ModelPermissionDeniedError):
    """The account's balance is insufficient (402)."""


class ThinnestPermissionError(ThinnestError, ModelPermissionDeniedError):
    """The key may not use this agent (403)."""


class ThinnestNotFoundError(ThinnestError, ModelNotFoundError):
    """There is no such agent (404)."""


class ThinnestRequestError(ThinnestError, ModelInvalidRequestError, ValueError):
    """The request is wrong: refused by the server (400, 422) or here, before it was sent."""


class ThinnestRateLimitError(ThinnestError, ModelRateLimitError):
    """The rate limit, or the limit on concurrent connections, is exceeded (429)."""


class ThinnestServerError(ThinnestError, ModelAPIError):
    """The server failed (5xx)."""


class ThinnestConnectionError(ThinnestError, ModelConnectionError):
    """The server could not be reached, or hung up before its answer began."""


class ThinnestTimeoutError(ThinnestError, ModelTimeoutError):
    """The server was too slow: to accept the connection, or to begin its answer."""


class ThinnestStreamError(ThinnestError):
    """An answer began and is not whole.

    Attributes:
        partial: The message so far, empty if nothing had come. It is never the whole answer.
    """

    partial: AIMessage

    def __init__(
        self,
        message: str,
        *,
        partial: AIMessage | None = None,
        status_code: int | None = None,
        detail: str | None = None,
        request_id: str | None = None,
    ) -> None:
        """Make an error; see the class for what the arguments mean."""
        super().__init__(
            message, status_code=status_code, detail=detail, request_id=request_id
        )
        self.partial = AIMessage(content="") if partial is None else partial


class ThinnestGenerationError(ThinnestStreamError, ModelAPIError):
    """The agent failed while it generated: an `error` event, or an answer in JSON, says so."""


class ThinnestInterruptedError(ThinnestStreamError, ModelConnectionError):
    """The stream ended, was cut or stalled before its `done` event; or JSON stalled."""


class ThinnestProtocolError(ThinnestStreamError, ModelAPIError):
    """The server's bytes cannot be the contract: no event stream, not its events, cut JSON."""
