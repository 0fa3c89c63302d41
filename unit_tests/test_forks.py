"""Which session a turn goes to, by what each session is known to have seen."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_thinnest._forks import NextTurn, Place, Seen, after, digests_of, place_of

AGENT = "ag_1"


def answer(
    text: str, session: str = "t", agent: str | None = AGENT, **fields: Any
) -> AIMessage:
    metadata = {"model_provider": "thinnest", "session_id": session}
    if agent is not None:
        metadata["model_name"] = agent
    return AIMessage(text, response_metadata=metadata, **fields)


def seen_of(*messages: BaseMessage) -> Seen:
    return Seen(digests_of(messages)[-1])


def find(
    known: dict[str, Seen], *messages: BaseMessage, **fields: Any
) -> tuple[Place, list[str]]:
    """The turn's place, and which sessions were looked up."""
    asked: list[str] = []
    finding = place_of(NextTurn("t", AGENT, messages, **fields))
    try:
        session = next(finding)
        while True:
            asked.append(session)
            session = finding.send(known.get(session))
    except StopIteration as found:
        return found.value, asked


ONE, TWO, THREE = HumanMessage("one"), HumanMessage("two"), HumanMessage("three")
FIRST, SECOND = answer("1"), answer("2")


def test_a_session_of_which_nothing_is_known_is_the_threads() -> None:
    place, asked = find({}, ONE)
    assert place == Place("t", None, digests_of([ONE])[-1])
    assert asked == ["t"]


def test_what_follows_what_a_session_saw_is_new() -> None:
    known = {"t": seen_of(ONE, FIRST)}
    assert find(known, ONE, FIRST, TWO) == (
        Place("t", 2, digests_of([ONE, FIRST, TWO])[-1]),
        ["t"],
    )
    assert find({"t": seen_of(ONE)}, ONE, TWO)[0].seen == 1


@pytest.mark.parametrize(
    "messages",
    [
        (ONE, FIRST, TWO),  # back to before the second answer
        (ONE, FIRST, TWO, answer("edited"), THREE),
        (ONE, FIRST, HumanMessage("edited"), SECOND, THREE),
        (ONE, TWO, SECOND, THREE),
        (FIRST, TWO, SECOND, THREE),
        (ONE, FIRST, TWO, ToolMessage("2", tool_call_id="2"), THREE),
        (ONE, FIRST, TWO, SystemMessage("2"), THREE),
    ],
)
def test_anything_else_begins_a_branch(messages: Any) -> None:
    known = {"t": seen_of(ONE, FIRST, TWO, SECOND)}
    place, asked = find(known, *messages)
    assert place.session_id.startswith("t-")
    assert len(place.session_id) == len("t-") + 16
    assert place.seen == 0
    assert place.asked == digests_of(messages)[-1]
    assert place.session_id == asked[1]
    assert place.session_id != find(known, *messages, THREE)[0].session_id
    assert find(known, *messages)[0] == place  # workers agree


def test_a_branch_goes_on_by_its_answers() -> None:
    branch = find({"t": seen_of(ONE, FIRST)}, TWO)[0].session_id
    theirs = answer("2", branch)
    known = {"t": seen_of(ONE, FIRST), branch: seen_of(TWO, theirs)}
    place, asked = find(known, TWO, theirs, THREE)
    assert (place.session_id, place.seen, asked) == (branch, 2, [branch])


@pytest.mark.parametrize("behind", [(THREE,), (THREE, ONE)])
def test_a_branch_without_an_answer_goes_on_by_its_digest(behind: Any) -> None:
    known = {"t": seen_of(ONE, FIRST)}
    branch = find(known, TWO)[0].session_id
    known[branch] = seen_of(TWO)
    place, _ = find(known, TWO, *behind)
    assert (place.session_id, place.seen) == (branch, 1)
    assert place.asked == digests_of([TWO, *behind])[-1]


def test_a_branch_whose_run_was_stopped_goes_on() -> None:
    known = {"t": seen_of(ONE, FIRST)}
    place, _ = find(known, TWO)
    known[place.session_id] = after(place.asked, [SECOND], 1)
    assert find(known, TWO, THREE, step=3)[0].session_id == place.session_id
    assert find(known, TWO, THREE, step=4)[0].session_id != place.session_id


def test_the_first_message_may_be_an_answer() -> None:
    branch = "t-0123456789abcdef"
    assert find({}, answer("1", branch), TWO)[1] == [branch]


def test_a_branch_is_looked_for_behind_the_last_answer_alone() -> None:
    known = {"t": seen_of(ONE, FIRST, TWO, SECOND)}
    _, asked = find(known, ONE, FIRST, TWO)
    assert len(asked) == 2
    _, asked = find(known, ONE, FIRST, TWO, TWO)
    assert len(asked) == 3
    _, asked = find(known, *[TWO] * 200)
    assert len(asked) == 1 + 50


def test_a_turn_that_is_run_again_is_a_branch_each_time() -> None:
    known = {"t": seen_of(ONE)}
    sessions = {"t"}
    for _ in range(3):
        place, _ = find(known, ONE)
        assert place.session_id not in sessions
        assert place.seen == 0
        sessions.add(place.session_id)
        known[place.session_id] = seen_of(ONE, FIRST)


def test_a_supervisor_may_keep_an_answers_last_message() -> None:
    turn = [answer("look", tool_calls=[{"name": "x", "args": {}, "id": "1"}])]
    parts: list[BaseMessage] = [*turn, ToolMessage("it", tool_call_id="1"), answer("done")]
    asked = digests_of([ONE])[-1]
    known = {"t": after(asked, parts, None)}
    assert find(known, ONE, *parts, TWO)[0] == Place(
        "t", 4, digests_of([ONE, *parts, TWO])[-1]
    )
    assert find(known, ONE, parts[-1], TWO)[0].seen == 2
    assert find(known, ONE, *parts[1:], TWO)[0].session_id != "t"
    ends_with_a_tool = {"t": after(asked, parts[:2], None)}
    assert find(ends_with_a_tool, ONE, *parts[:2], TWO)[0].seen == 3
    assert find(ends_with_a_tool, ONE, parts[1], TWO)[0].session_id != "t"


