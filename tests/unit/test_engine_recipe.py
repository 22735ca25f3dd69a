"""A run from weights goes on with their recipe; what is set wins; from scratch: the defaults."""

import yaml

from lib.configs.load import dump_settings, load_settings
from lib.configs.settings import Settings
from lib.engine.recipe import DEFAULT, RECIPE, SET, origins_of, told, with_recipe_of

RECIPE_FILE = {
    "loss.weight_near": 3.0,
    "loss.weight_semantic": 2.5,
    "loss.weight_prompt": 0.5,
    "training.ema_decay": 0.99,
    "training.error_rounds": 2,
    "training.max_epochs": 160,
    "training.learning_rate": 2e-3,
    "data.patch_size": [96, 96, 24],
    "model.head_size": 24,
}


def data() -> dict[str, object]:
    return {"settings": load_settings(None, RECIPE_FILE).model_dump(mode="json")}


def test_the_whole_recipe_is_inherited_and_the_budget_is_not() -> None:
    settings, origins = with_recipe_of(Settings(), data())
    assert settings.loss == load_settings(None, RECIPE_FILE).loss
    assert settings.training.ema_decay == 0.99 and settings.training.error_rounds == 2
    assert settings.data.patch_size == (96, 96, 24) and settings.model.head_size == 24
    plain = Settings().training
    assert settings.training.max_epochs == plain.max_epochs
    assert settings.training.learning_rate == plain.learning_rate
    assert origins["loss.weight_near"] == origins["model.head_size"] == RECIPE
    assert origins["training.max_epochs"] == DEFAULT


def test_what_is_set_wins_and_is_told() -> None:
    own = load_settings(None, {"loss.weight_near": 0.0, "training.weight_decay": 0.5})
    settings, origins = with_recipe_of(own, data())
    assert settings.loss.weight_near == 0.0 and settings.loss.weight_semantic == 2.5
    assert settings.training.weight_decay == 0.5
    assert origins["loss.weight_near"] == SET and origins["loss.weight_semantic"] == RECIPE
    sentence = told(settings, origins)
    assert "training.weight_decay 0.5" in sentence.partition(RECIPE)[0]
    assert "loss.weight_semantic 2.5" in sentence.partition(RECIPE)[2]


def test_from_scratch_every_value_is_the_default() -> None:
    assert set(origins_of(Settings()).values()) == {DEFAULT}
    assert told(Settings(), origins_of(Settings())) == "all settings at their defaults"


def test_the_resolved_configuration_says_where_values_come_from() -> None:
    settings, origins = with_recipe_of(load_settings(None, {"loss.weight_dir": 0.2}), data())
    text = dump_settings(settings, origins)
    assert yaml.safe_load(text) == settings.model_dump(mode="json")
    lines = {line.strip() for line in text.splitlines()}
    assert f"weight_near: 3.0  # {RECIPE}" in lines and f"weight_dir: 0.2  # {SET}" in lines
