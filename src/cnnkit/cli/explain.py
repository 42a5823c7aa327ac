"""`cnnkit explain`: which pixels of an image a prediction depends on."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cnnkit.cli.options import Device, Images, Json, MaxPixels, Temperature, Trained
from cnnkit.cli.paths import given_paths
from cnnkit.core.errors import DataError, UsageError, pick
from cnnkit.core.limits import DEFAULT_MAX_PIXELS
from cnnkit.core.text import counted, file_name

if TYPE_CHECKING:
    from cnnkit.explain import Attribution

__all__ = ["explain"]

MAX_CHECKED = 16  # images of the sanity check: more change its mean little


def explain(
    run: Trained,
    *images: Images,
    method: Annotated[list[str] | None, Parameter(consume_multiple=False)] = None,
    answer: Annotated[str | None, Parameter("--class")] = None,
    layer: str | None = None,
    temperature: Temperature = True,
    sanity: bool = False,
    output: Path = Path(),
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Show which pixels of an image a prediction depends on, by Grad-CAM or another method.

    Writes for each image and method IMAGE-METHOD.png, the image in grey with its heat over it, and IMAGE-METHOD.npy,
    the heat, both at the image's own size; for each image IMAGE-features.png with the feature maps of each stage, and
    IMAGE-explain.json with the numbers. A frame shows the pixels that Grad-CAM's strongest location depends on.

    Unreadable images are reported and the others still explained; the exit code is then 3. Needs the extra `explain`.

    Parameters
    ----------
    method
        gradcam, occlusion, integrated-gradients or smoothgrad; repeat it for more. By default gradcam.
    answer
        Explain this class instead of the predicted one.
    layer
        Stage or layer whose map Grad-CAM weighs, such as conv2 or conv2.0; by default the last stage with a map of more
        than one location.
    sanity
        Check each method: randomise the network's layers from the last to the first, and print how far the heat of the
        images (the first 16) resembles the original, as Spearman's correlation, with a verdict.
    output
        Folder to write to; by default the current one.
    """
    from cnnkit.cli.console import complain, console, print_json
    from cnnkit.core.progress import Counter
    from cnnkit.deploy import load
    from cnnkit.deploy.inputs import each_image
    from cnnkit.explain import METHODS, Explainer

    paths = given_paths(images, "explain")
    rows = {name: pick(METHODS, name, "method") for name in method or ["gradcam"]}
    methods = {name: layer if row.by_layer else None for name, row in rows.items()}  # each with its layer
    if layer is not None and layer not in methods.values():
        raise UsageError(f"--layer is for gradcam, not for {', '.join(methods)}: remove it or add --method gradcam")
    model = load(run, device=device)
    names = [one.name for one in each_image(paths, model.bundle.in_channels, max_pixels)]
    stems = _stems(names)
    _keep_inputs(names, [output / f"{stem}-{what}.png" for stem in stems for what in (*methods, "features")])
    explained = partial(Explainer(model), targets=answer, temperature=temperature, max_pixels=max_pixels)
    found: list[dict[str, Any]] = []
    with Counter("explaining", len(names), len(names) > 1) as counter:
        for name, stem in zip(names, stems, strict=True):
            try:
                seen = [one for way, at in methods.items() for one in explained(name, way, layer=at)]
            except DataError as error:
                complain(str(error))
                found.append({"image": name, "error": str(error)})
            else:
                found.append({"image": name} | _written(model, name, seen, output, stem))
                if not json:
                    for one in seen:
                        console.say(_line(name, one, output / f"{stem}-{one.method}.png"))
            counter.advance(1)
    readable = [row["image"] for row in found if "error" not in row]
    checked = _checked(model, readable, methods, max_pixels, json) if sanity and readable else []
    if json:
        print_json({"images": found, "sanity": checked})
    if len(readable) < len(names):
        raise DataError(f"{len(names) - len(readable):,} of {counted(len(names), 'image')} could not be read")


def _stems(names: list[str]) -> list[str]:
    """Return the start of each image's output files: its name without suffix, numbered where another has the same."""
    stems: dict[str, str] = {}  # by lower case, as some file systems ignore it
    for name in names:
        stem = file_name(Path(name).stem)
        candidate, number = stem, 1
        while candidate.casefold() in stems:
            number += 1
            candidate = f"{stem}-{number}"
        stems[candidate.casefold()] = candidate
    return list(stems.values())


def _keep_inputs(names: list[str], targets: list[Path]) -> None:
    """Raise UsageError if an output would overwrite an image that is given."""
    given = {Path(name).resolve() for name in names}
    for target in targets:
        if target.resolve() in given:
            raise UsageError(f"{target} is an input image; choose another --output")


def _line(name: str, one: "Attribution", path: Path) -> str:
    layer = f" at {one.layer}" if one.layer else ""
    place = "row {}, column {}".format(*one.strongest) if one.strongest else "nowhere"
    return f"{name}: {one.label} {one.probability:.1%}; {one.method}{layer} strongest at {place}: {path}"


def _written(model: Any, name: str, seen: "list[Attribution]", output: Path, stem: str) -> dict[str, Any]:
    """Write the files of an image, and return the numbers."""
    import numpy as np
    import torch

    from cnnkit.core.files import make_folder, write_output
    from cnnkit.core.text import to_json
    from cnnkit.data import write_image
    from cnnkit.explain.sheets import maps_sheet

    make_folder(output)
    rows = []
    for one in seen:
        overlay, heat = (output / f"{stem}-{one.method}.{suffix}" for suffix in ("png", "npy"))
        write_output(overlay, partial(one.overlay().save, format="PNG"))
        write_output(heat, partial(np.save, arr=one.heat, allow_pickle=False))
        rows.append(one.to_dict() | {"files": {"overlay": str(overlay), "heat": str(heat)}})
    batch = torch.from_numpy(seen[0].image.copy()).permute(2, 0, 1)[None].to(model.device)
    features = output / f"{stem}-features.png"
    sheet, _ = maps_sheet(model.net, model.preprocess, batch, Path(name).name)
    write_image(features, sheet)
    numbers = {"attributions": rows, "features": str(features)}
    write_output(output / f"{stem}-explain.json", to_json({"image": name} | numbers) + "\n")
    return numbers


def _checked(
    model: Any, names: list[str], methods: dict[str, str | None], max_pixels: int, quiet: bool
) -> list[dict[str, Any]]:
    """Check each method, print the results unless `quiet`, and return them."""
    from cnnkit.cli.console import console
    from cnnkit.core.console import aligned
    from cnnkit.explain import sanity

    results = []
    for way, layer in methods.items():
        found = sanity(model, names[:MAX_CHECKED], way, layer=layer, max_pixels=max_pixels)
        results.append(found.to_dict())
        if not quiet:
            console.say(f"{way}: correlation with the original heat, randomised from the last layer down to")
            for line in aligned((name, f"{value:.2f}") for name, value in found.layers):
                console.say(f"  {line}")
            console.say(found.verdict)
    return results
