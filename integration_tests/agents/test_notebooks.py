"""The cookbook's notebooks run from top to bottom, and are stored with what they print."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import nbformat
import pytest
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner
from nbclient import NotebookClient

from integration_tests.warm import warmed_up
from langchain_thinnest.emulator import ThinnestEmulator, demo_agent

pytestmark = pytest.mark.tools

COOKBOOK = Path(__file__).parents[2] / "cookbook"
NOTEBOOKS = sorted(COOKBOOK.glob("*.ipynb"))
IMPORTED = ["ipykernel.kernelapp", "ipykernel.ipkernel", "deepagents", "langchain.agents"]
IMPORTED += ["langchain.agents.structured_output", "langgraph.checkpoint.memory"]
IMPORTED += ["langchain_thinnest.chat_models", "langchain_thinnest.emulator"]
IMPORTED += ["langchain_thinnest.agents"]


class WarmKernel(LocalProvisioner):
    """A kernel's process, which begins with the imports done."""

    python: Any = None

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        arguments = cmd[cmd.index("-m") :]
        self.process = self.python.start(arguments, cwd=kwargs["cwd"], stdout=nowhere)
        os.close(nowhere)
        self.pid = self.process.pid
        return self.connection_info


@pytest.fixture(scope="module", autouse=True)
def warm_kernels() -> Iterator[None]:
    if not hasattr(os, "fork"):
        yield
        return
    python = warmed_up(*IMPORTED)
    kernel = type("Kernel", (WarmKernel,), {"python": python})
    known = KernelProvisionerFactory.instance().provisioners
    loads = SimpleNamespace(load=lambda: kernel)
    with patch.dict(known, {"local-provisioner": loads}):
        yield
    python.close()


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
