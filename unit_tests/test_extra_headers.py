"""Headers of one call: they are sent, override the model's, and are told to nobody else."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import httpx
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.load import dumps
from langchain_core.tracers.base import BaseTracer

from langchain_thinnest import ChatThinnest, ThinnestError, ThinnestRequestError
from langchain_thinnest._request.headers import with_extra
from unit_tests.answers import refusal, stream
from unit_tests.conftest import KEY, Make
from unit_tests.contract import EVENTS, TEXT, as_sse
from unit_tests.network import Network, Side

WHOLE = stream(as_sse(*EVENTS))
SECRET = "tenant-4711"
HEADERS = {"X-Tenant": SECRET, "traceparent": "00-11-22-01"}
VIEWS = ["invoke", "stream", "batch", "chain", "v3"]


class Everything(BaseTracer):
    """Keeps all that a tracer is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def _persist_run(self, run: Any) -> None:
        self.told.append(vars(run))

    def _start_trace(self, run: Any) -> None:
        super()._start_trace(run)
        self.told.append(vars(run).copy())


def ask(side: Side, view: str, model: Any, headers: Any, config: Any = None) -> Any:
    given: dict[str, Any] = {} if headers is None else {"extra_headers": headers}
    if view == "chain":
        chain = model.bind(**given) | (lambda answer: answer)
        return side.either(chain.invoke, chain.ainvoke, "hi", config)
    if view == "batch":

        async def abatch() -> Any:
            return (await model.abatch(["hi"], config, **given))[0]

        return side.either(lambda: model.batch(["hi"], config, **given)[0], abatch)
    if view == "stream":

        async def astream() -> Any:
            return [chunk async for chunk in model.astream("hi", config, **given)]

        return side.either(lambda: list(model.stream("hi", config, **given)), astream)
    if view == "v3":

        async def aevents() -> Any:
            found = await model.astream_events("hi", config, version="v3", **given)
            return [event async for event in found]

        def events() -> Any:
            return list(model.stream_events("hi", config, version="v3", **given))

        return side.either(events, aevents)
    return side.invoke(model, "hi", config, **given)


