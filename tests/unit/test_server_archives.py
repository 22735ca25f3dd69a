"""Archives of sessions, of every kind that is taken: what they hold, and what is refused."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping

import pytest

from lib.server.archives import ENDINGS, MOST_NAME, check_archive

TARS = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tbz2": "w:bz2",
        ".tar.xz": "w:xz", ".txz": "w:xz"}  # fmt: skip
LIMIT = 10_000


def packed(ending: str, members: Mapping[str, bytes]) -> io.BytesIO:
    """An archive of files; a name that ends in "/" is a folder."""
    buffer = io.BytesIO()
    if ending == ".zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(fileobj=buffer, mode=TARS[ending]) as tar:  # type: ignore[call-overload]
            for name, data in members.items():
                info = tarfile.TarInfo(name.rstrip("/"))
                info.size = len(data)
                if name.endswith("/"):
                    info.type = tarfile.DIRTYPE
                tar.addfile(info, io.BytesIO(data))
    buffer.seek(0)
    return buffer


def special(kind: bytes) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("x")
        info.type, info.linkname = kind, "y"
        tar.addfile(info)
    buffer.seek(0)
    return buffer


def test_every_ending_is_tested_here() -> None:
    assert {".zip", *TARS} == set(ENDINGS)


@pytest.mark.parametrize("ending", ENDINGS)
def test_good_archives_pass_and_are_left_at_their_start(ending: str) -> None:
    file = packed(ending, {"a/": b"", "a/one.nii": b"x" * 100, "two.nii": b"y"})
    for name in (f"set{ending}", f"SET{ending.upper()}"):
        check_archive(file, name, LIMIT)
        assert file.tell() == 0


@pytest.mark.parametrize("ending", ENDINGS)
def test_all_members_together_stay_below_the_limit(ending: str) -> None:
    just = packed(ending, {"one": b"x" * 6000, "two": b"y" * 4000})
    check_archive(just, f"a{ending}", LIMIT)
    over = packed(ending, {"one": b"x" * 6000, "two": b"y" * 4001})
    with pytest.raises(ValueError, match=f"a{ending}: unpacks to more than {LIMIT} bytes"):
        check_archive(over, f"a{ending}", LIMIT)
    assert over.tell() == 0, "whoever is told may look at it again"


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_where_a_folder_is_needed_is_named(ending: str) -> None:
    both = packed(ending, {"a/b/one": b"x", "a/b": b"y"})
    with pytest.raises(ValueError, match="a/b is a file and a folder"):
        check_archive(both, f"x{ending}", LIMIT)


@pytest.mark.parametrize("ending", ENDINGS)
def test_names_no_disk_can_hold_are_refused(ending: str) -> None:
    check_archive(packed(ending, {"é" * (MOST_NAME // 2): b""}), f"x{ending}", LIMIT)
    for name in ("é" * (MOST_NAME // 2 + 1), f"{'d' * (MOST_NAME + 1)}/file"):
        with pytest.raises(ValueError, match="is too long a name"):
            check_archive(packed(ending, {name: b""}), f"x{ending}", LIMIT)


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_files_that_name_others_of_the_machine_are_refused(ending: str) -> None:
    for name in ("in/one.region.json", "ONE.REGION.JSON"):
        with pytest.raises(ValueError, match="names a file of this machine"):
            check_archive(packed(ending, {name: b"{}"}), f"x{ending}", LIMIT)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(kind: bytes) -> None:
    with pytest.raises(ValueError, match="'x' is a link or a device"):
        check_archive(special(kind), "a.tar", LIMIT)


def test_a_link_in_a_zip_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("x")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    buffer.seek(0)
    with pytest.raises(ValueError, match="is a link or a device"):
        check_archive(buffer, "a.zip", LIMIT)


def test_a_damaged_member_is_found_before_anything_is_unpacked() -> None:
    data = packed(".zip", {"good": b"x" * 500, "bad": bytes(range(256)) * 8}).getvalue()
    at = data.index(b"bad") + 20
    broken = io.BytesIO(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
    with pytest.raises(ValueError, match=r"a\.zip: cannot be read"):
        check_archive(broken, "a.zip", LIMIT)


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_cut_short_or_of_another_kind_is_told(ending: str) -> None:
    whole = packed(ending, {"one": bytes(range(256)) * 30}).getvalue()
    for data in (whole[: len(whole) // 2], b"no archive at all" * 50):
        with pytest.raises(ValueError, match=f"x{ending}: cannot be read"):
            check_archive(io.BytesIO(data), f"x{ending}", LIMIT)


def test_a_locked_zip_is_told() -> None:
    data = bytearray(packed(".zip", {"one": b"secret"}).getvalue())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag "encrypted"
        data[data.index(mark) + offset] |= 1
    with pytest.raises(ValueError, match=r"cannot be read: .*encrypted"):
        check_archive(io.BytesIO(bytes(data)), "a.zip", LIMIT)


@pytest.mark.parametrize("name", ["a.rar", "zip", "a.nii.gz", "", "a.zip.txt"])
def test_other_endings_are_refused_with_those_that_are_taken(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected one of \.zip, \.tar, \.tar\.gz"):
        check_archive(packed(".zip", {"one": b""}), name, LIMIT)
