"""The command line as a user meets it: from any folder, and what its help says is true."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from lib.commands import COMMANDS, main
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
