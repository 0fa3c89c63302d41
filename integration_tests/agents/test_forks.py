"""Sessions follow forks: the graph's state is the truth, and the server's memory follows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.store.memory import InMemoryStore
from langgraph_supervisor import create_supervisor

from integration_tests.conftest import KEY, Make, example_agent
from integration_tests.warm import Cold, Warm, warmed_up
from langchain_thinnest import (
    ChatThinnest,
    ThinnestBalanceError,
    ThinnestError,
    ThinnestInterruptedError,
    ThinnestRequestError,
    create_thinnest_agent,
)
from langchain_thinnest.emulator import Fault, ThinnestEmulator

CONFIG: Any = {"configurable": {"thread_id": "t"}}


class Thread:
    """A thread of a graph, sync or async, and what the server was sent for it."""

    def __init__(self, emulator: ThinnestEmulator, graph: Any, is_async: bool) -> None:
        self.emulator = emulator
        self.graph = graph
        self.is_async = is_async

    def run(self, given: Any, config: Any = CONFIG) -> list[AnyMessage]:
        given = given if given is None else {"messages": given}
        if self.is_async:
            return asyncio.run(self.graph.ainvoke(given, config))["messages"]
        return self.graph.invoke(given, config)["messages"]

    def say(self, given: Any, config: Any = CONFIG) -> tuple[str, str, str]:
        """Run a turn; return the session, what was sent, and the answer."""
        before = len(self.emulator.requests)
        messages = self.run(given, config)
        (request,) = self.emulator.requests[before:]
        assert messages[-1].response_metadata["session_id"] == request["session_id"]
        return request["session_id"], request["message"], messages[-1].text

    @property
    def messages(self) -> list[AnyMessage]:
        return self.graph.get_state(CONFIG).values["messages"]

    def checkpoint(self, *texts: str, of_next: tuple[str, ...] = ()) -> Any:
        """The latest checkpoint with these messages."""
        for state in self.graph.get_state_history(CONFIG):
            found = tuple(message.text for message in state.values.get("messages", []))
            if found == texts and bool(state.next) == bool(of_next):
                return state.config
        raise AssertionError(texts)


def alone(model: ChatThinnest, **options: Any) -> Any:
    return create_thinnest_agent(model, checkpointer=InMemorySaver(), **options)


def nested(model: ChatThinnest, **options: Any) -> Any:
    parent = StateGraph(MessagesState)
    parent.add_node("sub", create_thinnest_agent(model, name="hosted"))
    parent.add_edge(START, "sub")
    return parent.compile(checkpointer=InMemorySaver(), **options)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(params=[False, True], ids=["process", "store"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Where it is kept what sessions have seen."""
    return {"store": InMemoryStore()} if request.param else {}


@pytest.fixture(params=[alone, nested])
def thread(
    request: pytest.FixtureRequest,
    emulator: ThinnestEmulator,
    make: Make,
    is_async: bool,
    options: dict[str, Any],
) -> Thread:
    model = make("ag_echo", session_key="thread_id", max_retries=0)
    return Thread(emulator, request.param(model, **options), is_async)


@pytest.fixture
def simple(emulator: ThinnestEmulator, make: Make, is_async: bool) -> Thread:
    model = make("ag_echo", session_key="thread_id", max_retries=0)
    return Thread(emulator, alone(model), is_async)


def test_a_thread_that_goes_on_is_one_session(thread: Thread) -> None:
    assert thread.say("one") == ("t", "one", "0: one")
    assert thread.say("two") == ("t", "two", "1: two")
    assert thread.say([HumanMessage("three"), HumanMessage("four")])[:2] == (
        "t",
        "User: three\n\nUser: four",
    )


