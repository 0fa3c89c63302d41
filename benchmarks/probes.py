"""What needs a fresh interpreter: memory, by `tracemalloc`, and the time of an import.

`python -m benchmarks.probes streams <url> <contestant> <count>` prints the bytes that each of
so many open streams holds. `... invoke <url> <contestant> <events> <chars>` prints the most
bytes that one `invoke` held at once, beside what stays from the one before.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

from benchmarks.server import allow_descriptors, bench_name

_ROOT = Path(__file__).resolve().parent.parent
_LONGEST = 300.0  # seconds, for a probe that hangs
_IMPORT = """
from time import perf_counter
begin = perf_counter()
{}
print(perf_counter() - begin)
"""


def environment() -> dict[str, str]:
    """The environment without what would trace, or send calls elsewhere.

    Bytecode is kept, as after an installation, so that no import is that of a compiler too.
    """
    dropped = (
        "LANGCHAIN",
        "LANGSMITH",
        "LC_",
        "OPENAI",
        "MISTRAL",
        "PYTHONDONTWRITEBYTECODE",
        "THINNEST",
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    proxies = {name for name in kept if name.lower().endswith("_proxy")}
    return {name: value for name, value in kept.items() if name not in proxies} | {
        "LANGSMITH_TRACING": "false"
    }


def _output(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=_ROOT,
        env=environment(),
        check=True,
        timeout=_LONGEST,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def import_seconds(statement: str) -> float:
    """Seconds that an import takes in a fresh interpreter, without the interpreter's start."""
    return float(_output("-c", _IMPORT.format(statement)))


def memory_bytes(*arguments: object) -> float:
    """Run this module in a fresh interpreter."""
    return float(_output("-m", "benchmarks.probes", *map(str, arguments)))


async def _streams(url: str, name: str, count: int) -> float:
    from benchmarks.clients import ALL

    contestant = ALL[name](url)
    await contestant.astream(bench_name(3))
    answer = bench_name(3, mode="park")
    held = [await contestant.park(answer)]  # the first may fill caches
    gc.collect()
    tracemalloc.start()
    held += [await contestant.park(answer) for _ in range(count)]
    gc.collect()
    return tracemalloc.get_traced_memory()[0] / count


def _invoke(url: str, name: str, events: int, chars: int) -> float:
    from benchmarks.clients import ALL

    contestant, answer = ALL[name](url), bench_name(events, chars)
    tracemalloc.start()
    contestant.invoke(answer)  # fills what is kept, such as the JSON parser's cache of strings
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    contestant.invoke(answer)
    return tracemalloc.get_traced_memory()[1] - kept


def main() -> None:
    what, url, name, *numbers = sys.argv[1:]
    allow_descriptors()
    if what == "streams":
        print(asyncio.run(_streams(url, name, int(numbers[0]))), flush=True)
    else:
        print(_invoke(url, name, int(numbers[0]), int(numbers[1])), flush=True)
    os._exit(0)  # the parked streams would be closed one by one


if __name__ == "__main__":
    main()
