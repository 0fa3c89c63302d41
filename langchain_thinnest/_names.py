"""Names that several rooms share: what stands in messages, and the tags of local calls."""

from __future__ import annotations

PROVIDER = "thinnest"
"""`response_metadata["model_provider"]`, and whose translator makes the content blocks."""

# Keys of `additional_kwargs`; `_answer/content_blocks.py` says what is under them.
SERVER_TOOLS = "server_tools"
POSITIONS = "tool_call_positions"
SURROUNDINGS = "tool_surroundings"

# What a local tool's call stands between: asked for in `_request`, read in `_answer`.
CALL_START = "<tool_call>"
CALL_END = "</tool_call>"

BOXED = "value"
"""The one parameter of a tool that takes a typed answer which is no object."""
