"""What an editor shows over an argument: asked of a language server, as editors ask it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_thinnest._signatures import Calls, Constructor, help_of

pytest.importorskip("basedpyright")

ROOT = Path(__file__).parents[1]
FILE = ROOT / "unit_tests" / "checked_arguments.py"


class LanguageServer:
    """A language server, and one file that is open in it."""

    def __init__(self, file: Path) -> None:
        self._file = {"uri": file.as_uri()}
        self._process = subprocess.Popen(
            [Path(sys.executable).with_name("basedpyright-langserver"), "--stdio"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._last_id = 0
        folder = {"uri": ROOT.as_uri(), "name": "root"}
        self._ask("initialize", capabilities={}, workspaceFolders=[folder])
        self._write(method="initialized", params={})
        document = {
            **self._file,
            "languageId": "python",
            "version": 1,
            "text": file.read_text("utf-8"),
        }
        self._write(method="textDocument/didOpen", params={"textDocument": document})

    def hover(self, line: int, column: int) -> str:
        position = {"line": line - 1, "character": column}
        shown = self._ask("textDocument/hover", textDocument=self._file, position=position)
        return " ".join(shown["contents"]["value"].split()) if shown else ""

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, method: str, **params: Any) -> Any:
        self._last_id += 1
        self._write(id=self._last_id, method=method, params=params)
        while True:
            message = self._read()
            if "method" not in message and message.get("id") == self._last_id:
                return message["result"]
            if message.get("method") == "workspace/configuration":
                python = {"pythonPath": sys.executable}
                settings = [
                    python if item.get("section") == "python" else {}
                    for item in message["params"]["items"]
                ]
                self._write(id=message["id"], result=settings)
            elif "id" in message:
                self._write(id=message["id"], result=None)

    def _write(self, **message: Any) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        length = 0
        while header := self._process.stdout.readline().strip():
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return json.loads(self._process.stdout.read(length))


@pytest.fixture(scope="module")
def server() -> Iterator[LanguageServer]:
    server = LanguageServer(FILE)
    try:
        yield server
    finally:
        server.close()


def test_hovering_over_an_argument_shows_its_help(server: LanguageServer) -> None:
    helps = {"ChatThinnest": help_of(Constructor.construct)}
    helps |= dict.fromkeys(
        ["model.invoke", "model.ainvoke", "model.stream", "model.astream"], help_of(Calls.call)
    )
    asked = set()
    for node in ast.walk(ast.parse(FILE.read_text("utf-8"))):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        for keyword in node.keywords if called in helps else ():
            if text := helps[called].get(keyword.arg):
                assert text in server.hover(keyword.lineno, keyword.col_offset), keyword.arg
                asked.add((called, keyword.arg))
    assert len(asked) >= len(helps["ChatThinnest"]) + 4 * 10
