"""The elements of all pages: the document, its figures, tables, lists and notes, as HTML text.

A page is one file that needs no other and runs no script. What is given as text is escaped here; what
is named `body` or `svg` is HTML already.
"""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cm_jax.config import flatten
from cm_jax.reports.style import CSS


class Section(NamedTuple):
    """A part of a page: its heading, and HTML text."""

    heading: str
    body: str


def document(title: str, lead: str, sections: Sequence[Section], top: str = '') -> str:
    """Returns a page: the title, the lead, `top` (HTML text), and the sections that have a body."""
    parts = ''.join(
        f'<h2>{html.escape(section.heading)}</h2>\n{section.body}\n'
        for section in sections
        if section.body
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(title)}</title><style>{CSS}</style></head><body><main>
<h1>{html.escape(title)}</h1>
<p class="lead">{html.escape(lead)}</p>
{top}{parts}</main></body></html>
"""


def figure(svg: str, title: str, caption: str) -> str:
    """Returns a plot with its title and caption."""
    return (
        f'<figure><div class="wide" role="img" aria-label="{html.escape(title)}">{svg}</div>'
        f'<figcaption><b>{html.escape(title)}.</b> {html.escape(caption)}</figcaption></figure>'
    )


def figures(parts: Sequence[str]) -> str:
    """Returns figures side by side, as many in a row as have room; '' for none."""
    return f'<div class="plots">{"".join(parts)}</div>' if parts else ''


def image(png: bytes, alt: str) -> str:
    """Returns an image that holds the bytes of a PNG file."""
    source = f'data:image/png;base64,{base64.b64encode(png).decode()}'
    return f'<img src="{source}" alt="{html.escape(alt)}">'


def strips(rows: Sequence[tuple[str, str, bytes]]) -> str:
    """Returns rows of samples below each other: (name, description, PNG file) each."""
    return ''.join(
        f'<figure class="strip"><figcaption><b>{html.escape(name)}</b> {html.escape(detail)}'
        f'</figcaption>{image(png, f"Samples: {name}, {detail}".rstrip(", "))}</figure>'
        for name, detail, png in rows
    )


def numbers(tag: str, cells: Sequence[Any]) -> str:
    """Returns the cells of a table row, aligned to the right; `tag` is 'td' or 'th'."""
    return ''.join(f'<{tag} class="n">{html.escape(str(cell))}</{tag}>' for cell in cells)


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a table whose first column names its rows, in a box that scrolls where it is too wide.

    Columns of numbers, which have a digit or a dash in the first row, are aligned to the right.
    """
    first = [str(cell)[:1] for cell in rows[0]] if rows else []
    classes = [' class="n"' if start.isdigit() or start in '–-' else '' for start in first]
    classes += [''] * (len(heads) - len(classes))

    def cells(tag: str, row: Sequence[Any]) -> str:
        return ''.join(
            f'<{tag}{name}>{html.escape(str(cell))}</{tag}>'
            for cell, name in zip(row, classes[1:], strict=True)
        )

    body = ''.join(
        f'<tr><th scope="row">{html.escape(str(name))}</th>{cells("td", row)}</tr>'
        for name, *row in rows
    )
    return (
        f'<div class="wide"><table><thead><tr><th scope="col">{html.escape(heads[0])}</th>'
        f'{cells("th", heads[1:])}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def definitions(terms: Mapping[str, str]) -> str:
    """Returns a list of terms, each with its description."""
    items = (
        f'<dt>{html.escape(term)}</dt><dd>{html.escape(description)}</dd>'
        for term, description in terms.items()
    )
    return f'<dl>{"".join(items)}</dl>'


def settings(configs: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns resolved configs by their titles, each folded, with one key in a line."""
    lines = {
        title: '\n'.join(f'{key} = {json.dumps(value)}' for key, value in flatten(config).items())
        for title, config in configs.items()
    }
    return ''.join(
        f'<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>'
        for title, text in lines.items()
    )


def soft(text: str) -> str:
    """Returns a paragraph in small print."""
    return f'<p class="soft">{html.escape(text)}</p>'


def flag(text: str) -> str:
    """Returns a paragraph that stands out: something is to be said against what the page shows."""
    return f'<p class="flag">{html.escape(text)}</p>'


def missing(text: str, command: str = '') -> str:
    """Returns a paragraph that says what is not there, and the command that makes it, if one does."""
    made_by = f' This makes it:</p><pre class="command">{html.escape(command)}</pre>'
    return f'<p class="soft">{html.escape(text)}' + (made_by if command else '</p>')
