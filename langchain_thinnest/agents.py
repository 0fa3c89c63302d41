"""A hosted agent as a LangGraph graph: `create_thinnest_agent`.

The graph has one node, which asks the agent and appends the answer to the state the way an
agent loop would have written it: AI messages that call, tool messages, an AI message.

In LangGraph's `messages` mode each piece of text and each tool message appears exactly once,
in order. LangGraph streams a model's chunks by itself, and at a node's end all messages whose
ids it has not seen. So the chunks of each AI message carry the id that it will have in the
state, and a tool message is shown to LangGraph the moment its result arrives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.runnables.config import merge_configs
from langchain_core.utils.utils import LC_ID_PREFIX

from langchain_thinnest._answer.message import as_tool_message
from langchain_thinnest._answer.server_tools import expand
from langchain_thinnest._names import SERVER_TOOLS
from langchain_thinnest.chat_models import SEGMENT_ID, ChatThinnest

try:
    from langgraph.constants import TAG_NOSTREAM
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.pregel._messages import StreamMessagesHandler
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
    remembers, and only what is new is sent. The server has no checkpoints, though: if you
    fork a thread, edit its state, or generate an answer again, the graph's state goes back
    and the server's memory does not. It remembers both branches, mixed. Parallel runs on one
    thread mix their turns in the same way. Without a session the whole transcript is sent
    each time, and the state alone is the memory: then forks and edits do what they say.

    Args:
        model: The agent to ask.
        name: The graph's name, by which a supervisor knows it; it is also the `name` of the
            agent's messages.
        checkpointer: Saves the state of each thread.
        store: A store for the graph.

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

    def call(state: MessagesState, config: RunnableConfig) -> dict[str, list[BaseMessage]]:
        turn = _AgentTurn(model, config, name)
        answer = model.invoke(state["messages"], turn.config, **turn.arguments)
        return turn.update(answer)

    async def acall(
        state: MessagesState, config: RunnableConfig
    ) -> dict[str, list[BaseMessage]]:
        turn = _AgentTurn(model, config, name)
        answer = await model.ainvoke(state["messages"], turn.config, **turn.arguments)
        return turn.update(answer)

    node = name or "agent"
    graph = StateGraph(MessagesState)
    graph.add_node(node, RunnableLambda(call, acall, name=node))
    graph.add_edge(START, node)
    return graph.compile(checkpointer=checkpointer, store=store, name=name)


class _AgentTurn:
    """One run of the graph's node: calls the model and makes the state's update."""

    def __init__(self, model: ChatThinnest, config: RunnableConfig, name: str | None) -> None:
        self._id = f"{LC_ID_PREFIX}-{uuid4()}"
        self._name = name
        self._shows = _ShowsToolMessages(config)
        # A model that does not stream is shown by its whole messages, at the node's end.
        streams = not model._streaming_disabled()  # noqa: SLF001
        self.config = merge_configs(
            config,
            {"callbacks": [self._shows]} if streams else {"tags": [TAG_NOSTREAM]},
        )
        self.arguments: dict[str, Any] = {SEGMENT_ID: self._id}

    def update(self, answer: AIMessage) -> dict[str, list[BaseMessage]]:
        """The messages to append to the state."""
        messages = expand(answer.model_copy(update={"name": self._name}), self._id)
        self._shows.note(messages)
        return {"messages": messages}


class _ShowsToolMessages(BaseCallbackHandler):
    """Sends each tool message to LangGraph's `messages` stream when its result arrives.

    LangGraph shows what a run that is named after its node returns, so that is what it is
    told of. No other handler sees these runs.
    """

    run_inline = True

    def __init__(self, config: RunnableConfig) -> None:
        callbacks = config.get("callbacks")
        handlers = (
            callbacks if isinstance(callbacks, list) else getattr(callbacks, "handlers", [])
        )
        self._streams = [h for h in handlers if isinstance(h, StreamMessagesHandler)]
        self._metadata = config.get("metadata") or {}
        self._has_streamed = False

    def on_llm_new_token(self, *_: Any, chunk: Any = None, **__: Any) -> None:
        self._has_streamed = True
        raw = chunk.message.additional_kwargs.get(SERVER_TOOLS, ()) if chunk else ()
        for tool in raw:
            if tool["type"] == "result":
                self._show(as_tool_message(tool["id"], tool["name"], tool["result"]))

    def on_stream_event(self, *_: Any, **__: Any) -> None:
        self._has_streamed = True

    def _show(self, message: ToolMessage) -> None:
        for stream in self._streams:
            run_id = uuid4()
            stream.on_chain_start(
                {},
                {},
                run_id=run_id,
                metadata=self._metadata,
                name=self._metadata.get("langgraph_node"),
            )
            stream.on_chain_end(message, run_id=run_id)

    def note(self, messages: list[BaseMessage]) -> None:
        """Mark streamed AI messages as seen, so that they are not streamed again."""
        if self._has_streamed:
            ids = {m.id for m in messages if m.id and isinstance(m, AIMessage)}
            for stream in self._streams:
                stream.seen.update(ids)
