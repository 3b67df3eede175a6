"""What ``--help`` prints: 80 columns, every option in words, an example that can be typed, the exit codes."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
import sys

import pytest

from gmml_models.cli.help import EXAMPLES, EXIT_CODES, GROUPS, help_of, options_of, overview
from gmml_models.cli.main import COMMANDS, main, read

NAMES = sorted(COMMANDS)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_overview_names_every_command_and_every_exit_code(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    text = told(capsys, flag)
    assert all(re.search(rf"^  {name} ", text, re.MULTILINE) for name in NAMES)
    assert all(re.search(rf"^  {code} ", text, re.MULTILINE) for code in EXIT_CODES)
    assert max(map(len, text.splitlines())) <= 80
    assert told(capsys, "nonsense", flag) == text


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_a_command_fits_a_terminal_and_says_all(capsys: pytest.CaptureFixture[str], name: str) -> None:
    text = told(capsys, name, "--help")
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith(f"usage: gmml {name} [OPTIONS]")
    for option in options_of(COMMANDS[name]):
        assert re.match(r"[A-Z].*[.?]$", option.meaning.removeprefix("mc_ssl: ").removeprefix("sit: ").capitalize()), option
        assert re.search(rf"^  {re.escape(option.words.split()[0].split('|')[0])}", text, re.MULTILINE), option
    codes = re.findall(r"^  (\d+) ", text[text.index("exit codes:") :], re.MULTILINE)
    assert [int(code) for code in codes] == [code for code in EXIT_CODES if code != 3 or name in ("pretrain", "finetune")]


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_command_can_be_typed(capsys: pytest.CaptureFixture[str], name: str) -> None:
    text = told(capsys, name, "--help")
    example = text[text.index("example:\n") + len("example:\n") :].split("\n\n")[0]
    words = shlex.split(example.replace("\\\n", ""))  # as a shell reads it: lines that end in a backslash are joined
    assert words == shlex.split(EXAMPLES[name])
    assert words[:2] == ["gmml", name]
    command = read(words[1:])
    kind = COMMANDS[name]
    assert isinstance(kind, type)
    assert isinstance(command, kind)
    assert set(EXAMPLES) == set(NAMES)


@pytest.mark.parametrize("name", ["pretrain", "finetune", "evaluate"])
def test_options_stand_in_groups(name: str) -> None:
    text = help_of(name, COMMANDS[name])
    titles = re.findall(r"^([a-z ]+):$", text, re.MULTILINE)
    assert titles[0] == "example"
    assert titles[-2:] == ["options", "exit codes"]
    assert titles[1:-2] == [title for title in GROUPS if title in titles]
    assert len(titles) >= 8
    assert text[text.index("\noptions:\n") :].split("\n\n")[0].count("\n  -") == 1, "--help alone has no group"
    every = [one for names in GROUPS.values() for one in names]
    assert len(set(every)) == len(every)


def test_defaults_are_printed_once_and_those_of_a_recipe_where_it_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def default_of(option: str, text: str) -> str:
        found = re.search(rf"^  --{option} (.*?)(?=^  -|^$)", text, re.MULTILINE | re.DOTALL)
        assert found is not None
        words = " ".join(found.group(1).split())
        assert words.count("Default: ") == 1
        return words.rsplit("Default: ", 1)[1]

    assert default_of("epochs", told(capsys, "pretrain", "--help")) == "800."
    assert default_of("epochs", told(capsys, "pretrain", "--recipe", "small", "--help")) == "100."
    assert default_of("betas", told(capsys, "pretrain", "--help")) == "0.9 0.999."


def test_types_become_words() -> None:
    @dataclasses.dataclass
    class Known:
        """Some command."""

    assert list(options_of(Known)) == []
    words = {one.name: one.words for one in options_of(COMMANDS["pretrain"])}
    assert words["cls_loss"] == "--cls-loss"
    assert words["mean"] == "--mean X ..."
    assert words["jitter"] == "--jitter X X X X"
    assert words["resident"] == "--resident True|False"
    assert words["out"] == "--out PATH"
    assert words["precision"] == "--precision auto|bf16|fp32"
    off = next(one for one in options_of(COMMANDS["finetune"]) if one.name == "keep_best")
    assert off.words == "--no-keep-best"
    assert off.meaning.startswith("Turn this off: Also save")
    assert getattr(read(["finetune", off.words]), off.name) is False
    assert {one.words for one in options_of(COMMANDS["corrupt"])} >= {"[IMAGES ...]", "-o, --output FILE", "--size PIXELS"}
    assert overview("Words.", {"known": Known}).count("Some command.") == 1


def test_a_command_ends_with_its_last_line() -> None:
    said = "import atexit, gc; atexit.register(lambda: print('frozen', gc.get_freeze_count() > 10_000))"
    code = f"{said}; from gmml_models.cli import main; main(['models', '--pattern', 'none*'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "frozen True"  # Python's end finds nothing to look through
