"""The command line: `python main.py COMMAND`. Each command's module is imported when asked for."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0, 1 for what the user can mend (told in one message), 2 for wrong
        arguments, 130 when interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="main.py",
        description="Neuropil without a server; `main.py COMMAND --help` tells more.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, (module, text) in COMMANDS.items():
        if name == chosen:
            getattr(importlib.import_module(module), f"add_{name}_parser")(commands)
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
