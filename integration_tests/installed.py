"""What `make package` builds, as a stranger gets it.

    python -m integration_tests.installed dist

Installs the wheel into an empty environment, from the package index, and runs the demo and the
emulator there, in an empty directory and without any setting. Looks at what the sdist holds.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

# Of an sdist, below its one directory; hatchling wants .gitignore there.
IN_SDIST = {
    ".gitignore", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "PKG-INFO",
    "README.md", "SECURITY.md", "docs", "hatch_build.py", "langchain_thinnest",
    "pyproject.toml",
}  # fmt: skip
STRAY = re.compile(r"__pycache__|\.pyc$|\.ipynb|(^|/)\.(?!gitignore)|\.(orig|rej|swp)$|~$")


def main(dist: Path) -> None:
    [wheel], [sdist] = list(dist.glob("*.whl")), list(dist.glob("*.tar.gz"))
    with tarfile.open(sdist) as archive:
        look_at_the_sdist([name.partition("/")[2] for name in archive.getnames()])
    version = look_at_the_metadata(wheel)
    with tempfile.TemporaryDirectory() as directory:
        empty = Path(directory)
        python = install(wheel, empty / "env")
        (empty / "here").mkdir()
        run_it(python, empty / "here", version)
    print(f"{wheel.name} and {sdist.name}: all as it should be")


def look_at_the_sdist(names: list[str]) -> None:
    tops = {name.partition("/")[0] for name in names if name}
    assert tops == IN_SDIST, f"in the sdist: {sorted(tops ^ IN_SDIST)}"
    assert not (stray := [name for name in names if STRAY.search(name)]), stray


def look_at_the_metadata(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
    links = re.findall(r"\]\(([^)\s]+)\)", str(metadata.get_payload()))
    relative = [link for link in links if not link.startswith(("https://", "#"))]
    assert links, "no link in the README"
    assert not relative, f"lead nowhere on a package index: {relative}"
    return str(metadata["Version"])


def install(wheel: Path, directory: Path) -> Path:
    venv.create(directory, with_pip=True)
    python = directory / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    subprocess.run([*pip, f"{wheel}[emulator]"], check=True)
    return python


def run_it(python: Path, here: Path, version: str) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("THINNEST", "PYTHON"))}

    def said(*command: str, **variables: str) -> str:
        return subprocess.run(
            [python, *command],
            cwd=here,
            env={**clean, **variables},
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    where = "import langchain_thinnest as it; print(it.__version__, it.__file__)"
    assert said("-c", where).split()[0] == version
    assert str(python.parents[1]) in said("-c", where)
    question = ("-m", "langchain_thinnest", "What is 2^10?")
    assert "1024" in said(*question)
    serve = [python, "-m", "langchain_thinnest.emulator", "--port", "0"]
    emulator = subprocess.Popen(serve, cwd=here, env=clean, stdout=subprocess.PIPE, text=True)
    try:
        assert emulator.stdout
        lines = [emulator.stdout.readline() for _ in range(4)]
        variables = dict(re.findall(r"export (\w+)=(\S+)", "".join(lines)))
        assert len(variables) == 3, lines
        assert "1024" in said(*question, **variables)
    finally:
        emulator.terminate()
        emulator.wait(10)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
