"""What the tests of the limits run in processes of their own, so that a hang is a failure.

python -m integration_tests.limit_processes loop_that_is_blocked http://127.0.0.1:1234
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from typing import Any

from integration_tests.conftest import KEY
from integration_tests.processes import main, pass_over_slow_steps
from langchain_thinnest import ChatThinnest
from langchain_thinnest._http.shared_store import store_at


def model_of(base_url: str, **fields: Any) -> ChatThinnest:
    return ChatThinnest(agent_id="ag_echo", api_key=KEY, base_url=base_url, **fields)


def loop_that_is_blocked(base_url: str) -> None:
    """A sync call on a loop's thread, while tasks of that loop wait."""
    model = model_of(base_url)

    async def run() -> None:
        await model.ainvoke("uses up the window")
        tasks = [asyncio.create_task(model.ainvoke(f"{n}")) for n in range(3)]
        await asyncio.sleep(0.2)
        assert model.invoke("sync").text == "0: sync"
        await asyncio.gather(*tasks)

    asyncio.run(run())


def loop_that_is_closed(base_url: str) -> None:
    """A loop is closed, and another one stopped for ever, while their tasks wait."""
    model = model_of(base_url)
    model.invoke("uses up the window")
    closed, stopped = asyncio.new_event_loop(), asyncio.new_event_loop()
    kept = []
    for loop in (closed, stopped):
        kept.append(loop.create_task(model.ainvoke("waits")))
        loop.run_until_complete(asyncio.sleep(0.2))
    with contextlib.suppress(Exception):
        kept[0]._log_destroy_pending = False  # type: ignore[attr-defined]
        kept[1]._log_destroy_pending = False  # type: ignore[attr-defined]
    closed.close()
    assert model.invoke("in a thread").text == "0: in a thread"
    assert asyncio.run(model.ainvoke("in a loop")).text == "0: in a loop"
    stopped.close()


def interrupted(base_url: str) -> None:
    """Ctrl-C again and again, at any moment; no place is lost."""
    # One in the middle of connecting leaves the socket to the garbage collector.
    warnings.simplefilter("ignore", ResourceWarning)
    sys.unraisablehook = lambda _: None  # one in a finalizer is Python's to swallow
    model = model_of(base_url, max_streams=1)
    stop = threading.Event()
    model.invoke("first")

    def interrupt() -> None:
        delay = 0.0
        while not stop.wait(0.004 + delay):
            delay = (delay + 0.0007) % 0.01
            os.kill(os.getpid(), signal.SIGINT)

    interrupts = 0
    is_asking = False

    def raise_once(*_: object) -> None:
        nonlocal is_asking
        if is_asking:  # and not while this function counts
            is_asking = False
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, raise_once)
    killer = threading.Thread(target=interrupt)
    killer.start()
    while interrupts < 300:
        try:
            is_asking = True
            model.invoke("hi")
            is_asking = False
        except KeyboardInterrupt:
            interrupts += 1
    is_asking = False
    stop.set()
    killer.join()
    assert model.invoke("last", stop=None).text == "0: last"


def answers(base_url: str, count: str, seconds: str) -> None:
    """So many calls in a row, all in time."""
    model = model_of(base_url)
    began = time.monotonic()
    for number in range(int(count)):
        assert model.invoke(f"{number}").text
    assert time.monotonic() - began < float(seconds)


def worker(base_url: str, shared: str, name: str, count: int) -> list[str]:
    """A worker of a fleet: it asks, sync and async."""
    pass_over_slow_steps()
    model = model_of(base_url, shared_limits=shared, max_streams=2)
    half = count // 2
    texts = [answer.text for answer in model.batch([f"{name}.{n}" for n in range(half)])]
    rest = [f"{name}.{n}" for n in range(half, count)]
    texts += [answer.text for answer in asyncio.run(model.abatch(rest))]
    return texts


def fleet(base_url: str, shared: str, method: str) -> None:
    """Workers, forked or spawned, after the parent has used the store itself."""
    # A child drops its copy of the parent's idle connection.
    warnings.simplefilter("ignore", ResourceWarning)
    assert worker(base_url, shared, "parent", 4) == [f"0: parent.{n}" for n in range(4)]
    # Who is spawned takes a second to begin.
    with multiprocessing.get_context(method).Pool(3 if method == "fork" else 2) as pool:
        each = [(base_url, shared, f"w{number}", 10) for number in range(3)]
        for number, texts in enumerate(pool.starmap(worker, each, chunksize=1)):
            assert texts == [f"0: w{number}.{n}" for n in range(10)]


def holds_streams(base_url: str, shared: str, lease: str) -> None:
    """Opens two streams and waits to be killed."""
    store_at(shared).lease = float(lease)
    model = model_of(base_url, shared_limits=shared, max_streams=2)
    streams = [model.stream("slow"), model.stream("slow")]

    def read(stream: Any) -> None:
        next(stream)
        sys.stdout.write("open\n")
        sys.stdout.flush()
        time.sleep(60)

    threads = [threading.Thread(target=read, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main({**globals(), "sys": sys})
