"""MkDocs' hook: pages made from the sources. API reference per package, CONTRIBUTING.md and CHANGELOG.md.

The reference is read from the sources, never imported; a new module or package appears by being there. The same file is
Griffe's extension, which makes Markdown of docstrings that were written to be read as they are.
"""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.hooks.docs")
ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "bitwright"
LEFT_OUT = {"content", "built", "web", "migrations", "templates"}
"""Folders of data, of generated files, and of code that nobody imports."""
PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
"""Pages that are files of the repository's root."""


def packages() -> dict[str, list[str]]:
    """Packages below `bitwright`, and of each its public modules, itself first."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        hidden = path.stem.startswith("_") and path.stem != "__init__"
        if LEFT_OUT.isdisjoint(parts) and not hidden:
            found.setdefault(package, []).append(name)
    return {package: sorted(modules, key=lambda name: (name != package, name)) for package, modules in found.items()}


def page(package: str) -> str:
    """The address of a package's page."""
    return "api/index.md" if package == "bitwright" else f"api/{package.removeprefix('bitwright.')}.md"


def purpose(package: str) -> str:
    """The first sentence of a package's docstring."""
    source = PACKAGE.parent / package.replace(".", "/") / "__init__.py"
    text = ast.get_docstring(ast.parse(source.read_text("utf-8"))) if source.exists() else ""
    return re.split(r"(?<=\.)\s", text or "")[0]


def reference(package: str, modules: list[str], known: dict[str, list[str]]) -> str:
    """The page of one package, in Markdown."""
    below = [name for name in known if name.startswith(f"{package}.")]
    if package == "bitwright":
        lines = ["# API reference", "", "Made from the docstrings of the sources, package by package."]
        lines += ["", "| package | |", "|---|---|"]
        lines += [f"| [`{name}`]({name.removeprefix('bitwright.')}.md) | {purpose(name)} |" for name in below]
    else:
        lines = [f"# {package.removeprefix('bitwright.')}"]
    for module in modules:
        if module == package and not purpose(package):
            continue  # nothing stands in its __init__.py
        lines += ["", f"::: {module}", "    options: {heading_level: 2}"]
    return "\n".join(lines) + "\n"


def on_config(config: MkDocsConfig) -> None:
    """Append the reference to the navigation."""
    rest = [{package.removeprefix("bitwright."): page(package)} for package in packages() if package != "bitwright"]
    assert config.nav is not None
    config.nav.append({"API reference": ["api/index.md", *rest]})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that stand in no file of docs/."""
    known = packages()
    for package, modules in known.items():
        files.append(File.generated(config, page(package), content=reference(package, modules, known)))
    for address, source in PAGES.items():
        text = (
            (ROOT / source)
            .read_text("utf-8")
            .replace("](docs/", "](")
            .replace("](CONTRIBUTING.md", "](contributing.md")
        )
        files.append(File.generated(config, address, content=text))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> None:
    """Warn, and so fail, where a page would load something from elsewhere."""
    for found in re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"?(?:https?:)?//[^>]*>", output):
        log.warning(f"{page.file.src_uri} loads something from elsewhere: {found}")


class Docstrings(Extension):  # type: ignore[misc]
    """Examples become Python blocks; brackets and stars stay as they are."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring of one module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """A docstring as Markdown: `code`, paragraphs and lists are, but <, [ and * stand for themselves."""
    blocks = re.split(r"(\n[ \t]*\n)", text)
    for i, block in enumerate(blocks):
        if block.lstrip().startswith(">>>"):
            blocks[i] = f"```pycon\n{block}\n```"
        elif not block.startswith("    "):
            plain = re.sub(r"(`[^`]*`)|([<\[*])", lambda m: m[1] or f"&#{ord(m[2])};", block)
            blocks[i] = re.sub(r"\n(?!- )(.*\S)\n- ", r"\n\1\n\n- ", plain)  # a list needs an empty line before it
    return "".join(blocks)
