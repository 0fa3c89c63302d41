"""The cookbook's notebooks run from top to bottom, and are stored with what they print."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from langchain_thinnest.emulator import ThinnestEmulator, demo_agent

COOKBOOK = Path(__file__).parents[2] / "cookbook"
NOTEBOOKS = sorted(COOKBOOK.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")  # the kernel's machinery has its own
def test_notebook(path: Path, tmp_path: Path) -> None:
    if path.stem == "deep_agents":
        pytest.importorskip("deepagents", reason="it needs Python 3.11")
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert any(cell.outputs for cell in code)
    assert "__enter__(" not in path.read_text(encoding="utf-8")
    assert "<lambda>" not in path.read_text(encoding="utf-8")
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr"
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": tmp_path}}).execute()


@pytest.mark.parametrize("name", ["quickstart", "retries"])
@pytest.mark.filterwarnings("ignore")
def test_a_notebook_asks_the_service_that_the_environment_names(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they say; the service is the emulator under another agent's name."""
    notebook = nbformat.read(COOKBOOK / f"{name}.ipynb", as_version=4)
    assert "set it asks the live service" in notebook.cells[0].source.replace("\n", " ")
    with ThinnestEmulator({"ag_live": demo_agent}) as emulator:
        monkeypatch.setenv("THINNEST_API_KEY", emulator.api_key)
        monkeypatch.setenv("THINNEST_AGENT_ID", "ag_live")
        monkeypatch.setenv("THINNEST_BASE_URL", emulator.base_url)
        where = {"metadata": {"path": tmp_path}}
        NotebookClient(notebook, timeout=120, resources=where).execute()
        assert len(emulator.requests) >= 3


def test_there_is_a_quickstart() -> None:
    assert "quickstart" in [path.stem for path in NOTEBOOKS]
