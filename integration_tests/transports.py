"""Which transport tests use: `THINNEST_TEST_TRANSPORT=fast` runs them over that one."""

from __future__ import annotations

import os

from langchain_thinnest import ChatThinnest

TRANSPORT = os.environ.get("THINNEST_TEST_TRANSPORT", "httpx")


def use_it() -> None:
    """Make it the default of all models in this process."""
    if ChatThinnest.model_fields["transport"].default != TRANSPORT:
        ChatThinnest.model_fields["transport"].default = TRANSPORT
        ChatThinnest.model_rebuild(force=True)
