"""The command line as a user meets it: from any folder, and what its help says is true."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from lib.commands import COMMANDS, EXAMPLES, main
from lib.configs.places import APP, FIRST_RUN, PUBLISHED
from lib.engine.commands import add_train_parser, start_of
from tests.conftest import environment


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_train_parser(parser.add_subparsers())
    return parser.parse_args(["train", *words])


def test_main_runs_from_any_folder_and_finds_what_lies_beside_it(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, str(APP / "main.py"), "--help"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "train" in told.stdout and not list(tmp_path.iterdir())
    assert PUBLISHED.is_file() and FIRST_RUN.is_absolute()
    assert parsed().out == FIRST_RUN
    assert parsed("--publish").publish == PUBLISHED


def test_a_run_starts_from_what_its_help_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "starts from the published weights" in told
    mine = tmp_path / "mine.pt"
    assert start_of(parsed()) == PUBLISHED
    assert start_of(parsed("--publish", str(mine))) is None, "nothing is published there yet"
    mine.write_bytes(b"weights")
    assert start_of(parsed("--publish", str(mine))) == mine
    assert start_of(parsed("--weights", "other.pt", "--publish", str(mine))) == Path("other.pt")
    assert start_of(parsed("--from-scratch", "--weights", "other.pt")) is None


def test_help_lists_every_command_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    told = capsys.readouterr().out
    assert ended.value.code == 0 and all(name in told for name in COMMANDS)


@pytest.mark.parametrize("words", [[], ["dance"], ["train", "--faster"]])
def test_wrong_words_end_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2 and "usage: main.py" in capsys.readouterr().err


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_use_of_a_command_shows_its_own_usage_and_what_to_type(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = EXAMPLES[command].split()
    for words in ([*needed, "--nonsense"], [command, "--studies"]):
        told = refusal(capsys, *words)
        assert told.startswith(f"usage: main.py {command} [-h]"), told
        assert told.endswith(f"for instance: main.py {EXAMPLES[command]}\n"), told


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_is_one_that_its_command_takes(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(f"{COMMANDS[command][0]}.run_{command}", seen.append)
    assert main(EXAMPLES[command].split()) == 0 and seen[0].command == command


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("predict stack.tif", "did you mean --image stack.tif?"),
        ("predict {folder}", "did you mean --studies {folder}?"),
        ("predict seg.zarr", "did you mean --image seg.zarr?"),
        ("train {folder}", "did you mean --studies {folder}?"),
        ("predict --imge stack.tif", "no option --imge; did you mean --image?"),
        ("train --epochs=3", "did you mean --set training.max_epochs=...?"),
        ("predict --window 64", "did you mean --set inference.window=...?"),
        ("train --wizardry", "no option --wizardry; --help lists them"),
        ("import one.tif two.tif --studies s", "unexpected 'two.tif': expected source and"),
        ("predcit --studies s", "did you mean main.py predict --studies s?"),
        ("--studies s predict", "the command comes first: main.py predict --studies s"),
        ("stack.tif", "no command 'stack.tif'; there are: demo, import"),
        ("", "no command; there are: demo, import"),
    ],
)
def test_a_slip_is_told_with_what_was_meant(
    words: str, remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refusal(capsys, *words.format(folder=tmp_path).split())
    assert remedy.format(folder=tmp_path) in told


@pytest.mark.parametrize("words", [["help", "status"], ["status", "-h"]])
def test_help_is_a_word_too(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0 and "usage: main.py status" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fault", "status", "told"),
    [
        (ValueError("study x: no such folder"), 1, "error: study x: no such folder"),
        (PermissionError(13, "Permission denied", "x.h5"), 1, "error: [Errno 13]"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    fault: BaseException,
    status: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(_: argparse.Namespace) -> int:
        raise fault

    monkeypatch.setattr("lib.demo.commands.run_demo", run)
    assert main(["demo", "--studies", "x"]) == status
    err = capsys.readouterr().err
    assert err.startswith(told) and err.count("\n") == 1


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: argparse.Namespace) -> int:
        raise KeyError("ours")

    monkeypatch.setattr("lib.demo.commands.run_demo", run)
    with pytest.raises(KeyError, match="ours"):
        main(["demo", "--studies", "x"])


def test_a_study_that_is_not_there_is_named_before_a_run_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, out = tmp_path / "nope", tmp_path / "run"
    assert main(["train", "--studies", str(missing), "--out", str(out)]) == 1
    assert f"study {missing}: no such folder" in capsys.readouterr().err
    assert not out.exists()
