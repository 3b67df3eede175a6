"""Build the pages into a folder, and check what the generator does not.

``python -m benchmarks.site`` builds ``mkdocs.yml`` with Zensical in strict mode, which stops at a broken link in a page and at
a name that the reference cannot find. Then it reads the built files and reports docstrings that were misread, pages that the
navigation leaves out, links that lead to no file or no heading (those of the navigation too), and anything a browser would
fetch from another host. ``llms.txt`` lists the pages
for language models.

Pages have edit links, and the reference links to the source, where the address of the repository is known: from the variables that
GitHub sets in workflows, or from the git remote ``origin``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

ROOT = Path(__file__).resolve().parents[1]
_FETCHING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "link": "href"}
_ABOUT = """\
Install it from a clone (`pip install .`); it is not on a package index yet. `import gmml_aug as ga` corrupts batches of images
and needs torch alone; `import gmml_models as gm` has models, losses and weights; `gmml --help` lists the commands. A corruption
is called on a batch (B, C, H, W) and returns `(images, mask)`; `values=` states the value range, and `keys=ga.keys(seed, epoch,
index)` makes a call repeatable. The links lead to Markdown; the tests run every block of code in it.
"""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml is untyped
    """YAML in which the values of environment variables are left out."""


_Loader.add_constructor("!ENV", lambda loader, node: None)


class Page(HTMLParser):
    """What a built page links to, fetches, and can be linked by.

    Args:
        text: the HTML.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the links and the names of one tag."""
        held = {name: value for name, value in attrs if value}
        self.anchors |= {held[name] for name in ("id", "name") if name in held}
        if tag == "a" and "href" in held:
            self.links.append(held["href"])
        if tag in _FETCHING and _FETCHING[tag] in held and held.get("rel") != "canonical":
            self.fetched.append(held[_FETCHING[tag]])


def build(root: Path = ROOT, repository: str | None = None) -> list[str]:
    """Build the folder ``site`` beside ``mkdocs.yml``.

    Args:
        root: folder that holds ``mkdocs.yml``.
        repository: address of the repository on its forge; by default the one that is known here.

    Returns:
        What is wrong, a line each; empty if nothing is.
    """
    address = find_repository(root) if repository is None else repository
    told = {**os.environ, "GMML_REPOSITORY": address}
    if address:
        told["GRIFFE_GIT_REMOTE_URL"] = address
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    run = subprocess.run(command, cwd=root, env=told, capture_output=True, text=True, check=False)
    said = re.sub(r"\x1b\[[\d;]*m", "", run.stdout + run.stderr)  # colours
    if run.returncode:
        return [said]
    return [line for line in said.splitlines() if re.match(r"(griffe|mkdocstrings|autorefs|WARNING)\b", line)]


def find_repository(root: Path = ROOT) -> str:
    """The https address of the repository on its forge; empty if none is known."""
    if name := os.environ.get("GITHUB_REPOSITORY"):
        return f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{name}"
    git = ["git", "-C", str(root), "remote", "get-url", "origin"]
    try:
        run = subprocess.run(git, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    found = re.fullmatch(r"(?:https://|git@|ssh://git@)([\w.-]+\.\w+)[/:]([\w./-]+?)(?:\.git)?/?", run.stdout.strip())
    return f"https://{found[1]}/{found[2]}" if found else ""


def write_llms(root: Path = ROOT) -> None:
    """Write ``site/llms.txt``, a list of all pages with their first sentence, and the Markdown of the pages beside their HTML.

    Source:
        llmstxt.org: a title, a summary, and links to Markdown by section.

    Args:
        root: folder that holds ``mkdocs.yml``, ``docs`` and the built ``site``.
    """
    config = yaml.load((root / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)
    lines = [f"# {config['site_name']}", "", f"> {config['site_description']}", "", _ABOUT]
    for entry in config["nav"]:
        for section, found in entry.items():
            pages = [{section: found}] if isinstance(found, str) else found
            lines += [] if isinstance(found, str) else ["", f"## {section}", ""]
            lines += [_listed(root, title, path) for page in pages for title, path in page.items() if path != "index.md"]
    (root / "site" / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _listed(root: Path, title: str, path: str) -> str:
    text = (root / "docs" / path).read_text(encoding="utf-8")
    if path == "changelog.md":
        text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    generated = path.startswith("api/")  # its text is in the docstrings
    if not generated:
        (root / "site" / path).write_text(text, encoding="utf-8")
    paragraph = re.search(r"^(?![#<!|-])\S.*(?:\n\S.*)*", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    told = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", " ".join(paragraph[0].split())) if paragraph else ""
    sentence = re.match(r".*?[.?!](?=\s|$)", told)
    link = str(Path(path).with_suffix(".html")) if generated else path
    return f"- [{title}]({link}): {sentence[0] if sentence else told}"


def check(root: Path = ROOT) -> Iterator[str]:
    """What is wrong with a built site, a line each: links, pages that are not listed, and what would be fetched from elsewhere.

    Args:
        root: folder that holds ``docs`` and the built ``site``.
    """
    site, docs = root / "site", root / "docs"
    pages = {file: Page(file.read_text(encoding="utf-8")) for file in sorted(site.rglob("*.html"))}
    listed = set(_files(site, site / "index.html", pages[site / "index.html"].links))
    for source in sorted(docs.rglob("*.md")):
        page = site / source.relative_to(docs).with_suffix(".html")
        page = page.with_name("index.html") if source.name == "README.md" else page
        if page not in pages:
            yield f"{source.relative_to(docs)}: has no page"
        elif page not in listed:
            yield f"{source.relative_to(docs)}: the navigation does not name it; add it to nav in mkdocs.yml"
    for file, page_ in pages.items():
        where = file.relative_to(site)
        for link in page_.links:
            yield from (f"{where}: {link}: {wrong}" for wrong in _wrong(site, file, link, pages))
        for link in page_.fetched:
            if _elsewhere(link):
                yield f"{where}: fetches {link}; keep what a page needs in docs/"
            elif not link.startswith("data:"):
                yield from (f"{where}: {link}: {wrong}" for wrong in _wrong(site, file, link, pages))
    for style in sorted(site.rglob("*.css")):
        for link in re.findall(r"url\([\"']?((?:https?:)?//[^)\"']+)", style.read_text(encoding="utf-8")):
            yield f"{style.relative_to(site)}: fetches {link}; keep what a page needs in docs/"


def _elsewhere(link: str) -> bool:
    return bool(urlsplit(link).netloc)


def _target(site: Path, file: Path, link: str) -> Path:
    path = unquote(urlsplit(link).path)
    there = site / path.lstrip("/") if path.startswith("/") else file.parent / path
    there = Path(os.path.normpath(there)) if path else file
    return there / "index.html" if there.is_dir() else there


def _files(site: Path, file: Path, links: list[str]) -> Iterator[Path]:
    return (_target(site, file, link) for link in links if not _elsewhere(link))


def _wrong(site: Path, file: Path, link: str, pages: dict[Path, Page]) -> Iterator[str]:
    if urlsplit(link).scheme == "http":
        yield "is not encrypted; write https"
    if urlsplit(link).scheme or _elsewhere(link):
        return
    there, anchor = _target(site, file, link), unquote(urlsplit(link).fragment)
    if not there.is_file():
        yield "is not there"
    elif anchor and there in pages and anchor not in pages[there].anchors:
        yield "no such heading"


def main() -> int:
    """Build and check; 0 if nothing is wrong."""
    wrong = build()
    if not wrong:
        write_llms()
        wrong = list(check())
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"site: {sum(1 for _ in (ROOT / 'site').rglob('*.html'))} pages, {len(wrong)} errors")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
