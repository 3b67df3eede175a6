"""``gmml play``: the playground, a page in the browser on this machine, or a folder for a Hugging Face Space."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import tyro

from gmml_models.errors import UsageError

_LARGEST_UPLOAD = "25mb"


@dataclass(frozen=True)
class Play:
    """Open a page in the browser to build a corruption interactively: it shows pictures, masks and the code."""

    host: Annotated[str, tyro.conf.arg(metavar="ADDRESS")] = "127.0.0.1"
    """Address to serve the page at; 0.0.0.0 makes it accessible from other machines, without a password."""
    port: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Port to serve the page at; by default the first free port from 7860 on."""
    weights: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Weights that restore the picture: a folder, a Hub name (owner/name), or a name that gmml models lists. By default the first
    in the package."""
    no_browser: bool = False
    """Print the address, but do not open a browser."""
    space: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Write a folder for a Hugging Face Space instead of serving the page."""

    def run(self) -> int:
        """Serve the page until Ctrl-C, or write the folder."""
        if self.space is not None:
            from gmml_models.play.space import write_space

            write_space(self.space)
            print(f"gmml play: {self.space} is a Space: README.md, app.py, requirements.txt. Push it to your repository.")
            return 0
        if self.port is not None and not 1 <= self.port <= 65535:
            raise UsageError(f"gmml play: --port {self.port} is out of range. Allowed: 1 to 65535.")
        if find_spec("gradio") is None:
            raise UsageError(
                "gmml play: the page needs gradio, which is not installed. Install it with "
                'pip install ".[play]" in a clone of the repository.'
            )
        self._check_address()
        from gmml_models.data.image_files import bundled

        found = bundled()
        if len(found) < 2:
            raise UsageError(
                "gmml play: the pictures to choose from come with scikit-image, which is not installed. Install it with "
                'pip install ".[play]" in a clone of the repository.'
            )
        self._serve(found)
        return 0

    def _check_address(self) -> None:
        """Refuse an address that is not this machine's, or a port that is taken, before anything slow is imported."""
        try:
            socket.create_server(
                (self.host, self.port or 0), family=socket.AF_INET6 if ":" in self.host else socket.AF_INET
            ).close()
        except OSError as error:
            raise self._unservable(error) from error

    def _unservable(self, error: OSError) -> UsageError:
        port = f"port {self.port}" if self.port is not None else "from port 7860 on"
        words = f"nothing can be served at {self.host}, {port}: {error.strerror or error}. Give another --port or --host."
        return UsageError(f"gmml play: {words}")

    def _serve(self, found: tuple[Path, ...]) -> None:
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        from gmml_models.play.image_picker import Album
        from gmml_models.play.page import CSS, build, theme
        from gmml_models.play.reconstruction import load

        page = build(Album(found), load(self.weights))
        for name in ("no_proxy", "NO_PROXY"):  # gradio asks its own page whether it is up, and would ask a proxy for it
            os.environ[name] = ",".join([*filter(None, [os.environ.get(name)]), "127.0.0.1", "localhost", self.host])
        try:
            _, address, _ = page.launch(
                server_name=self.host,
                server_port=self.port,
                inbrowser=not self.no_browser,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                max_file_size=_LARGEST_UPLOAD,
                footer_links=[],
                ssr_mode=False,
                theme=theme(),
                css=CSS,
            )
        except OSError as error:
            raise self._unservable(error) from error
        print(f"gmml play: {address} (Ctrl-C ends it)", flush=True)
        page.block_thread()
