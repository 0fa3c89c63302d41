"""What the lifetime tests run in processes of their own; each writes to stderr what is wrong.

python -m integration_tests.processes forks http://127.0.0.1:1234
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import pickle
import sys
import threading
import types
import warnings
from typing import Any

from langchain_core._api.beta_decorator import LangChainBetaWarning
from langchain_core.messages import AIMessage

from integration_tests import transports
from langchain_thinnest import ChatThinnest
from unit_tests.contract import TEXT

SECONDS = 60  # the longest that one of them may take


def model_of(base_url: str) -> ChatThinnest:
    return ChatThinnest(agent_id="ag_1", api_key="ak_1", base_url=base_url)


def ask(model: ChatThinnest, text: str) -> str:
    return model.invoke(text).text


def ask_pickled(model: bytes, text: str) -> tuple[int, str, str]:
    """Ask a model that came as bytes, sync and async, and say in which process."""
    loaded: ChatThinnest = pickle.loads(model)
    return os.getpid(), ask(loaded, text), asyncio.run(loaded.ainvoke(text)).text


def makes_calls_and_exits(base_url: str) -> None:
    """Calls of all kinds, some of them left alone; some are still half-read at the exit."""
    model = model_of(base_url)
    assert ask(model, "hi") == TEXT
    assert model.stream_events("hi", version="v3").output.text == TEXT
    for _ in model.stream("hi"):
        break

    async def run() -> None:
        assert (await model.ainvoke("hi")).text == TEXT
        async for _ in model.astream("hi"):
            break
        chunks = model.astream("hi")
        await anext(chunks)
        await chunks.aclose()  # type: ignore[attr-defined]
        task = asyncio.ensure_future(model.ainvoke("hi"))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert await (await model.astream_events("hi", version="v3")).output

    asyncio.run(run())
    asyncio.run(run())
    streams = [model.stream("hi") for _ in range(3)]
    for stream in streams:
        next(stream)
    half_read.append(streams.pop())  # goes before the modules do
    types.__dict__["half_read"] = streams.pop()  # goes after most of them
    for _ in streams.pop():
        break


half_read: list[Any] = []


def forks(base_url: str) -> None:
    """The parent has an idle connection and a stream half read; both outlive the child."""
    model = model_of(base_url)
    half = model.stream("half")
    pieces = [next(half)]
    assert ask(model, "the parent") == TEXT
    child = os.fork()
    if not child:
        try:
            assert ask(model, "the child") == TEXT
            assert asyncio.run(model.ainvoke("the child, async")).text == TEXT
            half.close()
            del half
            gc.collect()
            assert ask(model, "the child again") == TEXT
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ask(model, "the parent again") == TEXT
    pieces += half
    assert "".join(piece.text for piece in pieces) == TEXT


def forks_while_streams_are_watched(base_url: str) -> None:
    """The child gives up on a body that does not end, without the parent's thread."""
    model = model_of(base_url)
    assert ask(model, "a body that ends") == TEXT
    child = os.fork()
    if not child:
        try:
            assert ask(model, "a body that does not") == TEXT
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def collects_streams_anywhere(base_url: str) -> None:
    """Streams in cycles, half read, in many threads; the collector runs all the time."""
    model = model_of(base_url)
    ask(model, "hi")
    gc.freeze()  # what there is now need not be looked at again and again
    threshold = gc.get_threshold()

    def abandon(start: Any) -> None:
        cycle: list[Any] = [start()]
        cycle.append(cycle)
        with contextlib.suppress(StopIteration):
            cycle.append(next(iter(cycle[0])))

    def run() -> None:
        for _ in range(25):
            abandon(lambda: model.stream("hi"))
            abandon(lambda: model.stream_events("hi", version="v3"))
            abandon(lambda: model.stream_events("hi", version="v3").text)
            gc.set_threshold(5, 1, 1)
            assert ask(model, "hi") == TEXT
            gc.set_threshold(*threshold)
            gc.collect()

    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            run()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed


def keeps_no_objects(base_url: str) -> None:
    """A thousand turns more leave no objects more."""
    model = model_of(base_url)

    async def run() -> None:
        for _ in range(10):
            answer: AIMessage = await model.ainvoke("hi")
            assert answer.text == TEXT
            async for _ in model.astream("hi"):
                pass

    def turns(count: int) -> int:
        for _ in range(count // 50):
            for _ in range(15):
                ask(model, "hi")
                _ = list(model.stream("hi"))
            asyncio.run(run())
        gc.collect()
        return len(gc.get_objects())

    turns(100)
    before = turns(200)
    after = turns(1000)
    assert after - before < 100, f"{after - before} objects more after 1,000 turns"


def pass_over_slow_steps() -> None:
    """asyncio's debug mode tells of them; the machine may be busy."""
    logging.getLogger("asyncio").addFilter(lambda told: not told.msg.startswith("Executing"))


def main(functions: dict[str, Any]) -> None:
    """Run the function that the command line names, with its arguments."""
    pass_over_slow_steps()
    transports.use_it()
    warnings.filterwarnings("ignore", category=LangChainBetaWarning)
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    functions[sys.argv[1]](*sys.argv[2:])
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main(globals())
