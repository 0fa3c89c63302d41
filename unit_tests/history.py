"""What of a history is sent, with the tools of answers written out as the front door does."""

from __future__ import annotations

from functools import partial

from langchain_thinnest._answer.server_tools import expand_server_tools
from langchain_thinnest._request import messages

to_text = partial(messages.to_text, expand=expand_server_tools)
tool_call_ids = partial(messages.tool_call_ids, expand=expand_server_tools)
