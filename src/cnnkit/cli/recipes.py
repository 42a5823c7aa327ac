"""`cnnkit recipes`: the rows of settings to start from."""

__all__ = ["recipes"]


def recipes(name: str | None = None) -> None:
    """Print the recipes as TOML: where each leaves the defaults; of one, all its settings.

    Parameters
    ----------
    name
        The recipe to print in full, for a file to change and to give to `cnnkit train -c`.
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
