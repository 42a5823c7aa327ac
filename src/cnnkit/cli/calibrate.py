"""`cnnkit calibrate`: fit the temperature of a trained network."""

from cnnkit.cli.options import Device, Json, Trained

__all__ = ["calibrate"]


def calibrate(run: Trained, *, device: Device = "auto", json: Json = False) -> None:
    """Fit the temperature of a trained network on its validation images, and store it in its bundle.

    The temperature divides the logits, so that probabilities agree better with the accuracy; the predicted classes stay
    the same. Training does this at its end; repeat it for runs of earlier versions. With fewer than 50 validation
    images, or without an error among them, the temperature is 1.
    """
    from dataclasses import asdict

    from cnnkit.cli.console import console, print_json
    from cnnkit.experiment import about_temperature
    from cnnkit.experiment import calibrate as fit

    found = fit(run, device=device)
    if json:
        print_json(asdict(found))
    else:
        console.say(about_temperature(found))