@pytest.mark.parametrize("view", VIEWS)
def test_they_are_sent_with_one_call(
    network: Network, side: Side, make: Make, view: str
) -> None:
    network.answer(WHOLE)
    model = make(default_headers={"x-tenant": "all", "X-Team": "blue"})
    ask(side, view, model, HEADERS)
    ask(side, view, model, None)
    first, second = (request.headers for request in network.requests)
    assert (first["x-tenant"], first["traceparent"]) == (SECRET, "00-11-22-01")
    assert (second["x-tenant"], second.get("traceparent")) == ("all", None)
    assert first["x-team"] == second["x-team"] == "blue"
    assert first["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("view", VIEWS)
def test_they_are_told_to_nobody(
    network: Network, side: Side, make: Make, view: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="langchain_thinnest")
    network.answer(WHOLE, refusal(402, {"detail": "no"}))
    tracer = Everything()
    model = make(max_retries=0, cache=InMemoryCache())
    ask(side, view, model, HEADERS, {"callbacks": [tracer]})
    with pytest.raises(ThinnestError) as caught:
        ask(side, view, model.model_copy(update={"cache": False}), HEADERS)
    error = caught.value
    assert len(network.requests) == 2
    assert tracer.told
    for told in (tracer.told, caplog.text, str(error), vars(error), pickle.dumps(error)):
        assert SECRET not in str(told)
        assert "extra_headers" not in str(told)


def test_an_answer_in_the_cache_is_anyones(network: Network, side: Side, make: Make) -> None:
    network.answer(WHOLE)
    model = make(cache=InMemoryCache())
    for headers in (HEADERS, {"X-Tenant": "other"}, None):
        assert ask(side, "invoke", model, headers).text == TEXT
    assert len(network.requests) == 1


def test_where_they_are_bound_no_form_of_the_binding_shows_them(
    network: Network, side: Side, make: Make
) -> None:
    network.answer(WHOLE)
    for bound in (
        make().bind(extra_headers=HEADERS),
        make().bind(stop=["END"]).bind(extra_headers=HEADERS),
        make().bind_tools([{"name": "look_up"}]).bind(extra_headers=HEADERS),
        make().bind(extra_headers=HEADERS).with_config(tags=["a"]),
    ):
        for form in (repr(bound), str(bound), dumps(bound)):
            assert SECRET not in form
        side.either(bound.invoke, bound.ainvoke, "hi")
        assert network.requests[-1].headers["x-tenant"] == SECRET
        again = pickle.loads(pickle.dumps(bound))
        side.either(again.invoke, again.ainvoke, "hi")
        assert network.requests[-1].headers["x-tenant"] == SECRET


def test_a_config_sets_none(network: Network, side: Side, make: Make) -> None:
    """A config's `configurable` often comes from a browser."""
    network.answer(WHOLE)
    config = {"configurable": {"extra_headers": HEADERS}}
    ask(side, "invoke", make(), None, config)
    assert "x-tenant" not in network.requests[0].headers


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({"Authorization": "Bearer x"}, "pass the key as api_key"),
        ({"authorization": "Bearer x"}, "pass the key as api_key"),
        ({"Host": "elsewhere"}, "must not hold Host"),
        ({"connection": "close"}, "must not hold connection"),
        ({"Proxy-Authorization": "x"}, "must not hold Proxy-Authorization"),
        ({"proxy-connection": "x"}, "must not hold proxy-connection"),
        ({"Content-Type": "text/plain"}, "must not hold Content-Type"),
        ({"Content-Length": "1"}, "must not hold Content-Length"),
        ({"content-encoding": "gzip"}, "must not hold content-encoding"),
        ({"Transfer-Encoding": "chunked"}, "must not hold Transfer-Encoding"),
        ({"Accept": "*/*"}, "must not hold Accept"),
        ({"Accept-Encoding": "br"}, "must not hold Accept-Encoding"),
        ({"Upgrade": "h2c"}, "must not hold Upgrade"),
        ({"TE": "trailers"}, "must not hold TE"),
        ({"X-A": "a\r\nX-B: b"}, "control or non-ASCII characters in 'X-A'"),
        ({"X-A": "ä"}, "control or non-ASCII characters in 'X-A'"),
        ({"X A": "a"}, "no name of a header"),
        ({"": "a"}, "no name of a header"),
        ({"X-A": " a"}, "spaces around the value of 'X-A'"),
        ({"X-A": "1", "x-a": "2"}, "holds 'x-a' twice"),
        ({"X-A": 1}, "'X-A' is none or holds none"),
        ({1: "a"}, "1 is none or holds none"),
        ({"X-A": None}, "'X-A' is none or holds none"),
        ("X-A: a", "must be a dict of strings, not str"),
        ([("X-A", "a")], "must be a dict of strings, not list"),
    ],
)
def test_what_may_not_be_set_is_refused_before_anything_is_sent(
    network: Network, side: Side, make: Make, headers: Any, problem: str
) -> None:
    network.answer(WHOLE)
    with pytest.raises(ThinnestRequestError) as caught:
        ask(side, "invoke", make(), headers)
    assert str(caught.value).startswith("extra_headers ")
    assert problem in str(caught.value)
    with pytest.raises(ThinnestRequestError, match="extra_headers"):
        make().bind(extra_headers=headers)
    assert network.requests == []


def test_an_empty_dict_and_httpxs_own_are_taken(
    network: Network, side: Side, make: Make
) -> None:
    network.answer(WHOLE)
    for headers in ({}, httpx.Headers(HEADERS)):
        ask(side, "invoke", make(), headers)
    assert network.requests[1].headers["x-tenant"] == SECRET


def test_a_misspelt_name_is_refused(make: Make) -> None:
    with pytest.raises(ThinnestRequestError, match="did you mean 'extra_headers'"):
        make().invoke("hi", extra_header=HEADERS)


def test_a_callers_client_sends_them_too(network: Network, side: Side, make: Make) -> None:
    network.answer(WHOLE)
    with httpx.Client(headers={"X-Tenant": "client"}) as client:
        model: ChatThinnest = make(
            http_client=client, http_async_client=httpx.AsyncClient(headers={"X-B": "b"})
        )
        ask(side, "invoke", model, HEADERS)
    assert network.requests[0].headers["x-tenant"] == SECRET


def test_one_header_is_sent_once() -> None:
    """The call's own one, however the names are written."""
    assert with_extra({"x-tenant": "all", "X-B": "b"}, {"X-Tenant": "mine"}) == {
        "X-B": "b",
        "X-Tenant": "mine",
    }
