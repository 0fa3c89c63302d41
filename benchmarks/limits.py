"""What limits cost, and how well processes share them: `make bench-limits`.

Four processes ask fifty prompts each with one key. The emulator allows 30 requests in 10 s
and two streams at once. The ideal is the windows that must pass, plus one answer. A row tells
the time from the first request to the last answer over the ideal, the requests that were
refused, and the prompts that were lost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from langchain_thinnest import ChatThinnest
from langchain_thinnest._http.admission import Admission
from langchain_thinnest._http.limit_types import ReportedLimit
from langchain_thinnest._http.retries import RetryPolicy
from langchain_thinnest._http.shared_store import SharedAccount, store_at
from langchain_thinnest._http.store import Account, MemoryAccount
from langchain_thinnest.emulator import ThinnestEmulator

LIMIT, WINDOW, STREAMS, ANSWER = 30, 10.0, 2, 0.1
PROCESSES, PROMPTS = 4, 50


def agent(message: str, session: Any) -> Iterator[str]:
    """Answers after a while."""
    time.sleep(ANSWER)
    yield message


def ideal(prompts: int) -> float:
    """The windows that must pass, and one answer."""
    return (-(-prompts // LIMIT) - 1) * WINDOW + ANSWER


def ask(base_url: str, shared: str | None, name: str, count: int, results: Any) -> None:
    """One process: it asks, and tells what was answered, when, and what was lost."""
    model = ChatThinnest(
        agent_id="ag", api_key="ak_emulator", base_url=base_url, shared_limits=shared
    )

    def one(number: int) -> None:
        try:
            model.invoke(f"{name}.{number}")
        except Exception as error:  # it is what is counted
            results.put((f"{name}.{number}", type(error).__name__, time.time()))
        else:
            results.put((f"{name}.{number}", None, time.time()))

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(one, range(count)))


def fleet(shared: str | None, *, kill: bool = False) -> str:
    """Four processes, one of which may be killed in the middle: a row of the table."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with emulator() as server:
        workers = [
            context.Process(
                target=ask, args=(server.base_url, shared, f"w{n}", PROMPTS, results)
            )
            for n in range(PROCESSES)
        ]
        for worker in workers:
            worker.start()
        while not server.requests:
            time.sleep(0.001)
        began = time.time()
        if kill:
            time.sleep(15)
            os.kill(workers[0].pid or 0, signal.SIGKILL)
        answered, lost, last = set(), 0, began
        while any(worker.is_alive() for worker in workers) or not results.empty():
            with contextlib.suppress(Exception):
                name, error, when = results.get(timeout=0.5)
                last = max(last, when)
                answered.add(name) if error is None else None
                lost += error is not None
        refused = server.refused
    missing = {f"w{w}.{n}" for w in range(PROCESSES) for n in range(PROMPTS)} - answered
    others = sum(not (kill and name.startswith("w0.")) for name in missing)
    total = PROCESSES * PROMPTS
    return (
        f"{(last - began) / ideal(total):.2f} x | {refused} ({refused / total:.1%}) | "
        f"{max(others, lost)}"
    )


def emulator() -> ThinnestEmulator:
    """The server of all runs."""
    return ThinnestEmulator(
        {"ag": agent},
        requests_per_window=LIMIT,
        window_seconds=WINDOW,
        max_connections=STREAMS,
    )


def abatch() -> str:
    """Two hundred prompts in one process, with default settings."""
    with emulator() as server:
        model = ChatThinnest(agent_id="ag", api_key="ak_emulator", base_url=server.base_url)
        began = time.monotonic()
        answers = asyncio.run(
            model.abatch([f"{n}" for n in range(200)], return_exceptions=True)
        )
        seconds = time.monotonic() - began
        lost = sum(isinstance(answer, Exception) for answer in answers)
        return (
            f"{seconds / ideal(200):.2f} x | {server.refused} ({server.refused / 200:.1%}) | "
            f"{lost}"
        )


def cycle(account: Account, count: int) -> float:
    """Microseconds of asking, going, being accepted and leaving."""
    policy = RetryPolicy(6, 75.0)
    told = ReportedLimit(10**6, 10**6 - 1, time.time() + 60, 60.0)
    began = time.perf_counter()
    for _ in range(count):
        admission = Admission(account, policy, None)
        lease = admission.enter()
        admission.accepted(lease, told)
        lease.end()
    return (time.perf_counter() - began) / count * 1e6


def waiting(account: Account, *, for_stream: bool) -> float:
    """The share of a core that 500 waiting calls cost, in percent."""
    policy = RetryPolicy(6, 75.0)

    async def run() -> float:
        first = Admission(account, policy, 1 if for_stream else None)
        lease = await first.aenter()
        remaining = 100 if for_stream else 0
        first.accepted(lease, ReportedLimit(100, remaining, time.time() + 60, 60.0))

        async def wait() -> None:
            await Admission(account, policy, 1 if for_stream else None).aenter()

        import contextvars

        tasks = [contextvars.Context().run(asyncio.ensure_future, wait()) for _ in range(500)]
        await asyncio.sleep(3)
        spent, began = time.process_time(), time.monotonic()
        await asyncio.sleep(5)
        share = (time.process_time() - spent) / (time.monotonic() - began)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        lease.end()
        return share * 100

    return asyncio.run(run())


@contextlib.contextmanager
def redis_server() -> Iterator[str | None]:
    """A `redis-server` on a free port, where it is installed."""
    if shutil.which("redis-server") is None:
        print("redis-server is not installed: its rows are left out.", file=sys.stderr)
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        server = subprocess.Popen([*command, "--dir", folder], stdout=subprocess.DEVNULL)
        try:
            while True:
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="What limits cost, and how they are shared.")
    parser.add_argument("--runs", type=int, default=1, help="runs of each fleet")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder, redis_server() as redis:
        numbers = iter(range(1000))
        stores: dict[str, Callable[[], str | None]] = {
            "memory, nothing shared": lambda: None,
            "SQLite": lambda: f"sqlite:///{folder}/{next(numbers)}.db",
        }
        if redis:
            stores["Redis"] = lambda: redis.replace("/0", f"/{next(numbers) % 16}")
        print("| limits | time over the ideal | refused | lost |\n|---|---|---|---|")
        print(f"| `abatch` of 200, one process | {abatch()} |", flush=True)
        for name, url in stores.items():
            for _ in range(runs):
                print(f"| {PROCESSES} processes: {name} | {fleet(url())} |", flush=True)
        for name, url in stores.items():
            print(
                f"| one of {PROCESSES} killed: {name} | {fleet(url(), kill=True)} |",
                flush=True,
            )
        print(
            "\n| store | a call, us | 500 wait for a window | for a stream |\n"
            "|---|---|---|---|"
        )
        for name, url in stores.items():
            print(f"| {name} | {costs(url)} |", flush=True)


def costs(url: Callable[[], str | None]) -> str:
    """What a store costs: a row of the second table."""

    def account() -> Account:
        from pydantic import SecretStr

        where = url()
        if where is None:
            return MemoryAccount()
        return SharedAccount(store_at(where), "http://x", SecretStr("k"))

    a_call = min(cycle(account(), 20_000 if url() is None else 1000) for _ in range(5))
    window = waiting(account(), for_stream=False)
    stream = waiting(account(), for_stream=True)
    return f"{a_call:.1f} | {window:.1f} % of a core | {stream:.1f} %"


if __name__ == "__main__":
    main()
