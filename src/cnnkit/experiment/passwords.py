"""Passwords in the URLs of data: config.toml keeps them for resuming; the bundle, which is shared, does not."""

from pathlib import Path

from cnnkit.core.text import hides_password, without_passwords
from cnnkit.deploy import Bundle
from cnnkit.experiment.run_folder import RunFolder

__all__ = ["with_passwords"]


def with_passwords(bundle: Bundle, folder: Path | None) -> Bundle:
    """Return the bundle with the passwords of its URLs, if its `folder` is the `best/` of the run that has them.

    Raises UsageError if the run's config.toml is corrupt.
    """
    hidden = {name: value for name, value in bundle if isinstance(value, str) and hides_password(value)}
    if not hidden or folder is None or not (run := RunFolder(folder.absolute().parent)).config_file.is_file():
        return bundle
    settings = run.settings()
    own = {name: str(settings.get(name)) for name in hidden}
    return bundle.model_copy(
        update={name: own[name] for name in hidden if without_passwords(own[name]) == hidden[name]}
    )
