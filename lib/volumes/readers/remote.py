"""Volumes in object stores and behind web servers: s3://, gs://, http:// and https://.

Chunked formats only: a file would have to be fetched whole. Credentials come from the
environment and from nowhere else (AWS_ACCESS_KEY_ID or AWS_PROFILE, AWS_ENDPOINT_URL,
AWS_REGION; GOOGLE_APPLICATION_CREDENTIALS); without them access is anonymous.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tensorstore as ts

from lib.volumes.errors import VolumeError

SCHEMES = ("s3://", "gs://", "http://", "https://")
PREFIXES = ("zarr://", "zarr2://", "zarr3://", "n5://", "precomputed://")
"""What Neuroglancer writes before an address; the container's own files tell the format."""
RETRIES = {"max_retries": 6, "initial_delay": "200ms", "max_delay": "5s"}
ABSENT = ("PERMISSION_DENIED", "NOT_FOUND", "HTTP code 301")
"""A bucket that may not be listed denies what is not there; web servers redirect folders."""
REMEDY = (
    "check the address, and the credentials in the environment (AWS_ACCESS_KEY_ID or "
    "AWS_PROFILE, AWS_ENDPOINT_URL; GOOGLE_APPLICATION_CREDENTIALS)"
)


class RemoteFolder:
    """A folder of an object store, with the methods of Path that readers of containers use.

    Args:
        address: scheme://host-or-bucket/path.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")

    def __str__(self) -> str:
        return self.address

    def __truediv__(self, name: str) -> RemoteFolder:
        return RemoteFolder(f"{self.address}/{name}" if name else self.address)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteFolder) and other.address == self.address

    def __hash__(self) -> int:
        return hash(self.address)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.address.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return Path(self.name).suffix

    @property
    def parent(self) -> RemoteFolder:
        """The folder above; a store's root is its own."""
        above = self.address.rpartition("/")[0]
        return self if above.endswith(("/", ":")) else RemoteFolder(above)

    def relative_to(self, other: RemoteFolder) -> str:
        """The path from a folder above this one."""
        assert self.address.startswith(f"{other.address}/"), (self.address, other.address)
        return self.address.removeprefix(f"{other.address}/")

    def exists(self) -> bool:
        """Whether there is a file of this name; stores know no folders."""
        return self._read() is not None

    def is_dir(self) -> bool:
        """Stores know no folders: whatever is asked for may be one."""
        return True

    def read_text(self, encoding: str = "utf-8") -> str:
        """The file's text.

        Raises:
            FileNotFoundError: no such file, or none that these credentials may see.
            VolumeError: the store cannot be reached.
        """
        data = self._read()
        if data is None:
            raise FileNotFoundError(self.address)
        return data.decode(encoding)

    def iterdir(self) -> Iterator[RemoteFolder]:
        """The groups and arrays in a container that lists them in its metadata.

        Raises:
            VolumeError: it does not: chunks by the million would have to be listed.
        """
        names = self._listed()
        if names is None:
            raise VolumeError(
                self.address, "no container, or one that does not list its arrays",
                "a Zarr, OME-Zarr, N5 or Precomputed volume",
                f"name the array, {self.address}:DATASET; {REMEDY}",
            )  # fmt: skip
        for name in sorted({name.partition("/")[0] for name in names if name}):
            yield self / name

    def kvstore(self) -> dict[str, Any]:
        """This folder as a tensorstore key-value store."""
        return {**_store(self._root), "path": f"{self._path}/" if self._path else ""}

    @cached_property
    def _root(self) -> str:
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def _path(self) -> str:
        return self.address.removeprefix(self._root).strip("/")

    def _read(self) -> bytes | None:
        try:
            found = _opened(self._root, _environment()).read(self._path).result()
        except (ValueError, OSError, RuntimeError) as error:
            if any(word in str(error) for word in ABSENT):
                return None
            raise VolumeError(
                self.address, f"cannot be reached ({str(error)[:200]})", remedy=REMEDY
            ) from error
        return bytes(found.value) if found.state == "value" else None

    def _listed(self) -> list[str] | None:
        """Paths under the nearest group above that lists its members, from this folder on."""
        folder, inside = self, ""
        while True:
            names = _members(folder)
            if names is not None:
                return [n.removeprefix(inside) for n in names if n.startswith(inside)]
            if folder.parent == folder:
                return None
            folder, inside = folder.parent, f"{folder.name}/{inside}"


Folder = Path | RemoteFolder
"""Where a container lies: on a disk or in an object store."""


def is_remote(text: str) -> bool:
    """Whether a text is an address and not a path."""
    return without_prefix(text).startswith(SCHEMES)


def without_prefix(text: str) -> str:
    """An address without Neuroglancer's name of its format; a path as it is."""
    for prefix in PREFIXES:
        rest = text.removeprefix(prefix)
        if rest != text and rest.startswith(SCHEMES):
            return rest
    return text


def split_address(text: str) -> tuple[RemoteFolder, str]:
    """Folder and DATASET of "scheme://host:port/path:DATASET"."""
    address = without_prefix(text)
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    path, _, dataset = path.partition(":")
    return RemoteFolder(f"{scheme}://{host}{slash}{path}"), dataset


def kvstore_of(folder: Folder) -> dict[str, Any]:
    """A folder of a disk or of an object store as a tensorstore key-value store."""
    if isinstance(folder, RemoteFolder):
        return folder.kvstore()
    return {"driver": "file", "path": f"{folder.resolve()}/"}


def context_of(folder: Folder) -> Any:
    """Retries are bounded: a store that is away is an error, not a wait without end."""
    return _context() if isinstance(folder, RemoteFolder) else None


@lru_cache(maxsize=1)
def _context() -> Any:
    return ts.Context(
        {"http_request_retries": RETRIES, "s3_request_retries": RETRIES,
         "gcs_request_retries": RETRIES}
    )  # fmt: skip


def _store(root: str) -> dict[str, Any]:
    scheme, _, host = root.partition("://")
    if scheme == "gs":
        return {"driver": "gcs", "bucket": host}
    if scheme != "s3":
        return {"driver": "http", "base_url": root}
    environment = os.environ
    kind = (
        "environment" if environment.get("AWS_ACCESS_KEY_ID")
        else "profile" if environment.get("AWS_PROFILE") else "anonymous"
    )  # fmt: skip
    store: dict[str, Any] = {"driver": "s3", "bucket": host, "aws_credentials": {"type": kind}}
    if endpoint := environment.get("AWS_ENDPOINT_URL"):
        store["endpoint"] = endpoint
        store["aws_region"] = environment.get("AWS_REGION", "us-east-1")
    return store


def _environment() -> tuple[str | None, ...]:
    names = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_REGION")
    return tuple(os.environ.get(name) for name in names)


@lru_cache(maxsize=16)
def _opened(root: str, environment: tuple[str | None, ...]) -> Any:
    return ts.KvStore.open(_store(root), context=_context()).result()


def _members(group: RemoteFolder) -> list[str] | None:
    """Paths of a group's members where its metadata lists them; None where it does not."""
    for name in (".zmetadata", "zarr.json"):
        try:
            data = json.loads((group / name).read_text())
        except (FileNotFoundError, ValueError):
            continue
        listed = data.get("metadata") or (data.get("consolidated_metadata") or {}).get("metadata")
        if listed:
            ends = ("/.zarray", "/.zgroup", "/.zattrs")
            return [
                key.removesuffix(next((e for e in ends if key.endswith(e)), "")) for key in listed
            ]
    return None
