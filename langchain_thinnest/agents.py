"""A hosted agent as a LangGraph graph: `create_thinnest_agent`.

The graph has one node, which asks the agent and appends the answer to the state the way an
agent loop would have written it: AI messages that call, tool messages, an AI message.

In LangGraph's `messages` mode each piece of text, each call and each tool message appears
exactly once, in order. LangGraph streams a model's chunks by itself, and at a node's end all
messages whose ids it has not seen. So the chunks of each AI message carry the id that it will
have in the state. Calls and tool messages are pushed to LangGraph the moment they are known.

Which session a turn goes to, `_forks.py` says.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from weakref import WeakKeyDictionary

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.runnables.config import merge_configs, set_config_context
from langchain_core.utils.utils import LC_ID_PREFIX
from typing_extensions import override

from langchain_thinnest._answer.message import tool_message
from langchain_thinnest._answer.server_tools import expand
from langchain_thinnest._answer.turn import ServerToolCall, ServerToolResult
from langchain_thinnest._forks import NextTurn, Place, Seen, after, place_of
from langchain_thinnest._names import PROVIDER
from langchain_thinnest._request.body import checked_id
from langchain_thinnest._sessions import RecentSessions, SessionRecords
from langchain_thinnest.chat_models import GRAPH_TURN, ChatThinnest

try:
    from langgraph.constants import TAG_NOSTREAM
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.graph.message import push_message
    from langgraph.runtime import get_runtime
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "langgraph":
        raise
    raise ImportError(
        "create_thinnest_agent needs langgraph, which is not installed: "
        'pip install "langchain-thinnest[langgraph]"'
    ) from error

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph
    from langgraph.store.base import BaseStore
    from langgraph.types import Checkpointer


def create_thinnest_agent(
    model: ChatThinnest,
    *,
    name: str | None = None,
    checkpointer: Checkpointer = None,
    store: BaseStore | None = None,
) -> CompiledStateGraph[MessagesState, None, MessagesState, MessagesState]:
    """Make a LangGraph graph of a hosted agent.

    Use it alone, as a node of a bigger graph, under a supervisor, or as a subagent. Each run
    sends one message, whatever the number of stream modes. Answers are not cached, since an
    agent acts.

    With `session_key="thread_id"` on the model, each thread is a session: the server
    remembers, and only what is new is sent. Sessions follow forks: where the thread's messages
    are not what the session saw (you went back to a checkpoint, edited or removed a message,
    or generated an answer again), the turn goes out as a transcript under a new session, which
    the branch keeps. What a session saw is kept in the graph's `store` if it has one, else in
    this process: without a store, the first turn after a restart is taken for the continuation
    of its session. Parallel runs on one thread may mix their turns. Without a session the
    whole transcript is sent each time, and the state alone is the memory.

    Args:
        model: The agent to ask.
        name: The graph's name, by which a supervisor knows it; it is also the `name` of the
            agent's messages.
        checkpointer: Saves the state of each thread.
        store: A store for the graph; what each session has seen is kept in it, too. A graph
            that is part of another one uses that one's store.

    Returns:
        A compiled graph on messages state.

    Raises:
        TypeError: If `model` is no `ChatThinnest`.
        ImportError: If the extra `langgraph` is not installed.

    Example:
        ```python
        from langgraph.checkpoint.memory import InMemorySaver

        agent = create_thinnest_agent(
            ChatThinnest(agent_id="ag_c47e7c97_b2f2", session_key="thread_id"),
            checkpointer=InMemorySaver(),
        )
        config = {"configurable": {"thread_id": "ada"}}
        agent.invoke({"messages": "What is machine learning?"}, config)
        ```
    """
    if not isinstance(model, ChatThinnest):
        raise TypeError(
            f"create_thinnest_agent takes a ChatThinnest, not {type(model).__name__}."
        )
    model = model.model_copy(update={"cache": False})

    # Named apart from the graph, so that a trace has one run of the agent's name.
    node = "model" if name == "agent" else "agent"
    graph = StateGraph(MessagesState)
    graph.add_node(node, _Node(model, name, _memory_of(checkpointer)))
    graph.add_edge(START, node)
    compiled = graph.compile(checkpointer=checkpointer, store=store, name=name)
    if name is None:
        return compiled
    return compiled.with_config({"metadata": {"lc_agent_name": name}})


_memories: WeakKeyDictionary[Any, RecentSessions[Seen]] = WeakKeyDictionary()


def _memory_of(checkpointer: Checkpointer) -> RecentSessions[Seen]:
    """Return what is known of a checkpointer's threads, as graphs may be made anew."""
    if checkpointer is None or isinstance(checkpointer, bool):
        return RecentSessions()
    return _memories.setdefault(checkpointer, RecentSessions())


