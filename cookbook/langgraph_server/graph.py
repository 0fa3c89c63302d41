"""A hosted agent as a graph for `langgraph dev`, which brings its own checkpointer."""

from langchain_thinnest import ChatThinnest, create_thinnest_agent

# A thread of the server is a session of the API.
agent = create_thinnest_agent(ChatThinnest(session_key="thread_id"), name="thinnest")
