"""What a package index shows: the README, whose links lead to the repository there.

On an index a relative link leads nowhere. With `Repository` among the `[project.urls]` of
pyproject.toml it becomes an address in the repository, at the version's tag; without, text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

# `[text](target)`, unless the target is an address or a heading of this very page.
_RELATIVE = re.compile(r"\[([^\]]+)\]\((?!https?:|#)([^)\s]+)\)")


def for_index(readme: str, repository: str | None, version: str) -> str:
    """Make the links of a README lead somewhere from anywhere."""
    if repository is None:
        return _RELATIVE.sub(r"\1", readme)
    tag = f"{repository.rstrip('/')}/blob/v{version}"
    return _RELATIVE.sub(lambda link: f"[{link[1]}]({tag}/{link[2]})", readme)


class ReadmeHook(MetadataHookInterface):
    """Sets `readme`, which pyproject.toml declares to be dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Hatchling calls this with the table `[project]`."""
        readme = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        repository = metadata.get("urls", {}).get("Repository")
        text = for_index(readme, repository, metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
