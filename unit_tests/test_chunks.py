"""Chunks of text, which are copied from a finished one."""

from __future__ import annotations

import pickle

from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from langchain_thinnest._answer.message import Answer
from langchain_thinnest._answer.turn import Turn


def chunk(text: str) -> ChatGenerationChunk:
    turn = Turn(max_event_bytes=1000)
    return Answer(turn, agent_id="a", session_id=None, as_blocks=False).chunk(text)


def made(text: str) -> ChatGenerationChunk:
    """As pydantic makes one."""
    metadata = {"model_provider": "thinnest"}
    return ChatGenerationChunk(
        message=AIMessageChunk(content=text, response_metadata=metadata)
    )


def test_a_copied_chunk_is_as_one_that_was_made() -> None:
    for text in ("", "a", "é\n"):
        ours, theirs = chunk(text), made(text)
        assert ours == theirs
        assert (ours.text, ours.message.text) == (text, text)
        assert ours.model_dump() == theirs.model_dump()
        assert ours.message.model_fields_set == theirs.message.model_fields_set
        assert ours.message.content_blocks == theirs.message.content_blocks
        for own, others in ((ours, theirs), (ours.message, theirs.message)):
            assert list(own.__dict__) == list(others.__dict__)
            assert own.__pydantic_extra__ == others.__pydantic_extra__
            assert own.__pydantic_private__ == others.__pydantic_private__
            assert own.model_copy(deep=True) == others
        assert pickle.loads(pickle.dumps(ours)) == theirs
        assert ours + chunk("b") == theirs + made("b")


def test_chunks_share_nothing() -> None:
    first, second = chunk("a"), chunk("b")
    for name, value in first.message.__dict__.items():
        if isinstance(value, (dict, list)):
            assert value is not getattr(second.message, name), name
    first.message.additional_kwargs["x"] = first.message.response_metadata["x"] = 1
    first.message.tool_calls.append({"name": "x", "args": {}, "id": "1"})
    first.message.later = 1  # type: ignore[attr-defined]  # messages take any field
    first.message.id = first.generation_info = "x"  # type: ignore[assignment]
    for ours, theirs in ((second, made("b")), (chunk("c"), made("c"))):
        assert ours == theirs
        assert ours.model_fields_set == theirs.model_fields_set
        assert ours.message.model_fields_set == theirs.message.model_fields_set
        assert ours.message.__pydantic_extra__ == {}
