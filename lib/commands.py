"""The command line: `python main.py COMMAND`. Each command's module is imported when asked for."""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

COMMANDS = {
    "demo": ("lib.demo.commands", "make a study of synthetic neuropil"),
    "import": ("lib.volumes.commands", "read a volume and its labels into a study"),
    "export": ("lib.shapes.export_commands", "write labels or objects in the source's frame"),
    "train": ("lib.engine.commands", "train on the annotated items of studies"),
    "adapt": ("lib.adaptation.commands", "refit a study's heads to its labels"),
    "evaluate": ("lib.evaluation.commands", "measure weights on annotated items"),
    "predict": ("lib.blocks.commands", "segment a study's items, a file, or a larger volume"),
    "measure": ("lib.shapes.commands", "a table of objects; their skeletons and meshes"),
    "view": ("lib.server.viewing", "a volume or an item in Neuroglancer, to be proofread"),
    "status": ("lib.blocks.commands", "tell how far a blockwise prediction is"),
}
"""Command -> (module with `add_<command>_parser` and `run_<command>`, one line of help)."""

EXAMPLES = {
    "demo": "demo --studies studies/demo",
    "import": "import stack.tif --studies studies/mine --voxel-size-nm 8 8 40",
    "export": "export ITEM objects.tif --studies studies/mine --label instance",
    "train": "train --studies studies/mine",
    "adapt": "adapt --studies studies/mine",
    "evaluate": "evaluate --studies studies/mine",
    "predict": "predict --image stack.tif --out classes.nii.gz",
    "measure": "measure ITEM --studies studies/mine --out objects.csv",
    "view": "view ITEM --studies studies/mine",
    "status": "status seg.zarr",
}
"""Command -> what to type, for whoever typed something else."""

STUDY, IMAGE, SET = "--studies", "--image", "--set"
NEAR = 0.6


class Parser(argparse.ArgumentParser):
    """A parser whose refusals say what to type: of its own command, not of the whole program."""

    example = ""

    def error(self, message: str) -> NoReturn:
        """Usage, fault and an example; exit status 2."""
        told = f"{self.prog}: error: {message}\n"
        if self.example:
            told += f"for instance: main.py {self.example}\n"
        self.print_usage(sys.stderr)
        self.exit(2, told)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse does, but that what is left over is refused here, by the command's parser.

        The program's own parser would refuse it with a usage that names no option.
        """
        found, left = super().parse_known_args(args, namespace)
        if left:
            self.error(self._left_over(left[0]))
        return found, []

    def _left_over(self, word: str) -> str:
        """What to say of a word that no option and no place takes."""
        options = [name for name in self._option_string_actions if name.startswith("--")]
        if not word.startswith("-"):
            places = [action.metavar or action.dest for action in self._get_positional_actions()]
            if places:
                return f"unexpected {word!r}: expected {' '.join(map(str, places))} and options"
            named = next((name for name in _meant(word) if name in options), None)
            remedy = f"; did you mean {named} {word}?" if named else ""
            return f"unexpected {word!r}: every word here belongs to an option{remedy}"
        name = word.partition("=")[0]
        if near := difflib.get_close_matches(name, options, 1, NEAR + 0.1):
            return f"no option {name}; did you mean {near[0]}?"
        if SET in options and (keys := _settings_like(name.strip("-").replace("-", "_"))):
            return f"no option {name}; did you mean {SET} {keys[0]}=...?"
        return f"no option {name}; --help lists them"


def _meant(word: str) -> tuple[str, str]:
    """The option that a bare path was meant for, likeliest first."""
    path = Path(word)
    study = path.is_dir() if path.exists() else not path.suffix
    return (STUDY, IMAGE) if study and not path.suffix else (IMAGE, STUDY)


def _settings_like(name: str) -> list[str]:
    """The settings whose name an option's resembles, as `--set` takes them, likeliest first."""
    from lib.configs.settings import Settings

    keys = {
        key: f"{section}.{key}"
        for section, field in Settings.model_fields.items()
        for key in getattr(field.annotation, "model_fields", {})
    }
    within = [key for key in keys if name in key.split("_") or name == key]
    near = within or difflib.get_close_matches(name, keys, 1, NEAR)
    return [keys[key] for key in near]


def _chosen(parser: Parser, words: Sequence[str]) -> str | None:
    """The command that the words name; refuses what is none."""
    if not words:
        parser.error(f"no command; there are: {', '.join(COMMANDS)}")
    first, rest = words[0], words[1:]
    if first in COMMANDS or first in ("-h", "--help"):
        return first if first in COMMANDS else None
    if named := next((word for word in words if word in COMMANDS), None):
        others = " ".join(word for word in words if word != named)
        parser.error(f"the command comes first: main.py {named} {others}")
    near = difflib.get_close_matches(first, COMMANDS, 1, NEAR)
    remedy = f"did you mean main.py {' '.join([near[0], *rest])}? " if near else ""
    parser.error(f"no command {first!r}; {remedy}there are: {', '.join(COMMANDS)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0, 1 for what the user can mend (told in one message), 2 for wrong
        arguments, 130 when interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    parser = Parser(
        prog="main.py",
        usage="main.py [-h] COMMAND ...",
        description="Neuropil without a server; `main.py COMMAND --help` tells more.",
    )
    chosen = _chosen(parser, words)
    commands: Any = parser.add_subparsers(
        prog="main.py", dest="command", metavar="COMMAND", required=True
    )
    for name, (module, text) in COMMANDS.items():
        if name == chosen:
            getattr(importlib.import_module(module), f"add_{name}_parser")(commands)
            commands.choices[name].example = EXAMPLES[name]
        else:
            commands.add_parser(name, help=text, add_help=False)
    options = parser.parse_args(words)
    run = getattr(importlib.import_module(COMMANDS[options.command][0]), f"run_{options.command}")
    try:
        return int(run(options) or 0)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
