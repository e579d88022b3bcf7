"""Make docs/reference.md, and the table of settings in docs/configuration.md, from the code.

python docs/make_reference.py
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import autom8_lab as al
from autom8_lab.commands.options import PRESETS

DOCS = Path(__file__).parent
MARK = re.compile(r"(<!-- made by docs/make_reference.py -->\n).*?(<!-- end -->)", re.DOTALL)


def signature(function: Callable[..., Any]) -> str:
    """A signature without `self` and quotes, in lines that can be read."""
    found = inspect.signature(function)
    parameters = [item for item in found.parameters.values() if item.name != "self"]
    text = str(found.replace(parameters=parameters)).replace("'", "").replace("<unchanged>", "…")
    text = re.sub(r"<function (\w+) at \w+>", r"\1", text)
    if len(text) < 100:
        return text
    head, _, result = text.rpartition(") -> ")
    parts = re.split(r", (?=\w+:|\*|/)", head[1:])
    return "(\n" + "".join(f"    {part},\n" for part in parts) + f") -> {result}"


def entry(name: str, value: Any) -> str:
    """One name with its signature and docstring."""
    text = inspect.getdoc(value) or ""
    described, _, example = text.partition("\n>>> ")
    shown = f"\n```text\n>>> {example.rstrip()}\n```\n" if example else ""
    call = f"\n```text\n{name}{signature(value)}\n```\n" if inspect.isroutine(value) else ""
    return f"### {name}\n{call}\n{described.rstrip()}\n{shown}"


def groups() -> dict[str, list[str]]:
    """The public names by what they are for: the verbs by the class that has them."""
    found: dict[str, list[str]] = {}
    for kind in al.Lab.__mro__[1:]:
        verbs = [name for name in vars(kind) if not name.startswith("_") and name in al.__all__]
        if verbs:
            found.setdefault((inspect.getdoc(kind) or "").split("\n")[0].rstrip("."), []).extend(sorted(verbs))
    lab = [name for name in vars(al.Lab) if name in al.__all__]
    found["Together"] = lab
    known = {name for names in found.values() for name in names}
    rest = [name for name in al.__all__ if name not in known and inspect.isroutine(getattr(al, name))]
    found["Labs, files and settings"] = rest
    return found


def reference() -> str:
    """The whole reference."""
    text = "# Every verb\n\nMade from the docstrings by `docs/make_reference.py`. `al.verb` is `Lab.verb` on the current lab; "
    text += "`await lab.verb` of an `AsyncLab` takes the same.\n"
    for title, names in groups().items():
        if names:
            text += f"\n## {title}\n\n" + "\n".join(entry(name, getattr(al, name)) for name in names)
    text += "\n## Asynchronous\n\n" + "\n".join(
        entry(f"aio.{name}", value)
        for name, value in (
            ("open", al.aio.open),
            ("AsyncLab.transaction", al.aio.AsyncLab.transaction),
            ("AsyncLab.close", al.aio.AsyncLab.close),
        )
    )
    text += "\n## Mock data\n\n" + "\n".join(
        entry(f"mockdata.{name}", getattr(al.mockdata, name)) for name in ("fill", "traffic")
    )
    text += "\n## Plots\n\n" + "\n".join(
        entry(f"plots.{name}", getattr(al.plots, name)) for name in sorted(al.plots.__all__)
    )
    text += "\n## Errors and warnings\n\n```text\n" + (inspect.getdoc(al.errors) or "").split("\n\n", 1)[1] + "\n```\n"
    return text


def settings() -> str:
    """The table of every setting."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in al.LabConfig.model_fields.items():
        default = json.dumps(field.get_default(call_default_factory=True), ensure_ascii=False)
        lines.append(f"| `{name}` | `{default}` | {field.description} |")
    return "\n".join(lines) + f"\n\nPresets: {', '.join(PRESETS)}.\n"


def pages() -> dict[Path, str]:
    """Every page that is made, with what it should hold."""
    configuration = DOCS / "configuration.md"
    made = MARK.sub(lambda found: f"{found[1]}{settings()}{found[2]}", configuration.read_text(encoding="utf-8"))
    return {DOCS / "reference.md": reference(), configuration: made}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(f"{path}: {len(text):,} characters")
