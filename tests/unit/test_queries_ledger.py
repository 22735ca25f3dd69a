"""The list of regions handed out: how long a region stays reserved, and what is counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lib.queries.ledger import HandedOut, Ledger

BOX = ((0, 8), (8, 16), (2, 4))
ENTRY = HandedOut("one", BOX, "anna", "random", 1000.0)


def test_an_empty_study_has_handed_out_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 60.0)
    assert ledger.recent(1000.0) == [] and ledger.served == 0
    assert not ledger.path.exists(), "asking writes nothing"


def test_entries_come_back_as_they_were_given_also_by_another_process(tmp_path: Path) -> None:
    other = HandedOut("two", ((1, 2), (3, 4), (5, 6)), "", "doubtful", 1001.5)
    for entry in (ENTRY, other):
        Ledger(tmp_path, 60.0).add(entry)
    assert Ledger(tmp_path, 60.0).recent(1002.0) == [ENTRY, other]
    assert Ledger(tmp_path, 60.0).served == 2


def test_a_region_is_reserved_for_so_long_and_no_longer(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 60.0)
    ledger.add(ENTRY)
    assert ledger.recent(1059.9) == [ENTRY]
    assert ledger.recent(1060.0) == []


def test_what_is_over_goes_at_the_next_write_and_stays_counted(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 60.0)
    ledger.add(ENTRY)
    late = replace(ENTRY, item="two", at=1060.0)
    ledger.add(late)
    assert ledger.recent(1060.0) == [late] and ledger.served == 2
    assert [r["item"] for r in json.loads(ledger.path.read_text())["regions"]] == ["two"]


def test_a_place_is_noted_once_whoever_is_sent_there(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 60.0)
    ledger.add(ENTRY)
    again = replace(ENTRY, client="ben", at=1010.0)
    ledger.add(again)
    elsewhere = replace(again, item="two")
    shifted = replace(again, box=((0, 8), (8, 16), (4, 6)))
    ledger.add(elsewhere)
    ledger.add(shifted)
    assert ledger.recent(1011.0) == [again, elsewhere, shifted]
    assert ledger.served == 4, "the noise of queries decays with how many there were"


@pytest.mark.parametrize(
    "text",
    [
        "half a fi",
        "[]",
        '{"served": 3}',
        '{"served": 3, "regions": [{"item": "one"}]}',
        '{"served": null, "regions": []}',
        '{"served": 1, "regions": [{"item": "a", "box": [[0, 1]], "client": "", '
        '"strategy": "", "at": 0}]}',
    ],
)
def test_a_damaged_list_starts_anew(tmp_path: Path, text: str) -> None:
    ledger = Ledger(tmp_path, 60.0)
    ledger.path.parent.mkdir(parents=True)
    ledger.path.write_text(text)
    assert ledger.recent(1000.0) == [] and ledger.served == 0
    ledger.add(ENTRY)
    assert ledger.recent(1000.0) == [ENTRY] and ledger.served == 1