class _Node(Runnable[MessagesState, Any]):
    """The graph's node. It is no run of its own in a trace: LangGraph's is enough."""

    def __init__(
        self, model: ChatThinnest, name: str | None, memory: RecentSessions[Seen]
    ) -> None:
        self._model = model
        self._agent_name = name
        self._memory = memory

    @override
    def invoke(
        self, input: MessagesState, config: RunnableConfig | None = None, **_: Any
    ) -> Any:
        turn = self._turn(input, config)
        answer = self._model.invoke(
            input["messages"], turn.config, **turn.find_session().arguments
        )
        messages = turn.expanded(answer)
        turn.answered(messages)
        return turn.update(messages)

    @override
    async def ainvoke(
        self, input: MessagesState, config: RunnableConfig | None = None, **_: Any
    ) -> Any:
        turn = self._turn(input, config)
        answer = await self._model.ainvoke(
            input["messages"], turn.config, **(await turn.afind_session()).arguments
        )
        messages = turn.expanded(answer)
        await turn.aanswered(messages)
        return turn.update(messages)

    def _turn(self, state: MessagesState, config: RunnableConfig | None) -> _GraphTurn:
        return _GraphTurn(
            self._model,
            state["messages"],
            ensure_config(config),
            self._agent_name,
            self._memory,
        )