def test_time_travel_begins_a_branch_and_the_old_one_goes_on(thread: Thread) -> None:
    thread.say("one")
    thread.say("two")
    ends = {"old": thread.checkpoint("one", "0: one", "two", "1: two")}
    session, message, answer = thread.say("three", thread.checkpoint("one", "0: one"))
    assert session.startswith("t-")
    assert message == "User: one\n\nAssistant: 0: one\n\nUser: three".replace(
        "Assistant:", _label(thread)
    )
    assert answer.startswith("0: ")  # the server has heard nothing in this session
    assert thread.say("four")[:2] == (session, "four")
    assert thread.say("five", ends["old"]) == ("t", "five", "2: five")
    assert thread.say("six")[:2] == ("t", "six")


def _label(thread: Thread) -> str:
    named = thread.messages[-1].name
    return f"Assistant ({named}):" if named else "Assistant:"


def test_an_answer_generated_again_is_of_another_session(thread: Thread) -> None:
    thread.say("one")
    before = thread.checkpoint("one", of_next=("agent",))
    first = thread.say(None, before)
    assert first[0].startswith("t-")
    assert first[1:] == ("one", "0: one")
    second = thread.say(None, before)
    assert second[0].startswith("t-")
    assert second[0] != first[0]
    assert thread.say("two")[:2] == (second[0], "two")


def test_a_removed_answer_is_forgotten(thread: Thread) -> None:
    thread.say("one")
    answer = thread.messages[-1]
    session, message, _ = thread.say([RemoveMessage(id=answer.id), HumanMessage("two")])
    assert session.startswith("t-")
    assert message == "User: one\n\nUser: two"
    assert thread.say("three")[:2] == (session, "three")


def test_a_removed_question_is_forgotten(thread: Thread) -> None:
    thread.say("one")
    thread.say("two")
    question = thread.messages[0]
    session, message, _ = thread.say([RemoveMessage(id=question.id), HumanMessage("three")])
    assert session.startswith("t-")
    assert "one" not in message.replace("0: one", "")
    assert thread.say("four")[:2] == (session, "four")


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("keeps_metadata", [False, True])
def test_an_edited_message_begins_a_branch(
    thread: Thread, which: int, keeps_metadata: bool
) -> None:
    thread.say("one")
    edited = thread.messages[which].model_copy(update={"content": "edited"})
    if not keeps_metadata:
        edited.response_metadata = {}
    thread.graph.update_state(CONFIG, {"messages": [edited]})
    session, message, _ = thread.say("two")
    assert session.startswith("t-")
    assert "edited" in message
    assert thread.say("three")[:2] == (session, "three")
    again = thread.messages[which].model_copy(update={"content": "edited again"})
    thread.graph.update_state(CONFIG, {"messages": [again]})
    third, message, _ = thread.say("four")
    assert third not in ("t", session)
    assert "edited again" in message


def test_a_message_that_is_added_behind_is_sent(thread: Thread) -> None:
    thread.say("one")
    thread.graph.update_state(CONFIG, {"messages": [SystemMessage("Be brief.")]})
    assert thread.say("two")[:2] == ("t", "System: Be brief.\n\nUser: two")


@pytest.mark.parametrize("after", [0, 1])
def test_what_was_sent_counts_though_the_answer_was_cut(thread: Thread, after: int) -> None:
    thread.emulator.fail_next(Fault.cut(after=after))
    with pytest.raises(ThinnestInterruptedError):
        thread.run("one")
    assert thread.say("two")[:2] == ("t", "two")
    assert thread.say("three")[:2] == ("t", "three")


def test_a_branch_whose_answer_was_cut_is_stayed_on(thread: Thread) -> None:
    thread.say("one")
    edited = thread.messages[0].model_copy(update={"content": "edited"})
    thread.graph.update_state(CONFIG, {"messages": [edited]})
    thread.emulator.fail_next(Fault.cut(after=1))
    with pytest.raises(ThinnestInterruptedError):
        thread.run("two")
    branch = thread.emulator.requests[-1]["session_id"]
    assert branch.startswith("t-")
    assert thread.say("three")[:2] == (branch, "three")


