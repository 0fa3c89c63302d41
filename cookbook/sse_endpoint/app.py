"""An endpoint that passes an agent's answer on as Server-Sent Events: text, tools, errors.

pip install langchain-thinnest fastapi uvicorn && uvicorn app:app
curl -N "http://127.0.0.1:8000/ask?question=What+are+tides"
"""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from langchain_thinnest import ChatThinnest, ThinnestError

app = FastAPI()
model = ChatThinnest()  # one for all requests


@app.get("/ask")
async def ask(question: str, session_id: str | None = None) -> StreamingResponse:
    """Answer with events: text, server_tool_call, server_tool_result; done or error."""

    async def events() -> AsyncIterator[str]:
        try:  # When the client leaves, this is cancelled, and the agent's stream closed.
            async with aclosing(model.astream(question, session_id=session_id)) as chunks:
                async for chunk in chunks:
                    for block in chunk.content_blocks:
                        yield event(block["type"], block)
            yield event("done", {})
        except ThinnestError as error:
            yield event("error", {"message": str(error), "retry": error.is_retryable})

    return StreamingResponse(events(), media_type="text/event-stream")


def event(name: str, data: object) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
