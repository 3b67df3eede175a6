"""A wheel with the compiled core of `gmml_aug` where there is a C compiler, a pure one elsewhere."""

from __future__ import annotations

import importlib.util
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_PACKAGE = "gmml_aug/backends/cpu"


class CoreHook(BuildHookInterface[Any]):
    """Compiles before the wheel is packed."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile into the sources for an editable install, else aside and into the wheel."""
        build = _load(Path(self.root) / _PACKAGE / "build.py")
        editable = version == "editable"
        self._aside = tempfile.TemporaryDirectory()
        try:
            made = build.compile_core(build.FOLDER if editable else Path(self._aside.name))
        except RuntimeError as error:
            self.app.display_warning(f"gmml: this wheel is pure Python, without the compiled core of the CPU: {error}")
            return
        if not editable:
            build_data["force_include"] |= {str(path): f"{_PACKAGE}/core/{path.name}" for path in made}
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        self.app.display_info(f"gmml: compiled {', '.join(path.name for path in made)}")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Forget what was compiled aside."""
        self._aside.cleanup()


def _load(path: Path) -> ModuleType:
    """A module by its file: to import its package would need torch."""
    spec = importlib.util.spec_from_file_location("gmml_core_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
