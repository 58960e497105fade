"""Shows pages of the repository that are not under docs/ on the documentation's site.

A hook of MkDocs (``mkdocs.yml``). Links between pages are written so that they work where the
repository is browsed; what lies outside of docs/ has another place on the site, so links to and
from it are written anew. One that leads to nothing is a warning, and so an error of ``make docs``.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "examples/vllm_cluster.md": "examples/vllm_cluster.md",
}
"""Where each is in the repository, and where on the site."""

DOCS = "docs/"
_PERCENT = re.compile(r"(?<=\d) %")
_LINK = re.compile(r"\]\((?P<path>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    root = Path(config.docs_dir).parent
    for source, place in PAGES.items():
        content = relinked((root / source).read_text(), source, place)
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mend the links of the pages under docs/ that lead out of it."""
    del config, files
    place = page.file.src_uri
    linked = markdown if place in PAGES.values() else relinked(markdown, DOCS + place, place)
    return "\n".join(_unbroken(line) for line in linked.split("\n"))


def relinked(markdown: str, source: str, place: str) -> str:
    """Return a page with its links as they must be on the site.

    Args:
        markdown: As it is in the repository.
        source: Its path there.
        place: Its path on the site.
    """

    def mended(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link["path"]))
        on_site = target.removeprefix(DOCS) if target.startswith(DOCS) else PAGES.get(target)
        if on_site is None:
            return link[0]
        path = posixpath.relpath(on_site, posixpath.dirname(place) or ".")
        return f"]({path}{link['anchor'] or ''})"

    return _LINK.sub(mended, markdown)


def _unbroken(line: str) -> str:
    """Keep figures of a table's row in one line with their per cent signs."""
    return _PERCENT.sub("\N{NO-BREAK SPACE}%", line) if line.startswith("|") else line
