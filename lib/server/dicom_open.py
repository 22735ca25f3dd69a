"""Open the DICOMweb store that the server was started with, by MONAI Label's own settings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass
from monailabel.config import settings as stock
from monailabel.datastore.dicom import DICOMwebClientX

from lib.configs.settings import Settings
from lib.labels.hierarchy import LabelHierarchy
from lib.server.dicom_client import RemoteStore
from lib.server.dicom_datastore import DicomStudyDatastore


def open_dicom_datastore(
    address: str,
    submit: Callable[[str, Path, dict[str, Any]], dict[str, dict[str, Any]]],
    hierarchy: LabelHierarchy,
    settings: Settings,
    *,
    mirror: bool,
) -> DicomStudyDatastore:
    """The datastore for a DICOMweb address; nothing is downloaded but what the store holds.

    MONAI_LABEL_DICOMWEB_SEARCH_FILTER says which series are images ({"Modality": "CT"} unless
    told otherwise; a list of values means any of them), MONAI_LABEL_DICOMWEB_CACHE_PATH where
    the mirror lies, MONAI_LABEL_DICOMWEB_USERNAME and _PASSWORD how to log in.

    Args:
        address: the store's base URL.
        submit: what a submission goes through.
        mirror: fetch everything in the background; the server's main process does.
    """
    store = RemoteStore(_client(address), stock.MONAI_LABEL_DICOMWEB_SEARCH_FILTER)
    return DicomStudyDatastore(
        store,
        str(mirror_folder(address)),
        submit,
        hierarchy,
        settings.data.spacing_unit,
        mirror=mirror,
        extensions=stock.MONAI_LABEL_DATASTORE_FILE_EXT,
        auto_reload=stock.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
    )


def mirror_folder(address: str) -> Path:
    """Where the mirror of a store lies: a folder of its own for each address."""
    told = (stock.MONAI_LABEL_DICOMWEB_CACHE_PATH or stock.MONAI_LABEL_DATASTORE_CACHE_PATH).strip()
    parent = Path(told) if told else Path.home() / ".cache" / "neuropil" / "dicom"
    return parent / hashlib.sha256(address.encode()).hexdigest()[:16]


def _client(address: str) -> DICOMwebClient:
    if "googleapis.com" in address:
        from dicomweb_client.ext.gcp.session_utils import create_session_from_gcp_credentials

        return DICOMwebClient(url=address, session=create_session_from_gcp_credentials())
    user, password = stock.MONAI_LABEL_DICOMWEB_USERNAME, stock.MONAI_LABEL_DICOMWEB_PASSWORD
    client: DICOMwebClient = DICOMwebClientX(
        url=address,
        session=create_session_from_user_pass(user, password) if user and password else None,
        qido_url_prefix=stock.MONAI_LABEL_QIDO_PREFIX,
        wado_url_prefix=stock.MONAI_LABEL_WADO_PREFIX,
        stow_url_prefix=stock.MONAI_LABEL_STOW_PREFIX,
    )
    return client
