"""The error classes."""

from __future__ import annotations

import pickle

import pytest
from langchain_core import exceptions as core
from langchain_core.messages import AIMessage

import langchain_thinnest as package
from langchain_thinnest import ThinnestError, ThinnestRateLimitError, ThinnestStreamError

ALSO = {
    "ThinnestAuthenticationError": core.ModelAuthenticationError,
    "ThinnestBalanceError": core.ModelPermissionDeniedError,
    "ThinnestConnectionError": core.ModelConnectionError,
    "ThinnestError": core.ModelError,
    "ThinnestGenerationError": core.ModelAPIError,
    "ThinnestInterruptedError": core.ModelConnectionError,
    "ThinnestNotFoundError": core.ModelNotFoundError,
    "ThinnestPermissionError": core.ModelPermissionDeniedError,
    "ThinnestProtocolError": core.ModelAPIError,
    "ThinnestRateLimitError": core.ModelRateLimitError,
    "ThinnestRequestError": core.ModelInvalidRequestError,
    "ThinnestServerError": core.ModelAPIError,
    "ThinnestStreamError": core.ModelError,
    "ThinnestTimeoutError": core.ModelTimeoutError,
}
CLASSES = [getattr(package, name) for name in ALSO]


def test_every_public_error_is_listed() -> None:
    assert {name for name in package.__all__ if name.endswith("Error")} == ALSO.keys()


@pytest.mark.parametrize("cls", CLASSES)
def test_is_the_frameworks_class_too(cls: type[ThinnestError]) -> None:
    assert issubclass(cls, ThinnestError)
    assert issubclass(cls, ALSO[cls.__name__])


@pytest.mark.parametrize("cls", CLASSES)
def test_is_not_retryable_unless_it_says_so(cls: type[ThinnestError]) -> None:
    """The framework's own classes say yes for half of these; here the agent may have acted."""
    assert cls.is_retryable is False
    assert cls("x").is_retryable is False


@pytest.mark.parametrize("cls", CLASSES)
def test_survives_pickle(cls: type[ThinnestError]) -> None:
    error = cls("what", status_code=418, detail="why", request_id="r1")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert str(copy) == "what"
    assert vars(copy) == vars(error)
    assert (copy.status_code, copy.detail, copy.request_id) == (418, "why", "r1")


def test_survives_pickle_with_all_that_it_holds() -> None:
    error = ThinnestRateLimitError("x", retry_after=3.0, is_retryable=True)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.retry_after, copy.is_retryable) == (3.0, True)
    stream_error = ThinnestStreamError("x", partial=AIMessage("so far"))
    assert pickle.loads(pickle.dumps(stream_error)).partial == AIMessage("so far")


def test_partial_is_empty_if_nothing_had_come() -> None:
    assert ThinnestStreamError("x").partial == AIMessage("")


def test_a_wrong_request_is_a_value_error() -> None:
    assert issubclass(package.ThinnestRequestError, ValueError)


@pytest.mark.parametrize(
    ("error", "is_retryable"),
    [
        (ThinnestRateLimitError("x", is_retryable=True), True),
        (ThinnestRateLimitError("x"), False),
        (core.ModelRateLimitError("x"), False),  # the framework's own says yes
        (ValueError("x"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_the_helper_for_retries(error: BaseException, is_retryable: bool) -> None:
    assert package.is_retryable(error) is is_retryable
