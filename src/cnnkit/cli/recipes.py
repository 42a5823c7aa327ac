"""`cnnkit recipes`: the training recipes as TOML."""

__all__ = ["recipes"]


def recipes(name: str | None = None) -> None:
    """Print the training recipes as TOML: the settings in which each differs from the defaults.

    Parameters
    ----------
    name
        Print all settings of this recipe, as a file to edit and pass to `cnnkit train -c`.
    """
    import tomli_w

    from cnnkit.experiment.recipes import RECIPES, recipe
    from cnnkit.train.config import TrainConfig

    if name is None:
        print(tomli_w.dumps(RECIPES), end="")
        return
    row = recipe(name)
    of_training = {key: value for key, value in row.items() if key in TrainConfig.model_fields}
    settings = TrainConfig(**of_training).model_dump(mode="json") | row
    print(tomli_w.dumps({key: value for key, value in settings.items() if value is not None}), end="")
