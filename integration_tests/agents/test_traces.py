"""What tracers see of an agent: the tree, usage, the session, and never the key.

OpenInference's instrumentation, which Phoenix and others use, with OpenTelemetry's exporter
in memory; LangSmith's own tracer, with a server that takes what it sends.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.tracers import LangChainTracer
from langsmith import Client
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from integration_tests.conftest import KEY, Make
from langchain_thinnest import ThinnestError, create_thinnest_agent
from langchain_thinnest.emulator import Fault, ThinnestEmulator
from unit_tests.contract import EVENTS

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "traces.md"
CONFIG: Any = {"configurable": {"thread_id": "ada"}}
USAGE = EVENTS[-1]["usage"]
CALL, RESULT = (
    next(e for e in EVENTS if e["type"] == t) for t in ("tool_call", "tool_result")
)


def invoke(agent: Any, config: Any) -> None:
    agent.invoke({"messages": "hi"}, config)


def stream(agent: Any, config: Any) -> None:
    for _ in agent.stream({"messages": "hi"}, config, stream_mode="messages"):
        pass


def ainvoke(agent: Any, config: Any) -> None:
    asyncio.run(agent.ainvoke({"messages": "hi"}, config))


def astream(agent: Any, config: Any) -> None:
    async def run() -> None:
        async for _ in agent.astream({"messages": "hi"}, config, stream_mode="messages"):
            pass

    asyncio.run(run())


Way = Callable[[Any, Any], None]
WAYS = [invoke, stream, ainvoke, astream]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request: Any) -> Way:
    return request.param


@pytest.fixture(params=["create_agent", "create_thinnest_agent"])
def agent(request: Any, make: Make) -> Any:
    model = make(session_key="thread_id")
    if request.param == "create_agent":
        return create_agent(model, tools=[], name="guide")
    return create_thinnest_agent(model, name="guide")


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield exporter
    instrumentor.uninstrument()
    written = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "hi" in written
    assert KEY not in written


def of_kind(spans: InMemorySpanExporter, kind: str) -> list[ReadableSpan]:
    found = spans.get_finished_spans()
    return [s for s in found if s.attributes["openinference.span.kind"] == kind]


def above(span: ReadableSpan, spans: InMemorySpanExporter) -> list[ReadableSpan]:
    """The spans that a span is in, from the inside to the outside."""
    by_id = {found.context.span_id: found for found in spans.get_finished_spans()}
    path = []
    while span.parent is not None:
        path.append(span := by_id[span.parent.span_id])
    return path


def test_openinference_sees_agent_model_and_tools(
    agent: Any, way: Way, spans: InMemorySpanExporter
) -> None:
    way(agent, CONFIG)
    (model,), (tool,) = of_kind(spans, "LLM"), of_kind(spans, "TOOL")
    assert above(tool, spans)[0] is model
    outside = above(model, spans)
    kinds = {span.attributes["openinference.span.kind"] for span in outside}
    assert kinds <= {"AGENT", "CHAIN"}  # a node named `agent` is one
    names = [span.name for span in outside]
    assert len(names) == len(set(names))
    assert (model.name, tool.name) == ("ChatThinnest", CALL["name"])
    assert outside[-1].name == "guide"
    assert len(spans.get_finished_spans()) == 2 + len(outside)  # nothing beside them
    assert {span.status.status_code.name for span in spans.get_finished_spans()} == {"OK"}
    for span in spans.get_finished_spans():
        assert span.attributes["session.id"] == "ada", span.name


def test_openinference_sees_usage_and_what_tools_do(
    agent: Any, way: Way, spans: InMemorySpanExporter
) -> None:
    way(agent, CONFIG)
    (model,), (tool,) = of_kind(spans, "LLM"), of_kind(spans, "TOOL")
    counted = [model.attributes[f"llm.token_count.{n}"] for n in ("prompt", "completion")]
    assert counted == [USAGE["input_tokens"], USAGE["output_tokens"]]
    assert model.attributes["llm.token_count.total"] == USAGE["total_tokens"]
    assert model.attributes["llm.model_name"] == "ag_example"
    assert model.attributes["llm.provider"] == "thinnest"
    assert all(str(value) in tool.attributes["input.value"] for value in CALL["args"].values())
    assert RESULT["result"] in tool.attributes["output.value"]
    assert model.start_time <= tool.start_time <= tool.end_time <= model.end_time


def test_openinference_sees_what_failed(
    agent: Any, way: Way, emulator: ThinnestEmulator, spans: InMemorySpanExporter
) -> None:
    emulator.fail_next(Fault.error("Overloaded.", after=1 + EVENTS.index(CALL)))
    with pytest.raises(ThinnestError):
        way(agent, CONFIG)
    for kind in ("LLM", "TOOL"):
        (span,) = of_kind(spans, kind)
        assert span.status.status_code.name == "ERROR"
        assert "Overloaded." in str(span.status.description)


class Collector(ThreadingHTTPServer):
    """Takes runs as LangSmith's API does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Collects)
        self.bodies: list[bytes] = []  # uncompressed
        self.runs: dict[str, dict[str, Any]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Collects(BaseHTTPRequestHandler):
    server: Any

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        self.server.bodies.append(body)
        if self.path.startswith("/runs"):
            self._take_runs(json.loads(body))
        self._say({})

    do_PATCH = do_POST  # noqa: N815

    def do_GET(self) -> None:
        config = {
            "use_multipart_endpoint": False,
            "size_limit": 100,
            "size_limit_bytes": 10**7,
        }
        scale = {"scale_up_qsize_trigger": 1000, "scale_up_nthreads_limit": 1}
        self._say({"batch_ingest_config": config | scale | {"scale_down_nempty_trigger": 4}})

    def _take_runs(self, told: dict[str, Any]) -> None:
        several = "post" in told or "patch" in told
        runs = [*told.get("post", []), *told.get("patch", [])] if several else [told]
        for run in runs:
            known = self.server.runs.setdefault(run.get("id") or self.path.split("/")[-1], {})
            known.update({name: value for name, value in run.items() if value is not None})

    def _say(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever, args=[0.01])
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()
    assert len(b"".join(collector.bodies)) > 1000
    assert KEY.encode() not in b"".join(collector.bodies)


def test_langsmith_sees_the_same(agent: Any, way: Way, collector: Collector) -> None:
    client = Client(collector.url, api_key="ls_1", auto_batch_tracing=False)
    tracer = LangChainTracer(client=client, project_name="test")
    way(agent, {**CONFIG, "callbacks": [tracer]})
    tracer.wait_for_futures()
    runs = list(collector.runs.values())
    (model,) = (run for run in runs if run["run_type"] == "llm")
    (tool,) = (run for run in runs if run["run_type"] == "tool")
    (root,) = (run for run in runs if "parent_run_id" not in run)
    assert tool["parent_run_id"] == model["id"]
    assert (root["name"], model["name"], tool["name"]) == (
        "guide",
        "ChatThinnest",
        CALL["name"],
    )
    assert {run["trace_id"] for run in runs} == {root["id"]}
    assert tool["inputs"] == CALL["args"]
    assert RESULT["result"] in json.dumps(tool["outputs"])
    message = model["outputs"]["generations"][0][0]["message"]["kwargs"]
    assert message["usage_metadata"] == USAGE
    for run in runs:
        metadata = run["extra"]["metadata"]
        assert "ada" in (metadata.get("session_id"), metadata.get("thread_id")), run["name"]
    assert not any("error" in run for run in runs)


def on_the_page(*numbers: int) -> str:
    blocks = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == 4
    return "\n".join(blocks[number] for number in numbers)


# What the page draws.
TREE = ["guide", "agent", "ChatThinnest", "search_library"]
# How MLflow shows the traces that it has.
SHOW = """
mlflow.flush_trace_async_logging()
for trace in mlflow.search_traces(return_type="list"):
    print("session", trace.info.trace_metadata["mlflow.trace.session"])
    print("usage", trace.info.token_usage["total_tokens"])
    print(*(span.name for span in trace.data.spans))
    print(trace.to_json())
"""


def run(code: str, folder: Path, **environment: str) -> str:
    known = {name: os.environ[name] for name in os.environ if "LANGSMITH" not in name}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**known, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert KEY not in done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def asking(emulator: ThinnestEmulator) -> dict[str, str]:
    asked = {"THINNEST_API_KEY": KEY, "THINNEST_AGENT_ID": "ag_demo"}
    return {**asked, "THINNEST_BASE_URL": emulator.base_url}


def test_the_pages_langsmith(
    collector: Collector, asking: dict[str, str], tmp_path: Path
) -> None:
    settings = {"LANGSMITH_TRACING": "true", "LANGSMITH_API_KEY": "ls_1"}
    settings["LANGSMITH_ENDPOINT"] = collector.url
    run(on_the_page(0), tmp_path, **asking, **settings)
    names = {run["name"] for run in collector.runs.values()}
    assert names >= {"guide", "ChatThinnest", "search_library"}


def test_the_pages_langfuse(
    collector: Collector, asking: dict[str, str], tmp_path: Path
) -> None:
    settings = {"LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": "sk"}
    settings["LANGFUSE_BASE_URL"] = collector.url
    run(on_the_page(0, 1), tmp_path, **asking, **settings)
    sent = spans_sent(collector)
    assert in_tree(sent, "search_library") == TREE[::-1]
    assert all(said["session.id"] == "ada" for _, said in sent.values())
    (usage,) = (
        said["langfuse.observation.usage_details"]
        for name, said in sent.values()
        if name == "ChatThinnest"
    )
    assert json.loads(usage)["total"] > 0


def test_the_pages_phoenix(
    collector: Collector, asking: dict[str, str], tmp_path: Path
) -> None:
    settings = {"PHOENIX_COLLECTOR_ENDPOINT": f"{collector.url}/v1/traces"}
    run(on_the_page(2, 0), tmp_path, **asking, **settings)
    sent = spans_sent(collector)
    assert in_tree(sent, "search_library") == TREE[::-1]
    assert all(said["session.id"] == "ada" for _, said in sent.values())


def test_the_pages_mlflow(asking: dict[str, str], tmp_path: Path) -> None:
    # Its database needs the whole of MLflow.
    settings = {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_TRACKING_URI": tmp_path.as_uri()}
    shown = run(on_the_page(3, 0) + SHOW, tmp_path, **asking, **settings).splitlines()
    assert shown[0] == "session ada"
    assert int(shown[1].removeprefix("usage ")) > 0
    assert shown[2].split() == TREE


Sent = dict[tuple[bytes, bytes], tuple[str, dict[str, str]]]


def spans_sent(collector: Collector) -> Sent:
    """What OpenTelemetry sent: names and texts, by the ids of the span and its parent."""
    sent: Sent = {}
    for body in collector.bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                said = {pair.key: pair.value.string_value for pair in span.attributes}
                sent[span.span_id, span.parent_span_id] = span.name, said
    return sent


def in_tree(sent: Sent, name: str) -> list[str]:
    """The names from a span up to the outside."""
    (found,) = (ids for ids, (known, _) in sent.items() if known == name)
    path = [name]
    while above := [ids for ids in sent if ids[0] == found[1]]:
        (found,) = above
        path.append(sent[found][0])
    return path
