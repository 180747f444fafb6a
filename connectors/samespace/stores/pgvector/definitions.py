"""Conditions of CHECK constraints, compared as the server prints them and as they were written."""

from __future__ import annotations

import re
from typing import Final, TypeAlias

Tree: TypeAlias = "str | tuple[Tree, ...]"
"""A word, or what is between two parentheses; those around a single word are none."""

_TYPE: Final = (
    r'(?:(?:"(?:[^"]|"")*"|\w+)\.)?'
    r'(?:double\ precision|character\ varying|bit\ varying|"(?:[^"]|"")*"|\w+)'
    r"(?:\(\d+(?:,\d+)?\))?(?:\ with(?:out)?\ time\ zone)?(?:\[\])*"
)
_TOKEN: Final = re.compile(
    rf"""
    (?P<space>\s+)
    | (?P<cast>::{_TYPE})
    | (?P<text>[eE]?'(?:[^'\\]|''|\\.)*')
    | (?P<number>\d+(?:\.\d+)?)
    | (?P<schema>(?:"(?:[^"]|"")*"|\w+)\.(?=vector_(?:norm|dims)\())
    | (?P<quoted>"(?:[^"]|"")*")
    | (?P<name>[^\W\dA-Z][^\WA-Z]*)
    | (?P<other>\w+|[<>=!]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_UNSAID: Final = frozenset(("space", "cast", "schema"))


def same_check(printed: str, condition: str) -> bool:
    """Whether a definition that the server prints is an enforced check of just this condition.

    Casts, the schema of pgvector's functions and needless parentheses and quotes are nothing.
    """
    found, wanted = _tree(printed), _tree(f"CHECK ({condition})")
    return found in {wanted, (*wanted, "NOT", "VALID")}


def _tree(text: str) -> Tree:
    open_groups: list[list[Tree]] = [[]]
    for word in _words(text):
        if word == "(":
            open_groups.append([])
        elif word == ")" and len(open_groups) > 1:
            group = open_groups.pop()
            open_groups[-1].append(group[0] if len(group) == 1 else tuple(group))
        else:
            open_groups[-1].append(word)
    return tuple(open_groups[0])


def _words(text: str) -> list[str]:
    return [
        f'"{match[0]}"' if match.lastgroup == "name" else match[0]
        for match in _TOKEN.finditer(text)
        if match.lastgroup not in _UNSAID
    ]
