"""Tables of objects as files: CSV for people and spreadsheets, Parquet for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.volumes.atomic import write_bytes
from lib.volumes.errors import VolumeError

SUFFIXES = (".csv", ".parquet")


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows of the same keys; the file appears whole or not at all.

    Args:
        path: .csv or .parquet.

    Raises:
        VolumeError: another suffix.
    """
    if path.suffix not in SUFFIXES:
        raise VolumeError(path, f"a table of kind {path.suffix!r}", " or ".join(SUFFIXES))
    write_bytes(path, _csv(rows) if path.suffix == ".csv" else _parquet(rows))


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pa_parquet

    sink = pa.BufferOutputStream()
    pa_parquet.write_table(pa.Table.from_pylist(list(rows)), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content
