"""`make bench`, or `python -m benchmarks`: measure, print the tables, draw the picture."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
NEEDED = (
    "aiohttp",
    "httpx_sse",
    "langchain_mistralai",
    "langchain_openai",
    "langgraph",
    "matplotlib",
)
TOLD = (
    "langchain-core",
    "langgraph",
    "langchain-openai",
    "openai",
    "langchain-mistralai",
    "httpx",
    "aiohttp",
    "httpx-sse",
    "pydantic",
)


def main() -> None:
    arguments = _parser().parse_args()
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        sys.exit(
            f"The benchmarks also need {', '.join(missing)}, of the dependency group `bench`: "
            "use `make bench`, or `pip install -e . --group bench`."
        )
    from benchmarks.figures import Run
    from benchmarks.report import tables, write_readme, write_results

    runs: list[Run] = []
    for number in range(arguments.runs):
        print(f"run {number + 1} of {arguments.runs}", file=sys.stderr)
        runs.append(_run(is_quick=arguments.quick))
    text = f"{_about(len(runs))}\n\n{tables(runs)}"
    print(text)
    if arguments.quick:
        print("\nQuick: few rounds, and 10,000 events where the targets say 100,000.")
        return
    from benchmarks.picture import draw

    folder: Path = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    write_results(folder / "results.json", _machine(), runs)
    draw(runs, folder / "ratios.png")
    if folder == HERE:
        write_readme(HERE / "README.md", text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--runs", type=int, default=1, help="runs in a row; the medians are told"
    )
    parser.add_argument(
        "--quick", action="store_true", help="two minutes, to see if it works; writes nothing"
    )
    parser.add_argument(
        "--out",
        type=lambda path: Path(path).resolve(),
        default=HERE,
        help="the folder for results.json and ratios.png (default: benchmarks/, and then the "
        "README's tables too)",
    )
    return parser


def _run(*, is_quick: bool) -> dict[str, object]:
    """One run, in a process of its own, so that runs share nothing but the machine."""
    import json

    from benchmarks.probes import environment

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "run.json")
        quick = ["--quick"] if is_quick else []
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.measure", str(file), *quick],
            cwd=HERE.parent,
            env=environment(),
            check=False,
        )
        if done.returncode:
            sys.exit("The run failed; its error stands above.")
        run: dict[str, object] = json.loads(file.read_text())
        return run


def _machine() -> dict[str, str]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        **{name: version(name) for name in TOLD},
    }


def _about(runs: int) -> str:
    machine = _machine()
    packages = ", ".join(f"{name} {machine[name]}" for name in TOLD)
    spread = (
        f"Medians of {runs} runs in a row; in brackets the lowest run and the highest."
        if runs > 1
        else "One run: medians of its rounds; in brackets the quartiles of the rounds."
    )
    return f"{machine['python']}, {machine['system']}; {packages}. {spread}"


if __name__ == "__main__":
    main()
