"""One inference: which image it may read, what of its answer is kept and under which tag."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import HTTPException

from lib.server.inference import EXTENSIONS, extension_of, run_task


class Store:
    """A datastore that notes what is saved."""

    def __init__(self) -> None:
        self.saved: list[tuple[str, str, str, dict[str, Any]]] = []

    def get_image_uri(self, image: str) -> str:
        return f"/studies/{image}.nii"

    def save_label(self, image: str, file: str, tag: str, info: dict[str, Any]) -> str:
        self.saved.append((image, file, tag, info))
        return image


class App:
    """An app of one task, which answers what it is told to.

    Args:
        params: of the task's answer.
        file: of the task's answer.
    """

    def __init__(self, file: str | None = None, **params: Any) -> None:
        self.asked: list[dict[str, Any]] = []
        self.noted: list[tuple[str, str]] = []
        self.store = Store()
        self.submissions = SimpleNamespace(
            note_answer=lambda image, request, params, file, clicked: self.noted.append(
                (image, str(file))
            )
        )

        def task(request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
            self.asked.append(request)
            return file, dict(params)

        self._infers = {"segmentation": task}

    def datastore(self) -> Store:
        return self.store

    def knows_image(self, image: str) -> bool:
        return image == "em"


def ask(app: App, staged: str | None = None, **request: Any) -> dict[str, Any]:
    return run_task(app, {"model": "segmentation", "image": "em", **request}, staged)


@pytest.mark.parametrize("ending", EXTENSIONS)
def test_an_upload_keeps_its_whole_ending(ending: str) -> None:
    assert extension_of(f"a.b{ending}") == extension_of(f"A.B{ending.upper()}") == ending


def test_an_ending_that_no_reader_knows_is_refused_by_name() -> None:
    assert extension_of(None) == extension_of("") == ".nii.gz"
    with pytest.raises(HTTPException, match=r"'x\.exe': expected one of \.nii"):
        extension_of("/secret/folder/x.exe")


def test_an_image_of_the_studies_is_read_where_it_lies() -> None:
    app = App("/tmp/answer.nrrd", label_names={"axon": 1})
    told = ask(app)
    assert app.asked[0]["image"] == "/studies/em.nii"
    assert told["label"] == told["file"] == "/tmp/answer.nrrd"
    assert app.noted == [("em", "/tmp/answer.nrrd")], "what was shown is remembered"
    assert app.store.saved == [], "nothing is kept unasked"


@pytest.mark.parametrize("image", ["/etc/passwd", "../em", "other", None, 3, ["em"]])
def test_any_other_path_is_no_image(image: Any) -> None:
    app = App()
    with pytest.raises(HTTPException, match="no image") as error:
        ask(app, image=image)
    assert error.value.status_code == 404 and not app.asked
    with pytest.raises(HTTPException, match="no image"):  # beside an upload, too
        ask(app, staged="/tmp/upload.nii", image=image)


def test_an_unknown_model_names_those_there_are() -> None:
    with pytest.raises(HTTPException, match="no 'sam'; there are: segmentation"):
        ask(App(), model="sam")


def test_of_an_upload_nothing_is_noted_or_kept() -> None:
    app = App("/tmp/answer.nrrd", stored={"instance_predicted": "/tmp/no-such-file"})
    told = ask(app, staged="/tmp/em", image="/tmp/em", save_label=True)
    assert app.asked[0]["image"] == "/tmp/em"
    assert told["label"] == "/tmp/answer.nrrd" and not app.store.saved and not app.noted


def test_maps_for_the_study_are_kept_without_the_names_of_thousands(tmp_path: Path) -> None:
    made = tmp_path / "all.nii.gz"
    made.write_bytes(b"map")
    names = {f"axon {n}": n for n in range(5)}
    app = App("a.nrrd", stored={"instance_predicted": str(made)}, label_names=names, objects=5)
    told = ask(app)
    ((image, file, tag, info),) = app.store.saved
    assert (image, file, tag) == ("em", str(made), "instance_predicted")
    assert info == {"model": "segmentation", "params": {"objects": 5}}
    assert told["params"]["label_names"] == names and "stored" not in told["params"]
    assert not made.exists(), "the temporary file goes"


@pytest.mark.parametrize(("asked", "tag"), [({}, "original"), ({"label_tag": "mine"}, "mine")])
def test_an_answer_is_saved_where_that_is_asked_for(asked: dict[str, str], tag: str) -> None:
    app = App("a.nrrd", label_names={"axon": 1})
    told = ask(app, save_label=True, **asked)
    assert [(image, file, t) for image, file, t, _ in app.store.saved] == [("em", "a.nrrd", tag)]
    assert told["label"] == "em"
