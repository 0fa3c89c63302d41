"""Serves the chat page: `python cookbook/chat_page [--headless] [--port 8000]`.

It asks the agent of the environment, or without one the emulator's demo agent.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from langchain_thinnest.emulator import ThinnestEmulator, demo_agent

HERE = Path(__file__).parent
os.environ.setdefault("CHAINLIT_APP_ROOT", str(HERE))  # where its configuration is


def slow_demo_agent(message, session):
    """The demo agent, as slow as one with a model."""
    for item in demo_agent(message, session):
        time.sleep(0.05 if isinstance(item, str) else 0.5)
        yield item


def serve() -> None:
    from chainlit.cli import cli

    cli(["run", str(HERE / "app.py"), *sys.argv[1:]])


if __name__ == "__main__":
    key = os.environ.get("THINNEST_API_KEY") or os.environ.get("THINNESTAI_API_KEY")
    if key and "THINNEST_AGENT_ID" in os.environ:
        serve()
    with ThinnestEmulator({"ag_demo": slow_demo_agent}) as emulator:
        print("Without THINNEST_AGENT_ID and THINNEST_API_KEY: the emulator's demo agent.")
        os.environ["THINNEST_AGENT_ID"] = "ag_demo"
        os.environ["THINNEST_API_KEY"] = emulator.api_key
        os.environ["THINNEST_BASE_URL"] = emulator.base_url
        serve()
