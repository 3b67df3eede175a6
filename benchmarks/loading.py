"""From a folder to the first feature: `gmml_models.from_pretrained`, hash check included, against timm alone.

Run with ``python -m benchmarks.loading``; writes ``benchmarks/results/loading.json``.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file

import gmml_models as gm
from benchmarks.timing import about_this_machine, alternate

RESULTS = Path(__file__).parent / "results" / "loading.json"
NAME = "vit_tiny_patch16_224"


def main() -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    image = torch.randn(1, 3, 224, 224)
    with tempfile.TemporaryDirectory() as folder:
        gm.GMMLAutoencoder(NAME).save_pretrained(folder)

        def ours() -> object:
            with torch.no_grad():
                return gm.from_pretrained(folder).forward_features(image)

        def timm_alone() -> object:
            model = timm.create_model(NAME, num_classes=0)
            model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
            with torch.no_grad():
                return model.eval()(image)

        def timm_from_folder() -> object:
            with torch.no_grad():
                return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(image)

        figures = alternate(
            {
                "gmml_models.from_pretrained, hash checked": ours,
                "timm.create_model + load_file": timm_alone,
                "timm.create_model(local-dir:)": timm_from_folder,
            },
            rounds=20,
        )
    ratio = figures["gmml_models.from_pretrained, hash checked"].minimum / figures["timm.create_model + load_file"].minimum
    for name, figure in figures.items():
        print(f"{name:44s} {figure.minimum:8.1f} ms, median {figure.median:.1f}")
    print(f"gmml_models / timm + load_file: {ratio:.2f} (at most 1.2)")
    report = {
        "machine": about_this_machine(),
        "model": NAME,
        "milliseconds": {name: dataclasses.asdict(figure) for name, figure in figures.items()},
        "ratio of minima": {"measured": round(ratio, 2), "floor": "at most 1.2"},
    }
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
