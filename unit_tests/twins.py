"""Finds sync and async twins in source code, and says where they differ.

A function or class is another one's async twin if it stands in the same scope, and its name is
the other one's with an `a` before it or an `Async` in it: `aread`, `__aenter__`, `AsyncPool`.
Twins are equal if their syntax trees are, once docstrings and what makes code async are taken
away. A twin that only calls the other one, with its own arguments, is equal to it.

Where they are meant to differ, a comment says so, with the reason:

    # Twins differ: <reason>    Above a function or a class: in all of it. Above a statement
                                inside: from here to where they agree again, but not in the
                                blocks inside of that. Above the first argument of a function:
                                in its arguments.
    # No twin: <reason>         Above what is async and has no twin.
"""

from __future__ import annotations

import ast
import copy
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from typing import TypeVar

DIFFER = "Twins differ"
ALONE = "No twin"
_NOTE = re.compile(rf"# ({DIFFER}|{ALONE}): \S")
_BETWEEN = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
_WORD = re.compile("async_|_async|ASYNC_|Async")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
S = TypeVar("S", bound=ast.stmt)


def twins_in(source: str) -> list[tuple[str, str]]:
    """The names of all twins, the sync one first."""
    return list(_pairs(ast.parse(source).body))


def problems(sources: Mapping[str, str]) -> list[str]:
    """Say where twins differ without a note, and which notes are about nothing.

    Args:
        sources: The source code by its file's name. All twins in it are known in each file.
    """
    known = {sync for source in sources.values() for sync, _ in twins_in(source)}
    return [
        f"{file}:{problem}"
        for file, source in sources.items()
        for problem in _File(source, known).problems()
    ]


