"""An agent that calls the caller's tools and answers in JSON, as a model would.

The tools come as text in the message, and so do the calls in the answer. No model speaks: the
words of the question choose the tools, and what it names fills their parameters. What the
caller's tools do not do, the tools of the server do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from langchain_thinnest.emulator.agents import Item, Session
from langchain_thinnest.emulator.choosing import (
    Choice,
    arguments,
    by_fitness,
    calls_of,
    choose,
)
from langchain_thinnest.emulator.clues import Clues
from langchain_thinnest.emulator.conversation import (
    Answered,
    Called,
    Entry,
    Prompt,
    Said,
    Tool,
    is_from_user,
    read,
    remembered,
    user_texts,
)
from langchain_thinnest.emulator.filling import fill
from langchain_thinnest.emulator.plain import (
    SIGNATURE,
    arithmetic,
    calculation,
    calculator,
    keywords,
    lookup,
    plain_answer,
    search_library,
    words,
)

_READS = 8000  # as many characters of a text as are looked at for clues
_TAG = re.compile(r"<(?=\\*/?(?:tools?|tool_call|tool_response|response_schema)\b)")
_PIECE = re.compile(r"\s*\w{1,6}|\s*[^\w\s]{1,3}|\s+")
_WONDERS = re.compile(
    r"\s*(?:what|who|how|why|when|where|which|explain|describe|tell me about)\b", re.IGNORECASE
)
_FORM = re.compile(r"\bjson\b|\bschema\b|```", re.IGNORECASE)
_FOLLOWS = re.compile(r"\s*(?:and|what about|how about|also|or)\b", re.IGNORECASE)
_KEY = re.compile(r"[`'\"]([A-Za-z_]\w*)[`'\"]")


def protocol_agent(message: str, session: Session) -> Iterator[Item]:
    """Answer a message that tells of the caller's tools, or of the form of the answer.

    Args:
        message: As the client writes it: `<tools>`, `<response_schema>`, the conversation.
        session: The conversation so far, which the agent remembers.

    Yields:
        Pieces of text, and the calls and results of the server's own tools.
    """
    prompt = read(message)
    entries = [*remembered(session), *prompt.entries]
    start = max((at for at, entry in enumerate(entries) if is_from_user(entry)), default=-1)
    question = _text(entries[start]) if start >= 0 else ""
    turn = entries[start + 1 :]
    choice = _choice(prompt, question[:_READS], entries[: max(start, 0)], turn)
    if choice.calls:
        is_first = not any(isinstance(entry, Answered) for entry in turn)
        yield from _before_calls(choice.left if is_first else "", prompt)
        yield from _write_calls(choice.calls[:1] if prompt.one_call else choice.calls)
    elif prompt.schema is not None or prompt.any_json:
        yield from _write_json(prompt, question[:_READS], entries, turn)
    elif results := [entry for entry in turn if isinstance(entry, Answered)]:
        yield from words(_report(results) + SIGNATURE)
    else:
        yield from plain_answer(question, user_texts(entries[: max(start, 0)]))


def _text(entry: Entry) -> str:
    return entry.text if isinstance(entry, Said) else ""


# --- which calls ---


def _choice(
    prompt: Prompt, question: str, earlier: Sequence[Entry], turn: Sequence[Entry]
) -> Choice:
    """The calls to make now."""
    tools = prompt.tools
    if prompt.only is not None:
        tools = [tool for tool in tools if tool.name == prompt.only]
    made = [entry for entry in turn if isinstance(entry, Called)]
    results = [entry for entry in turn if isinstance(entry, Answered)]
    choice = choose(question, tools)
    if not choice.calls and _FOLLOWS.match(question):
        choice.calls = _as_before(question, tools, earlier)
    choice.calls = _open(choice.calls, made, results)
    if choice.calls or not (prompt.must_call and tools):
        return choice
    tool = _forced(question, tools, results)
    if results:
        clues = Clues(question, [result.content[:_READS] for result in results])
        choice.calls = [Called(tool.name, arguments(tool, clues, all_of_it=True))]
    else:
        choice.calls = calls_of(tool, question, question)
    return choice


def _as_before(question: str, tools: Sequence[Tool], earlier: Sequence[Entry]) -> list[Called]:
    """What "And in Rome?" calls for: the tool that was called last."""
    called = [entry.name for entry in earlier if isinstance(entry, Called)]
    last = [tool for tool in tools if called and tool.name == called[-1]]
    return calls_of(last[0], question, question) if last else []


def _open(
    wanted: Sequence[Called], made: Sequence[Called], results: Sequence[Answered]
) -> list[Called]:
    """What of the wanted calls is still to be made: what failed is tried otherwise only."""
    calls: list[Called] = []
    for name in dict.fromkeys(call.name for call in wanted):
        of_tool = [call for call in wanted if call.name == name]
        well = sum(result.name == name and not result.failed for result in results)
        calls += [call for call in of_tool if call not in made][: max(0, len(of_tool) - well)]
    return calls


def _forced(question: str, tools: Sequence[Tool], results: Sequence[Answered]) -> Tool:
    """The tool to call when one must be: rather one that has given nothing yet."""
    best = by_fitness(question, tools)
    given = {result.name for result in results}
    return next((tool for tool in best if tool.name not in given), best[0])


# --- what the answer says ---


def _before_calls(left: str, prompt: Prompt) -> Iterator[Item]:
    """What of the question the server's tools do, before the caller's are called."""
    silent = prompt.schema is not None or prompt.any_json
    items: list[Item] = []
    expression = arithmetic(left)
    if expression:
        items += calculation(expression)
        left = left.replace(expression, " ")
    query = " ".join(keywords(left))
    found = search_library(query) if query and not prompt.must_call else []
    if found:
        items += [*words(" Let me look that up. "), *lookup(query, found)]
    if not silent:
        items += words("\n" if items else "")
        items += words(" Let me see what your tools say.\n" if items else "Let me see.\n")
    yield from (item for item in items if not silent or isinstance(item, dict))


def _write_calls(calls: Sequence[Called]) -> Iterator[Item]:
    written = [
        json.dumps({"name": call.name, "arguments": call.args}, ensure_ascii=False)
        for call in calls
    ]
    # A tag inside a string would end the call, or begin one.
    text = "\n".join(
        f"<tool_call>{call}</tool_call>"
        for call in (call.replace("<", "\\u003c") for call in written)
    )
    yield from _PIECE.findall(text)


def _write_json(
    prompt: Prompt, question: str, entries: Sequence[Entry], turn: Sequence[Entry]
) -> Iterator[Item]:
    results = [entry for entry in turn if isinstance(entry, Answered)]
    facts = [result.content[:_READS] for result in results]
    expression = arithmetic(question)
    if expression and not results:
        yield from (item for item in calculation(expression) if isinstance(item, dict))
        facts.append(calculator(expression))
    elif not results and _WONDERS.match(question):
        query = " ".join(keywords(question))
        found = search_library(query)
        if found and _is_about(found[0], query):
            yield from (item for item in lookup(query, found) if isinstance(item, dict))
            facts.append(found[0]["text"])
    schema = prompt.schema
    if schema is None:
        said = [entry.text for entry in entries if isinstance(entry, Said)]
        schema = _schema_in("\n".join(said))
        question = _without_form(question)
    value = fill(schema, Clues(question, facts), all_of_it=True)
    text = json.dumps(value, ensure_ascii=False)
    yield from _PIECE.findall(text)


def _is_about(passage: dict[str, Any], query: str) -> bool:
    """Whether a passage has all that was asked for, so that it may stand as the answer."""
    said = f"{passage['title']} {passage['text']}".lower()
    return all(word[:4] in said for word in query.split())


def _report(results: Sequence[Answered]) -> str:
    lines = [
        f"{result.name} {'failed' if result.failed else 'gives'}: {_harmless(result.content)}"
        for result in results
    ]
    if len(lines) == 1:
        return lines[0]
    return "Here is what the tools gave.\n\n" + "\n\n".join(lines)


def _harmless(text: str) -> str:
    """A tool's words, so that nobody takes a tag in them for the agent's own."""
    return _TAG.sub(r"<\\", text)


# --- the form of JSON, if only the words tell of it ---


def _schema_in(text: str) -> dict[str, Any]:
    """The schema that a text shows, or else one of the keys that it names."""
    shown = [value for value, _, _ in _objects_in(text)]
    schemas = [value for value in shown if isinstance(value.get("properties"), dict)]
    if schemas:
        return schemas[-1]
    keys = list(shown[-1]) if shown else list(dict.fromkeys(_KEY.findall(text)))
    keys = keys or ["answer"]
    return {"type": "object", "properties": {key: {} for key in keys}, "required": keys}


def _without_form(question: str) -> str:
    """A question without what it says of JSON, whose words are no clues."""
    for _, start, end in reversed(list(_objects_in(question))):
        question = f"{question[:start]}\n{question[end:]}"
    sentences = re.split(r"(?<=[.!?])\s+|\n+", question)
    return " ".join(s for s in sentences if not _FORM.search(s)) or question


def _objects_in(text: str) -> Iterator[tuple[dict[str, Any], int, int]]:
    """The JSON objects in a text, and where they stand."""
    decoder, at = json.JSONDecoder(), text.find("{")
    while at >= 0:
        end = at + 1
        with suppress(ValueError):
            value, end = decoder.raw_decode(text, at)
            yield value, at, end
        at = text.find("{", end)
