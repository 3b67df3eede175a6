"""A wheel with the compiled core of `gmml_aug` where there is a C compiler, a pure one elsewhere, and a list of what is in it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sysconfig
import tempfile
from collections.abc import Sequence
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
        made: list[Path] = []
        try:
            if os.environ.get("GMML_PURE"):
                raise RuntimeError("GMML_PURE is set")
            made = build.compile_core(build.FOLDER if editable else Path(self._aside.name))
        except RuntimeError as error:
            self.app.display_warning(f"gmml: this wheel is pure Python, without the compiled core of the CPU: {error}")
        else:
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
            self.app.display_info(f"gmml: compiled {', '.join(path.name for path in made)}")
        if not editable:
            build_data["force_include"] |= {str(path): f"{_PACKAGE}/core/{path.name}" for path in made}
            listed = Path(self._aside.name) / "gmml.cdx.json"
            bill = bill_of_materials(Path(self.root), self.metadata.version, made, " ".join(build.compiler() or []))
            listed.write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
            build_data["sbom_files"].append(str(listed))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Forget what was compiled aside."""
        self._aside.cleanup()


def bill_of_materials(root: Path, version: str, core: Sequence[Path], compiler: str) -> dict[str, Any]:
    """What a wheel holds besides Python: the compiled core and weights, as CycloneDX 1.6; the same for the same files.

    What is installed beside the wheel stands in its metadata.

    Args:
        root: the source tree.
        version: of gmml.
        core: the compiled files.
        compiler: the command that compiled them.

    Source:
        PEP 770: files in ``.dist-info/sboms`` of a wheel.
    """
    package = f"pkg:pypi/gmml@{version}"
    own = [{"license": {"id": "Apache-2.0"}}]
    components: list[dict[str, Any]] = [
        {
            "type": "library",
            "bom-ref": f"{package}#{_PACKAGE}/core/{path.name}",
            "name": f"{_PACKAGE}/core/{path.name}",
            "version": version,
            "description": f"compiled from the C sources in {_PACKAGE}/core by {compiler}",
            "licenses": own,
            "hashes": [_sha256(path)],
        }
        for path in core
    ]
    for config in sorted((root / "gmml_models" / "weights").glob("*/config.json")):
        told = json.loads(config.read_text(encoding="utf-8"))
        licence, data = told["pretrained_cfg"].get("license", "see its README.md"), told["gmml"].get("data", {})
        components += [
            {
                "type": "machine-learning-model",
                "bom-ref": f"{package}#{path.relative_to(root).as_posix()}",
                "name": path.relative_to(root).as_posix(),
                "version": version,
                "description": f"weights trained by gmml on {data.get('name', 'data that is not named')}",
                "licenses": [{"license": {"name": licence}}],
                "hashes": [_sha256(path)],
            }
            for path in sorted(config.parent.glob("*.safetensors"))
        ]
    whole = {"type": "library", "bom-ref": package, "name": "gmml", "version": version, "purl": package, "licenses": own}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"lifecycles": [{"phase": "build"}], "component": whole},
        "components": components,
        "dependencies": [{"ref": package, "dependsOn": [component["bom-ref"] for component in components]}],
    }


def _sha256(path: Path) -> dict[str, str]:
    return {"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}


def _load(path: Path) -> ModuleType:
    """A module by its file: to import its package would need torch."""
    spec = importlib.util.spec_from_file_location("gmml_core_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
