"""The contestants: each reads the same answer to its end, in four ways.

| name | what it does |
|---|---|
| `raw httpx` | reads the bytes of the body, and looks at none of them |
| `vendor's loop` | the client of the vendor's page: `iter_lines`, then `json.loads` |
| `httpx-sse` | the usual library for event streams, and its `json()` |
| `floor` | a LangChain model that makes its chunks from nothing: no request, no bytes |
| `ChatThinnest` | this package |
| `ChatThinnest, fast` | the same with `transport="fast"`: `http.client`, async aiohttp |
| `ChatMistralAI`, `ChatOpenAI` | the others, each asked in its own dialect by its own path |

"Nothing" is to be had for `invoke` too: the floor's message is made at once.
`invoke` of the others is asked with `streaming=True`, so that it reads the same events.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from functools import cached_property
from typing import Any

import httpx
from httpx_sse import aconnect_sse, connect_sse
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from benchmarks.server import bench_name, text_of

KEY = "ak_benchmark"
QUESTION = "What is machine learning?"
# As the package sets them, so that no contestant waits for a connection of the pool.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=100)


Moments = tuple[float, float]
"""When the call was made and when its first piece was in the caller's hands, in seconds of the
clock that all processes share."""


class Contestant:
    """One way to read an answer. Names of answers are those of `server.bench_name`."""

    name: str

    def __init__(self, url: str) -> None:
        self.url = url

    def stream(self, answer: str) -> None:
        """Read an answer piece by piece."""
        raise NotImplementedError

    def invoke(self, answer: str) -> object:
        """Read an answer as a whole."""
        raise NotImplementedError

    async def astream(self, answer: str) -> None:
        raise NotImplementedError

    async def ainvoke(self, answer: str) -> object:
        raise NotImplementedError

    def first(self, answer: str) -> Moments:
        """Time the first piece; the answer is then read to its end."""
        raise NotImplementedError

    async def afirst(self, answer: str) -> Moments:
        raise NotImplementedError

    async def park(self, answer: str) -> object:
        """Open a stream, read the first piece, and return what keeps the stream open."""
        raise NotImplementedError

    def text(self, answer: str) -> str:
        """The text of an answer, to see that it is whole."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close what is open."""


class _Httpx(Contestant):
    """What the contestants share that use httpx directly."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._client = httpx.Client(limits=_LIMITS)
        self._async_client = httpx.AsyncClient(limits=_LIMITS)

    def request(self, answer: str) -> dict[str, Any]:
        return {
            "method": "POST",
            "url": f"{self.url}/chat/stream",
            "headers": {"Authorization": f"Bearer {KEY}"},
            "json": {"agent_id": answer, "message": QUESTION},
        }

    def pieces(self, response: httpx.Response) -> Iterator[object]:
        raise NotImplementedError

    def apieces(self, response: httpx.Response) -> AsyncIterator[object]:
        raise NotImplementedError

    def stream(self, answer: str) -> None:
        with self._client.stream(**self.request(answer)) as response:
            for _ in self.pieces(response):
                pass

    def invoke(self, answer: str) -> object:
        with self._client.stream(**self.request(answer)) as response:
            return self.whole(list(self.pieces(response)))

    async def astream(self, answer: str) -> None:
        async with self._async_client.stream(**self.request(answer)) as response:
            async for _ in self.apieces(response):
                pass

    async def ainvoke(self, answer: str) -> object:
        async with self._async_client.stream(**self.request(answer)) as response:
            return self.whole([piece async for piece in self.apieces(response)])

    def whole(self, pieces: list[Any]) -> object:
        return "".join(pieces)

    def first(self, answer: str) -> Moments:
        begin = time.perf_counter()
        with self._client.stream(**self.request(answer)) as response:
            pieces = self.pieces(response)
            next(pieces)
            came = time.perf_counter()
            for _ in pieces:
                pass
        return begin, came

    async def afirst(self, answer: str) -> Moments:
        begin = time.perf_counter()
        async with self._async_client.stream(**self.request(answer)) as response:
            pieces = self.apieces(response)
            await pieces.__anext__()
            came = time.perf_counter()
            async for _ in pieces:
                pass
        return begin, came

    async def park(self, answer: str) -> object:
        context = self._async_client.stream(**self.request(answer))
        pieces = self.apieces(await context.__aenter__())
        await pieces.__anext__()
        return context, pieces

    def text(self, answer: str) -> str:
        return str(self.invoke(answer))

    async def close(self) -> None:
        self._client.close()
        await self._async_client.aclose()


class RawHttpx(_Httpx):
    """The bytes of the body, undecoded and unread: the floor of what httpx can do."""

    name = "raw httpx"

    def pieces(self, response: httpx.Response) -> Iterator[bytes]:
        return response.iter_raw()

    def apieces(self, response: httpx.Response) -> AsyncIterator[bytes]:
        return response.aiter_raw()

    # Without a list of the pieces: to invoke is to read as to stream.

    def invoke(self, answer: str) -> object:
        return self.stream(answer)

    async def ainvoke(self, answer: str) -> object:
        return await self.astream(answer)

    def text(self, answer: str) -> str:
        with self._client.stream(**self.request(answer)) as response:
            lines = b"".join(response.iter_raw()).split(b"\n\n")
        events = [json.loads(line[6:]) for line in lines if line]
        return "".join(event.get("content", "") for event in events)


class VendorLoop(_Httpx):
    """The client of the vendor's page, with a kept client, and `yield` for `print`."""

    name = "vendor's loop"

    def pieces(self, response: httpx.Response) -> Iterator[str]:
        for line in response.iter_lines():
            if line.startswith("data: "):
                event = json.loads(line[6:])
                if event["type"] == "text":
                    yield event["content"]

    async def apieces(self, response: httpx.Response) -> AsyncIterator[str]:
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                event = json.loads(line[6:])
                if event["type"] == "text":
                    yield event["content"]


