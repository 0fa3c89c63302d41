"""Sync and async code say the same, but where a comment says that, and why, they do not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

import langchain_thinnest
from unit_tests.twins import problems, twins_in

FOLDER = Path(langchain_thinnest.__file__).parent
# The emulator is a server: all of it is async.
SOURCES = {
    file.relative_to(FOLDER).as_posix(): file.read_text("utf-8")
    for file in sorted(FOLDER.rglob("*.py"))
    if "emulator" not in file.parts
}


def test_twins_differ_only_where_a_note_says_so() -> None:
    assert problems(SOURCES) == []


def test_the_package_has_twins() -> None:
    found = {(file, twin) for file in SOURCES for _, twin in twins_in(SOURCES[file])}
    assert found >= {
        ("_answer/tool_runs.py", "AsyncToolRuns"),
        ("_answer/typed.py", "_atransform"),
        ("_answer/typed.py", "aread"),
        ("_binding.py", "aask"),
        ("_call.py", "aread"),
        ("_http/admission.py", "aenter"),
        ("_http/client.py", "aopen_stream"),
        ("_http/response.py", "__anext__"),
        ("_http/shared_store.py", "aask"),
        ("_http/transport.py", "AsyncPool"),
        ("agents.py", "ainvoke"),
        ("chat_models.py", "_astream_chat_model_events"),
        ("chat_models.py", "ainvoke"),
    }


def drifted() -> Iterator[tuple[str, str, str]]:
    """Each async function of the package, and its file with one statement more at its end."""
    for file, source in SOURCES.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.AsyncFunctionDef):
                lines = source.splitlines()
                lines.insert(node.end_lineno, " " * (node.col_offset + 4) + "drift()")
                yield file, node.name, "\n".join(lines)


def test_a_drift_is_seen_in_all_code_without_a_note() -> None:
    unseen = {(file, name) for file, name, source in drifted() if not problems({file: source})}
    assert unseen == {
        ("_answer/tool_runs.py", "_finish"),
        ("_answer/tool_runs.py", "end"),
        ("_answer/tool_runs.py", "fail"),
        ("_call.py", "__aenter__"),
        ("_call.py", "__aexit__"),
        ("_call.py", "aclose"),
        ("_http/client.py", "_asend"),
        ("_http/client.py", "_given_up"),
        ("_http/closing.py", "finish"),
        ("_http/fast_async.py", "__aiter__"),
        ("_http/fast_async.py", "_body_sent"),
        ("_http/fast_async.py", "_headers_sent"),
        ("_http/fast_async.py", "connect"),
        ("_http/fast_async.py", "aclose"),
        ("_http/fast_async.py", "handle_async_request"),
        ("_http/fast_async.py", "read"),
        ("_http/response.py", "__aexit__"),
        ("_http/response.py", "_aclose_given"),
        ("_http/response.py", "aclose"),
        ("_http/response.py", "adrain"),
        ("_http/response.py", "aexcerpt"),
        ("_http/shared_store.py", "arefused"),
        ("_http/transport.py", "aclose"),
        ("_http/transport.py", "close"),
        ("_http/transport.py", "close_all"),
        ("_http/transport.py", "close_at_the_end"),
        ("chat_models.py", "aclose"),
    }


EQUAL = {
    "waiting": """
        def read(path):
            with opened(path) as file:
                for line in file:
                    time.sleep(1)
                    yield line

        async def aread(path):
            '''The async twin.'''
            async with await aopened(path) as file:
                async for line in file:
                    await asyncio.sleep(1)
                    yield line
        """,
    "yielding all": """
        def give(items):
            yield from items

        async def agive(items):
            async for item in items:
                yield item
        """,
    "types": """
        def start(make: Callable[[], int]) -> Generator[int, None, None]:
            return [each for each in make()]

        def astart(make: Callable[[], Awaitable[int]]) -> AsyncGenerator[int, None]:
            return [each async for each in make()]
        """,
    "classes": """
        class Pool(BasePool):
            def __enter__(self) -> Pool:
                return self

            def open(self):
                return Connection(self)

        class AsyncPool(AsyncBasePool):
            async def open(self):
                return AsyncConnection(self)

            async def __aenter__(self) -> AsyncPool:
                return self
        """,
    "calling the other one": """
        class Account:
            def ask(self, question):
                with self.lock:
                    return self.answers[question]

            async def aask(self, question):
                return self.ask(question)
        """,
    "noted": """
        def read(
            file, at
        ):
            # Twins differ: files have no async way
            # to tell.
            size = file.size()
            if size:
                return file.read()

        async def aread(
            # Twins differ: it always begins at the start.
            file,
        ):
            if await file.has_more():
                return await file.aread()

        # Twins differ: nobody can stop it.
        def stop():
            pass

        async def astop():
            await stopped()

        # No twin: only tasks end so.
        async def finish():
            pass
        """,
}


@pytest.mark.parametrize("source", EQUAL.values(), ids=EQUAL)
def test_what_is_equal(source: str) -> None:
    # The one name that `calling the other one` is about is known to no other file.
    assert problems({"file.py": dedent(source)}) == []


DIFFERENT = {
    "a step more": (
        """
        def read(file):
            return file.get()

        async def aread(file):
            await check(file)
            return await file.get()
        """,
        "file.py:6: twins differ",
    ),
    "another argument": (
        """
        def read(file, most=1):
            return file.get(most)

        async def aread(file, most=2):
            return await file.get(most)
        """,
        "file.py:5: twins differ: def read(file, most=1): (line 2) | async def aread",
    ),
    "deep inside": (
        """
        class Reader:
            def read(self):
                try:
                    return 1
                except ValueError:
                    return 2

            async def aread(self):
                try:
                    return 1
                except ValueError:
                    return 3
        """,
        "file.py:13: twins differ: return 2 (line 7) | return 3 (line 13)",
    ),
    "another exception": (
        """
        def read():
            try:
                go()
            except ValueError:
                pass

        async def aread():
            try:
                go()
            except KeyError:
                pass
        """,
        "file.py:9: twins differ",
    ),
    "the sync function called": (
        """
        class Reader:
            def read(self):
                return 1

            async def aread(self):
                return 1

            def close(self):
                self.read()
                self.end()

            async def aclose(self):
                self.read()
                self.end()
        """,
        "file.py:14: twins differ",
    ),
    "a method more": (
        """
        class Pool:
            def get(self):
                pass

        class AsyncPool:
            def get(self):
                pass

            async def end(self):
                pass
        """,
        "file.py:10: only one twin has async def end(self):",
    ),
    "no twin": (
        """
        class Reader:
            async def finish(self):
                pass
        """,
        "file.py:3: finish has no twin",
    ),
    "a note that covers the head alone": (
        """
        def read(file):
            # Twins differ: a lock would block the loop.
            with file.lock:
                return 1

        async def aread(file):
            async with file.async_turn:
                return 2
        """,
        "file.py:9: twins differ",
    ),
    "a note about nothing": (
        """
        def read(file):
            return 1

        async def aread(file):
            # Twins differ: once they did.
            return 1
        """,
        "file.py:7: no such note is needed above return 1",
    ),
    "a note without a reason": (
        """
        # No twin:
        async def finish():
            pass
        """,
        "file.py:3: finish has no twin",
    ),
}


@pytest.mark.parametrize(("source", "expected"), DIFFERENT.values(), ids=DIFFERENT)
def test_what_differs_is_named(source: str, expected: str) -> None:
    (found,) = problems({"file.py": dedent(source)})
    assert found.startswith(expected)
