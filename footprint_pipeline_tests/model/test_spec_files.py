"""Recipes as files, and the names, types and descriptions that options and Dagster config are made from."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from footprint_pipeline.dataset.augmentation import ARTICLE as ARTICLE_AUGMENTATION
from footprint_pipeline.dataset.augmentation import AugmentationSpec
from footprint_pipeline.errors import SettingsError
from footprint_pipeline.model.search_space import (
    DEFAULT_SPACE,
    Choices,
    Range,
    SearchSpec,
    own_point,
    read_space,
    recipe_at,
)
from footprint_pipeline.model.spec import ARTICLE, TrainingSpec, UNetSpec
from footprint_pipeline.model.spec_fields import change, fields_of, plain
from footprint_pipeline.model.spec_files import read_spec, to_yaml

CONFIGS = Path(__file__).parents[2] / "configs"


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_comes_back_as_it_was_written(tmp_path: Path) -> None:
    spec = TrainingSpec(
        network=UNetSpec(width=7, heads=("building", "contact"), encoder="EfficientNetV2B0"),
        augmentation=ARTICLE_AUGMENTATION,
        learning_rate=1e-5,
        max_minutes=3,
        head_weights=(1.0, 0.25, 0.125),
    )
    assert read_spec(written(tmp_path, to_yaml(spec))) == spec
    assert plain(spec) == yaml.safe_load(to_yaml(spec))


def test_what_a_recipe_leaves_out_has_its_default(tmp_path: Path) -> None:
    spec = read_spec(written(tmp_path, "learning_rate: 2e-4  # as people write it\nnetwork:\n  width: 8\n"))
    default = TrainingSpec()
    assert spec == replace(default, learning_rate=2e-4, network=replace(default.network, width=8))
    assert read_spec(written(tmp_path, "# nothing\n")) == default


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rat: 1", "nothing is called learning_rat.\n  Did you mean learning_rate?"),
        ("network: {widht: 3}", "nothing is called network.widht.\n  Did you mean width?"),
        ("colour: 1", "There is network, augmentation, loss"),
        ("epochs: '3'", "epochs is '3'"),
        ("epochs: true", "epochs is True"),
        ("epochs: 2.5", "Give a whole number."),
        ("learning_rate: .nan", "it should be a finite number"),
        ("max_minutes: soon", "Give a number, or null."),
        ("network: 3", "network is 3, but it holds fields of its own"),
        ("network: {heads: building}", "network.heads is 'building'"),
        ("augmentation: {scale: [1, 2, 3]}", "augmentation.scale is [1, 2, 3]"),
        ("loss: mse", "No loss is called 'mse'.\n  Choose one of bce"),
        ("epochs: 0", "epochs is 0"),
        ("epochs: 1\nbatch_size: 2\nepochs: 3", ", line 3: cannot be read as YAML (epochs stands twice)"),
        ("epochs: [1", "cannot be read as YAML"),
        ("- epochs", "holds a list, not names with values"),
        ("1: 2", "nothing is called 1"),
    ],
)
def test_a_recipe_that_cannot_be_is_named_with_field_and_way_out(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        read_spec(path)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)
    assert caught.value.fix


def test_a_recipe_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere.yaml: cannot be read \(No such file") as caught:
        read_spec(tmp_path / "nowhere.yaml")
    assert "configs/" in caught.value.fix
    (tmp_path / "model.keras").write_bytes(b"PK\x03\x04\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot be read as YAML"):
        read_spec(tmp_path / "model.keras")


def test_every_field_has_a_name_a_type_and_a_description() -> None:
    known = fields_of(TrainingSpec())
    assert {field.name for field in known} == set(TrainingSpec().flat())
    for field in known:
        assert field.description, field.name
        assert "`" not in field.description
        if field.choices:
            assert set([field.default] if isinstance(field.default, str) else field.default) <= set(field.choices)


def test_changes_are_dotted_nested_or_both() -> None:
    changed = change(
        TrainingSpec(),
        {"network": {"width": 8}, "network.depth": 2, "augmentation.scale": [1, 2], "epochs": 1},
        where="x",
    )
    assert (changed.network.width, changed.network.depth, changed.network.stem) == (8, 2, TrainingSpec().network.stem)
    assert changed.augmentation.scale == (1.0, 2.0)
    assert changed.epochs == 1
    with pytest.raises(SettingsError, match="x: network is given as a whole and in parts"):
        change(TrainingSpec(), {"network": 3, "network.width": 8}, where="x")


LOOK = ("scale", "brightness", "contrast", "tint", "hue", "blur_share", "gamma", "grey_share")


def test_the_shipped_recipes_are_what_they_say() -> None:
    recipes = {path.stem: read_spec(path) for path in CONFIGS.glob("*.yaml")}
    assert set(recipes) == {"default", "few_tiles", "pretrained", "article", "article_narrow", "quick"}
    assert recipes["default"] == TrainingSpec()
    few = recipes["few_tiles"]
    assert few == replace(TrainingSpec(), batch_size=4, balance=0.25, augmentation=few.augmentation)
    pretrained = recipes["pretrained"]
    network = replace(TrainingSpec().network, width=16, encoder="MobileNet", encoder_weights="imagenet")
    assert pretrained == replace(few, network=network, learning_rate=0.001, balance=0.5)
    whole = AugmentationSpec()
    assert few.augmentation.hue == whole.hue / 2
    assert few.augmentation.contrast == whole.contrast / 2
    assert replace(few.augmentation, **{name: getattr(whole, name) for name in LOOK}) == whole
    assert yaml.safe_load((CONFIGS / "default.yaml").read_text()) == plain(TrainingSpec())  # it tells every field

    article = recipes["article"]
    assert (article.network, article.augmentation) == (ARTICLE, ARTICLE_AUGMENTATION)
    told = plain(article)
    assert told | {
        "loss": "bce", "optimizer": "sgd", "learning_rate": 0.02, "schedule": "constant", "warm_up": 0.0,
        "momentum": 0.0, "weight_decay": 0.0, "clip_norm": 0.0, "ema": 0.0, "batch_size": 8, "chip_size": 512,
    } == told  # fmt: skip
    assert recipes["article_narrow"] == replace(article, network=replace(ARTICLE, width=16), chip_size=256)

    quick = recipes["quick"]
    assert quick.max_minutes == 2.0
    assert quick.network.width < TrainingSpec().network.width
    assert quick.chip_size % quick.network.stride == 0


def test_a_space_is_read_and_its_points_are_recipes(tmp_path: Path) -> None:
    base = TrainingSpec()
    path = written(
        tmp_path,
        "learning_rate: {low: 1e-4, high: 1e-2, log: true}\n"
        "network.depth: {low: 2, high: 4}\n"
        "network.heads: {choices: [[building], [building, border, contact]]}\n"
        "loss: {choices: [bce]}\n"
        "chips_per_epoch: {low: 10, high: 20}\n",
    )
    space = read_space(path, base)
    assert space["learning_rate"] == Range(1e-4, 1e-2, log=True)
    assert space["network.depth"].whole
    assert not space["learning_rate"].whole
    spec = SearchSpec(base=base, space=space)
    heads = '["building", "border", "contact"]'
    # The base's loss and its chips an epoch are not in the space.
    assert own_point(spec) == {"learning_rate": base.learning_rate, "network.depth": 3, "network.heads": heads}
    assert recipe_at(spec, own_point(spec), limited=True) == base
    small = recipe_at(spec, {"network.depth": 2, "network.heads": '["building"]'}, limited=True)
    assert (small.network.depth, small.network.heads) == (2, ("building",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nothing is to be varied"),
        ("learning_rat: {low: 1, high: 2}", "Did you mean learning_rate?"),
        ("network: {low: 1, high: 2}", "nothing is called network."),
        ("learning_rate: 3", "learning_rate is 3.\n  Give {low"),
        ("learning_rate: {low: 1}", "Give {low"),
        ("learning_rate: {low: 1, high: 2, step: 1}", "Give {low"),
        ("learning_rate: {low: 2, high: 1}", "2 to 1 is no range"),
        ("learning_rate: {low: 0, high: 1, log: true}", "by magnitude is no range"),
        ("epochs: {low: 1, high: 2.5}", "epochs is 2.5"),
        ("loss: {low: 1, high: 2}", "it is no number"),
        ("augmentation.scale: {low: 1, high: 2}", "it is no number"),
        ("loss: {choices: []}", "Give {low"),
        ("loss: {choices: [bce, mse]}", "No loss is called 'mse'"),
        ("network.dropout: {low: 0, high: 1}", "dropout 1.0"),
    ],
)
def test_a_space_that_cannot_be_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        read_space(path, TrainingSpec())
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


def test_the_built_in_space_suits_the_default_recipe() -> None:
    for name, axis in DEFAULT_SPACE.items():
        for value in axis.values if isinstance(axis, Choices) else (axis.low, axis.high):
            change(TrainingSpec(), {name: value}, where=name)
    assert set(own_point(SearchSpec())) == set(DEFAULT_SPACE)
    with pytest.raises(SettingsError, match="No objective is called 'f1'"):
        SearchSpec(objective="f1")
    brief = SearchSpec(base=TrainingSpec(max_minutes=90), max_minutes_per_trial=2)
    point = {"network.width": 24}
    assert [recipe_at(brief, point, limited=limited).max_minutes for limited in (True, False)] == [2, 90]
    assert recipe_at(SearchSpec(base=TrainingSpec(max_minutes=90)), point, limited=True).max_minutes == 90
    with pytest.raises(SettingsError, match=r"max_minutes_per_trial: .*finite"):
        SearchSpec(max_minutes_per_trial=float("inf"))
    for seed in (-5, 2**32):
        with pytest.raises(SettingsError, match=f"seed is {seed}"):
            SearchSpec(seed=seed)


@pytest.mark.parametrize("varied", ["loss", "batch_size"])
def test_losses_of_different_kinds_are_not_searched_among(varied: str) -> None:
    space = {name: DEFAULT_SPACE[name] for name in ("learning_rate", varied)}
    with pytest.raises(SettingsError, match=f"The losses of trials that vary {varied} are not to be compared") as error:
        SearchSpec(space=space, objective="val_loss")
    assert f"leave {varied} out" in error.value.fix
    assert SearchSpec(space={"learning_rate": DEFAULT_SPACE["learning_rate"]}, objective="val_loss")
