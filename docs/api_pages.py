"""MkDocs hook: generates the API pages from docstrings, and shows CONTRIBUTING.md as a page.

Each subpackage of alam_core gets an API page that lists its public modules, so no page has to be
edited when a module is added or moved.
"""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]


def subpackages() -> dict[str, list[str]]:
    """Subpackage -> dotted names of its public modules. The first entry, ``alam_core``, has the
    modules at the library's top level.
    """
    found: dict[str, list[str]] = {"alam_core": []}
    for file in sorted((ROOT / "alam_core").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if parts[-1].startswith("_"):
            continue
        name = ".".join(parts[:2]) if len(parts) > 2 else parts[0]
        found.setdefault(name, []).append(".".join(parts))
    return found


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the entry "API" of the navigation with one page per subpackage."""
    assert config.nav is not None
    entry = next(item for item in config.nav if "API" in item)
    entry["API"] = [{name: f"api/{name}.md"} for name in subpackages()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated API pages."""
    for name, modules in subpackages().items():
        content = f"# {name}\n\n" + "\n\n".join(f"::: {module}" for module in modules) + "\n"
        files.append(File.generated(config, f"api/{name}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace the placeholder contributing.md with CONTRIBUTING.md, links made relative to
    docs/.
    """
    if page.file.src_uri == "contributing.md":
        return (ROOT / "CONTRIBUTING.md").read_text().replace("](docs/", "](")
    return markdown
