"""Breaks the rule behind each row of the fault table, to see that the row's tests notice.

    python integration_tests/break_faults.py [text in a row's name]

Each break changes a line of a copy of the package and runs the tests of the rows that the
line rules, in the copy. RED is good: the tests failed. The script fails if a row stays green.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "langchain_thinnest"
sys.path.insert(0, str(ROOT))

from integration_tests.faults import FAULTS, SOME_TEXT  # noqa: E402
from integration_tests.test_faults import WAYS  # noqa: E402

COPIED = ["langchain_thinnest", "integration_tests", "unit_tests", "pyproject.toml", "docs"]
TESTS = "integration_tests/test_faults.py"
SECONDS = 300


@dataclass(frozen=True)
class Break:
    """A rule that is broken: `old` becomes `new` in a file; `rows` are what it rules.

    Where two places uphold a rule, `also` breaks the other: its file, old and new.
    """

    what: str
    file: str
    old: str
    new: str
    rows: list[str]
    also: tuple[str, str, str] | None = None

    @property
    def edits(self) -> list[tuple[str, str, str]]:
        return [(self.file, self.old, self.new), *([self.also] if self.also else [])]


CLIENT, RESPONSE, HTTP11, FAILED_AS, RETRIES = (
    f"_http/{name}.py" for name in ("client", "response", "http11", "failures", "retries")
)
TRANSPORT, PROGRESS, ENVIRONMENT = (
    f"_http/{name}.py" for name in ("transport", "progress", "environment")
)
SSE, TURN, EVENTS, AS_JSON = (
    f"_answer/{name}.py" for name in ("sse", "turn", "events", "json_answer")
)
CALL = "_call.py"


def names(*beginnings: str) -> list[str]:
    return [fault.name for fault in FAULTS if fault.name.startswith(beginnings)]


def about(*words: str) -> list[str]:
    """The rows whose names have one of `words` in them."""
    return [fault.name for fault in FAULTS if any(word in fault.name for word in words)]


REFUSED = [f"status {status}" for status in (400, 405, 408, 409, 413, 418, 422)]
FAILED = [f"status {status}" for status in (500, 502, 503, 504, 529)]

# What is wrong with bytes counts, though the answer is whole.
ERRORS_COUNT = (
    TURN,
    "            if not self.is_over:\n                raise\n\n",
    "            raise\n\n",
)
_IS_STALLED = (
    "        if self._stall_timeout is not None and self.waited > self._stall_timeout:\n"
)
ON_JSON = [
    Break(
        "JSON is no answer",
        FAILED_AS,
        "for kind in (EVENT_STREAM, JSON) if",
        "for kind in (EVENT_STREAM,) if",
        ["JSON, whole", "JSON, whole, in chunks"],
    ),
    Break(
        "any 2xx is an answer",
        FAILED_AS,
        "if status != 200:",
        "if status >= 300:",
        ["JSON with status 201"],
    ),
    Break(
        "whole JSON counts only at a good end",
        AS_JSON,
        '        if problem and (isinstance(reason, ThinnestInterruptedError) or "EOF" in',
        '        if True or (isinstance(reason, ThinnestInterruptedError) or "EOF" in',
        ["JSON, whole, then a reset", "JSON, whole, then a stall"],
    ),
    Break(
        "no wrapper is looked into",
        AS_JSON,
        "said = {**value, **data}",
        "said = {**value}",
        ["JSON in a wrapper", "JSON with an error in a wrapper"],
    ),
    Break(
        "a wrapper's failure is forgotten",
        AS_JSON,
        'if value.get("success") is False:',
        "if False:",
        ["JSON with success false around an answer"],
    ),
    Break(
        "a byte order mark is JSON",
        AS_JSON,
        ".removeprefix(_BOM)",
        "",
        ["JSON with a byte order mark"],
    ),
    Break(
        "JSON that ends too early is an interrupted stream",
        FAILED_AS,
        'ThinnestProtocolError(_CUT_JSON.format("the server ended it"))',
        'ThinnestInterruptedError(_CUT_JSON.format("the server ended it"))',
        ["JSON cut by the server", "JSON cut in its gzip", "JSON of no bytes"],
    ),
    Break(
        "JSON that is cut is an interrupted stream",
        FAILED_AS,
        "kind = ThinnestInterruptedError if is_late else ThinnestProtocolError",
        "kind = ThinnestInterruptedError",
        ["JSON cut by a close", "JSON cut by a reset", "JSON cut amid its chunks"],
    ),
    Break(
        "JSON that stalls is cut",
        FAILED_AS,
        "kind = ThinnestInterruptedError if is_late else ThinnestProtocolError",
        "kind = ThinnestProtocolError",
        ["JSON stalled at its begin", "JSON stalled in its middle"],
    ),
    Break(
        "no event for too long is another error",
        FAILED_AS,
        'return ThinnestInterruptedError(\n        f"No event came',
        'return ThinnestProtocolError(\n        f"No event came',
        ["JSON with spaces for ever"],
    ),
    Break(
        "too much JSON is another error",
        AS_JSON,
        'raise ThinnestProtocolError(\n                f"The answer in JSON is larger',
        'raise ThinnestInterruptedError(\n                f"The answer in JSON is larger',
        ["JSON over max_event_bytes", "JSON over max_event_bytes without an end"],
    ),
    Break(
        "what is no object is an interrupted stream",
        AS_JSON,
        "    return ThinnestProtocolError(\n",
        "    return ThinnestInterruptedError(\n",
        names("JSON that is"),
    ),
    Break(
        "nothing is an answer",
        AS_JSON,
        "if not texts and not has_failed:",
        "if False:",
        names("JSON that is an empty", "JSON that is an object w", "JSON that is an answer"),
    ),
    Break(
        "a failure has another type",
        AS_JSON,
        '{"type": "error",',
        '{"type": "oops",',
        [
            *names("JSON with success", "JSON with an error and", "JSON with an error in"),
            "JSON with a detail and no answer",
            "JSON with an error beside an empty wrapper",
        ],
    ),
    Break(
        "success does not matter",
        AS_JSON,
        'has_failed = said.get("success") is False or (',
        "has_failed = (",
        ["JSON with success false and a text", "JSON with success false after a text"],
    ),
    Break(
        "an error beside an answer counts",
        AS_JSON,
        "not texts and bool(",
        "bool(",
        ["JSON with an error beside the answer"],
    ),
    Break(
        "every tool is an object",
        AS_JSON,
        "if not isinstance(inner, dict) or not",
        "if not",
        ["JSON with fields of wrong types"],
    ),
]
BREAKS = [
    *ON_JSON,
    Break(
        "a lost connection counts as one that was made",
        FAILED_AS,
        "    httpx.ConnectError,\n",
        "",
        ["nobody listens", "unknown host name", "reset in the TLS handshake"],
    ),
    Break(
        "a connect timeout counts as a read timeout",
        FAILED_AS,
        "    httpx.ConnectTimeout,\n",
        "",
        ["connect timeout", "stall in the TLS handshake"],
    ),
    Break(
        "a TLS failure is not final",
        FAILED_AS,
        "return _is_tls_failure(error) or ",
        "return ",
        ["untrusted certificate", "plain HTTP on an https URL"],
    ),
    Break(
        "a close in the handshake is final",
        FAILED_AS,
        "return not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))",
        "return True",
        ["close in the TLS handshake"],
    ),
    Break(
        "any timeout is retryable",
        FAILED_AS,
        "is_retryable=sent is Sent.NO,",
        "is_retryable=True,",
        ["server does not read", "stall before the status", "stall inside the head"],
    ),
    Break(
        "a lost request is retryable",
        FAILED_AS,
        'hung up before it began its answer: {because}. {fate}"\n',
        'hung up before it began its answer: {because}. {fate}", is_retryable=True\n',
        [
            "close before the status",
            "reset before the status",
            "close inside the head",
            "reset inside the head",
            "garbage under TLS in place of an answer",
        ],
    ),
    Break(
        "an async client's TLS errors go through",
        FAILED_AS,
        "...] = (httpx.HTTPError, ssl.SSLError)",
        "...] = (httpx.HTTPError,)",
        ["garbage under TLS in place of an answer", "garbage under TLS amid the answer"],
    ),
    Break(
        "what is not HTTP counts as a lost connection",
        FAILED_AS,
        '"disconnected" not in because',
        "not because",
        [
            "garbage in place of a status line",
            "head without an end",
            "redirect to what is no URL",
        ],
    ),
    *(
        Break(
            f"{status} has no class of its own",
            FAILED_AS,
            f"    {status}: (",
            f"    1{status}: (",
            names(f"status {status}"),
        )
        for status in (401, 402, 403, 404, 429)
    ),
    Break(
        "4xx is the server's failure",
        FAILED_AS,
        'else (ThinnestRequestError, "The',
        'else (ThinnestServerError, "The',
        REFUSED,
    ),
    Break(
        "5xx is the request's failure",
        FAILED_AS,
        "if status >= 500",
        "if status >= 600",
        [*FAILED, "status 500 as an HTML page"],
    ),
    Break(
        "429 is not retryable",
        FAILED_AS,
        "is_retryable = status == 429 or ",
        "is_retryable = ",
        names("status 429"),
    ),
    Break(
        "503 is always retryable",
        FAILED_AS,
        'status == 503 and "retry-after" in response.headers',
        "status == 503",
        ["status 503"],
    ),
    Break(
        "503 is never retryable",
        FAILED_AS,
        'status == 503 and "retry-after" in response.headers',
        "False",
        ["status 503 with Retry-After"],
    ),
    Break(
        "what the server asks to wait is not read",
        FAILED_AS,
        "wait = retry_delay(response.headers) if status in (429, 503) else None",
        "wait = None",
        ["status 429 with a Retry-After longer than max_retry_wait"],
    ),
    Break(
        "a date must be one",
        RETRIES,
        "except (ValueError, OverflowError):",
        "except OverflowError:",
        ["status 429 with a Retry-After that means nothing"],
    ),
    Break(
        "any status may have a stream",
        FAILED_AS,
        "if status != 200:",
        "if False:",
        ["refusal as an event stream", "status 304", "status 204", "status 206"],
    ),
    Break(
        "a refusal's JSON may be of any depth",
        FAILED_AS,
        "except (ValueError, RecursionError):",
        "except ValueError:",
        ["refusal whose body is nested 10000 deep"],
    ),
    Break(
        "a validation error has one shape",
        FAILED_AS,
        ' and isinstance(item.get("loc"), list)',
        "",
        ["refusal whose validation error has another shape"],
    ),
    Break(
        "a decoding error is no failure",
        FAILED_AS,
        "...] = (httpx.HTTPError, ",
        "...] = (httpx.TransportError, ",
        ["broken gzip", "JSON with broken gzip"],
    ),
    Break(
        "a refusal's compression is always right",
        RESPONSE,
        "    except httpx.DecodingError:",
        "    except httpx.TransportError:",
        ["refusal whose body is broken gzip"],
    ),
    Break(
        "a body that cannot be read on is no refusal",
        HTTP11,
        "        with contextlib.suppress(*_failures()):\n",
        "        if True:\n",
        ["refusal whose body stalls", "refusal whose body is cut"],
    ),
    Break(
        "a refusal's body is waited for",
        RESPONSE,
        "_EXCERPT_SECONDS = 1.0",
        "_EXCERPT_SECONDS = 2.5",
        ["refusal whose body never ends"],
    ),
    *(
        Break(
            f"redirects are followed ({way})",
            CLIENT,
            f"{word} client.send(request, auth=endpoint.sign, stream=True, "
            "follow_redirects=False)",
            f"{word} client.send(request, auth=endpoint.sign, stream=True, "
            "follow_redirects=True)",
            [f"redirect {status}" for status in (301, 302, 303, 307, 308)],
        )
        for way, word in (("sync", "return"), ("async", "sending ="))
    ),
    Break(
        "3xx is a refusal",
        FAILED_AS,
        "if status < 400:",
        "if status < 300:",
        ["redirect to nowhere", "redirect 302", "status 304"],
    ),
    Break(
        "any content type is a stream's",
        FAILED_AS,
        "return next((kind for kind in (EVENT_STREAM, JSON) if kind in kinds), None)",
        "return JSON if JSON in kinds else EVENT_STREAM",
        [
            "HTML page with status 200",
            "another content type",
            "JSON as plain text",
            "JSON as another kind of JSON",
        ],
    ),
    Break(
        "a content type is needed",
        FAILED_AS,
        'get("content-type", EVENT_STREAM)',
        'get("content-type", "")',
        ["no content type"],
    ),
    Break(
        "a content type has no parameters",
        FAILED_AS,
        'part.partition(";")[0].strip()',
        "part.strip()",
        [
            "content type with a parameter, in capitals",
            "JSON with a parameter, in capitals",
        ],
    ),
    Break(
        "no body is compressed",
        RESPONSE,
        'is_raw = "content-encoding" not in headers',
        "is_raw = True",
        ["right gzip", "broken gzip", "cut gzip", "JSON, gzipped"],
    ),
    Break(
        "an end before `done` is another error",
        FAILED_AS,
        'return ThinnestInterruptedError(\n        "The server closed',
        'return ThinnestProtocolError(\n        "The server closed',
        [
            "cut gzip",
            "content encoding that is unknown",
            "HTTP/1.0, cut",
            "empty body",
            "Content-Length shorter than the body",
            "end of the body",
            "[DONE] in place of `done`",
            "JSON as an event stream",
        ],
    ),
    Break(
        "a cut before `done` is another error",
        FAILED_AS,
        'return ThinnestInterruptedError(\n        f"The stream was cut',
        'return ThinnestProtocolError(\n        f"The stream was cut',
        [
            "Content-Length longer than a cut body",
            "garbage in place of a chunk's size",
            "garbage under TLS amid the answer",
            "close under TLS without its farewell",
            "close",
            "reset",
            "close inside an event",
            *names("stall after"),
            "stall inside an event",
        ],
    ),
    Break(
        "an answer is whole without `done`",
        TURN,
        "            raise reason\n",
        "            yield End()\n",
        ["end of the body", "close", "reset", "empty body", "HTTP/1.0, cut"],
    ),
    Break(
        "an error has no partial message",
        CALL,
        "error.partial = call.answer.message()",
        "pass",
        [fault.name for fault in FAULTS if fault.partial == SOME_TEXT][::4],
    ),
    Break(
        "an error event is passed over",
        TURN,
        "elif isinstance(event, ErrorEvent):",
        "elif not isinstance(event, ErrorEvent):",
        names(
            "error event first",
            "error event after t",
            "error event am",
            "error event w",
            "error event th",
        ),
    ),
    Break(
        "a last line needs a line end",
        TURN,
        "            last = self._decoder.flush()\n",
        "            last = None\n",
        [
            "error event without a line end, then a close",
            "`done` without a line end",
            "`done` without a line end, then a reset",
            "`done` without a line end, then a stall",
        ],
    ),
    Break(
        "what is no JSON object is passed over",
        SSE,
        "            raise _not_an_object(joined)\n",
        "            return None\n",
        [
            "no JSON",
            "JSON scalar",
            "JSON list",
            "bytes that are not UTF-8",
            *names("args nested"),
            "number of 5000 digits",
        ],
    ),
    Break(
        "a blank line ends nothing",
        SSE,
        '                raise _not_an_object(b"\\n".join(self._held))\n',
        "                self._held.clear()\n",
        ["JSON object that is not closed"],
    ),
    Break(
        "text that is no string is passed over",
        EVENTS,
        'raise _not_the_contract(kind, "content: is not a string")',
        "return None",
        ["text that is no string", "text without content"],
    ),
    Break(
        "a tool event of wrong fields is passed over",
        EVENTS,
        "raise _not_the_contract(kind, problem)",
        "return None",
        names("tool "),
    ),
    Break(
        "an event has no limit",
        SSE,
        "if self._held_size + line_size > self._max:",
        "if line_size < 0:",
        [
            "event over max_event_bytes",
            "event of many lines over max_event_bytes",
            "line without an end over max_event_bytes",
            "comment over max_event_bytes",
        ],
    ),
    Break(
        "half a surrogate pair stays",
        SSE,
        'if escape["half"] else escape[0]',
        'if escape["half"] == b"" else escape[0]',
        names("half a surrogate", "surrogate pair"),
    ),
    Break(
        "NaN is no JSON",
        SSE,
        "from pydantic_core import from_json\n",
        "import functools\n\nimport pydantic_core\n\n"
        "from_json = functools.partial(pydantic_core.from_json, allow_inf_nan=False)\n",
        ["NaN in args"],
    ),
    Break(
        "an event's type must be known",
        EVENTS,
        "    if kind not in _VALIDATED:\n",
        "    if kind not in _VALIDATED:\n"
        '        raise _not_the_contract(kind, "is not known")\n',
        ["event of an unknown type", "event without a type"],
    ),
    Break(
        "an id must be text or a number",
        EVENTS,
        'return str(value) if isinstance(value, str | int) and value != "" else None',
        "return value",
        ["id that is neither text nor number", "`done` with fields of wrong types"],
    ),
    Break(
        "`done` ends nothing",
        TURN,
        "            self.is_done = True\n",
        "",
        [
            "HTTP/1.0, whole",
            "Content-Length longer than a whole body",
            "close after `done`",
            "reset after `done`",
            "no chunk's size after `done`",
        ],
    ),
    Break(
        "events after `done` count",
        TURN,
        "                if self.is_over:\n                    return\n",
        "",
        [
            "garbage after `done`",
            "error event after `done`",
            "event over max_event_bytes after `done`",
        ],
        ERRORS_COUNT,
    ),
    *(
        Break(
            f"reads after `done` count ({way})",
            CALL,
            "                if turn.is_over:\n                    break\n"
            f"            if turn.is_done:\n                {drain}\n",
            "",
            ["garbage later after `done`", "text after `done`"],
            ERRORS_COUNT,
        )
        for way, drain in (("sync", "response.drain()"), ("async", "await response.adrain()"))
    ),
    Break(
        "the connection's end is waited for",
        RESPONSE,
        "_DRAIN_SECONDS = 0.5",
        "_DRAIN_SECONDS = 1.8",
        names("server that never closes", "comments for ever"),
    ),
    # --- what a connection carries, and how far a message got ---
    Break(
        "unread bytes stay on a connection",
        HTTP11,
        "        if self._tls is not None and self._tls.pending():\n",
        "        if self._network is not None:\n            return True\n"
        "        if self._tls is not None and self._tls.pending():\n",
        about("behind the answer"),
        also=(HTTP11, '        and state.trailing_data == (b"", False)\n', ""),
    ),
    Break(
        "cookies are kept",
        CLIENT,
        "if client is not self.client and client is not self.async_client:",
        "if client is None:",
        ["cookie that is not ASCII"],
        also=(
            TRANSPORT,
            "    cookies = property(lambda _: _NO_COOKIES)\n\n\nclass _A",
            "    pass\n\n\nclass _A",
        ),
    ),
    Break(
        "a proxy's refusal is not final",
        FAILED_AS,
        "return _PROXY_REFUSES.match(str(error)) is not None",
        "return False",
        [f"proxy that answers CONNECT with {status}" for status in (403, 407)],
    ),
    Break(
        "CONNECT is taken for the message",
        PROGRESS,
        "        if not self._is_for_proxy:\n            self.sent = sent",
        "        self.sent = sent",
        about("in CONNECT", "answers CONNECT"),
    ),
    Break(
        "what is no URL is a proxy",
        ENVIRONMENT,
        '        raise _unusable(variable, "is no URL")',
        "        return None",
        ["proxy in the environment that is no URL"],
    ),
    Break(
        "SOCKS needs no package",
        ENVIRONMENT,
        ' and find_spec("socksio") is None:',
        ' and find_spec("ssl") is None:',
        ["proxy in the environment by SOCKS, without its package"],
    ),
    Break(
        "CA certificates can always be read",
        ENVIRONMENT,
        "    except (OSError, ValueError) as error:",
        "    except ValueError as error:",
        ["empty file of CA certificates"],
    ),
    Break(
        "a hook's error is the transport's",
        FAILED_AS,
        "    if not _is_of_transport(error, request):\n        what",
        "    if error is None:\n        what",
        ["request hook of a caller's client that raises"],
    ),
    Break(
        "an illegal header is a failed connection",
        FAILED_AS,
        "    if isinstance(error, httpx.LocalProtocolError):",
        "    if error is None:",
        ["header of a caller's client that HTTP cannot carry"],
    ),
    Break(
        "every stream that was reset is untouched",
        FAILED_AS,
        "    is_untouched = event.error_code == _REFUSED_STREAM or (",
        "    is_untouched = event is not None or (",
        about("reset with INT", "reset with CANCEL", "names the request's stream"),
    ),
    Break(
        "no stream that was refused is untouched",
        FAILED_AS,
        "    is_untouched = event.error_code == _REFUSED_STREAM or (",
        "    is_untouched = event is None or (",
        ["HTTP/2 stream reset with REFUSED_STREAM"],
    ),
    Break(
        "GOAWAY names no last stream",
        FAILED_AS,
        "progress.stream_id > last",
        "progress.stream_id < last",
        ["HTTP/2 GOAWAY that names no stream"],
    ),
    *(
        Break(
            f"heartbeats are events ({way})",
            RESPONSE,
            f"    {head}:\n{_IS_STALLED}",
            f"    {head}:\n{_IS_STALLED}".replace("> ", "> 10 * "),
            ["heartbeats and nothing else, for longer than stall_timeout"],
        )
        for way, head in (
            ("sync", "def __next__(self) -> bytes | ThinnestStreamError"),
            ("async", "async def __anext__(self) -> bytes | ThinnestStreamError"),
        )
    ),
    Break(
        "silence is no stall",
        RESPONSE,
        '    timeouts["read"] = stall_timeout\n',
        "",
        ["silence for longer than stall_timeout"],
    ),
]
# Ruled by the libraries below, not by a line of this package.
NOT_OURS = {
    "proxy in the environment of an unknown kind": "httpx refuses it too, in fewer words",
    "informational answer first": "httpx passes it over",
    "key that comes twice": "pydantic's parser takes the last",
}


def run(broken: Break, rows: list[str]) -> list[tuple[str, int]]:
    """Run the rows' tests on a broken copy, and count the failures of each."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source, copy / name, ignore=shutil.ignore_patterns("__pycache__")
                )
            else:
                shutil.copy(source, copy / name)
        for name, old, new in broken.edits:
            file = copy / "langchain_thinnest" / name
            text = file.read_text(encoding="utf-8")
            found = text.count(old)
            if found != 1:
                sys.exit(f"{broken.what}: found {found} times in {name}: {old!r}")
            file.write_text(text.replace(old, new), encoding="utf-8")
        ids = [
            f"{TESTS}::test_a_fault_has_its_outcome[{way.__name__}-{row}]"
            for row in rows
            for way in WAYS
        ]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rf", *ids],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    if done.returncode not in (0, 1):
        sys.exit(f"{broken.what}: the tests could not run\n{done.stdout}{done.stderr}")
    failed = re.findall(r"^FAILED .*?\[\w+?-(.*)\](?: - .*)?$", done.stdout, re.MULTILINE)
    return [(row, failed.count(row)) for row in rows]


def main() -> int:
    """Break each rule, and say which rows noticed."""
    every = {fault.name for fault in FAULTS}
    ruled = {row for broken in BREAKS for row in broken.rows} | set(NOT_OURS)
    if ruled != every:
        sys.exit(f"without a break: {every - ruled}; unknown: {ruled - every}")
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    green = 0
    for broken in BREAKS:
        rows = [row for row in broken.rows if asked in row]
        for row, failures in run(broken, rows) if rows else []:
            colour = f"RED {failures}/{len(WAYS)}" if failures else "GREEN"
            green += not failures
            print(f"{colour:8} {row}: {broken.what}", flush=True)
    for row, why in NOT_OURS.items():
        print(f"{'-':8} {row}: {why}")
    print(f"{green} green" if green else "all red")
    return 1 if green else 0


if __name__ == "__main__":
    sys.exit(main())
