"""Answers that were edited, redacted or merged before anybody looks at their tools again."""

from __future__ import annotations

from collections import deque
from functools import reduce
from operator import add
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    ToolMessage,
    merge_message_runs,
    message_chunk_to_message,
    messages_from_dict,
    messages_to_dict,
)

from langchain_thinnest import expand_server_tools
from langchain_thinnest._answer.message import Answer
from langchain_thinnest._answer.turn import Turn
from unit_tests.contract import as_sse, fed
from unit_tests.history import to_text


def used(name: str) -> list[dict[str, Any]]:
    return [
        {"type": "tool_call", "name": name, "args": {}},
        {"type": "tool_result", "name": name, "result": name.upper()},
    ]


def events_of(*parts: str) -> list[dict[str, Any]]:
    """Events of an answer: `*name` is a tool that is called and answers at once."""
    events: list[dict[str, Any]] = []
    for part in parts:
        is_tool = part.startswith("*")
        events += used(part[1:]) if is_tool else [{"type": "text", "content": part}]
    return [*events, {"type": "done"}]


def answer(
    *parts: str, streamed: bool = False, as_blocks: bool = False, local: Any = None
) -> AIMessage:
    turn = Turn(max_event_bytes=10_000, local_tools=local)
    view = Answer(turn, agent_id="ag_1", session_id=None, as_blocks=as_blocks)
    pieces = fed(turn, as_sse(*events_of(*parts)))
    chunks = [view.chunk(piece).message for piece in pieces]
    made = message_chunk_to_message(reduce(add, chunks)) if streamed else view.message()
    assert isinstance(made, AIMessage)
    return made


def shape(message: AIMessage) -> list[str]:
    """Text, and `*name` for a call with its result right behind it."""
    found: list[str] = []
    for block in message.content_blocks:
        if block["type"] == "text":
            found.append(block["text"])
        elif block["type"] == "server_tool_call":
            found.append(f"*{block['name']}")
        elif block["type"] in ("tool_call", "invalid_tool_call"):
            found.append(f"!{block['name']}")
        else:
            assert block["type"] == "server_tool_result"
            assert found[-1] == f"*{block['extras']['name']}"
    return found


def transcript(message: BaseMessage) -> str:
    sent = to_text([HumanMessage("a"), message, HumanMessage("b")], None)
    assert sent.startswith("User: a\n\n")
    return sent[len("User: a\n\n") : -len("\n\nUser: b")]


def edited(message: AIMessage, change: Any) -> AIMessage:
    return message.model_copy(update={"content": change(message.content)})


ways = pytest.mark.parametrize("streamed", [False, True], ids=["message", "chunks"])
PARTS = (
    "Let me look it up in the catalogue. ",
    "*stock",
    "We have seven left, and more soon.",
)


# --- edited ---


@ways
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda text: text, [*PARTS]),
        (lambda text: "[AI-generated] " + text, ["[AI-generated] " + PARTS[0], *PARTS[1:]]),
        (lambda text: text + " [AI]", [*PARTS[:2], PARTS[2] + " [AI]"]),
        (lambda text: " \n" + text.strip(), [" \n" + PARTS[0], *PARTS[1:]]),
        # a redaction on one side of the tool, or of what stands right beside it
        (
            lambda text: text.replace("seven", "[REDACTED]"),
            [*PARTS[:2], "We have [REDACTED] left, and more soon."],
        ),
        (
            lambda text: text.replace("We have seven left", "[...]"),
            [*PARTS[:2], "[...], and more soon."],
        ),
        (
            lambda text: text.replace("the catalogue. ", "█. "),
            ["Let me look it up in █. ", *PARTS[1:]],
        ),
        # nothing of it is left: the end, and no word cut
        (lambda text: "Removed by the moderator.", ["Removed by the moderator.", "*stock"]),
        (lambda text: "", ["*stock"]),
        (lambda text: text.upper(), ["".join(PARTS[::2]).upper(), "*stock"]),
    ],
)
def test_edited(streamed: bool, change: Any, expected: list[str]) -> None:
    message = edited(answer(*PARTS, streamed=streamed), change)
    assert shape(message) == expected
    (copy,) = messages_from_dict(messages_to_dict([message]))
    assert shape(copy) == expected  # type: ignore[arg-type]


