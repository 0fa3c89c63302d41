"""What SECURITY.md promises beyond what other tests hold; and each promise has its test."""

from __future__ import annotations

import logging
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from integration_tests.conftest import KEY, Make
from integration_tests.wire import WireServer, refusal, stream
from langchain_thinnest import ThinnestError
from unit_tests.contract import EVENTS, TEXT, as_sse

ROOT = Path(__file__).parents[1]
TOLD = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
MESSAGE = "my-diagnosis-is-confidential"


def test_no_message_and_no_answer_is_in_a_log(
    wired: Make, wire: WireServer, any_way: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """At any level, and of httpx and its kind neither."""
    caplog.set_level(logging.DEBUG)
    busy = refusal(429, {"detail": "slow down"}, {"Retry-After": "0"})
    unknown = stream(as_sse({"type": "thinking", "content": MESSAGE}, *EVENTS))
    cut = stream(as_sse(*EVENTS[:3]))
    wire.answer(busy, unknown, cut)
    assert any_way(wired(), MESSAGE).text == TEXT
    with pytest.raises(ThinnestError, match="done"):
        any_way(wired(), MESSAGE)
    assert MESSAGE in str(wire.requests[-1].json)
    assert "slow down" in caplog.text or "unknown type 'thinking'" in caplog.text
    assert MESSAGE not in caplog.text
    assert not [event for event in EVENTS if event.get("content", "-") in caplog.text.split()]
    assert "Machine learning" not in caplog.text


def test_an_error_that_travels_takes_no_key_and_a_model_takes_its_own(
    wired: Make, wire: WireServer, any_way: Any
) -> None:
    wire.answer(refusal(401, {"detail": f"{KEY} is not known"}))
    with pytest.raises(ThinnestError) as caught:
        any_way(wired(), "hi")
    assert KEY.encode() not in pickle.dumps(caught.value)
    model = wired(default_headers={"X-Secret": "hush"}, shared_limits="sqlite:///tmp/word")
    taken = pickle.dumps(model)  # a worker needs all of it: keep such pickles secret
    assert all(secret in taken for secret in (KEY.encode(), b"hush", b"/tmp/word"))


def test_each_promise_is_held_by_a_test() -> None:
    promised = TOLD.partition("\n## What is promised\n")[2].partition("\n## ")[0]
    promises = re.findall(r"^- .+?(?=^- |^#|\Z)", promised, re.MULTILINE | re.DOTALL)
    assert len(promises) >= 12
    for promise in promises:
        names = re.findall(r"`([\w/]+\.py)::(\w+)`", " ".join(promise.split()))
        assert names, promise
        for path, test in names:
            assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), (path, test)
