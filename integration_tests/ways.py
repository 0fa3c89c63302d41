"""All the ways to call a model, alike: a question in, the whole message out.

The async ways run in an event loop of their own each, so that every test also shows that one
model serves many loops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from operator import add
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate

Way = Callable[..., AIMessage]


def _chain(model: BaseChatModel) -> Any:
    return ChatPromptTemplate([("placeholder", "{messages}")]) | model


def _messages(given: Any) -> Any:
    return {"messages": [("human", given)] if isinstance(given, str) else given}


def invoke(
    model: BaseChatModel, given: Any, config: Any = None, /, **kwargs: Any
) -> AIMessage:
    return model.invoke(given, config, **kwargs)


def stream(
    model: BaseChatModel, given: Any, config: Any = None, /, **kwargs: Any
) -> AIMessage:
    return reduce(add, model.stream(given, config, **kwargs))


def batch(model: BaseChatModel, given: Any, config: Any = None, /, **kwargs: Any) -> AIMessage:
    return model.batch([given], config, **kwargs)[0]


def chain_invoke(
    model: BaseChatModel, given: Any, config: Any = None, /, **kwargs: Any
) -> AIMessage:
    return _chain(model.bind(**kwargs)).invoke(_messages(given), config)


def chain_stream(
    model: BaseChatModel, given: Any, config: Any = None, /, **kwargs: Any
) -> AIMessage:
    return reduce(add, _chain(model.bind(**kwargs)).stream(_messages(given), config))


def ainvoke(
    model: BaseChatModel, given: Any, config: Any = None, /, **kwargs: Any
) -> AIMessage:
    return asyncio.run(model.ainvoke(given, config, **kwargs))


def astream(
    model: BaseChatModel, given: Any, config: Any = None, /, **kwargs: Any
) -> AIMessage:
    async def run() -> AIMessage:
        return reduce(add, [chunk async for chunk in model.astream(given, config, **kwargs)])

    return asyncio.run(run())


def abatch(
    model: BaseChatModel, given: Any, config: Any = None, /, **kwargs: Any
) -> AIMessage:
    return asyncio.run(model.abatch([given], config, **kwargs))[0]


def chain_ainvoke(
    model: BaseChatModel, given: Any, config: Any = None, /, **kwargs: Any
) -> AIMessage:
    return asyncio.run(_chain(model.bind(**kwargs)).ainvoke(_messages(given), config))


def chain_astream(
    model: BaseChatModel, given: Any, config: Any = None, /, **kwargs: Any
) -> AIMessage:
    async def run() -> AIMessage:
        chunks = _chain(model.bind(**kwargs)).astream(_messages(given), config)
        return reduce(add, [chunk async for chunk in chunks])

    return asyncio.run(run())


def stream_events(
    model: BaseChatModel, given: Any, config: Any = None, /, **kwargs: Any
) -> AIMessage:
    return model.stream_events(given, config, version="v3", **kwargs).output


def astream_events(
    model: BaseChatModel, given: Any, config: Any = None, /, **kwargs: Any
) -> AIMessage:
    async def run() -> AIMessage:
        events = await model.astream_events(given, config, version="v3", **kwargs)
        try:
            return await events.output
        finally:  # the framework's task still has handlers to tell of the end
            await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    return asyncio.run(run())


WAYS: list[Way] = [
    invoke,
    stream,
    batch,
    chain_invoke,
    chain_stream,
    ainvoke,
    astream,
    abatch,
    chain_ainvoke,
    chain_astream,
]
V3_WAYS: list[Way] = [stream_events, astream_events]


def in_each_at_once(check: Callable[[Way], object], ways: Sequence[Way] = ()) -> None:
    """Check each way, by default all of them, side by side: for what mostly waits."""
    ways = ways or [*WAYS, *V3_WAYS]
    with ThreadPoolExecutor(len(ways)) as pool:
        checks = [(way, pool.submit(check, way)) for way in ways]
    failed = {way.__name__: error for way, its in checks if (error := its.exception())}
    for name, error in failed.items():
        print(f"{name}: {error!r}")
    for error in failed.values():
        raise error
