"""The page of a trace: the files of this folder and the numbers, put together into one HTML file that loads nothing.

`page.html` is the frame. Scripts and styles are joined in the order of their names, so that a file uses the ones above:
`10_dom.js` makes elements, `20_heat.js` draws arrays, `30_numbers.js` works out one element from the others, each file
from `40_` on is a view, and `90_main.js` starts. They need no build step: what stands here is what the browser reads.

The page may run its own script and style alone: its Content-Security-Policy names their hashes. The numbers are JSON
inside a tag that is never run, with each `<` escaped, so that no text of a tokenizer can end the tag.
"""

import base64
import hashlib
from importlib import resources
from typing import Any

from tinygrad_llm.storage.text import to_json

__all__ = ["embedded", "page"]

_STYLE, _SCRIPT, _DATA, _POLICY = "/*STYLE*/", "/*SCRIPT*/", "/*DATA*/", "<!--POLICY-->"


def page(trace: dict[str, Any]) -> str:
    """The HTML of a trace.

    Args:     trace: what `Trace.data` holds.
    """
    files = {
        file.name: file.read_text(encoding="utf-8")
        for file in resources.files(__package__).iterdir()
        if file.name.endswith((".html", ".css", ".js"))
    }
    style, script = ("\n".join(files[name] for name in sorted(files) if name.endswith(end)) for end in (".css", ".js"))
    html = files["page.html"]
    for mark, text in ((_POLICY, _policy(script, style)), (_STYLE, style), (_SCRIPT, script), (_DATA, embedded(trace))):
        before, _, after = html.partition(mark)
        html = before + text + after
    return html


def embedded(trace: dict[str, Any]) -> str:
    """JSON that may stand inside a tag of HTML."""
    return to_json(trace).replace("<", "\\u003c")


def _policy(script: str, style: str) -> str:
    """The tag that forbids everything except this script, this style, and pictures that the script makes."""
    rules = ["default-src 'none'", "img-src data: blob:", "base-uri 'none'", "form-action 'none'"]
    for kind, text in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        rules.append(f"{kind}-src 'sha256-{digest}'")
    return f'<meta http-equiv="Content-Security-Policy" content="{"; ".join(rules)}">'
