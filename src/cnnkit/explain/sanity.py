"""Sanity check of an attribution method: does its heat depend on what the network has learned?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cnnkit.core.errors import CnnkitError, UsageError, pick
from cnnkit.core.limits import DEFAULT_MAX_PIXELS
from cnnkit.core.shape import count
from cnnkit.core.text import html
from cnnkit.deploy import Classifier
from cnnkit.explain.explainer import Explainer
from cnnkit.explain.methods import METHODS, heat_of
from cnnkit.explain.subject import Subject, stages
from cnnkit.figures import html_table

__all__ = ["THRESHOLD", "Randomised", "Sanity", "sanity", "spearman"]

MAX_LAYERS = 16  # rows of a result; of deeper networks, the stages are randomised
THRESHOLD = 0.5  # an edge detector stays at 1; methods that pass are far below (docs/guides/explaining.md)

Compute = Callable[[nn.Module, Tensor, int], Any]


class Randomised(NamedTuple):
    """The mean correlation after a layer, and all layers above it, were randomised."""

    layer: str
    correlation: float


@dataclass(frozen=True)
class Sanity:
    """The result of a sanity check: Spearman's correlation with the original heat, layer by layer from the top."""

    method: str
    layers: tuple[Randomised, ...]
    """From the last layer, randomised alone, to the first, when all are random."""
    num_images: int
    draws: int

    @property
    def correlation(self) -> float:
        """The correlation when all layers are random."""
        return self.layers[-1].correlation

    @property
    def passed(self) -> bool:
        """Whether the heat of the random network no longer resembles the original, nor its negative."""
        return abs(self.correlation) < THRESHOLD

    @property
    def verdict(self) -> str:
        """The result as a sentence."""
        found = f"the heat of a random network has correlation {self.correlation:.2f} with that of the trained one"
        if self.passed:
            return f"passed: {found}, within ±{THRESHOLD}"
        return f"failed: {found}, not within ±{THRESHOLD}; {self.method} shows little of what the network has learned"

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {
            "method": self.method,
            "passed": self.passed,
            "correlation": self.correlation,
            "threshold": THRESHOLD,
            "layers": [row._asdict() for row in self.layers],
            "images": self.num_images,
            "draws": self.draws,
        }

    def _repr_html_(self) -> str:
        rows = [(layer, f"{value:.2f}") for layer, value in self.layers]
        return html_table(("randomised down to", "correlation"), rows) + f"<p>{html(self.verdict)}</p>"


def sanity(
    model: nn.Module | Classifier,
    images: Any,
    method: str | Compute = "gradcam",
    *,
    layer: str | None = None,
    draws: int = 5,
    seed: int = 0,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Sanity:
    """Randomise a network's layers, cascading from the last to the first, and compare the heat with the original.

    Adebayo et al.: Sanity checks for saliency maps, 2018, section 3. After each layer, the heat for the class that the
    trained network predicts is computed again. A method whose heat remains does not depend on the weights.

    `images` are what `attributions` takes; `method` is a name in `METHODS` or a function of the network, its input 1 x
    C x H x W and the class's number that returns H x W. A layer is a module that itself has weights; a network with
    more than 16 of them is randomised stage by stage, as the paper does with blocks. Each tensor is drawn from a normal
    distribution with the tensor's own mean and standard deviation, `draws` times over. The correlation is Spearman's,
    averaged over images and draws; of signed heat, as the values of methods that multiply by the input stay similar
    without their signs (the paper's figure 4). Images with constant heat are left out. The network and the global
    random state are not changed. Raises the errors of `attributions`; UsageError for a network without weights;
    CnnkitError if the heat of every image is constant.
    """
    count(draws, "draws")
    explainer = Explainer(model)
    seen = explainer.read(images, max_pixels)
    targets = explainer.targets(None, explainer.logits(seen))
    if isinstance(method, str):
        row = pick(METHODS, method, "method")
        subject = explainer.subject(seen.x, layer) if row.by_layer else Subject(explainer.net)

        def heat() -> np.ndarray:
            return heat_of(row, subject, seen.x, targets).pixels.numpy()
    else:

        def heat() -> np.ndarray:
            pairs = zip(seen.x.split(1), targets.tolist(), strict=True)
            maps = [torch.as_tensor(method(explainer.net, x.clone(), target)) for x, target in pairs]
            return torch.stack(maps).detach().cpu().numpy()

    name = method if isinstance(method, str) else getattr(method, "__name__", type(method).__name__)
    original = heat()
    usable = [index for index, one in enumerate(original) if one.min() < one.max()]
    if not usable:
        raise CnnkitError(f"the heat of {seen.names[0]} is constant, so nothing can be compared: choose another image")
    layers = _layers(explainer.net, seen.x)
    found = np.zeros((draws, len(layers)))
    trained = {key: value.clone() for key, value in explainer.net.state_dict().items()}
    for draw in range(draws):
        explainer.net.load_state_dict(trained)
        generator = torch.Generator().manual_seed(seed + draw)
        for place, modules in enumerate(layers.values()):
            for module in modules:
                _randomise(module, generator)
            changed = heat()
            found[draw, place] = np.mean([spearman(original[index], changed[index]) for index in usable])
    means = found.mean(0).tolist()
    return Sanity(name, tuple(map(Randomised, layers, means)), len(usable), draws)


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of the ranks of two arrays of equal shape, equal values sharing their mean rank.

    It is 0 if either is constant.
    """
    ranks = np.stack([_ranks(one), _ranks(other)])
    return 0.0 if np.ptp(ranks, axis=1).min() == 0 else float(np.corrcoef(ranks)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def _layers(net: nn.Module, x: Tensor) -> dict[str, list[nn.Module]]:
    """Return the modules that have weights themselves, the last to run first, by path or, if they are many, stage."""
    ended: dict[nn.Module, str] = {}
    paths = {module: path for path, module in net.named_modules() if path and [*module.parameters(recurse=False)]}

    def note(module: nn.Module, arguments: Any, output: Any) -> None:
        ended.pop(module, None)
        ended[module] = paths[module]

    hooks = [module.register_forward_hook(note) for module in paths]
    with torch.inference_mode(False), torch.no_grad():
        net(x[:1].clone())
    for hook in hooks:
        hook.remove()
    if not ended:
        raise UsageError("the network has no weights that could be randomised")
    rows: dict[str, list[nn.Module]] = {}
    for module, path in reversed(ended.items()):
        stage = next((name for name in stages(net) if f"{path}.".startswith(f"{name}.")), path)
        rows.setdefault(stage if len(ended) > MAX_LAYERS else path, []).append(module)
    return rows


def _randomise(module: nn.Module, generator: torch.Generator) -> None:
    for weight in module.parameters(recurse=False):
        noise = torch.randn(weight.shape, generator=generator).to(weight)
        with torch.inference_mode(False), torch.no_grad():
            weight.copy_(weight.mean() + weight.std(correction=0) * noise)
