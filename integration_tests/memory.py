"""How much memory this process has after 1,000 streamed turns, and after 10,000.

    python -m integration_tests.memory

The server is a process of its own. It fails if the memory grew by more than a tenth.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from pathlib import Path

from integration_tests.wire import WireServer, stream
from langchain_thinnest import ChatThinnest
from unit_tests.contract import EVENTS, TEXT, as_sse

FEW, MANY, MOST = 1000, 10_000, 1.1


def serve() -> None:
    with WireServer() as server:
        server.answer(stream(*(as_sse(event) for event in [*EVENTS[:-1] * 3, EVENTS[-1]])))
        print(server.base_url, flush=True)
        sys.stdin.read()


def resident() -> int:
    """The bytes of this process that are in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def main() -> int:
    command = [sys.executable, "-m", "integration_tests.memory", "serve"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        base_url = server.stdout.readline().strip()
        model = ChatThinnest(agent_id="ag_1", api_key="ak_1", base_url=base_url)

        def turns(count: int) -> None:
            for _ in range(count):
                assert "".join(chunk.text for chunk in model.stream("hi")) == TEXT * 3

        async def aturns(count: int) -> None:
            for _ in range(count):
                texts = [chunk.text async for chunk in model.astream("hi")]
                assert "".join(texts) == TEXT * 3

        sizes = []
        done = 0
        for until in (FEW, MANY):
            while done < until:
                turns(250)
                asyncio.run(aturns(250))
                done += 500
            sizes.append(resident())
            print(f"{sizes[-1] / 2**20:8.1f} MiB after {until:6} turns", flush=True)
        server.communicate()
    ratio = sizes[1] / sizes[0]
    print(f"{ratio:8.3f} times")
    return ratio > MOST


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        sys.exit(main())
