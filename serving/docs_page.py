"""The OpenAPI document as one plain page: no script, nothing from elsewhere, its style allowed by its hash."""

import base64
import hashlib
import json
import re
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h2 { margin-top: 2.5rem; border-top: 1px solid #ccc; padding-top: 1rem; }
code, pre { font: 14px/1.45 ui-monospace, monospace; background: #f4f4f4; }
pre { padding: .7rem; overflow: auto; }
table { border-collapse: collapse; width: 100%; display: block; overflow-x: auto; }
h2, li, td { overflow-wrap: anywhere; }
td, th { text-align: left; vertical-align: top; border-bottom: 1px solid #ddd; padding: .25rem .5rem; }
.method { color: #fff; background: #2b5c8a; padding: .1rem .5rem; border-radius: .2rem; font-size: .9rem; }
p.told { white-space: pre-line; }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181818; } code, pre { background: #262626; } a { color: #8bf; }
}
"""
STYLE_SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
"""What a Content-Security-Policy must allow."""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ info.title }}</title><style>{{ style }}</style>
</head>
<body>
<h1>{{ info.title }} {{ info.version }}</h1>
<p>{{ info.description|prose }} The same for machines: <a href="openapi.json">openapi.json</a>.</p>
{% if components.securitySchemes %}<p>Requests bring a key: <code>Authorization: Bearer KEY</code> or
<code>X-API-Key: KEY</code>.</p>{% endif %}
<ul>{% for path, methods in paths.items() %}{% for method, it in methods.items() %}
<li><a href="#{{ it.operationId }}"><code>{{ method|upper }} {{ path }}</code></a> {{ it.summary }}</li>
{% endfor %}{% endfor %}</ul>
{% macro schema(of) %}{% if of["$ref"] %}{% set name = of["$ref"].split("/")[-1] %}
<a href="#schema-{{ name }}">{{ name }}</a>{% else %}<code>{{ of|json }}</code>{% endif %}{% endmacro %}
{% for path, methods in paths.items() %}{% for method, it in methods.items() %}
<h2 id="{{ it.operationId }}"><span class="method">{{ method|upper }}</span> <code>{{ path }}</code></h2>
<p><b>{{ it.summary }}</b></p>
{% if it.description %}<p class="told">{{ it.description|prose }}</p>{% endif %}
{% if it.parameters %}<table><tr><th>parameter</th><th>what</th><th>schema</th></tr>
{% for parameter in it.parameters %}<tr>
<td><code>{{ parameter.name }}</code>{% if parameter.required %} *{% endif %}</td>
<td>{{ parameter.description|prose }}</td>
<td>{{ schema(parameter.schema or parameter.content["application/json"].schema) }}</td></tr>
{% endfor %}</table>{% endif %}
{% if it.requestBody %}<h3>Body</h3><table>{% for media, is in it.requestBody.content.items() %}
<tr><td><code>{{ media }}</code></td><td>{{ schema(is.schema) }}</td></tr>{% endfor %}</table>{% endif %}
<h3>Answers</h3><table>{% for status, answer in it.responses.items() %}{% for media, is in answer.content.items() %}
<tr><td>{{ status }} {{ answer.description|prose }}</td><td><code>{{ media }}</code></td>
<td>{{ schema(is.schema) }}</td></tr>
{% endfor %}{% endfor %}</table>
{% endfor %}{% endfor %}
<h1>Schemas</h1>
{% for name, is in components.schemas.items() %}<h3 id="schema-{{ name }}">{{ name }}</h3>
<p>{{ is.description|prose }}</p>
<details><summary>as JSON Schema</summary><pre>{{ is|json(2) }}</pre></details>
{% endfor %}
</body>
</html>
"""


def _prose(text: str | None) -> Markup:
    """A description, of whose Markdown there is code between backticks."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text or ""))))  # noqa: S704 - it is escaped


def docs_page(document: dict[str, Any]) -> str:
    """The page of an OpenAPI document, as HTML."""
    environment = Environment(autoescape=True)
    environment.filters["json"] = lambda value, indent=None: json.dumps(value, indent=indent, ensure_ascii=False)
    environment.filters["prose"] = _prose
    # The style is text, not markup: its quotes must stay for its hash to be right.
    template = environment.from_string(_PAGE.replace("{{ style }}", _STYLE))
    return template.render(**document)
