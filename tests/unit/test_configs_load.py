"""The configuration: defaults, a file, single keys; faults are named by their path."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import yaml

from lib.configs.load import SECTIONS, dump_settings, hierarchy_of, load_from_conf, load_settings
from lib.configs.options import add_run_options, add_settings_options, settings_from
from lib.configs.settings import Settings
from lib.labels.hierarchy import load_hierarchy


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_without_anything_the_defaults_hold() -> None:
    assert load_settings() == Settings() == load_settings(None, {})


def test_a_file_says_over_the_defaults_and_single_keys_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "training:\n  max_epochs: 7\n  seed: 3\nloss:\n  delta_v: 0.25\n")
    found = load_settings(path, {"training.seed": "11", "inference.level": "coarse"})
    assert (found.training.max_epochs, found.training.seed) == (7, 11)
    assert found.loss.delta_v == 0.25 and found.inference.level == "coarse"
    assert found.model == Settings().model


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("training.num_pos_points", "3", 3),
        ("training.learning_rate", "2e-3", 0.002),
        ("training.fractionary_prompts", "false", False),
        ("training.training_modes", "[automatic]", ("automatic",)),
        ("training.amp", "off", "off"),
        ("data.group_weights", "{fib25: 2}", {"fib25": 2.0}),
        ("inference.window", "[64, 64, 16]", (64, 64, 16)),
        ("labels.hierarchy", "none", "none"),
    ],
)
def test_text_is_read_as_yaml(path: str, text: str, value: Any) -> None:
    section, key = path.split(".")
    assert getattr(getattr(load_settings(None, {path: text}), section), key) == value


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"training.num_pos_point": "3"}, r"training\.num_pos_point: unknown key; known: .*seed"),
        ({"training.num_pos_points": "0"}, r"training\.num_pos_points: .*1, found 0"),
        ({"inference.level": "middle"}, r"inference\.level: .*fine.*fallback.*found 'middle'"),
        ({"inference.window": "[64, 64]"}, r"inference\.window"),
        ({"speed.fast": "1"}, r"speed\.fast: expected SECTION\.KEY, sections: loss, training"),
        ({"training": "1"}, r"training: expected SECTION\.KEY"),
        ({"training.seed": "[1"}, r"training\.seed: no YAML value: '\[1'"),
        ({"training.training_modes": "[]"}, r"training\.training_modes: at least one of"),
        ({"training.training_modes": "[proofread, proofread]"}, r"training_modes: listed twice"),
    ],
)
def test_a_fault_names_the_key_what_was_found_and_what_is_allowed(
    overrides: dict[str, str], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        load_settings(None, overrides)


def test_every_fault_has_a_line(tmp_path: Path) -> None:
    path = written(tmp_path, "training: {seed: x, workers: -1}\nloss: {delta: 1}\n")
    with pytest.raises(ValueError) as caught:
        load_settings(path)
    lines = sorted(str(caught.value).splitlines())
    assert [line.partition(":")[0] for line in lines] == [
        "loss.delta", "training.seed", "training.workers",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- 1\n- 2\n", "expected sections loss, training"),
        ("training: [1", "configuration .*mine.yaml: "),
        ("training: 3\n", "training: .*found 3"),
        ("speed:\n", "speed: unknown key; known: loss"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load_settings(written(tmp_path, text))
    with pytest.raises(ValueError, match="No such file"):
        load_settings(tmp_path / "none.yaml")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes("labels: {segment_names: {größer: axon}}".encode("latin-1"))
    with pytest.raises(ValueError, match=r"configuration .*mine\.yaml: "):
        load_settings(path)
    path.write_text("labels: {segment_names: {größer: axon}}", encoding="utf-8")
    assert load_settings(path).labels.segment_names == {"größer": "axon"}


def test_a_section_whose_keys_are_all_commented_out_is_empty(tmp_path: Path) -> None:
    path = written(tmp_path, "training:\n  # seed: 3\nloss:\n")
    assert load_settings(path) == Settings()
    assert load_settings(path, {"training.seed": 5}).training.seed == 5
    assert load_settings(written(tmp_path, "# nothing yet\n")) == Settings()


def test_the_servers_conf_takes_its_own_keys_and_leaves_the_stock_ones(tmp_path: Path) -> None:
    path = written(tmp_path, "queries: {sharpness: [2, 50]}\n")
    conf = {"config": str(path), "inference.overlap": "0.5", "models": "all", "auto.x": "1"}
    found = load_from_conf(conf)
    assert found.queries.sharpness == (2.0, 50.0) and found.inference.overlap == 0.5
    assert load_from_conf({"config": ""}) == Settings()


def test_what_is_dumped_is_what_is_loaded(tmp_path: Path) -> None:
    settings = load_settings(None, {"data.group_weights": "{a: 2}", "training.amp": "off"})
    path = written(tmp_path, dump_settings(settings))
    assert load_settings(path) == settings
    assert list(yaml.safe_load(path.read_text())) == list(SECTIONS)


def test_hierarchies_by_name_or_file(tmp_path: Path) -> None:
    assert hierarchy_of(Settings()).to_dict() == load_hierarchy().to_dict()
    flat = hierarchy_of(load_settings(None, {"labels.hierarchy": "none", "labels.num_classes": 4}))
    assert flat.num_classes == 4 and flat.num_groups == 0
    with pytest.raises(ValueError, match=r"none\.yaml"):
        hierarchy_of(load_settings(None, {"labels.hierarchy": str(tmp_path / "none.yaml")}))


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().training.seed = 4  # type: ignore[misc]


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_settings_options(parser)
    add_run_options(parser)
    return parser.parse_args(words)


def test_commands_share_their_options(tmp_path: Path) -> None:
    path = written(tmp_path, "training: {seed: 3, workers: 1}\n")
    for word in ("--config", "--conf"):
        args = parsed(word, str(path), "--set", "training.seed=4", "loss.delta_v=0.3", "--quiet")
        found = settings_from(args)
        assert (found.training.seed, found.training.workers, found.loss.delta_v) == (4, 1, 0.3)
        assert args.quiet and args.device is None
    assert settings_from(parsed("--set", "labels.segment_names={a=b: axon}")).labels.segment_names
    with pytest.raises(ValueError, match=r"--set training\.seed: expected KEY=VALUE"):
        settings_from(parsed("--set", "training.seed"))
