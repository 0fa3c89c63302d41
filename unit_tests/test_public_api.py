"""The public API is as `public_api.txt` describes it; see `docs/stability.md`."""

from __future__ import annotations

from pathlib import Path

import pytest

import langchain_thinnest
from langchain_thinnest import ChatThinnest, emulator
from langchain_thinnest._fields import ThinnestFields
from unit_tests import public_api
from unit_tests.public_api import COMMITTED, difference

DESCRIBED = COMMITTED.read_text(encoding="utf-8").splitlines()


def test_the_public_api_is_as_described() -> None:
    if told := difference():
        pytest.fail(told, pytrace=False)


def test_a_change_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = "langchain_thinnest.ChatThinnest.invoke(mood: str = 'good')"
    committed = tmp_path / "public_api.txt"
    committed.write_text("\n".join([*DESCRIBED[1:], gone]), encoding="utf-8")
    monkeypatch.setattr(public_api, "COMMITTED", committed)
    told = difference()
    assert "Gone or changed" in told
    assert f"\n  - {gone}" in told
    assert f"\n  + {DESCRIBED[0]}" in told
    assert "make public-api WRITE=1" in told


@pytest.mark.parametrize(
    "line",
    [
        # A field, under both of its names, from a private class.
        "langchain_thinnest.ChatThinnest.stop: list[str] | None = None, or 'stop_sequences'",
        # An argument of a call, where type checkers find it; one with its place.
        "langchain_thinnest.ChatThinnest.astream(session_id: str | int | UUID | None = None)",
        "langchain_thinnest.ChatThinnest.invoke(1 input: LanguageModelInput)",
        # Errors are LangChain's too.
        "class langchain_thinnest.ThinnestRateLimitError(ThinnestError, ModelRateLimitError)",
        "langchain_thinnest.ThinnestStreamError.partial: AIMessage = ...",
        "class langchain_thinnest.ChatThinnest(BaseChatModel)",
        "langchain_thinnest.emulator.ThinnestEmulator.base_url: str",
        "in messages: SERVER_TOOLS 'server_tools'",
        "environment THINNEST_AGENT_ID",
        "extra emulator",
        "command -m langchain_thinnest.emulator --requests-per-window",
    ],
)
def test_what_the_description_covers(line: str) -> None:
    assert line in DESCRIBED


def test_every_public_name_is_described() -> None:
    text = "\n".join(DESCRIBED)
    for module in (langchain_thinnest, emulator):
        for name in module.__all__:
            assert f" {module.__name__}.{name}" in text
    for field in ThinnestFields.model_fields.keys() & ThinnestFields.__annotations__.keys():
        assert f"\nlangchain_thinnest.{ChatThinnest.__name__}.{field}: " in text


def test_nothing_private_is_described() -> None:
    names = [line.split("(")[0].split(":")[0] for line in DESCRIBED]
    assert not [n for n in names if "._" in n.replace(".__", ".")]
