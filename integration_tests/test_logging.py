"""`docs/troubleshooting.md` on the log: what stands there at DEBUG, and what never does."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from integration_tests.conftest import KEY
from langchain_thinnest import ChatThinnest, ThinnestError
from langchain_thinnest.emulator import Fault, ThinnestEmulator

ASKED, SAID, FOUND = "a-secret-question", "a-secret-answer", "a-secret-result"


def agent(message: str, session: Any) -> Any:
    yield SAID
    yield {"type": "tool_call", "name": "look", "args": {"for": ASKED}}
    yield {"type": "tool_result", "name": "look", "result": FOUND}
    yield {"type": "thinking", "content": SAID}
    yield {"type": "done", "usage": {"input_tokens": SAID}}


@pytest.mark.parametrize("transport", ["httpx", "fast"])
async def test_no_line_holds_content_or_the_key(
    transport: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    of_another = AIMessage(
        [{"type": "reasoning", "reasoning": SAID}, {"type": "text", "text": SAID}],
        response_metadata={"model_provider": "another", "output_version": "v1"},
    )
    with ThinnestEmulator({"ag_1": agent}, api_keys=[KEY]) as emulator:
        address = f"{emulator.base_url}/chat/stream"
        model = ChatThinnest(
            agent_id="ag_1", api_key=KEY, base_url=emulator.base_url, transport=transport
        )
        given = [HumanMessage(ASKED), of_another, HumanMessage(ASKED)]
        model.invoke(given)
        await model.ainvoke(given)
        for fault in (Fault.status(500, SAID), Fault.cut(after=2), Fault.error(SAID, after=1)):
            emulator.fail_next(fault, times=2)
            with pytest.raises(ThinnestError):
                model.invoke(ASKED)
            with pytest.raises(ThinnestError):
                await model.ainvoke(ASKED)
    told = [(r.levelname, r.getMessage()) for r in caplog.records]
    for secret in (KEY, ASKED, SAID, FOUND):
        assert not [line for _, line in told if secret in line]
    ours = {line for level, line in told if level == "DEBUG"}
    assert "Skipped a stream event of the unknown type 'thinking'" in ours
    assert "Dropped a usage whose counts are not numbers of tokens" in ours
    assert "Left out a block of type 'reasoning' of an earlier answer" in ours
    if transport == "httpx":
        posts = [line for level, line in told if level == "INFO" and "HTTP Request" in line]
        assert f'POST {address} "HTTP/1.1 200 OK"' in posts[0]
