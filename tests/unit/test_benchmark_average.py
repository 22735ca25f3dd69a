"""The mean of two weights files."""

import sys
from pathlib import Path

import pytest
import torch
from engine_cases import HIERARCHY, tiny_settings

from benchmarks.average_weights import main, mean_of
from lib.configs.settings import Settings
from lib.networks.model import build_network
from lib.networks.pair_logits import START
from lib.networks.weights import load_network, load_weights, save_weights


def written(path: Path, settings: Settings, seed: int) -> Path:
    torch.manual_seed(seed)
    net = build_network(settings.model, settings.loss, HIERARCHY)
    save_weights(path, net.state_dict(), settings, HIERARCHY, {"step": seed})
    return path


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["average_weights.py", *map(str, words)])
    return main()


def test_a_mean_by_hand() -> None:
    one = {"w": torch.tensor([0.0, 4.0]), "n": torch.tensor(3)}
    two = {"w": torch.tensor([4.0, 0.0]), "n": torch.tensor(5)}
    mean = mean_of(one, two, 0.75)
    assert mean["w"].tolist() == [3.0, 1.0] and mean["n"].item() == 5


def test_the_file_loads_and_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings()
    one, two = (written(tmp_path / f"{n}.pt", settings, n) for n in (1, 2))
    out = tmp_path / "mean.pt"
    assert run(monkeypatch, one, two, "--share", 0.25, "--out", out) == 0
    a, b, mean = (load_weights(path)["model"] for path in (one, two, out))
    for key, value in mean.items():
        torch.testing.assert_close(value, 0.75 * a[key] + 0.25 * b[key])
    _, _, hierarchy, meta = load_network(out)
    assert meta["mean_of_steps"] == [1, 2]
    assert hierarchy.inside_set == HIERARCHY.inside_set != 0, "organelles lie inside cells"


def test_what_does_not_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = written(tmp_path / "1.pt", tiny_settings(), 1)
    other = written(tmp_path / "2.pt", tiny_settings(model__feature_size=16), 2)
    out = tmp_path / "mean.pt"
    assert run(monkeypatch, one, other, "--out", out) == 1
    assert "feature_size" in capsys.readouterr().err
    assert run(monkeypatch, one, one, "--share", 2, "--out", out) == 1
    assert "expected 0 to 1" in capsys.readouterr().err
    assert not out.exists()


def test_parts_that_the_earlier_file_lacks_count_by_their_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share of nothing of the later file is the earlier network, whatever was added."""
    later = tiny_settings(model__fine_features=4, loss__weight_affinity=1.0)
    one, two = written(tmp_path / "1.pt", tiny_settings(), 1), written(tmp_path / "2.pt", later, 2)
    data = load_weights(two)
    for key, value in data["model"].items():
        if key.startswith(("backbone.fine.", "task_heads.layers.affinity.")):
            value.copy_(torch.randn_like(value))
    save_weights(two, data["model"], later, HIERARCHY, {"step": 2, "classes_learned": ["axon"]})
    out = tmp_path / "mean.pt"
    assert run(monkeypatch, one, two, "--share", 0.0, "--out", out) == 0
    image = torch.rand((1, 1, 16, 16, 8))
    with torch.no_grad():
        before, after = (load_network(path)[0].eval()(image) for path in (one, out))
    for name, values in before.items():
        torch.testing.assert_close(after[name], values)
    assert bool((after["affinity"] == START).all())
    assert run(monkeypatch, one, two, "--share", 0.5, "--out", out) == 0
    mean, second = load_weights(out), load_weights(two)
    for key, value in second["model"].items():
        if key.startswith("backbone.fine.layers."):
            assert torch.equal(mean["model"][key], value), "inner layers are the later file's"
        elif key == "backbone.fine.project.weight":
            torch.testing.assert_close(mean["model"][key], value / 2)
    assert load_network(out)[3]["classes_learned"] == ["axon"]