class HttpxSSE(_Httpx):
    """httpx-sse, used as its documentation shows."""

    name = "httpx-sse"

    def stream(self, answer: str) -> None:
        with connect_sse(self._client, **self.request(answer)) as source:
            for event in source.iter_sse():
                event.json()

    def invoke(self, answer: str) -> object:
        with connect_sse(self._client, **self.request(answer)) as source:
            return "".join(event.json().get("content", "") for event in source.iter_sse())

    async def astream(self, answer: str) -> None:
        async with aconnect_sse(self._async_client, **self.request(answer)) as source:
            async for event in source.aiter_sse():
                event.json()

    async def ainvoke(self, answer: str) -> object:
        async with aconnect_sse(self._async_client, **self.request(answer)) as source:
            events = source.aiter_sse()
            return "".join([event.json().get("content", "") async for event in events])


class _LangChain(Contestant):
    """What the contestants share that are LangChain models, one model for each answer."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._models: dict[str, BaseChatModel] = {}

    def make(self, answer: str) -> BaseChatModel:
        """Construct a model."""
        raise NotImplementedError

    def model(self, answer: str) -> BaseChatModel:
        if answer not in self._models:
            self._models[answer] = self.make(answer)
        return self._models[answer]

    def stream(self, answer: str) -> None:
        for _ in self.model(answer).stream(QUESTION):
            pass

    def invoke(self, answer: str) -> object:
        return self.model(answer).invoke(QUESTION)

    async def astream(self, answer: str) -> None:
        async for _ in self.model(answer).astream(QUESTION):
            pass

    async def ainvoke(self, answer: str) -> object:
        return await self.model(answer).ainvoke(QUESTION)

    def first(self, answer: str) -> Moments:
        model = self.model(answer)
        begin = time.perf_counter()
        chunks = model.stream(QUESTION)
        next(chunks)
        came = time.perf_counter()
        for _ in chunks:
            pass
        return begin, came

    async def afirst(self, answer: str) -> Moments:
        model = self.model(answer)
        begin = time.perf_counter()
        chunks = model.astream(QUESTION)
        await chunks.__anext__()
        came = time.perf_counter()
        async for _ in chunks:
            pass
        return begin, came

    async def park(self, answer: str) -> object:
        chunks = self.model(answer).astream(QUESTION)
        await chunks.__anext__()
        return chunks

    def text(self, answer: str) -> str:
        model = self.model(answer)
        streamed = "".join(chunk.text for chunk in model.stream(QUESTION))
        whole = model.invoke(QUESTION).text
        if streamed != whole:
            raise AssertionError(f"{self.name}: stream and invoke differ")
        return whole


class FloorModel(BaseChatModel):
    """A model that does nothing but make what LangChain wants of it."""

    answer: str

    @property
    def _llm_type(self) -> str:
        return "floor"

    @cached_property
    def size(self) -> tuple[int, str]:
        _, events, chars, _ = self.answer.split("-")
        return int(events), text_of(0, int(chars))

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        events, text = self.size
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text * events))])

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return self._generate(messages)

    def _stream(self, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        events, text = self.size
        for _ in range(events):
            yield ChatGenerationChunk(message=AIMessageChunk(content=text))

    async def _astream(self, *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        events, text = self.size
        for _ in range(events):
            yield ChatGenerationChunk(message=AIMessageChunk(content=text))

    def _stream_chat_model_events(self, *_: Any, **__: Any) -> Iterator[Any]:
        yield from self._events()

    async def _astream_chat_model_events(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        for event in self._events():
            yield event

    def _events(self) -> Iterator[dict[str, Any]]:
        """The protocol's events of an answer that is one block of text."""
        events, text = self.size
        yield {"event": "message-start", "role": "ai", "metadata": {}}
        block = {"type": "text", "text": ""}
        yield {"event": "content-block-start", "index": 0, "content": block}
        for _ in range(events):
            delta = {"type": "text-delta", "text": text}
            yield {"event": "content-block-delta", "index": 0, "delta": delta}
        block = {"type": "text", "text": text * events}
        yield {"event": "content-block-finish", "index": 0, "content": block}
        yield {"event": "message-finish", "metadata": {}}


