"""The bytes of one answer → events → a turn → LangChain's views of it. Does no I/O."""
