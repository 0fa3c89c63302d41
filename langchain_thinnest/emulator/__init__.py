"""The vendor's chat API on loopback, for the demo, the tests, and your own tests.

    with ThinnestEmulator({"ag_1": ["Hello, ", "Ada."]}) as it:
        model = ChatThinnest(model="ag_1", api_key=it.api_key, base_url=it.base_url)

It needs the extra `emulator`. `langchain_thinnest.emulator.pytest` has a fixture.
"""

try:
    from langchain_thinnest.emulator.agents import Fault, Session
    from langchain_thinnest.emulator.demo import demo_agent
    from langchain_thinnest.emulator.server import ThinnestEmulator
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing not in ("starlette", "uvicorn", "simpleeval"):
        raise
    install = 'pip install "langchain-thinnest[emulator]"'
    message = f"The emulator needs {missing}, which is not installed: {install}"
    raise ImportError(message) from error

__all__ = ["Fault", "Session", "ThinnestEmulator", "demo_agent"]
