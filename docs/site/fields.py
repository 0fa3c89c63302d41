"""What the reference says of each field, for griffe: it calls the extension below.

`griffe_pydantic` finds the fields; what their defaults are when the program runs, their second
names, units and limits is added here, from the class itself.
"""

from __future__ import annotations

from typing import Any, get_args

import griffe
from langchain_core.language_models import BaseChatModel

from langchain_thinnest._fields import NO_EFFECT
from langchain_thinnest.chat_models import ChatThinnest

UNITS = {
    "timeout": "seconds",
    "stall_timeout": "seconds",
    "max_retries": "tries",
    "max_retry_wait": "seconds",
    "max_streams": "streams",
    "max_event_bytes": "bytes",
}
# Defaults that are found elsewhere when a model is made.
FOUND = {
    "agent_id": "`THINNEST_AGENT_ID` in the environment",
    "thinnest_api_key": "`THINNEST_API_KEY`, else `THINNESTAI_API_KEY`, in the environment",
    "base_url": '`THINNEST_BASE_URL` in the environment, else `"https://api.thinnest.ai"`',
    "shared_limits": "`THINNEST_SHARED_LIMITS` in the environment, else `None`",
}
_LIMITS = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}


class Fields(griffe.Extension):
    """Adds default, unit, second name and limits to the docstring of each field."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Look at the class once everything is loaded."""
        if pkg.path != "langchain_thinnest":
            return
        fields = pkg["_fields.ThinnestFields"]
        fields.docstring = None  # the page has its own words
        of_pydantic = fields.extra["griffe_pydantic"]
        own = {name: field for name, field in of_pydantic["fields"]().items() if _is_own(name)}
        # What is checked stands with each field; the list above them is of ours alone.
        of_pydantic.update(config={}, validators=dict, fields=lambda: own)
        of_model = pkg["chat_models.ChatThinnest"].extra["griffe_pydantic"]
        of_model.update(config={}, validators=dict, fields=dict)
        for name, field in fields.members.items():
            if isinstance(field, griffe.Attribute) and _is_own(name):
                if field.docstring is None:
                    raise ValueError(f"{name} has no docstring")
                field.value = None
                _check(name)
                told = ". ".join(told_of(name))
                field.docstring.value = f"{told}.\n\n{field.docstring.value}"


def _is_own(name: str) -> bool:
    return name in ChatThinnest.model_fields and name not in BaseChatModel.model_fields


def _check(name: str) -> None:
    """Fail the build for a number without a unit, or a default that is not told."""
    field = ChatThinnest.model_fields[name]
    is_number = bool({int, float} & {field.annotation, *get_args(field.annotation)})
    if is_number and name not in UNITS and name not in NO_EFFECT:
        raise ValueError(f"docs/site/fields.py does not say what {name} is counted in")
    if field.default_factory is not None and name not in FOUND:
        raise ValueError(f"docs/site/fields.py does not say where {name} is found")


def told_of(name: str) -> list[str]:
    """What is said of a field before its meaning."""
    field = ChatThinnest.model_fields[name]
    if name in FOUND:
        told = [f"**Default**: {FOUND[name]}"]
    else:
        told = [f"**Default**: `{field.default!r}`".replace("'", '"')]
    if name in UNITS:
        told.append(f"**Unit**: {UNITS[name]}")
    for limit in field.metadata:
        found = ((word, getattr(limit, key, None)) for key, word in _LIMITS.items())
        told += [f"**Limit**: {word} {value}" for word, value in found if value is not None]
    if field.alias:
        told.append(f"**Second name**: `{field.alias}`")
    return told