class Floor(_LangChain):
    """LangChain alone."""

    name = "floor"

    def make(self, answer: str) -> BaseChatModel:
        return FloorModel(answer=answer)


class Thinnest(_LangChain):
    """This package."""

    name = "ChatThinnest"

    def make(self, answer: str, **fields: Any) -> BaseChatModel:
        from langchain_thinnest import ChatThinnest

        return ChatThinnest(agent_id=answer, api_key=KEY, base_url=self.url, **fields)


class ThinnestFast(Thinnest):
    """This package, over the standard library's `http.client`, and aiohttp for async calls."""

    name = "ChatThinnest, fast"

    def make(self, answer: str, **fields: Any) -> BaseChatModel:
        return super().make(answer, transport="fast", **fields)


class OpenAI(_LangChain):
    """langchain-openai, which reads OpenAI's dialect through the openai SDK."""

    name = "ChatOpenAI"

    def make(self, answer: str) -> BaseChatModel:
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(
            model=answer, api_key=KEY, base_url=f"{self.url}/openai/v1", streaming=True
        )


class Mistral(_LangChain):
    """langchain-mistralai, which reads Mistral's dialect with httpx-sse."""

    name = "ChatMistralAI"

    def make(self, answer: str) -> BaseChatModel:
        from langchain_mistralai import ChatMistralAI

        return ChatMistralAI(
            model=answer, api_key=KEY, base_url=f"{self.url}/mistral/v1", streaming=True
        )


ALL: dict[str, type[Contestant]] = {
    kind.name: kind
    for kind in (
        RawHttpx,
        VendorLoop,
        HttpxSSE,
        Floor,
        Thinnest,
        ThinnestFast,
        Mistral,
        OpenAI,
    )
}


def check(contestants: dict[str, Contestant]) -> None:
    """See that each contestant reads the whole answer, before any is timed."""
    for name, contestant in contestants.items():
        text = contestant.text(bench_name(3))
        if text != whole_text(name):
            raise AssertionError(f"{name} read {text!r}")


def whole_text(name: str) -> str:
    """What a contestant has to read of an answer of three events."""
    numbers = (0, 0, 0) if name == Floor.name else (0, 1, 2)
    return "".join(map(text_of, numbers))
