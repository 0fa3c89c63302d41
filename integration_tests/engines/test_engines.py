"""`cookbook/engines/` on the real engines, against real limits, with a worker killed midway.

The emulator allows 40 requests in a window and four streams at once, and an answer takes a
tenth of a second. The ideal is the windows that must pass, and the last one's answers. A
window is 4.9 s because the server tells its end in whole seconds, so that clients wait for
five. What an engine takes to start does not count: time runs from its first request, and the
last window has room for what those of its workers that came later did not ask in the first.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_thinnest.emulator import Fault, ThinnestEmulator

ENGINES = Path(__file__).parents[2] / "cookbook" / "engines"
LIMIT, WINDOW, STREAMS, ANSWER = 40, 4.9, 4, 0.1
PROMPTS = 125
KEY = "ak_0123456789abcdef"
PATIENCE = 150.0  # for an engine to start on a busy machine, and to end
# What each shows while it runs.
PROGRESS = {
    "plain": "100%|",
    "on_dask": "100% Completed",
    "on_ray": "Total Progress",
    "on_celery": "100%|",
    "on_spark": "[Stage",
}


def ideal(prompts: int) -> float:
    """The least seconds from the first request to the last answer."""
    windows, last = divmod(prompts - 1, LIMIT)
    return windows * WINDOW + -(-(last + 1) // STREAMS) * ANSWER


class Server:
    """The emulator, and when it was asked what."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, str]] = []
        self.emulator = ThinnestEmulator(
            {"ag": self.answer},
            api_keys=[KEY],
            requests_per_window=LIMIT,
            window_seconds=WINDOW,
            max_connections=STREAMS,
        )

    def answer(self, message: str, session: Any) -> Iterator[str]:
        self.asked.append((time.time(), message))
        time.sleep(ANSWER)
        yield f"You said {message}."


class Log:
    """The log of a folder, read without the code under test."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, list[dict[str, Any]]] = {}
        for file in (folder / "log").glob("*.jsonl"):
            lines = file.read_bytes().split(b"\n")[:-1]
            self.files[file.name] = [json.loads(line) for line in lines]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [e for entries in self.files.values() for e in entries if e["event"] == event]

    def open(self) -> dict[int, set[str]]:
        """What each process is asking now."""
        asking: dict[int, set[str]] = defaultdict(set)
        for name, entries in self.files.items():
            for entry in entries:
                mine = asking[int(name.split("-")[1])]
                (mine.add if entry["event"] == "asking" else mine.discard)(entry["id"])
        return asking


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if shutil.which("redis-server") is None:
        pytest.fail("Celery's broker is missing: apt-get install redis-server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = str(tmp_path_factory.mktemp("redis"))
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen([*command, "--dir", folder], stdout=subprocess.DEVNULL) as server:
        wait_for(lambda: answers(port), "Redis", 20)
        yield f"redis://127.0.0.1:{port}"
        server.terminate()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def wait_for(is_so: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


class Batch:
    """A file of prompts, the folder of its answers, and the processes that ask."""

    def __init__(self, engine: str, server: Server, tmp: Path, redis: str | None) -> None:
        self.engine, self.server, self.folder = engine, server, tmp / "answers"
        self.prompts, self.output = tmp / "prompts.jsonl", tmp / "output"
        lines = [json.dumps({"id": n, "prompt": f"prompt {n}"}) for n in range(PROMPTS)]
        self.prompts.write_text("\n".join(lines))
        self.environment = {
            **os.environ,
            "THINNEST_API_KEY": KEY,
            "THINNEST_AGENT_ID": "ag",
            "THINNEST_BASE_URL": server.emulator.base_url,
            "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else it keeps one in the home folder
        }
        if redis:
            self.environment["CELERY_BROKER_URL"] = f"{redis}/0"
            self.environment["THINNEST_SHARED_LIMITS"] = f"{redis}/1"

    @contextlib.contextmanager
    def process(self, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process with all that it starts; none of it stays."""
        with self.output.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ENGINES,
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def worker(self) -> Any:
        """What must run beside: Celery's worker."""
        if self.engine != "on_celery":
            return contextlib.nullcontext()
        return self.process("-m", "celery", "-A", "on_celery", "worker", "-c", "4")

    def run(self, *more: str) -> Any:
        return self.process(f"{self.engine}.py", str(self.prompts), str(self.folder), *more)

    def is_midway(self) -> bool:
        return len(self.server.asked) > 1.5 * LIMIT and any(Log(self.folder).open().values())


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with server.emulator:
        yield server


