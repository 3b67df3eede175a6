"""Run the notebooks of docs/notebooks without Jupyter, and write what their cells print and draw into them.

``python -m benchmarks.notebooks`` runs them in a copy of their folder and rewrites the files; the tests run them the same way.
A cell is Python, whose last line is shown if it is an expression, or one ``!gmml`` command, as in Jupyter. Cells with the tag
"varies" print times or accuracies, which differ from one machine to the next.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import shlex
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from gmml_models.atomic_write import write_aside
from gmml_models.cli import main as gmml
from gmml_models.errors import UsageError

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
_WIDEST = 720  # pixels: what GitHub and Jupyter show without shrinking
_COLOURS = 128

Cell = dict[str, Any]


def read(notebook: Path) -> dict[str, Any]:
    """A notebook as nested dicts and lists (nbformat 4.5)."""
    found: dict[str, Any] = json.loads(notebook.read_text(encoding="utf-8"))
    return found


def varies(cell: Cell) -> bool:
    """True where a cell prints what no two machines print alike."""
    return "varies" in cell["metadata"].get("tags", [])


def run(notebook: Path) -> list[list[dict[str, Any]]]:
    """Run all code cells in order, in one namespace and in the present folder.

    Returns:
        The outputs of each code cell, as nbformat has them.

    Raises:
        UsageError: a command of a cell that ends with another code than 0.
        Exception: whatever a cell raises, with the name of the notebook and the line within the cell.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    torch.manual_seed(0)
    code = [cell for cell in read(notebook)["cells"] if cell["cell_type"] == "code"]
    return [_run_cell("".join(cell["source"]), names, f"{notebook.name}, cell {number}") for number, cell in enumerate(code, 1)]


def _run_cell(source: str, names: dict[str, Any], where: str) -> list[dict[str, Any]]:
    printed, shown = io.StringIO(), None
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        if source.startswith("!"):
            _command(source.removeprefix("!").replace("\\\n", " "), where)
        else:
            shown = _python(source, names, where)
    found: list[dict[str, Any]] = []
    if text := printed.getvalue():
        found.append({"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)})
    if shown is not None:
        found.append({"data": _data(shown), "execution_count": None, "metadata": {}, "output_type": "execute_result"})
    return found


def _command(line: str, where: str) -> None:
    first, *rest = shlex.split(line)
    if first != "gmml":
        raise UsageError(f"{where}: {first!r} is not run here. Write a line that begins with !gmml.")
    try:
        gmml(rest)
    except SystemExit as ended:
        if ended.code:
            raise UsageError(f"{where}: {line!r} ended with {ended.code}.") from None


def _python(source: str, names: dict[str, Any], where: str) -> Any:
    """Run a cell; the value of its last line if that is an expression."""
    tree = ast.parse(source, where)
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        exec(compile(tree, where, "exec", dont_inherit=True), names)
        return None
    del tree.body[-1]
    exec(compile(tree, where, "exec", dont_inherit=True), names)
    return eval(compile(ast.Expression(last.value), where, "eval", dont_inherit=True), names)


def _data(value: Any) -> dict[str, Any]:
    """What Jupyter would show of a value: its picture if it has one, its repr if not."""
    if draw := getattr(value, "_repr_png_", None):
        return {"image/png": base64.b64encode(_small(draw())).decode(), "text/plain": [f"<{type(value).__name__}>"]}
    return {"text/plain": repr(value).splitlines(keepends=True)}


def _small(png: bytes) -> bytes:
    """The same picture in few bytes: at most `_WIDEST` wide, and in few colours."""
    with Image.open(io.BytesIO(png)) as image:
        picture = image.convert("RGB")
    if picture.width > _WIDEST:
        picture = picture.resize((_WIDEST, round(picture.height * _WIDEST / picture.width)), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.quantize(_COLOURS).save(file, "png", optimize=True)
    return file.getvalue()


def write(notebook: Path, outputs: list[list[dict[str, Any]]]) -> None:
    """Put outputs into a notebook, which else stays as it is."""
    held, left = read(notebook), list(outputs)
    for cell in held["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = left.pop(0), None
    write_aside(notebook, json.dumps(held, indent=1, ensure_ascii=False, sort_keys=True))


def main() -> None:
    """Run all notebooks, or those named on the command line, in a copy of their folder, and write their outputs."""
    chosen = [path for path in NOTEBOOKS if not sys.argv[1:] or path.stem in sys.argv[1:]]
    for notebook in chosen:
        with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
            folder = Path(place) / "notebooks"
            shutil.copytree(FOLDER, folder)
            before = Path.cwd()
            os.chdir(folder)
            try:
                outputs = run(notebook)
            finally:
                os.chdir(before)
        write(notebook, outputs)
        print(f"{notebook.name}: {notebook.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
