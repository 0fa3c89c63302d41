"""What the site takes from outside `docs/`, for mkdocs: it calls the functions below.

Pages are written for the repository: they link to files beside `docs/`. The changelog and the
benchmarks are pages of the site too; notebooks and other files are copied; what is left (a
folder) leads to the repository where `pyproject.toml` knows its address, else it is text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import tomllib
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
# Files of the repository that are pages of the site.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
}
# A message that is searched for is to bring the page of messages. Last come numbers, and what
# is for those who work on the package.
BOOSTS = {
    "troubleshooting.md": 60,
    "benchmarks.md": 0.1,
    "changelog.md": 0.3,
    "code-of-conduct.md": 0.1,
    "contributing.md": 0.1,
    "development.md": 0.3,
    "mutants.md": 0.1,
    "security.md": 0.3,
    "stability.md": 0.3,
}
_SOURCES = {page: source for source, page in PAGES.items()}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)
_REPOSITORY = ("repository", "source", "source code")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Take the address of the repository from the one place where it is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    urls = {name.lower(): url for name, url in project.get("urls", {}).items()}
    config.repo_url = next((urls[name] for name in _REPOSITORY if name in urls), None)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are elsewhere in the repository."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make the links of a page those of the site."""
    uri = page.file.src_uri
    if uri in BOOSTS:
        page.meta["search"] = {"boost": BOOSTS[uri]}
    source = _SOURCES.get(uri, f"docs/{uri}")

    def on_the_site(link: re.Match[str]) -> str:
        is_image, text, target = link.groups()
        path, hash_, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return link[0]
        asked = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if (found := _on_the_site(asked, files, config)) is None:
            if not config.repo_url:
                return text
            found, hash_, anchor = f"{config.repo_url.rstrip('/')}/blob/main/{asked}", "", ""
        else:
            found = posixpath.relpath(found, posixpath.dirname(uri) or ".")
        return f"{is_image}[{text}]({found}{hash_}{anchor})"

    parts = _FENCED.split(markdown)
    return "".join(
        part if part.startswith("```") else _LINK.sub(on_the_site, part) for part in parts
    )


def _on_the_site(path: str, files: Files, config: MkDocsConfig) -> str | None:
    """Where a file of the repository is on the site: a page, or a copy."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")  # if it is not there, the build fails
    if not (ROOT / path).is_file():
        return None
    if files.get_file_from_path(path) is None:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return path


def on_page_content(html: str, **_: Any) -> str:
    """Put each table into a box of its own, which scrolls where the table is too wide."""
    return re.sub(
        r"<table>(?:.|\n)*?</table>", r'<div class="wide" tabindex="0">\g<0></div>', html
    )