def _pairs(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    found = {definition.name: definition for definition in _definitions(body)}
    for name, definition in found.items():
        yield from [(sync, name) for sync in _sync_names(name) if sync in found]
        yield from _pairs(definition.body)


class _File:
    """Looks through one file.

    Args:
        source: Its source code.
        known: The names of sync twins, also those of other files.
    """

    def __init__(self, source: str, known: set[str]) -> None:
        self._source = source
        self._known = known
        self._lines = source.splitlines()
        self._notes = _notes(source)
        self._used: set[int] = set()
        self._problems: list[tuple[int, str]] = []

    def problems(self) -> list[str]:
        self._look(ast.parse(self._source).body)
        for line in self._notes.keys() - self._used:
            self._add(line, f"no such note is needed above {self._text(line)}")
        return [f"{line}: {problem}" for line, problem in sorted(self._problems)]

    def _look(self, body: list[ast.stmt]) -> None:
        """Compare the twins of one scope, and of the scopes inside of it."""
        found = {definition.name: definition for definition in _definitions(body)}
        twins = {twin: sync for twin in found for sync in _sync_names(twin) if sync in found}
        for name, definition in found.items():
            if name in twins:
                self._compare_twins(found[twins[name]], definition)
            elif name not in twins.values():
                self._look_alone(definition)

    def _look_alone(self, definition: Definition) -> None:
        if any(isinstance(node, ast.AsyncFunctionDef) for node in ast.walk(definition)):
            if self._is_noted(ALONE, _start(definition)):
                return
            if isinstance(definition, ast.AsyncFunctionDef):
                self._add(definition.lineno, f"{definition.name} has no twin")
        self._look(definition.body)

    def _compare_twins(self, sync: Definition, twin: Definition) -> None:
        if _only_calls(twin, sync):
            return
        plain = _Sync().visit(copy.deepcopy(sync))
        plain_twin = _Async(_names_in(sync), self._known).visit(copy.deepcopy(twin))
        plain.name = plain_twin.name = ""
        self._compare(plain, plain_twin)

    def _compare_all(self, sync: list[ast.stmt], twin: list[ast.stmt]) -> None:
        """Compare two lists of statements: definitions by name, others in their order."""
        inner = {each.name: each for each in sync if isinstance(each, DEFINITIONS)}
        inner_twins = {each.name: each for each in twin if isinstance(each, DEFINITIONS)}
        for name in {**inner, **inner_twins}:
            both = [found[name] for found in (inner, inner_twins) if name in found]
            if len(both) == 2:
                self._compare(*both)
            elif not self._is_noted(ALONE, _start(both[0])):
                self._add(both[0].lineno, f"only one twin has {self._text(both[0].lineno)}")
        sync = [each for each in sync if not isinstance(each, DEFINITIONS)]
        twin = [each for each in twin if not isinstance(each, DEFINITIONS)]
        dumps = [list(map(ast.dump, statements)) for statements in (sync, twin)]
        for kind, *places in SequenceMatcher(None, *dumps, autojunk=False).get_opcodes():
            if kind != "equal":
                self._compare_unlike(sync[slice(*places[:2])], twin[slice(*places[2:])])

    def _compare_unlike(self, sync: list[ast.stmt], twin: list[ast.stmt]) -> None:
        if len(sync) == len(twin):
            is_noted = False
            for one, other in zip(sync, twin, strict=True):
                is_noted = self._compare(one, other, is_noted=is_noted)
        elif not self._is_noted(DIFFER, *(_start(each[0]) for each in (sync, twin) if each)):
            self._differ(sync[:1], twin[:1])

    def _compare(self, sync: ast.stmt, twin: ast.stmt, *, is_noted: bool = False) -> bool:
        """Compare two statements.

        Args:
            sync: The one of the sync twin.
            twin: The one of the async twin.
            is_noted: The ones before differ, and have a note.

        Returns:
            Whether these differ, and have a note.
        """
        lines = [_start(sync), _start(twin)]
        if isinstance(sync, DEFINITIONS) and self._is_noted(DIFFER, *lines):
            return True
        blocks, twin_blocks = _blocks(sync), _blocks(twin)
        is_equal = ast.dump(_head(sync)) == ast.dump(_head(twin))
        if not is_equal or len(blocks) != len(twin_blocks):
            for node, inside in ((sync, blocks), (twin, twin_blocks)):
                lines += range(node.lineno, inside[0][0].lineno if inside else node.lineno)
            is_noted = self._is_noted(DIFFER, *lines) or is_noted
            if not is_noted:
                self._differ([sync], [twin])
        for block, twin_block in zip(blocks, twin_blocks, strict=False):
            self._compare_all(block, twin_block)
        return is_noted

    def _differ(self, sync: list[ast.stmt], twin: list[ast.stmt]) -> None:
        lines = [node.lineno for node in (*twin, *sync)]
        text = " | ".join(f"{self._text(line)} (line {line})" for line in reversed(lines))
        self._add(lines[0], f"twins differ: {text}")

    def _add(self, line: int, problem: str) -> None:
        self._problems.append((line, problem))

    def _text(self, line: int) -> str:
        return self._lines[line - 1].strip()

    def _is_noted(self, kind: str, *lines: int) -> bool:
        noted = [line for line in lines if self._notes.get(line) == kind]
        self._used.update(noted)
        return bool(noted)


class _Sync(ast.NodeTransformer):
    """Makes sync code what both twins can be."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for name, value in ast.iter_fields(node):
            if isinstance(value, str):
                setattr(node, name, self.plain_name(value))
        super().generic_visit(node)
        if isinstance(node, DEFINITIONS) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.copy_location(ast.Pass(), node.body[0])]
        return node

    def plain_name(self, name: str) -> str:
        return name.replace("Sync", "")

    def visit_For(self, node: ast.For) -> ast.AST:
        """`for item in items: yield item`, where sync code has `yield from items`."""
        self.generic_visit(node)
        match node:
            case ast.For(
                target=ast.Name(id=item),
                body=[ast.Expr(value=ast.Yield(value=ast.Name(id=given)))],
                orelse=[],
            ) if item == given:
                return ast.copy_location(ast.Expr(ast.YieldFrom(node.iter)), node)
        return node


class _Async(_Sync):
    """Makes async code what it would be as sync code.

    Args:
        names: All names of the sync twin.
        known: The names of functions that have an async twin.
    """

    def __init__(self, names: set[str], known: set[str]) -> None:
        self._names = names
        self._known = known

    def plain_name(self, name: str) -> str:
        name = _WORD.sub("", name)
        if name in self._names:
            return name
        return next((sync for sync in _sync_names(name) if sync in self._names), name)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """A call of a sync function that has an async twin is like nothing in sync code."""
        is_sync = ast.unparse(node.func).rpartition(".")[2] in self._known
        self.generic_visit(node)
        if is_sync:
            node.keywords.append(ast.keyword("is_sync", ast.Constant(value=True)))
        return node

    def visit_Await(self, node: ast.Await) -> ast.AST:
        return self.visit(node.value)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self.visit(_as(ast.FunctionDef, node))

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        return self.visit(_as(ast.With, node))

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        return self.visit(_as(ast.For, node))

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        node.is_async = 0
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if ast.unparse(node) == "asyncio.sleep":
            return ast.parse("time.sleep", mode="eval").body
        return self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        match node:
            case ast.Subscript(value=ast.Name(id="Awaitable"), slice=result):
                return self.visit(result)
            case ast.Subscript(
                value=ast.Name(id="Coroutine"), slice=ast.Tuple(elts=[_, _, result])
            ):
                return self.visit(result)
            case ast.Subscript(value=ast.Name(id="AsyncGenerator"), slice=ast.Tuple()):
                node.slice.elts.append(ast.Constant(value=None))
        return self.generic_visit(node)


def _as(kind: type[S], node: ast.stmt) -> S:
    fields = {name: getattr(node, name) for name in kind._fields if hasattr(node, name)}
    return ast.copy_location(kind(**fields), node)


def _definitions(body: list[ast.stmt]) -> Iterator[Definition]:
    """The functions and classes of a scope, those in its `if` and `try` statements too."""
    for statement in body:
        if isinstance(statement, DEFINITIONS):
            yield statement
        else:
            for block in _blocks(statement):
                yield from _definitions(block)


def _blocks(statement: ast.stmt) -> list[list[ast.stmt]]:
    """The lists of statements inside of one; those that are empty are left out."""
    holders = [statement]
    holders += [*getattr(statement, "handlers", []), *getattr(statement, "cases", [])]
    names = ("body", "orelse", "finalbody")
    blocks = [getattr(holder, name, []) for holder in holders for name in names]
    return [block for block in blocks if block]


def _head(statement: ast.stmt) -> ast.stmt:
    """A statement without those inside of it."""
    head = copy.deepcopy(statement)
    for block in _blocks(head):
        block.clear()
    return head


def _sync_names(name: str) -> Iterator[str]:
    """The names that the sync twin may have."""
    if (plain := _WORD.sub("", name)) != name:
        yield plain
    if match := re.fullmatch(r"(_*)a(\w+)", name):
        yield match[1] + match[2]


def _names_in(node: ast.AST) -> set[str]:
    return {
        value
        for inner in ast.walk(node)
        for _, value in ast.iter_fields(inner)
        if isinstance(value, str)
    }


def _only_calls(twin: Definition, sync: Definition) -> bool:
    """Whether a twin does nothing but call the other one, with its own arguments."""
    if isinstance(twin, ast.ClassDef):
        return False
    names = [argument.arg for argument in twin.args.args]
    owner = "self." if names[:1] == ["self"] else ""
    call = f"{owner}{sync.name}({', '.join(names[bool(owner) :])})"
    body = twin.body[1:] if ast.get_docstring(twin) else twin.body
    return [ast.unparse(each) for each in body] in ([call], [f"return {call}"])


def _start(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)])


def _notes(source: str) -> dict[int, str]:
    """The kind of each note, by the line of code that follows it."""
    notes: dict[int, str] = {}
    pending = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if match := _NOTE.match(token.string):
                pending = match[1]
        elif pending and token.type not in _BETWEEN:
            notes[token.start[0]] = pending
            pending = ""
    return notes
