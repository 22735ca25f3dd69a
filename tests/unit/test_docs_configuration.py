"""docs/configuration.md names every setting with its default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib.configs.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    if isinstance(value, int) and value and value % 2**30 == 0:
        return f"{value // 2**30} GiB"
    if isinstance(value, int) and value and value % 2**20 == 0:
        return f"{value // 2**20} MiB"
    return str(value)


def test_every_setting_is_explained_with_its_default() -> None:
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    written = {key.strip("| `"): default for key, default, *_ in rows}
    meanings = {key.strip("| `"): meaning.strip("| ") for key, _, meaning in rows}
    settings = {f"{s}.{k}": shown(v) for s, section in Settings() for k, v in section}
    assert written == settings
    assert all(meanings.values())