def test_what_the_server_did_not_take_is_sent_with_the_next_turn(thread: Thread) -> None:
    thread.say("one")
    thread.emulator.fail_next(Fault.status(402))
    with pytest.raises(ThinnestBalanceError):
        thread.run("two")
    assert thread.say("three")[:2] == ("t", "User: two\n\nUser: three")


def test_a_turn_that_failed_and_is_run_again_is_of_another_session(thread: Thread) -> None:
    thread.emulator.fail_next(Fault.cut(after=1))
    with pytest.raises(ThinnestError):
        thread.run("one")
    session, message, answer = thread.say(None)
    assert session.startswith("t-")
    assert (message, answer) == ("one", "0: one")


def test_a_stopped_answer_counts_as_seen(simple: Thread, emulator: ThinnestEmulator) -> None:
    """Whoever stops listening stops the run: its answer never comes into the state."""

    async def stop() -> None:
        stream = simple.graph.astream({"messages": "one"}, CONFIG, stream_mode="messages")
        async for _ in stream:
            break
        await stream.aclose()

    if simple.is_async:
        asyncio.run(stop())
    else:
        stream = simple.graph.stream({"messages": "one"}, CONFIG, stream_mode="messages")
        next(stream)
        stream.close()
    assert simple.say("two")[:2] == ("t", "two")
    assert [request["message"] for request in emulator.requests] == ["one", "two"]


async def test_a_cancelled_answer_counts_as_seen(
    emulator_of: Any, options: dict[str, Any]
) -> None:
    emulator, model = emulator_of("ag_slow")
    thread = Thread(emulator, alone(model, **options), True)
    begun = asyncio.Event()

    given: Any = {"messages": "one"}

    async def listen() -> None:
        async for _ in thread.graph.astream(given, CONFIG, stream_mode="messages"):
            begun.set()

    task = asyncio.create_task(listen())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await thread.graph.ainvoke({"messages": "two"}, CONFIG)
    assert [(r["session_id"], r["message"]) for r in emulator.requests] == [
        ("t", "one"),
        ("t", "two"),
    ]


@pytest.fixture
def emulator_of() -> Iterator[Any]:
    """An emulator, and a model of one of its agents, which answers slowly."""

    async def slow(message: str, _: Any) -> Any:
        yield "begun "
        await asyncio.sleep(0.5 if message == "one" else 0)
        yield "done"

    with ThinnestEmulator({"ag_slow": slow}, api_keys=[KEY]) as emulator:

        def make(agent: str) -> tuple[ThinnestEmulator, ChatThinnest]:
            return emulator, ChatThinnest(
                agent_id=agent,
                api_key=KEY,
                base_url=emulator.base_url,
                session_key="thread_id",
            )

        yield make


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")  # its own, not ours
@pytest.mark.parametrize("mode", ["last_message", "full_history"])
def test_under_a_supervisor(is_async: bool, options: dict[str, Any], mode: Any) -> None:
    """By default only the last message of an agent's turn comes into its state."""
    handed_over = False

    def boss(message: str, _: Any) -> str:
        nonlocal handed_over
        handed_over = not handed_over
        call = '{"name": "transfer_to_hosted", "arguments": {}}'
        return f"<tool_call>{call}</tool_call>" if handed_over else "All done."

    agents: Any = {"ag_boss": boss, "ag_hosted": example_agent}
    with ThinnestEmulator(agents, api_keys=[KEY]) as emulator:
        model = ChatThinnest(agent_id="ag_boss", api_key=KEY, base_url=emulator.base_url)
        hosted = model.model_copy(update={"agent_id": "ag_hosted", "session_key": "thread_id"})
        agent = create_thinnest_agent(hosted, name="hosted")
        graph = create_supervisor([agent], model=model, output_mode=mode)
        thread = Thread(
            emulator, graph.compile(checkpointer=InMemorySaver(), **options), is_async
        )

        def asked(text: str) -> tuple[str, str]:
            thread.run(text)
            (request,) = [
                request
                for request in emulator.requests[-3:]
                if request["agent_id"] == "ag_hosted"
            ]
            return request["session_id"], request["message"]

        for text in ("one", "two", "three"):
            session, message = asked(text)
            assert session == "t"
            assert message.count("User: ") == 1
            assert f"User: {text}" in message
        first = thread.messages[0].model_copy(update={"content": "edited"})
        thread.graph.update_state(CONFIG, {"messages": [first]}, as_node="supervisor")
        branch, message = asked("four")
        assert branch.startswith("t-")
        assert message.startswith("User: edited")
        session, message = asked("five")
        assert session == branch
        assert "User: edited" not in message


