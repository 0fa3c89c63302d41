"""The vendor's chat API on loopback, for the demo, the tests, and your own tests.

    with ThinnestEmulator({"ag_echo": lambda message, session: message}) as emulator:
        model = ChatThinnest(
            agent_id="ag_echo", api_key=emulator.api_key, base_url=emulator.base_url
        )

It needs the extra `emulator`. `langchain_thinnest.emulator.pytest` has a fixture.
"""

try:
    from langchain_thinnest.emulator.agents import Session
    from langchain_thinnest.emulator.demo import demo_agent
    from langchain_thinnest.emulator.faults import Fault
    from langchain_thinnest.emulator.server import ThinnestEmulator
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing not in ("starlette", "uvicorn", "simpleeval"):
        raise
    install = 'pip install "langchain-thinnest[emulator]"'
    message = f"The emulator needs {missing}, which is not installed: {install}"
    raise ImportError(message) from error

__all__ = ["Fault", "Session", "ThinnestEmulator", "demo_agent"]
