"""Run walkthrough.py and write walkthrough.md from its prose, its code and what the code printed.

Usage: python docs/walkthrough/render.py
"""

import contextlib
import io
import os
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
HEADER = "<!-- Written by docs/walkthrough/render.py; edit walkthrough.py and run it again. -->\n"


def cells(text: str) -> list[tuple[bool, str]]:
    """Split a script in percent format (``# %%``) into cells (is Markdown, content)."""
    parts = re.split(r"^# %%( \[markdown\])?\n", text, flags=re.MULTILINE)[1:]
    return [
        (kind is not None, body.strip("\n"))
        for kind, body in zip(parts[::2], parts[1::2], strict=True)
    ]


def render(text: str) -> str:
    """Run all code cells in one namespace and return the page as Markdown."""
    page = [HEADER]
    namespace: dict[str, object] = {"__name__": "walkthrough"}
    for is_markdown, body in cells(text):
        if is_markdown:
            page.append(re.sub(r"^# ?", "", body, flags=re.MULTILINE) + "\n")
            continue
        page.append(f"```python\n{body}\n```\n")
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(body, "walkthrough.py", "exec"), namespace)
        if output.getvalue():
            page.append(f"```text\n{output.getvalue()}```\n")
    return "\n".join(page)


def main() -> None:
    os.chdir(HERE)  # the code saves its pictures beside the page
    page = render((HERE / "walkthrough.py").read_text())
    temporary = HERE / "walkthrough.md.tmp"
    temporary.write_text(page)
    os.replace(temporary, HERE / "walkthrough.md")


if __name__ == "__main__":
    main()
