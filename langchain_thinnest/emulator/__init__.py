"""The vendor's `/chat/stream` on loopback, for the demo, the tests, and your own tests.

Example:
    ```python
    from langchain_thinnest import ChatThinnest
    from langchain_thinnest.emulator import ThinnestEmulator

    def agent(message, session):
        yield "You said: "
        yield message

    with ThinnestEmulator({"ag_echo": agent}) as emulator:
        model = ChatThinnest(
            agent_id="ag_echo", api_key=emulator.api_key, base_url=emulator.base_url
        )
        print(model.invoke("Hello").text)
    ```

It needs the extra `emulator`: `pip install "langchain-thinnest[emulator]"`.
"""

try:
    from langchain_thinnest.emulator.demo import demo_agent
    from langchain_thinnest.emulator.protocol import protocol_agent
    from langchain_thinnest.emulator.server import ThinnestEmulator
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing not in ("starlette", "uvicorn", "simpleeval"):
        raise
    raise ImportError(
        f"The emulator needs {missing}, which is not installed: "
        'pip install "langchain-thinnest[emulator]"'
    ) from error
from langchain_thinnest.emulator.agents import Session
from langchain_thinnest.emulator.faults import Fault

__all__ = ["Fault", "Session", "ThinnestEmulator", "demo_agent", "protocol_agent"]
