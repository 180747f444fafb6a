"""Pages of HTML that need nothing else: no script, and nothing of it is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Final

from samespace.audit.verdicts import edge_text

_STYLE: Final = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .2rem .6rem; border-bottom: 1px solid #8884 }
td.n { text-align: right; font-variant-numeric: tabular-nums }
td.bar { width: 60% } td.bar span { display: block; height: 1rem; background: #47a }
tr.low td.bar span { background: #b43 }
.big { font-size: 2rem }
"""


def page(title: str, body: Iterable[str], *, style: str = "") -> str:
    """A page with what is in its body, which is HTML; ``style`` comes after that of all pages."""
    shown = escape(title)
    return "\n".join([
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{shown}</title><style>{_STYLE}{style}</style></head><body>",
        f"<h1>{shown}</h1>",
        *body,
        "</body></html>\n",
    ])  # fmt: skip


def paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """Texts, a paragraph each."""
    return (f"<p>{escape(line.strip())}</p>" for line in lines)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Texts in rows."""
    yield "<table><tr>" + "".join(f"<th>{escape(each)}</th>" for each in head) + "</tr>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{escape(each)}</td>" for each in row) + "</tr>"
    yield "</table>"


def histogram(edges: Sequence[float], counts: Sequence[int], threshold: float) -> Iterator[str]:
    """How many rows have a cosine from each edge on; those below the threshold in another colour."""
    most = max(counts, default=0)
    yield "<table><tr><th>from</th><th>rows</th><th></th></tr>"
    for edge, count in zip(edges, counts, strict=False):
        if count:
            kind = ' class="low"' if edge < threshold else ""
            width = max(1, round(100 * count / most))
            yield (
                f'<tr{kind}><td class="n">{edge_text(edge)}</td><td class="n">{count:,}</td>'
                f'<td class="bar"><span style="width:{width}%"></span></td></tr>'
            )
    yield "</table>"