@pytest.mark.parametrize("engine", PROGRESS)
def test_a_killed_worker_costs_no_answer(
    engine: str, server: Server, tmp_path: Path, request: Any, capsys: Any
) -> None:
    redis = request.getfixturevalue("redis_server") if engine == "on_celery" else None
    batch = Batch(engine, server, tmp_path, redis)
    began = time.time()
    with batch.worker(), batch.run() as run:
        wait_for(batch.is_midway, "half of the answers")
        first = server.asked[0][0]
        victim, was_asking = kill_one(batch.folder)
        killed = time.time()
        run.wait(PATIENCE)
    if run.returncode and victim == run.pid:  # there is nobody else to go on
        before = len(server.asked)
        with batch.run() as run:
            run.wait(PATIENCE)
        begins_again = server.asked[before][0]
    else:
        begins_again = killed
    assert run.returncode == 0, batch.output.read_text()[-5000:]
    twice = check(batch, was_asking)
    assert PROGRESS[engine] in batch.output.read_text()
    seconds = killed - first + last_answer(batch.folder) - begins_again
    with capsys.disabled():
        print(
            f"\n{engine}: first request after {first - began:.1f} s,",
            told(seconds, batch),
            twice,
        )
    assert seconds <= 1.2 * ideal(PROMPTS)


def told(seconds: float, batch: Batch) -> str:
    least, refused = ideal(PROMPTS), batch.server.emulator.refused
    return (
        f"took {seconds:.1f} s = {seconds / least:.2f} x {least:.1f} s, lost 0, "
        f"refused {refused}, asked twice"
    )


def test_celery_goes_on_when_all_of_it_was_killed(
    server: Server, tmp_path: Path, redis_server: str, capsys: Any
) -> None:
    """Its worker with all processes, and who handed the prompts out; Redis still has those."""
    batch = Batch("on_celery", server, tmp_path, redis_server)
    with batch.worker(), batch.run():
        wait_for(batch.is_midway, "half of the answers")
    killed, before = time.time(), len(server.asked)
    was_asking = set().union(*Log(batch.folder).open().values())
    with batch.worker(), batch.run() as run:
        assert run.wait(PATIENCE) == 0, batch.output.read_text()[-5000:]
    twice = check(batch, was_asking)
    seconds = killed - server.asked[0][0] + last_answer(batch.folder) - server.asked[before][0]
    with capsys.disabled():
        print("\non_celery, all killed:", told(seconds, batch), twice)
    assert seconds <= 1.2 * ideal(PROMPTS)


def test_ctrl_c_leaves_nothing_half_asked(server: Server, tmp_path: Path) -> None:
    batch = Batch("plain", server, tmp_path, None)
    with batch.run() as run:
        wait_for(lambda: len(server.asked) > 10, "the first answers")
        run.send_signal(signal.SIGINT)
        assert run.wait(PATIENCE) != 0
    assert not any(Log(batch.folder).open().values())
    before = len(server.asked)
    assert before < PROMPTS
    with batch.run() as run:
        assert run.wait(PATIENCE) == 0, batch.output.read_text()[-5000:]
    assert check(batch, set()) == 0


def test_what_failed_stands_beside_what_worked(server: Server, tmp_path: Path) -> None:
    batch = Batch("plain", server, tmp_path, None)
    batch.prompts.write_text("\n".join(f'"prompt {n}"' for n in range(10)))
    server.emulator.fail_next(Fault.cut(after=0), times=2)
    for _ in range(2):  # the second one asks nothing
        with batch.run() as run:
            assert run.wait(PATIENCE) == 1, batch.output.read_text()[-5000:]
        failed = (batch.folder / "failed.jsonl").read_text().splitlines()
        assert [json.loads(line)["error"] for line in failed] == [
            "ThinnestInterruptedError"
        ] * 2
        assert len((batch.folder / "answered.jsonl").read_text().splitlines()) == 8
        assert len(server.emulator.requests) == 10
    with batch.run("--again", "ThinnestInterruptedError") as run:
        assert run.wait(PATIENCE) == 0, batch.output.read_text()[-5000:]
    assert (batch.folder / "failed.jsonl").read_text() == ""
    assert len((batch.folder / "answered.jsonl").read_text().splitlines()) == 10
    assert len(server.emulator.requests) == 12


def kill_one(folder: Path) -> tuple[int, set[str]]:
    """Kill the process that asks most; which one, and what it was asking."""
    asking = Log(folder).open()
    victim = max(asking, key=lambda pid: len(asking[pid]))
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: not is_running(victim), "a killed process to end", 10)
    return victim, Log(folder).open()[victim]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def last_answer(folder: Path) -> float:
    return max(entry["at"] for entry in Log(folder).of("answered"))


def check(batch: Batch, was_asking: set[str]) -> int:
    """Nothing lost, nothing answered twice; how many were asked twice."""
    ids = {str(number) for number in range(PROMPTS)}
    answered = [entry["id"] for entry in Log(batch.folder).of("answered")]
    assert sorted(answered) == sorted(ids)
    lines = (batch.folder / "answered.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    assert {(e["id"], e["text"]) for e in told} == {(i, f"You said prompt {i}.") for i in ids}
    assert (batch.folder / "failed.jsonl").read_text() == ""
    times = Counter(message for _, message in batch.server.asked)
    twice = {message.split()[1] for message, count in times.items() if count > 1}
    assert twice <= was_asking
    assert max(times.values()) <= 2
    assert {e["id"] for e in told if e["asked"] > 1} == was_asking
    for file in [batch.output, *batch.folder.rglob("*")]:
        assert not file.is_file() or KEY.encode() not in file.read_bytes()
    return len(twice)
