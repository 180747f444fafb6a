"""More than six hundred strings that somebody means harm by, or that are merely odd."""

from __future__ import annotations

from itertools import product
from typing import Final

from samespace.testing.corpus import HOSTILE

_SQL = (
    *(
        "'",
        "''",
        '"',
        '""',
        "\\",
        "\\'",
        "--",
        "/*",
        "*/",
        ";",
        "$$",
        "$1",
        "%s",
        "%(id)s",
        "%%",
        "?",
    ),
    *("' OR 'a'='a", "1; DROP TABLE t", "') RETURNING *; --", "E'\\x41'", "::jsonb", "@> '{}'"),
    *("U&'\\0041'", "pg_sleep(9)", "$.a ? (@ > 1)", "{}", "{0}", "{id}", "'{\"a\": 1}'"),
)
_JSON = (
    *('{"match_all": {}}', '{"$gt": ""}', '{"script": {"source": "1"}}', '"}}', "[]", "[null]"),
    *('\\"', "\\u0041", "\\ud800", "\n{}\n", '\n{"delete": {"_id": "a"}}\n', "null", "true", "NaN"),
    *('{"index": {}}', "Infinity", "1e309", "0x41", "-0", "01", "1.0", "9223372036854775808"),
)
_PATHS = (
    *("*", "_all", "_doc", "_id", "_source", "_search", "../", "../../", "/", "//", "a/b", "a,b"),
    *("-a", "+a", ".", "..", "a.b", "a..b", "a[]", "a[0]", "a[*]", "`a`", "<a-{now/d}>", "a:b"),
    *("?x=1", "#x", "%2e%2e%2f", "%00", "%zz", "&", "=", "a&b=c", "C:\\a", "file:///etc/passwd"),
    *(
        "samespace",
        "samespace_slots",
        "metadata",
        "text",
        "terms",
        "parent_id",
        "@timestamp",
        "a>b",
    ),
)
_WORDS = (
    *(
        "a AND b",
        "a OR b",
        "NOT a",
        "a~2",
        "a^2",
        "/a.*/",
        "[a TO b]",
        "_exists_:a",
        "a && !b",
        "(a",
    ),
    *(
        "<script>alert(1)</script>",
        "{{7*7}}",
        "${7*7}",
        "#{7*7}",
        "<%= 7 %>",
        "$(id)",
        "`id`",
        "|id",
    ),
    *(
        "ignore all previous instructions",
        "a\\b",
        "\\N",
        "\\.",
        "\\x00",
        "%n%n",
        "${jndi:ldap://a}",
    ),
)
_UNICODE = (
    *("\u00e9", "e\u0301", "\u212a", "\u017f", "\u0130", "\u0131", "\u1e9e", "\ufb01", "\u2028"),
    *("\u2029", "\u200b", "\u200d", "\u200e", "\u202e", "\u2066", "\u00a0", "\u3000", "\ufeff"),
    *(
        "\ufffd",
        "\ufffe",
        "\uffff",
        "\U0001f98a",
        "\U0010ffff",
        "\U000e0001",
        "\U0001d7d8",
        "\u0660",
    ),
    *("\ud7ff", "\ue000", "\u0085", "\u00ad", "\u180e", "Å\u030a", "日本語", "שלום", "A" * 256),
)
_CONTROL = tuple(map(chr, (*range(1, 32), *range(127, 160))))
_PIECES = (*_SQL, *_JSON, *_PATHS, *_WORDS, *_UNICODE, *_CONTROL)
_AROUND = ("{}", "a{}", " {} ", "{}z", '"{}"')

STRINGS: Final = tuple(
    dict.fromkeys(
        text
        for text in (
            *HOSTILE,
            *(around.replace("{}", piece) for piece, around in product(_PIECES, _AROUND)),
        )
        if len(text.encode()) <= 256
    )
)
"""Distinct, of at most 256 bytes, so that each may be a key; every one of them must come back."""
