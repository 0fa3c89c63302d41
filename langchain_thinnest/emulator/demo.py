"""The demo agent: no model, but real tools, chosen from the message. It says what it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

from langchain_thinnest.emulator.agents import Item, Session
from langchain_thinnest.emulator.conversation import (
    asked_before,
    has_protocol,
    read,
    user_texts,
)
from langchain_thinnest.emulator.plain import calculator, plain_answer, search_library
from langchain_thinnest.emulator.protocol import protocol_agent

__all__ = ["calculator", "demo_agent", "paced", "search_library"]


def demo_agent(message: str, session: Session) -> Iterator[Item]:
    """Answer a message with what the tools find.

    Its own tools are a calculator and a search in a small library. Where the message tells
    of the caller's tools, or asks for JSON, `protocol_agent` answers.

    Args:
        message: The user's message.
        session: The conversation, which the agent remembers.

    Yields:
        Pieces of text, tool calls and tool results.
    """
    if has_protocol(message):
        yield from protocol_agent(message, session)
    else:
        *earlier, question = user_texts(read(message).entries) or [message]
        yield from plain_answer(question, [*asked_before(session), *earlier])


def paced(
    agent: Callable[[str, Session], Iterator[Item]], seconds: float
) -> Callable[[str, Session], AsyncIterator[Item]]:
    """Slow an agent down to a pace that a person can watch.

    Args:
        agent: The agent.
        seconds: The pause before a piece of text; a tool's result takes ten times as long.
    """

    async def answer(message: str, session: Session) -> AsyncIterator[Item]:
        for item in agent(message, session):
            is_result = isinstance(item, dict) and item["type"] == "tool_result"
            await asyncio.sleep(seconds * 10 if is_result else seconds)
            yield item

    return answer