@ways
def test_the_transcript_of_an_edited_answer_cuts_no_word(streamed: bool) -> None:
    message = edited(answer(*PARTS, streamed=streamed), lambda text: "[AI-generated] " + text)
    assert transcript(message) == (
        "Assistant: [AI-generated] Let me look it up in the catalogue. \n\n"
        "Assistant called stock: {}\n\nTool (stock): STOCK\n\n"
        "Assistant: We have seven left, and more soon."
    )
    first, tool, last = expand_server_tools(message)
    assert isinstance(tool, ToolMessage)
    assert first.text == "[AI-generated] " + PARTS[0]
    assert last.text == PARTS[2]
    assert last.additional_kwargs == {}


@ways
@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("*x", "We have seven."), [">> ", "*x", "We have seven."]),
        (("We have seven.", "*x"), [">> We have seven.", "*x"]),
        (("I look. ", "*x", "*y", "Done."), [">> I look. ", "*x", "*y", "Done."]),
        (("Look. ", "*x", "Look. ", "*y", "Ok."), [">> Look. ", "*x", "Look. ", "*y", "Ok."]),
        (("我来查一下", "*x", "还有七个"), [">> 我来查一下", "*x", "还有七个"]),
        (("Ma", "*x", "chine learning"), [">> Ma", "*x", "chine learning"]),
        (("*x",), [">> ", "*x"]),
    ],
)
def test_a_prefix(streamed: bool, parts: tuple[str, ...], expected: list[str]) -> None:
    message = answer(*parts, streamed=streamed)
    assert shape(message) == [*parts]
    assert shape(edited(message, lambda text: ">> " + text)) == expected


def test_a_short_text_is_not_found_inside_a_word() -> None:
    message = edited(answer("I", "*x", "t"), lambda _: "Italy, it is.")
    assert shape(message) == ["Italy, it is.", "*x"]
    message = edited(answer("Hi", "*x"), lambda _: "History")
    assert shape(message) == ["History", "*x"]


def test_in_doubt_at_the_end() -> None:
    message = edited(answer("I look. ", "*x", "Yes."), lambda text: f"{text} {text}")
    assert shape(message) == ["I look. Yes. I look. Yes.", "*x"]


def test_a_result_never_comes_before_its_call() -> None:
    turn = Turn(max_event_bytes=10_000)
    view = Answer(turn, agent_id="ag_1", session_id=None, as_blocks=False)
    call, result = used("x")
    said = [{"type": "text", "content": text} for text in ("First of all. ", "And then.")]
    deque(fed(turn, as_sse(call, said[0], result, said[1], {"type": "done"})), 0)
    message = edited(view.message(), lambda text: text.replace("First", "Last"))
    kinds = [block["type"] for block in message.content_blocks]
    assert kinds.index("server_tool_call") < kinds.index("server_tool_result")
    assert len(expand_server_tools(message)) >= 2
    assert "failed" not in transcript(message)


@ways
def test_an_edit_that_makes_content_a_list(streamed: bool) -> None:
    message = edited(
        answer(*PARTS, streamed=streamed),
        lambda text: [{"type": "text", "text": "Note. "}, {"type": "text", "text": text}],
    )
    assert shape(message) == ["Note. ", *PARTS]
    assert transcript(message).startswith(f"Assistant: Note. {PARTS[0]}\n\nAssistant called")


# --- merged ---


A = ("I look up Ada. ", "*find", "She is here.")
SAME = ("Let me look. ", "*stock", "We have 7 left.")


@ways
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (A, PARTS, [*A[:2], "She is here.\n" + PARTS[0], *PARTS[1:]]),
        (SAME, SAME, [*SAME[:2], "We have 7 left.\nLet me look. ", *SAME[1:]]),
        (("Hello.",), SAME, ["Hello.\nLet me look. ", *SAME[1:]]),
        (SAME, ("Hello.",), [*SAME[:2], "We have 7 left.\nHello."]),
        (
            ("Let me look. I see it.",),
            SAME,
            ["Let me look. I see it.\nLet me look. ", *SAME[1:]],
        ),
        (("*x", "One."), ("*y", "Two."), ["*x", "One.\n", "*y", "Two."]),
        (("One.", "*x"), ("Two.", "*y"), ["One.", "*x", "\nTwo.", "*y"]),
        (("Hello.",), ("*y",), ["Hello.", "*y"]),
    ],
)
def test_merged(streamed: bool, first: Any, second: Any, expected: list[str]) -> None:
    messages = [answer(*first, streamed=streamed), answer(*second, streamed=streamed)]
    (merged,) = merge_message_runs(messages)
    assert isinstance(merged, AIMessage)
    assert shape(merged) == expected
    assert "failed" not in transcript(merged)


