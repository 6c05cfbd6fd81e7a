"""MkDocs hook: makes the API pages from docstrings, and shows CONTRIBUTING.md as a page.

Each room of alam_core has an API page that lists its public modules, so that no page must be edited
when a module is added or moved.
"""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]


def rooms() -> dict[str, list[str]]:
    """Room -> dotted names of its public modules; the first is the library's top level."""
    found: dict[str, list[str]] = {"alam_core": []}
    for file in sorted((ROOT / "alam_core").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if parts[-1].startswith("_"):
            continue
        room = ".".join(parts[:2]) if len(parts) > 2 else parts[0]
        found.setdefault(room, []).append(".".join(parts))
    return found


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the navigation's entry "API"."""
    assert config.nav is not None
    entry = next(item for item in config.nav if "API" in item)
    entry["API"] = [{room: f"api/{room}.md"} for room in rooms()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for room, modules in rooms().items():
        content = f"# {room}\n\n" + "\n\n".join(f"::: {module}" for module in modules) + "\n"
        files.append(File.generated(config, f"api/{room}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace the stub contributing.md by CONTRIBUTING.md, with links relative to docs/."""
    if page.file.src_uri == "contributing.md":
        return (ROOT / "CONTRIBUTING.md").read_text().replace("](docs/", "](")
    return markdown
