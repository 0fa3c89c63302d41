"""What type checkers and editors are told of the arguments is what the model takes."""

from __future__ import annotations

import ast
import collections.abc
import inspect
import types
import typing
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Union

import httpx
import pytest
from langchain_core.caches import BaseCache
from langchain_core.callbacks import Callbacks
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.rate_limiters import BaseRateLimiter
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from langchain_thinnest import ChatThinnest, chat_models
from langchain_thinnest import _fields as fields_module
from langchain_thinnest._fields import ThinnestFields
from langchain_thinnest._signatures import Calls, Constructor, help_of

NAMES_FOR_CHECKERS = {
    "BaseCache": BaseCache,
    "BaseRateLimiter": BaseRateLimiter,
    "Callbacks": Callbacks,
    "ModelProfile": ModelProfile,
    "SecretStr": SecretStr,
    "httpx": httpx,
}
TYPES = typing.get_type_hints(Constructor.construct, localns=NAMES_FOR_CHECKERS)
FIELDS: dict[str, FieldInfo] = {}
for name, field in ChatThinnest.model_fields.items():
    FIELDS[name] = field
    if field.alias:
        FIELDS[field.alias] = field


def arguments_of(declared: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    found = dict(inspect.signature(declared).parameters)
    del found["self"]
    return found


def members(annotation: Any) -> set[Any]:
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return set().union(*map(members, typing.get_args(annotation)))
    return {annotation}


def covers(wide: Any, narrow: Any) -> bool:
    if typing.get_origin(wide) is collections.abc.Mapping:
        return typing.get_origin(narrow) is dict and wide.__args__ == narrow.__args__
    return wide == narrow


def attribute_docs() -> dict[str, str]:
    """The strings below the fields, which editors show beside `model.agent_id`."""
    tree = ast.parse(inspect.getsource(fields_module))
    body = next(
        node.body
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == ThinnestFields.__name__
    )
    return {
        above.target.id: " ".join(ast.literal_eval(below.value).split())
        for above, below in pairwise(body)
        if isinstance(above, ast.AnnAssign) and isinstance(below, ast.Expr)
    }


# --- the constructor ---


def test_each_field_is_declared_under_each_of_its_names() -> None:
    assert arguments_of(Constructor.construct).keys() == FIELDS.keys()


@pytest.mark.parametrize("name", FIELDS)
def test_the_declared_default_is_the_field_s(name: str) -> None:
    argument, field = arguments_of(Constructor.construct)[name], FIELDS[name]
    assert argument.kind is inspect.Parameter.KEYWORD_ONLY
    if field.default_factory is None:
        assert argument.default == field.default
        assert type(argument.default) is type(field.default)
    else:
        assert argument.default is ...
        assert "Default: " in help_of(Constructor.construct)[name]


@pytest.mark.parametrize("name", FIELDS)
def test_the_declared_type_takes_what_the_field_holds(name: str) -> None:
    declared = members(TYPES[name])
    for held in members(FIELDS[name].annotation):
        assert any(covers(wide, held) for wide in declared), held


@pytest.mark.parametrize("name", FIELDS)
def test_what_is_declared_beyond_that_is_taken_too(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THINNEST_API_KEY", "k")
    monkeypatch.setenv("THINNEST_AGENT_ID", "ag_1")
    if name in ("http_client", "http_async_client"):
        httpx2 = pytest.importorskip("httpx2")
        kind = httpx2.Client if name == "http_client" else httpx2.AsyncClient
        assert getattr(ChatThinnest(**{name: (client := kind())}), name) is client
        return
    samples = {str: "sqlite:///limits.db", type(None): None, tuple[str, ...]: ("END",)}
    held = members(FIELDS[name].annotation)
    for wide in members(TYPES[name]):
        if not any(covers(wide, narrow) for narrow in held):
            ChatThinnest(**{name: samples[wide]})


def test_a_mapping_is_taken_for_a_dict() -> None:
    page = types.MappingProxyType({"X-Page": "/pricing"})
    model = ChatThinnest(
        model="ag_1", api_key="k", request_metadata=page, default_headers=page
    )
    assert model.request_metadata == model.default_headers == {"X-Page": "/pricing"}


def test_the_help_is_that_of_the_fields() -> None:
    told = help_of(Constructor.construct)
    below = attribute_docs()
    assert below.keys() == ThinnestFields.__annotations__.keys()
    assert told.keys() == FIELDS.keys()
    for name, field in ChatThinnest.model_fields.items():
        names = [name, field.alias] if field.alias else [name]
        assert {told[each] for each in names} == {below.get(name, told[name])}
        assert field.description == told[name]


@pytest.mark.parametrize("declared", [Constructor.construct, Calls.call])
def test_pyright_finds_each_argument_s_own_help(declared: Callable[..., Any]) -> None:
    names = list(help_of(declared))
    for at, name in enumerate(names):
        assert not [before for before in names[:at] if before.endswith(name)], name


# --- calls ---


def test_each_call_argument_is_declared() -> None:
    unseen = {"ls_structured_output_format", "stream"}  # LangChain's own, and of no effect
    declared = arguments_of(Calls.call)
    assert unseen <= chat_models._CALL_ARGUMENTS
    assert declared.keys() == (chat_models._CALL_ARGUMENTS - unseen) | {
        "input",
        "config",
        "stop",
        "kwargs",
    }
    assert help_of(Calls.call).keys() == declared.keys() - {"kwargs"}


@pytest.mark.parametrize("name", ["invoke", "ainvoke", "stream", "astream"])
def test_a_method_has_the_declared_help_and_its_own_signature(name: str) -> None:
    method = getattr(ChatThinnest, name)
    assert method.__doc__ == Calls.call.__doc__
    declared = arguments_of(Calls.call)
    own = arguments_of(method)
    assert list(own) == ["input", "config", "stop", "kwargs"]
    for parameter in own.values():
        assert parameter == declared[parameter.name]


# --- the file of right and wrong uses ---


def keywords_of(function: str) -> dict[str, set[str]]:
    """The arguments that a function of the file names, by the name of what it calls."""
    tree = ast.parse(Path(__file__).with_name("checked_arguments.py").read_text("utf-8"))
    found: dict[str, set[str]] = {}
    for top in tree.body:
        if getattr(top, "name", None) == function:
            for node in ast.walk(top):
                if isinstance(node, ast.Call):
                    names = {keyword.arg for keyword in node.keywords if keyword.arg}
                    found.setdefault(ast.unparse(node.func), set()).update(names)
    return found


@pytest.mark.parametrize(
    "function", ["right_arguments_of_the_model", "wrong_arguments_of_the_model"]
)
def test_checkers_look_at_each_argument_of_the_model(function: str) -> None:
    assert keywords_of(function)["ChatThinnest"] >= FIELDS.keys()


def test_checkers_look_at_each_argument_of_a_call() -> None:
    named = arguments_of(Calls.call).keys() - {"input", "config", "kwargs"}
    assert keywords_of("right_arguments_of_calls")["model.invoke"] >= named
    for name in ("invoke", "ainvoke", "stream", "astream"):
        assert keywords_of("wrong_arguments_of_calls")[f"model.{name}"] == named