@ways
def test_merged_answers_tell_their_tools_where_they_ran(streamed: bool) -> None:
    (merged,) = merge_message_runs([answer(*A, streamed=streamed), answer(*PARTS)])
    assert transcript(merged) == (
        "Assistant: I look up Ada. \n\nAssistant called find: {}\n\nTool (find): FIND\n\n"
        "Assistant: She is here.\nLet me look it up in the catalogue. \n\n"
        "Assistant called stock: {}\n\nTool (stock): STOCK\n\n"
        "Assistant: We have seven left, and more soon."
    )


@ways
def test_three_merged_and_edited(streamed: bool) -> None:
    messages = [answer(*parts, streamed=streamed) for parts in (A, SAME, PARTS)]
    (merged,) = merge_message_runs(messages)
    merged = edited(merged, lambda text: "Note: " + text)  # type: ignore[arg-type]
    assert shape(merged) == [
        "Note: I look up Ada. ",
        "*find",
        "She is here.\nLet me look. ",
        "*stock",
        "We have 7 left.\n" + PARTS[0],
        *PARTS[1:],
    ]


@ways
def test_merged_block_content(streamed: bool) -> None:
    """Blocks with an index of their own are not put together with those of another answer."""
    messages = [answer(*parts, streamed=streamed, as_blocks=True) for parts in (A, SAME)]
    (merged,) = merge_message_runs(messages)
    assert shape(merged) == [*A, *SAME]  # type: ignore[arg-type]
    assert "failed" not in transcript(merged)


@ways
def test_merged_text_and_block_content(streamed: bool) -> None:
    text, blocks = (answer(*SAME, streamed=streamed, as_blocks=b) for b in (False, True))
    for messages in ([text, blocks], [blocks, text]):
        (merged,) = merge_message_runs(messages)
        said = transcript(merged)
        assert said.count("Assistant called stock: {}\n\nTool (stock): STOCK") == 2
        assert "failed" not in said


def test_merged_with_another_providers() -> None:
    theirs = AIMessage("Hello.", response_metadata={"model_provider": "openai"})
    for messages in ([answer(*SAME), theirs], [theirs, answer(*SAME)]):
        (merged,) = merge_message_runs(messages)
        assert "look. \n\nAssistant called stock: {}\n\nTool (stock): STOCK" in transcript(
            merged
        )


# --- local tools ---

LOCAL = {"look": {"type": "object", "properties": {}}}
CALL = '<tool_call>{"name": "look", "arguments": {}}</tool_call>'


@ways
def test_local_calls(streamed: bool) -> None:
    message = answer("Ada asks. ", CALL, "*stock", "Wait.", streamed=streamed, local=LOCAL)
    assert shape(message) == ["Ada asks. ", "!look", "*stock", "Wait."]
    prefixed = edited(message, lambda text: "Note: " + text)
    assert shape(prefixed) == ["Note: Ada asks. ", "!look", "*stock", "Wait."]
    other = answer("Bob asks. ", CALL, streamed=streamed, local=LOCAL)
    (merged,) = merge_message_runs([other, message])
    assert shape(merged) == [  # type: ignore[arg-type]
        "Bob asks. ",
        "!look",
        "\nAda asks. ",
        "!look",
        "*stock",
        "Wait.",
    ]


# --- what 0.1 wrote, which kept no surroundings ---


def without_surroundings(message: AIMessage) -> AIMessage:
    kept = {k: v for k, v in message.additional_kwargs.items() if k != "tool_surroundings"}
    return message.model_copy(update={"additional_kwargs": kept})


def test_old_answers() -> None:
    old = without_surroundings(answer(*PARTS))
    assert shape(old) == [*PARTS]
    text = "".join(PARTS[::2])
    # Nothing says where the tool was, but it was not inside a word.
    assert shape(edited(old, lambda _: "AI: " + text)) == ["AI: " + text, "*stock"]
    (merged,) = merge_message_runs([without_surroundings(answer(*A)), old])
    assert shape(merged) == [*A[:2], "She is here.\n" + text, "*stock"]  # type: ignore[arg-type]
    (mixed,) = merge_message_runs([old, answer(*A)])
    assert shape(mixed) == [*PARTS[:2], PARTS[2] + "\n" + A[0], *A[1:]]  # type: ignore[arg-type]


# --- whatever is done to a text ---


texts = st.text(alphabet="ab .é我\n", max_size=12)
parts_of = st.lists(texts | st.sampled_from(["*x", "*y"]), max_size=6)


