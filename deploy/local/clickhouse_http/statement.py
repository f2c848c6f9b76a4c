"""What a client sent, seen as text: an INSERT with data after it, or anything else.

The engine parses SQL; here only as much is read as decides where the statement
ends and the data begins, and which format an answer has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SPACE = r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/)"
_NAME = r"(?:`(?:[^`\\]|\\.|``)+`|\"(?:[^\"\\]|\\.)+\"|[A-Za-z_]\w*)"
_QUOTED = r"'(?:[^'\\]|\\.|'')*'"
_PARENTHESES = rf"\((?:[^()'`\"]|{_QUOTED}|`[^`]*`|\"[^\"]*\"|\((?:[^()']|{_QUOTED})*\))*\)"

# INSERT INTO [TABLE] [db.]table | FUNCTION f(...) [(columns)] [SETTINGS ...] (FORMAT name | VALUES)
_INSERT_WITH_DATA = re.compile(
    rf"""\A{_SPACE}*
    (?P<head>INSERT{_SPACE}+INTO{_SPACE}+(?:TABLE{_SPACE}+)?
        (?:FUNCTION{_SPACE}+{_NAME}{_SPACE}*{_PARENTHESES}|{_NAME}(?:{_SPACE}*\.{_SPACE}*{_NAME})?)
        (?:{_SPACE}*{_PARENTHESES})?
        (?:{_SPACE}*SETTINGS{_SPACE}+(?:[\w.]+{_SPACE}*={_SPACE}*(?:{_QUOTED}|[\w.+-]+){_SPACE}*,?{_SPACE}*)+)?
    ){_SPACE}*
    (?:FORMAT{_SPACE}+(?P<format>\w+)|(?P<values>VALUES))(?P<rest>.*)\Z""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_INSERT = re.compile(rf"\A{_SPACE}*INSERT\b", re.IGNORECASE | re.DOTALL)
_SETTINGS_AFTER_FORMAT = re.compile(
    rf"\A{_SPACE}*(SETTINGS{_SPACE}+(?:[\w.]+{_SPACE}*={_SPACE}*(?:{_QUOTED}|[\w.+-]+){_SPACE}*,?{_SPACE}*)+)\Z",
    re.IGNORECASE | re.DOTALL,
)
_OUTPUT_FORMAT = re.compile(
    rf"\bFORMAT{_SPACE}+(\w+)(?:{_SPACE}+SETTINGS\b[^;]*)?{_SPACE}*;?{_SPACE}*\Z", re.IGNORECASE | re.DOTALL
)


@dataclass(frozen=True)
class Insert:
    """An INSERT whose rows come as data, not from a SELECT."""

    head: str
    """The statement up to its FORMAT, which the engine wants separately."""
    format: str
    inline_data: bytes
    """The start of the data, when it came with the statement."""


def parse_insert(statement: bytes) -> Insert | None:
    """The INSERT in `statement` that is followed by data; None for anything else."""
    # Latin-1 keeps every byte, so binary data behind the statement survives.
    match = _INSERT_WITH_DATA.match(statement.decode("latin-1"))
    if match is None:
        return None
    head = match["head"].encode("latin-1").decode("utf-8", errors="replace").rstrip()
    rest = match["rest"]
    if match["values"]:
        return Insert(head, "Values", rest.encode("latin-1"))
    settings = _SETTINGS_AFTER_FORMAT.match(rest)
    if settings:
        # `... FORMAT X SETTINGS a = 1`: the engine takes them before FORMAT only.
        return Insert(f"{head} {settings[1]}", match["format"], b"")
    # As in ClickHouse: spaces and one line break stand between statement and data.
    data = re.sub(r"\A[ \t\f]*(?:\r?\n|;)?", "", rest)
    return Insert(head, match["format"], data.encode("latin-1"))


def is_insert(statement: str) -> bool:
    return _INSERT.match(statement) is not None


def output_format(statement: str) -> str | None:
    """The format that the statement itself asks for."""
    match = _OUTPUT_FORMAT.search(statement)
    return match[1] if match else None


def quoted(text: str) -> str:
    """A ClickHouse string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quoted_name(text: str) -> str:
    return "`" + text.replace("\\", "\\\\").replace("`", "\\`") + "`"
