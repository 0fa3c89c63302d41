"""The public API as text, one line for each name, argument and default: `make public-api`.

`public_api.txt` is the committed description. It is read from the sources by griffe, so it is
the same on each Python. `docs/stability.md` says what is public, and what a change means.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).parents[1]
COMMITTED = Path(__file__).with_name("public_api.txt")
PUBLIC_MODULES = (
    "langchain_thinnest",
    "langchain_thinnest.emulator",
    "langchain_thinnest.emulator.pytest",
)
UNLISTED = {
    "langchain_thinnest": ["__version__", "create_thinnest_agent"],
    "langchain_thinnest.emulator.pytest": ["ScriptedThinnest", "thinnest"],
}
# What type checkers are told instead of a method's own signature.
DECLARED = {
    "declared_as(Constructor.": "langchain_thinnest._signatures.Constructor.construct",
    "declared_as(Calls[": "langchain_thinnest._signatures.Calls.call",
}
SELF = ("self", "cls")
UNTOLD = ("model_config", "__getstate__", "__setstate__", "__deepcopy__")
CONTRACT = ("PROVIDER", "SERVER_TOOLS", "POSITIONS", "SURROUNDINGS")


def described() -> list[str]:
    """Describe the API of these sources."""
    package = griffe.load("langchain_thinnest", search_paths=[ROOT], resolve_aliases=True)
    modules = {"langchain_thinnest": package, **_modules_of(package)}
    names = {
        f"{module}.{name}": _found(modules[module], name)
        for module in PUBLIC_MODULES
        for name in [*(modules[module].exports or ()), *UNLISTED.get(module, ())]
    }
    # What a public class has from another public one is described there.
    homes = {found.path for found in names.values() if found.is_class}
    api = chain.from_iterable(_lines(p, found, modules, homes) for p, found in names.items())
    return sorted({*api, *_contract(modules), *_outside()})


def _modules_of(package: Any) -> dict[str, Any]:
    found = {}
    for module in package.modules.values():
        found |= {module.path: module, **_modules_of(module)}
    return found


def _found(module: Any, name: Any) -> Any:
    member = module[str(getattr(name, "name", name))]
    return member.final_target if member.is_alias else member


def _lines(path: str, found: Any, modules: dict[str, Any], homes: set[str]) -> Iterator[str]:
    if found.is_class:
        yield f"class {path}({', '.join(_bases(found))})"
        for name, member in found.all_members.items():
            inherited = getattr(member, "inherited", False)
            elsewhere = inherited and member.final_target.parent.path in homes
            if member.is_public and not elsewhere and name not in UNTOLD:
                yield from _lines(f"{path}.{name}", member, modules, homes)
    elif found.is_function:
        start = "async def" if "async" in found.labels else "def"
        yield f"{start} {path} -> {found.returns or '...'}"
        declared = [p for p in _declared(found, modules).parameters if p.name not in SELF]
        for place, parameter in enumerate(declared, 1):
            yield f"{path}({_parameter(place, parameter)})"
    else:
        annotation = re.sub(r"^Annotated\[(.+), _\w+\(.*\)\]$", r"\1", str(found.annotation))
        typed = "" if found.annotation is None else f": {annotation}"
        yield f"{path}{typed}{_value(found.value)}"


def _bases(found: Any) -> list[str]:
    """The classes that it is one of, with those of private ones for them."""
    resolved = {base.name: base for base in found.resolved_bases}
    bases: list[str] = []
    for base in found.bases:
        name = str(base).rpartition(".")[2]
        mixin = resolved.get(name)
        private = mixin is not None and any(
            part.startswith("_") for part in mixin.path.split(".")
        )
        bases += _bases(mixin) if private else [name]
    return bases


def _declared(found: Any, modules: dict[str, Any]) -> Any:
    for decorator in found.decorators:
        for start, path in DECLARED.items():
            if str(decorator.value).startswith(start):
                return modules["langchain_thinnest"][path.partition(".")[2]]
    return found


def _parameter(place: int, parameter: Any) -> str:
    kind = parameter.kind.value if parameter.kind else ""
    stars = {"variadic positional": "*", "variadic keyword": "**"}.get(kind, "")
    named = f"{parameter.name}: {parameter.annotation or '...'}"
    if stars:
        return stars + named
    default = "" if parameter.default is None else f" = {parameter.default}"
    return named + default if kind == "keyword-only" else f"{place} {named}{default}"


def _value(value: Any) -> str:
    """A default, if it is not computed, and the second name of a field."""
    text = str(value)
    alias = ""
    if text.startswith("Field("):
        given = dict(re.findall(r"(\w+)=((?:'[^']*'|[^,()]|\([^)]*\))+)", text))
        alias = f", or {given['alias']}" if "alias" in given else ""
        text = given.get("default", "...")
    elif value is None:
        return ""
    literal = re.fullmatch(r"None|True|False|[\d. *]+|'[^']*'", text)
    return (f" = {text}" if literal else " = ...") + alias


def _contract(modules: dict[str, Any]) -> Iterator[str]:
    """What stands in messages under names of ours."""
    for name in CONTRACT:
        yield f"in messages: {name} {modules['langchain_thinnest._names'][name].value}"


def _outside() -> Iterator[str]:
    """Extras, commands with their options, and variables of the environment."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for kind, table in (("extra", "optional-dependencies"), ("command", "scripts")):
        section = re.search(
            rf"^\[project\.{table}\]\n(.*?)^\[", text, re.DOTALL | re.MULTILINE
        )
        assert section, table
        for name in re.findall(r"^([\w-]+) =", section[1], re.MULTILINE):
            yield f"{kind} {name}"
    for command in ("langchain_thinnest", "langchain_thinnest/emulator"):
        code = (ROOT / command / "__main__.py").read_text(encoding="utf-8")
        for name in re.findall(r'add_argument\(\s*"([\w-]+)"', code):
            yield f"command -m {command.replace('/', '.')} {name}"
    for path in (ROOT / "langchain_thinnest").rglob("*.py"):
        for name in re.findall(r'"(THINNEST(?:AI)?_[A-Z_]+)"', path.read_text("utf-8")):
            yield f"environment {name}"


def difference() -> str:
    """Say how the sources differ from the description, and what to do; nothing if not."""
    now = described()
    then = COMMITTED.read_text(encoding="utf-8").splitlines() if COMMITTED.exists() else []
    gone = [f"  - {line}" for line in then if line not in set(now)]
    new = [f"  + {line}" for line in now if line not in set(then)]
    if not gone and not new:
        return ""
    told = ["The public API is not what unit_tests/public_api.txt describes."]
    if gone:
        told += ["Gone or changed, which may break users: see docs/stability.md.", *gone]
    if new:
        told += ["New, which is a promise from the next release on.", *new]
    told += ["If it is meant: make public-api WRITE=1, and a line in CHANGELOG.md."]
    return "\n".join(told)


if __name__ == "__main__":
    if "--write" in sys.argv:
        COMMITTED.write_text("\n".join(described()) + "\n", encoding="utf-8")
    sys.exit(difference() or 0)