def test_tools_of_the_server_are_of_the_state_too(
    emulator: ThinnestEmulator, make: Make, is_async: bool
) -> None:
    graph = alone(make("ag_example", session_key="thread_id"))
    thread = Thread(emulator, graph, is_async)
    thread.say("one")
    assert thread.say("two")[:2] == ("t", "two")
    tool = next(m for m in thread.messages if m.type == "tool")
    edited = tool.model_copy(update={"content": "edited"})
    graph.update_state(CONFIG, {"messages": [edited]})
    session, message, _ = thread.say("three")
    assert session.startswith("t-")
    assert "edited" in message


def test_two_agents_of_one_thread_have_branches_of_their_own(
    emulator: ThinnestEmulator, make: Make, is_async: bool
) -> None:
    parent = StateGraph(MessagesState)
    for name, agent in (("first", "ag_echo"), ("second", "ag_example")):
        model = make(agent, session_key="thread_id")
        parent.add_node(name, create_thinnest_agent(model, name=name))
    parent.add_edge(START, "first")
    parent.add_edge("first", "second")
    thread = Thread(emulator, parent.compile(checkpointer=InMemorySaver()), is_async)
    for text in ("one", "two"):
        thread.run(text)
    assert {request["session_id"] for request in emulator.requests} == {"t"}
    edited = thread.messages[0].model_copy(update={"content": "edited"})
    thread.graph.update_state(CONFIG, {"messages": [edited]}, as_node="second")
    thread.run("three")
    branches = [request["session_id"] for request in emulator.requests[-2:]]
    assert all(branch.startswith("t-") for branch in branches)
    thread.run("four")
    assert [request["session_id"] for request in emulator.requests[-2:]] == branches


def test_a_history_of_role_and_text_alone_goes_on_too(
    emulator: ThinnestEmulator, make: Make, is_async: bool
) -> None:
    """A page that keeps its messages itself, without ids and metadata."""
    thread = Thread(
        emulator, create_thinnest_agent(make("ag_echo", session_key="thread_id")), is_async
    )
    history: list[Any] = []
    for text in ("one", "two", "three"):
        history.append(HumanMessage(text))
        session, message, answer = thread.say([*history])
        assert (session, message) == ("t", text)
        history.append(AIMessage(answer))
    history[0] = HumanMessage("edited")
    session, _, answer = thread.say([*history, HumanMessage("four")])
    assert session.startswith("t-")
    history += [HumanMessage("four"), AIMessage(answer), HumanMessage("five")]
    assert thread.say(history)[:2] == (session, "five")


def test_a_graph_made_for_each_request_knows_its_threads(
    emulator: ThinnestEmulator, make: Make, is_async: bool
) -> None:
    saver = InMemorySaver()

    def thread() -> Thread:
        model = make("ag_echo", session_key="thread_id")
        return Thread(emulator, create_thinnest_agent(model, checkpointer=saver), is_async)

    thread().say("one")
    assert thread().say("two")[:2] == ("t", "two")
    answer = thread().messages[-1]
    session, _, _ = thread().say([RemoveMessage(id=answer.id), HumanMessage("three")])
    assert session.startswith("t-")


