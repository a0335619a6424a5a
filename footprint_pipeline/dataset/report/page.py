"""One self-contained HTML page of figures and tables. Knows nothing of datasets; loads nothing from anywhere."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, StrictUndefined


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: of its file, without suffix.
        png: the picture.
        alt: what it shows, for those who do not see it.
        caption: what to see on it.
        heading: said above it.
    """

    name: str
    png: bytes
    alt: str
    caption: str = ""
    heading: str = ""

    @property
    def uri(self) -> str:
        """The picture itself, as a data URI."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"

    @property
    def width(self) -> int:
        """Pixels across, from the PNG's header."""
        return int.from_bytes(self.png[16:20], "big")

    @property
    def height(self) -> int:
        """Pixels from top to bottom, from the PNG's header."""
        return int.from_bytes(self.png[20:24], "big")


@dataclass(frozen=True)
class Table:
    """Rows of text under `head`; the first cell of a row names it, the others stand to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Part:
    """Pictures and a table that belong together; `beside` puts the table beside the pictures."""

    pictures: Sequence[Picture] = ()
    table: Table | None = None
    beside: bool = False
    title: str = ""
    text: str = ""


@dataclass(frozen=True)
class Section:
    """A chapter of the page. `facts` are (number, what it is), shown large at its head."""

    key: str
    title: str
    parts: Sequence[Part]
    facts: Sequence[tuple[str, str]] = field(default=())


def render_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The page as HTML text; everything is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_PAGE).render(title=title, subtitle=subtitle, sections=sections)


_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light; --ink: #22303c; --quiet: #5d6975; --line: #e3e0d8; --paper: #fbfaf7; --blue: #2b5c8f; }
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif;
}
header, main { max-width: 1200px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 36px; }
main { padding-bottom: 48px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 21px; margin: 44px 0 14px; padding-top: 14px; border-top: 2px solid var(--ink); }
h3 { font-size: 16px; margin: 0 0 8px; }
h4 { font-size: 14px; margin: 14px 0 6px; }
p { margin: 0 0 12px; max-width: 92ch; }
.quiet, figcaption, caption { color: var(--quiet); font-size: 13px; }
nav { margin-top: 14px; display: flex; flex-wrap: wrap; gap: 6px 18px; }
a { color: var(--blue); }
.facts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px;
  margin: 0 0 18px; padding: 0; list-style: none;
}
.facts li { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.facts b { display: block; font-size: 21px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.part { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 18px 20px; margin: 0 0 18px; }
.beside { display: grid; grid-template-columns: minmax(0, 8fr) minmax(280px, 5fr); gap: 8px 28px; align-items: start; }
@media (max-width: 860px) { .beside { grid-template-columns: minmax(0, 1fr); } }
figure { margin: 0 0 10px; }
img { display: block; width: 100%; height: auto; }
figcaption { margin-top: 4px; max-width: 92ch; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 6px; }
th, td { padding: 4px 0 4px 14px; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
td { white-space: pre; }
th:first-child { padding-left: 0; text-align: left; font-weight: normal; }
thead th, thead th:first-child { color: var(--quiet); font-weight: 600; font-size: 13px; vertical-align: bottom; }
.narrow { max-width: 620px; }
details table { max-width: 760px; }
details { margin-top: 6px; }
summary { cursor: pointer; color: var(--blue); font-size: 14px; }
@media print {
  body { background: #fff; font-size: 12px; }
  header, main { max-width: none; padding: 0; }
  nav, details { display: none; }
  .part { border: 0; padding: 0; }
  .beside { grid-template-columns: minmax(0, 8fr) minmax(230px, 5fr); }
  figure, table, .facts { break-inside: avoid; }
  h2, h3, h4 { break-after: avoid; }
}
@page { margin: 14mm; }
</style>
</head>
<body>
<header>
<h1>{{ title }}</h1>
<p class="quiet">{{ subtitle }}</p>
<nav aria-label="Sections">
{% for section in sections %}
<a href="#{{ section.key }}">{{ section.title }}</a>
{% endfor %}
</nav>
</header>
<main>
{% for section in sections %}
<section id="{{ section.key }}">
<h2>{{ section.title }}</h2>
{% if section.facts %}
<ul class="facts">
{% for number, what in section.facts %}
<li><b>{{ number }}</b><span class="quiet">{{ what }}</span></li>
{% endfor %}
</ul>
{% endif %}
{% for part in section.parts %}
<div class="part">
{% if part.title %}
<h3>{{ part.title }}</h3>
{% endif %}
{% if part.text %}
<p class="quiet">{{ part.text }}</p>
{% endif %}
<div{% if part.beside %} class="beside"{% endif %}>
{% if part.pictures %}
<div>
{% for picture in part.pictures %}
<figure>
{% if picture.heading %}
<h4>{{ picture.heading }}</h4>
{% endif %}
<img src="{{ picture.uri }}" alt="{{ picture.alt }}" width="{{ picture.width }}" height="{{ picture.height }}">
{% if picture.caption %}
<figcaption>{{ picture.caption }}</figcaption>
{% endif %}
</figure>
{% endfor %}
</div>
{% endif %}
{% if part.table %}
{% if part.table.folded %}
<details><summary>{{ part.table.caption }}</summary>
{% endif %}
<div class="scroll">
<table{% if part.table.head | length < 4 %} class="narrow"{% endif %}>
{% if part.table.caption and not part.table.folded %}
<caption>{{ part.table.caption }}</caption>
{% endif %}
<thead><tr>{% for cell in part.table.head %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in part.table.rows %}
<tr><th scope="row">{{ row[0] }}</th>{% for cell in row[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% if part.table.folded %}
</details>
{% endif %}
{% endif %}
</div>
</div>
{% endfor %}
</section>
{% endfor %}
</main>
</body>
</html>
"""
