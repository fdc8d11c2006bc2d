"""The example notebook, run from end to end by nbclient as Jupyter would, with tiny trainings."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "examples" / "landmarks.ipynb"
DEADLINE_S = 1200
MOST_BYTES = 200_000


def test_the_notebook_runs(small_config, tmp_path, monkeypatch):
    environment = {
        "KPLM_WORK": str(tmp_path), "KPLM_IMAGES": "60", "KPLM_CHANGES": " ".join(small_config), "PYTHONPATH": str(ROOT),
        "JUPYTER_PLATFORM_DIRS": "1", "IPYTHONDIR": str(tmp_path / "ipython"),
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("KPLM_PHOTOS", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs = []
    NotebookClient(notebook, timeout=DEADLINE_S, kernel_name=kernel(tmp_path, monkeypatch)).execute(cwd=str(tmp_path))
    text = "\n".join(
        out.text for cell in notebook.cells for out in cell.get("outputs", ()) if out.output_type == "stream"
    )
    assert "60 images, 60 annotations of 5 keypoints" in text
    assert "of 5 landmarks found; the first at [" in text
    assert "the shared detector finds the same landmarks: True" in text
    pictures = [
        out.data for cell in notebook.cells for out in cell.get("outputs", ()) if out.output_type == "display_data"
    ]
    assert [kind for data in pictures for kind in data if kind.startswith("image/")] == ["image/jpeg"]


def kernel(folder: Path, monkeypatch) -> str:
    """Declare a kernel of this Python, whatever kernels are installed for others, and return its name."""
    import json

    spec = folder / "jupyter" / "kernels" / "of_this_test"
    spec.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "test", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
    return spec.name


def test_it_can_be_read_without_being_run():
    """All code cells were run in their order, without an error; it is small, and names no place of a machine."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [out for cell in cells for out in cell.outputs]
    assert not [out for out in outputs if out.output_type == "error"]
    assert len([out for out in outputs if out.output_type == "display_data"]) == 1
    content = NOTEBOOK.read_text(encoding="utf-8")
    assert len(content) < MOST_BYTES
    for place in ("/home/me/photos", "/tmp", "/root", "/work", str(ROOT)):
        assert (place in content) == (place == "/home/me/photos"), place