@given(parts_of, st.booleans(), st.integers(0, 20), st.integers(0, 20), texts)
def test_no_edit_loses_a_tool_or_a_letter(
    parts: list[str], streamed: bool, start: int, end: int, put: str
) -> None:
    message = answer(*parts, streamed=streamed)
    assert shape(message) == shape(answer(*parts))
    changed = edited(message, lambda text: text[:start] + put + text[end:])
    expanded = expand_server_tools(changed)
    said = "".join(m.text for m in expanded if isinstance(m, AIMessage))
    assert said == changed.content
    tools = [m.name for m in expanded if isinstance(m, ToolMessage)]
    assert sorted(map(str, tools)) == sorted(part[1:] for part in parts if part[:1] == "*")
    assert all(m.status == "success" for m in expanded if isinstance(m, ToolMessage))


@given(st.lists(parts_of, min_size=2, max_size=3), st.booleans())
def test_no_merge_loses_a_tool_or_a_letter(answers: list[list[str]], streamed: bool) -> None:
    messages = [answer(*parts, streamed=streamed) for parts in answers]
    (merged,) = merge_message_runs(messages)
    expanded = expand_server_tools(merged)  # type: ignore[arg-type]
    said = "".join(m.text for m in expanded if isinstance(m, AIMessage))
    assert said == merged.content
    tools = [m for m in expanded if isinstance(m, ToolMessage)]
    assert len(tools) == sum(part[:1] == "*" for parts in answers for part in parts)
    assert all(tool.status == "success" for tool in tools)


# --- while it streams, and where a block has the call already ---


def test_a_tool_within_a_word_stays_there_while_the_answer_grows() -> None:
    turn = Turn(max_event_bytes=10_000)
    view = Answer(turn, agent_id="ag_1", session_id=None, as_blocks=False)
    pieces = fed(turn, as_sse(*events_of("Before wo", "*stock", "rd after")))
    *chunks, last = [view.chunk(piece).message for piece in pieces]
    for number, expected in (
        (1, ["Before wo"]),
        (3, ["Before wo", "*stock"]),
        (4, ["Before wo", "*stock", "rd after"]),
    ):
        grown = reduce(add, chunks[:number])
        assert isinstance(grown, AIMessage)
        assert shape(grown) == expected
    whole = reduce(add, [*chunks, last])
    assert isinstance(whole, AIMessage)
    assert shape(whole) == ["Before wo", "*stock", "rd after"]


@pytest.mark.parametrize("kind", ["tool_call", "invalid_tool_call"])
def test_a_local_call_that_a_block_holds_is_not_repeated(kind: str) -> None:
    raw = {"type": "call", "id": "1", "name": "x", "args": {}, "offset": 3}
    held: dict[str, Any] = {"type": kind, "id": "2", "name": "f"}
    held["args"] = {} if kind == "tool_call" else "{"
    message = AIMessage(
        [{"type": "text", "text": "ab cd"}, held],
        tool_calls=[{"name": "f", "args": {}, "id": "2"}] if kind == "tool_call" else [],
        additional_kwargs={"server_tools": [raw], "tool_call_positions": {"2": [5, 1]}},
        response_metadata={"model_provider": "thinnest"},
    )
    assert message.content_blocks == [
        {"type": "text", "text": "ab "},
        {"type": "server_tool_call", "id": "1", "name": "x", "args": {}},
        {"type": "text", "text": "cd"},
        held,
    ]


def test_a_tool_that_a_block_holds_is_not_repeated() -> None:
    call = {"type": "call", "id": "1", "name": "x", "args": {}, "offset": 0}
    result = {"type": "result", "id": "1", "name": "x", "result": "X", "offset": 0}
    held = {"type": "server_tool_call", "id": "1", "name": "x", "args": {}}
    message = AIMessage(
        [held, {"type": "text", "text": "ab"}],
        additional_kwargs={"server_tools": [call, result]},
        response_metadata={"model_provider": "thinnest"},
    )
    assert message.content_blocks == [
        held,
        {
            "type": "server_tool_result",
            "tool_call_id": "1",
            "status": "success",
            "output": "X",
            "extras": {"name": "x"},
        },
        {"type": "text", "text": "ab"},
    ]


def test_a_local_call_without_a_position_comes_last() -> None:
    raw = {"type": "call", "id": "1", "name": "x", "args": {}, "offset": 0}
    message = AIMessage(
        "ab",
        tool_calls=[{"name": "f", "args": {}, "id": "2"}],
        additional_kwargs={"server_tools": [raw]},
        response_metadata={"model_provider": "thinnest"},
    )
    assert message.content_blocks == [
        {"type": "server_tool_call", "id": "1", "name": "x", "args": {}},
        {"type": "text", "text": "ab"},
        {"type": "tool_call", "id": "2", "name": "f", "args": {}},
    ]