class _GraphTurn:
    """One run of the node: finds its session, shows its tools, makes the state's update.

    Attributes:
        segment_id: What the ids of the answer's messages are made of.
        seen: How many of the messages the session has seen; `None` if that is not known.
        reports_events: LangGraph is told of the answer by content-block events.
    """

    def __init__(
        self,
        model: ChatThinnest,
        messages: list[Any],
        config: RunnableConfig,
        name: str | None,
        memory: RecentSessions[Seen],
    ) -> None:
        self.segment_id = f"{LC_ID_PREFIX}-{uuid4()}"
        self.seen: int | None = None
        self.reports_events = False
        self._agent_id = model.agent_id
        self._messages = messages
        self._name = name
        self._node_config = config
        tags = [*(config.get("tags") or ()), *(model.tags or ())]
        # A model that does not stream is shown by its whole messages, at the node's end.
        streams = not model._streaming_disabled()  # noqa: SLF001
        self._shows = streams and TAG_NOSTREAM not in tags
        self.config = config if streams else merge_configs(config, {"tags": [TAG_NOSTREAM]})
        self._calls = 0
        store: BaseStore | None = self._in_node(lambda: getattr(get_runtime(), "store", None))
        self._records = SessionRecords(memory, store)
        self._step: int | None = (config.get("metadata") or {}).get("langgraph_step")
        thread = (config.get("configurable") or {}).get("thread_id")
        self._thread = (
            None
            if thread is None or model.session_key != "thread_id"
            else checked_id("thread_id", thread)
        )
        self._place: Place | None = None

    def _in_node(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of LangGraph's that needs the node's context.

        Before Python 3.11, an async node has none by itself.
        """
        with set_config_context(self._node_config) as context:
            return context.run(function, *args, **kwargs)

    # --- its session ---

    @property
    def arguments(self) -> dict[str, Any]:
        """What the model's call is given."""
        session = {} if self._place is None else {"session_id": self._place.session_id}
        return {GRAPH_TURN: self, **session}

    def find_session(self) -> _GraphTurn:
        """Find the session that the turn goes to."""
        if self._thread is not None:
            finding = place_of(self._to_place(self._thread))
            try:
                session_id = next(finding)
                while True:
                    session_id = finding.send(
                        self._records.seen_by(self._agent_id, session_id)
                    )
            except StopIteration as found:
                self._found(found.value)
        return self

    async def afind_session(self) -> _GraphTurn:
        """The async twin of `find_session`."""
        if self._thread is not None:
            finding = place_of(self._to_place(self._thread))
            try:
                session_id = next(finding)
                while True:
                    session_id = finding.send(
                        await self._records.aseen_by(self._agent_id, session_id)
                    )
            except StopIteration as found:
                self._found(found.value)
        return self

    def _to_place(self, thread: str) -> NextTurn:
        is_replay = "checkpoint_id" in (self._node_config.get("metadata") or {})
        return NextTurn(thread, self._agent_id, self._messages, self._step, is_replay)

    def _found(self, place: Place) -> None:
        self._place = place
        self.seen = place.seen

    def opened(self) -> None:
        """Record that the session has seen the turn, whatever becomes of its answer."""
        if self._place is not None:
            seen = Seen(self._place.asked)
            self._records.record(self._agent_id, self._place.session_id, seen)

    async def aopened(self) -> None:
        """The async twin of `opened`."""
        if self._place is not None:
            seen = Seen(self._place.asked)
            await self._records.arecord(self._agent_id, self._place.session_id, seen)

    def answered(self, messages: list[BaseMessage]) -> None:
        """Record that the session has answered the turn."""
        if self._place is not None:
            seen = after(self._place.asked, messages, self._step)
            self._records.record(self._agent_id, self._place.session_id, seen)

    async def aanswered(self, messages: list[BaseMessage]) -> None:
        """The async twin of `answered`."""
        if self._place is not None:
            seen = after(self._place.asked, messages, self._step)
            await self._records.arecord(self._agent_id, self._place.session_id, seen)

    # --- its answer ---

    def show(self, piece: ServerToolCall | ServerToolResult, message_id: str | None) -> None:
        """Push a call or a result to LangGraph's `messages` stream, if there is one."""
        if not self._shows:
            return
        if isinstance(piece, ServerToolCall) or not piece.answers:
            self._push(self._call(piece, message_id))
        if isinstance(piece, ServerToolResult):
            self._push(tool_message(piece))

    def _call(
        self, piece: ServerToolCall | ServerToolResult, message_id: str | None
    ) -> AIMessageChunk:
        args = piece.args if isinstance(piece, ServerToolCall) else {}
        text = json.dumps(args, ensure_ascii=False)
        call = tool_call_chunk(name=piece.name, args=text, id=piece.id, index=self._calls)
        self._calls += 1
        return AIMessageChunk(
            content="",
            id=message_id,
            tool_call_chunks=[call],
            response_metadata={"model_provider": PROVIDER},
        )

    def _push(self, message: BaseMessage) -> None:
        self._in_node(push_message, message, state_key=None)

    def expanded(self, answer: AIMessage) -> list[BaseMessage]:
        """Write the answer as the messages of an agent loop."""
        return expand(answer.model_copy(update={"name": self._name}), self.segment_id)

    def update(self, messages: list[BaseMessage]) -> dict[str, list[BaseMessage]]:
        """Return what to append to the state."""
        update = {"messages": messages}
        if self.reports_events:
            self._count_as_shown(update)
        return update

    def _count_as_shown(self, update: dict[str, list[BaseMessage]]) -> None:
        """Keep LangGraph from showing the messages again, whole, at its nodes' ends.

        Events tell of the answer as one message, so its parts have ids that LangGraph has not
        seen. What a node is given counts as seen: so its handlers are told of a node that was
        given these. No other handler is.
        """
        callbacks: Any = self._node_config.get("callbacks")
        metadata = self._node_config.get("metadata") or {}
        for handler in getattr(callbacks, "handlers", callbacks or ()):
            if type(handler).__module__.startswith("langgraph."):
                run_id = uuid4()
                name = metadata.get("langgraph_node")
                handler.on_chain_start({}, update, run_id=run_id, metadata=metadata, name=name)
                handler.on_chain_end({}, run_id=run_id)