@pytest.mark.parametrize("key", ["session_id", "conversation"])
def test_a_session_that_the_caller_names_is_the_callers(
    emulator: ThinnestEmulator, make: Make, is_async: bool, key: str
) -> None:
    """It may be one memory for several threads: no branch is made of it."""
    graph = alone(make("ag_echo", session_key=key))
    for thread_id in ("a", "b"):
        config = {"configurable": {"thread_id": thread_id, key: "mine"}}
        Thread(emulator, graph, is_async).say(thread_id, config)
    assert [request["session_id"] for request in emulator.requests] == ["mine", "mine"]


PROCESS = """
import sys
from langchain_core.messages import HumanMessage, RemoveMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.store.sqlite import SqliteStore
from langchain_thinnest import ChatThinnest, create_thinnest_agent

url, path, has_store, text = sys.argv[1:]
model = ChatThinnest(
    agent_id="ag_echo", api_key="KEY", base_url=url, session_key="thread_id"
)
config = {"configurable": {"thread_id": "t"}}
with SqliteSaver.from_conn_string(path + "/threads") as saver, \\
        SqliteStore.from_conn_string(path + "/store") as store:
    store.setup()
    agent = create_thinnest_agent(
        model, checkpointer=saver, store=store if has_store == "True" else None
    )
    given = [HumanMessage(text)]
    if text == "removed":
        given.insert(0, RemoveMessage(id=agent.get_state(config).values["messages"][-1].id))
    agent.invoke({"messages": given}, config)
""".replace("KEY", KEY)


@pytest.fixture(scope="module")
def python() -> Iterator[Warm | Cold]:
    """Runs code in processes of their own."""
    modules = ["langchain_thinnest.agents", "langchain_thinnest.chat_models"]
    modules += ["langgraph.checkpoint.sqlite", "langgraph.store.sqlite"]
    warm = warmed_up(*modules)
    yield warm
    warm.close()


@pytest.mark.parametrize("has_store", [True, False])
def test_processes(
    emulator: ThinnestEmulator, tmp_path: Path, has_store: bool, python: Warm | Cold
) -> None:
    """A store tells other processes; without one the state alone says what a session saw."""
    for text in ("one", "two", "removed", "after"):
        arguments = [emulator.base_url, str(tmp_path), str(has_store), text]
        done = python.run(["-c", PROCESS, *arguments])
        assert done.returncode == 0, done.stderr
    sessions = [request["session_id"] for request in emulator.requests]
    assert sessions[:2] == ["t", "t"]
    assert emulator.requests[1]["message"] == "two"
    assert emulator.requests[3]["message"] == "after"
    if has_store:
        assert sessions[2].startswith("t-")
        assert sessions[3] == sessions[2]
    else:  # as the docs say: taken for the continuation
        assert sessions[2:] == ["t", "t"]


class FailingStore(InMemoryStore):
    """A store that takes nothing."""

    def put(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("the store is full")

    async def aput(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("the store is full")


def test_a_store_that_takes_nothing_costs_no_answer(
    emulator: ThinnestEmulator, make: Make, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    graph = alone(make("ag_echo", session_key="thread_id"), store=FailingStore())
    thread = Thread(emulator, graph, is_async)
    assert thread.say("one") == ("t", "one", "0: one")
    assert thread.say("two") == ("t", "two", "1: two")  # this process knows
    assert "did not take what session 't' has seen" in caplog.text
    assert KEY not in caplog.text


def test_a_run_without_anything_new_is_refused(thread: Thread) -> None:
    thread.say("one")
    before = len(thread.emulator.requests)
    with pytest.raises(ThinnestRequestError, match="There is nothing to send"):
        thread.run([])
    assert len(thread.emulator.requests) == before
    assert thread.say("two")[:2] == ("t", "two")


def test_an_edited_last_answer_is_of_another_session(thread: Thread) -> None:
    """Also where nothing follows it: a graph may ask the agent to go on."""
    thread.say("one")
    edited = thread.messages[-1].model_copy(update={"content": "edited"})
    session, message, _ = thread.say([edited])
    assert session.startswith("t-")
    assert message.endswith("edited")
