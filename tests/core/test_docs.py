"""The documentation: diagrams and walk-through are what their scripts produce, and links lead
somewhere.
"""

import ast
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NUMBER = re.compile(r"-?\d+\.\d+")


def load(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a script by its path."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_diagrams_are_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diagrams = load(DOCS / "diagrams.py", monkeypatch)
    monkeypatch.setattr(diagrams, "OUT", tmp_path)
    for draw in (diagrams.packages, diagrams.life_of_an_image, diagrams.life_of_a_chunk):
        draw()
    drawn = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert len(drawn) == 3
    assert drawn == {name: (DOCS / "figures" / name).read_text() for name in drawn}


@pytest.mark.slow
def test_walkthrough_prints_what_its_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prose and code are equal; numbers agree within what another CPU or GL driver changes."""
    render = load(DOCS / "walkthrough/render.py", monkeypatch)
    monkeypatch.chdir(tmp_path)  # its pictures go here
    page = render.render((DOCS / "walkthrough/walkthrough.py").read_text())
    committed = (DOCS / "walkthrough/walkthrough.md").read_text()
    assert NUMBER.sub("#", page).split() == NUMBER.sub("#", committed).split()
    now, then = (list(map(float, NUMBER.findall(text))) for text in (page, committed))
    assert now == pytest.approx(then, rel=0.05, abs=0.02)
    pictures = {file.name for file in tmp_path.glob("*.png")}
    assert pictures == {file.name for file in (DOCS / "walkthrough").glob("*.png")}
    assert pictures == set(re.findall(r"\((\w+\.png)\)", committed))


def texts_of_the_code() -> str:
    """All strings in the code, a line each; what a format string fills in is "..."."""
    found = []
    for folder in ("alam_core", "training"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = (getattr(part, "value", "...") for part in node.values)
                    found.append("".join(p if isinstance(p, str) else "..." for p in parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


def test_the_messages_that_the_page_your_data_explains_exist() -> None:
    """Words with numbers, names and omissions in them are examples, and left out here."""
    page = (DOCS / "data.md").read_text().partition("## Messages")[2]
    words = [
        text for text in re.findall(r"\*\*([^*]+)\*\*", page) if not re.search(r"\.\.\.|\d|'", text)
    ]
    texts = texts_of_the_code()
    assert len(words) > 40
    assert not [text for text in words if text not in texts]


MARKDOWN = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "ros2_ws/src/*/*.md", "checkpoints/**/*.md")
    for path in ROOT.glob(pattern)
)


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_to_files(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    missing = [
        target
        for target in re.findall(r"\]\(([^)#\s]+)", text)
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert not missing, f"{path.relative_to(ROOT)} links to {missing}"