@pytest.mark.parametrize(
    ("step", "is_replay", "goes_on"),
    [
        (3, False, True),
        (4, False, False),
        (2, False, False),
        (3, True, False),
        (None, False, 0),
    ],
)
def test_an_answer_that_never_came_into_the_state(
    step: int | None, is_replay: bool, goes_on: bool
) -> None:
    """A run that was stopped: LangGraph's next one begins two steps later."""
    known = {"t": after(digests_of([ONE])[-1], [FIRST], 1)}
    place, _ = find(known, ONE, TWO, step=step, is_replay=is_replay)
    assert (place.session_id == "t") == goes_on
    assert place.seen == (1 if goes_on else 0)


def test_without_a_step_an_answer_must_have_come() -> None:
    known = {"t": after(digests_of([ONE])[-1], [FIRST], None)}
    assert find(known, ONE, TWO, step=2)[0].session_id != "t"


@pytest.mark.parametrize(
    ("other", "is_own"),
    [
        (answer("1", "t-0123456789abcdef"), True),
        (answer("1", "t-0123456789abcdef", agent=None), True),  # as 0.1 wrote it
        (answer("1", "t-0123456789abcdef", agent="ag_2"), False),
        (answer("1", "t-0123456789abcdeg"), False),
        (answer("1", "t-0123456789abcde"), False),
        (answer("1", "t-0123456789abcdef0"), False),
        (answer("1", "s-0123456789abcdef"), False),
        (answer("1", "xt-0123456789abcdef"), False),
        (AIMessage("1", response_metadata={"session_id": "t-0123456789abcdef"}), False),
        (AIMessage("1"), False),
        (HumanMessage("1"), False),
    ],
)
def test_whose_session_an_answer_names(other: BaseMessage, is_own: bool) -> None:
    _, asked = find({}, ONE, other, TWO)
    assert asked == ["t-0123456789abcdef" if is_own else "t"]


def test_the_last_answer_names_the_session() -> None:
    branch = "t-0123456789abcdef"
    assert find({}, ONE, FIRST, TWO, answer("2", branch), THREE)[1] == [branch]
    assert find({}, ONE, answer("2", branch), TWO, FIRST, THREE)[1] == ["t"]
    tool = ToolMessage("1", tool_call_id="1")
    tool.response_metadata = answer("", branch).response_metadata
    assert find({}, ONE, tool, TWO)[1] == [branch]


def test_a_threads_name_is_no_pattern() -> None:
    finding = place_of(NextTurn("a.b", AGENT, [answer("1", "axb-0123456789abcdef")]))
    assert next(finding) == "a.b"


def test_what_a_digest_tells_apart() -> None:
    call = {"name": "x", "args": {"a": 1}, "id": "1"}
    different = [
        HumanMessage("a"),
        HumanMessage("b"),
        SystemMessage("a"),
        AIMessage("a"),
        AIMessage("a", tool_calls=[call]),
        AIMessage("a", tool_calls=[{**call, "args": {"a": 2}}]),
        AIMessage("a", tool_calls=[{**call, "name": "y"}]),
        ToolMessage("a", tool_call_id="1"),
        ToolMessage("a", tool_call_id="1", status="error"),
        HumanMessage([{"type": "text", "text": "a"}]),
    ]
    assert len({digests_of([message])[-1] for message in different}) == len(different)
    assert digests_of([HumanMessage("a"), HumanMessage("b")]) != digests_of(
        [HumanMessage("b"), HumanMessage("a")]
    )


def test_what_makes_no_difference_to_a_digest() -> None:
    same = [
        AIMessage("a"),
        AIMessage("a", id="1", name="hosted"),
        AIMessageChunk("a"),
        answer("a"),
    ]
    assert len({digests_of([message])[-1] for message in same}) == 1
    blocks = [{"b": 1, "a": object}], [{"a": object, "b": 1}]
    assert digests_of([HumanMessage(blocks[0])]) == digests_of([HumanMessage(blocks[1])])  # type: ignore[arg-type]


def test_a_beginning_has_the_digest_of_its_own() -> None:
    digests = digests_of([ONE, FIRST, TWO])
    assert len(digests) == 4
    assert digests[:2] == digests_of([ONE])
    assert digests_of([TWO], digests[2])[-1] == digests[3]


def test_a_store_keeps_it_all() -> None:
    seen = after("d", [FIRST], 7)
    assert Seen.from_dict(seen.to_dict()) == seen
    assert seen.asked == "d"
    assert seen.step == 7
    assert Seen.from_dict({"whole": "w", "later": 1}) == Seen("w")
    assert find({"t": Seen.from_dict({})}, ONE, TWO)[0].session_id != "t"


def test_behind_the_last_answer_there_is_nothing_to_say() -> None:
    """So the call is refused, as without forks; nothing goes out a second time."""
    known = {"t": after(digests_of([ONE])[-1], [FIRST], None)}
    place, asked = find(known, ONE, FIRST)
    assert (place.session_id, place.seen, asked) == ("t", 2, ["t"])


def test_an_edited_last_answer_begins_a_branch() -> None:
    known = {"t": after(digests_of([ONE])[-1], [FIRST], None)}
    place, _ = find(known, ONE, answer("edited"))
    assert place.session_id.startswith("t-")
    assert place.seen == 0
