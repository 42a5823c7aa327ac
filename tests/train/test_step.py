"""Training steps under each setting, exact where a reference exists."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import cnnkit
from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.nets import create
from cnnkit.train import Trainer
from cnnkit.train.autotune.batch_size import explain_memory, fitting_batch
from cnnkit.train.mixing import Targets, mix
from cnnkit.train.objective import Objective, balanced_weights
from cnnkit.train.step import Step, Stepper
from helpers.training import Quiet, config, stripes, trainer

X = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))
Y = torch.arange(12) % 3


def small_net(norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.Flatten(), nn.Linear(144, 3)
    )


def stepped(
    times: int = 1, norm: bool = False, class_weights: torch.Tensor | None = None, **settings: object
) -> Stepper:
    stepper = Stepper(small_net(norm), config(**settings), class_weights=class_weights)
    stepper.train()
    for number in range(times):
        stepper(Step(number, 0.1, number, len(Y)), X, Y)
    return stepper


def parameters(stepper: Stepper) -> list[torch.Tensor]:
    return [parameter.detach() for parameter in stepper.net.parameters()]


def test_step_equals_a_plain_torch_step() -> None:
    stepper = stepped(3, optimizer="sgd", momentum=0.9, weight_decay=0.0)
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, 0.9)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(net(X), Y).backward()
        optimizer.step()
    torch.testing.assert_close(parameters(stepper), [*net.parameters()])


@pytest.mark.parametrize("parts", [2, 3, 5, 12, 50])
def test_accumulated_batch_equals_the_whole_batch(parts: int) -> None:
    settings = {"optimizer": "sgd", "label_smoothing": 0.1, "mixup": 0.5}
    whole, divided = stepped(3, **settings), stepped(3, accumulate=parts, **settings)
    torch.testing.assert_close(parameters(divided), parameters(whole))


def test_accumulated_parts_have_at_least_two_images_for_batch_norm() -> None:
    stepper = stepped(2, norm=True, accumulate=64)
    assert stepper.net[1].num_batches_tracked == 2 * 6


def test_step_returns_loss_and_correct() -> None:
    stepper = stepped(0)
    expected = F.cross_entropy(stepper.net(X), Y)
    correct = (stepper.net(X).argmax(1) == Y).sum()
    loss, found = stepper(Step(0, 0.1, 0, len(Y)), X, Y)
    torch.testing.assert_close(loss, expected.detach())
    assert found == correct


def test_weight_decay_excludes_biases_and_normalisations() -> None:
    stepper = stepped(0, norm=True, weight_decay=0.3)
    net = stepper.net
    decayed = {
        id(parameter): group["weight_decay"]
        for group in stepper.optimizer.param_groups
        for parameter in group["params"]
    }
    assert [decayed[id(p)] for p in (net[0].weight, net[3].weight)] == [0.3, 0.3]
    assert {decayed[id(p)] for p in (net[0].bias, net[1].weight, net[1].bias, net[3].bias)} == {0.0}


def test_gradient_is_clipped_to_its_norm() -> None:
    plain, clipped = (stepped(optimizer="sgd", clip=clip, weight_decay=0) for clip in (None, 0.01))
    start = [*small_net().parameters()]
    moved = torch.cat([(a - b).flatten() for a, b in zip(start, parameters(clipped), strict=True)]).norm() / 0.1
    assert moved.item() == pytest.approx(0.01, rel=1e-3)
    assert torch.cat([(a - b).flatten() for a, b in zip(start, parameters(plain), strict=True)]).norm() > 0.02


def test_weight_average_follows_the_weights() -> None:
    stepper = stepped(0, norm=True, ema=0.9)
    expected = stepper.net[0].weight.detach().clone()
    for number in range(5):
        stepper(Step(number, 0.1, number, len(Y)), X, Y)
        decay = min(0.9, (2 + number) / (11 + number))
        expected = decay * expected + (1 - decay) * stepper.net[0].weight.detach()
    average = stepper.best_net
    torch.testing.assert_close(average[0].weight, expected)
    assert average[1].running_mean.equal(stepper.net[1].running_mean)
    assert average[1].num_batches_tracked == 5
    assert not average.training
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_frozen_stages_are_fixed_and_stages_have_their_rates() -> None:
    start = small_net(norm=True)
    stepper = stepped(3, norm=True, freeze=["0", "1"], optimizer="sgd", weight_decay=0)
    assert stepper.net[0].weight.equal(start[0].weight)
    assert stepper.net[1].running_mean.equal(start[1].running_mean), "its statistics stay too"
    assert not stepper.net[3].weight.equal(start[3].weight)
    full, tenth = (stepped(optimizer="sgd", stage_lr=rates) for rates in ({}, {"*": 0.1, "3": 1.0}))
    origin = [*small_net().parameters()]
    for index, factor in enumerate((0.1, 0.1, 1, 1)):
        moved = [(parameters(run)[index] - origin[index]).norm() for run in (full, tenth)]
        assert (moved[1] / moved[0]).item() == pytest.approx(factor, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"freeze": ["conv9"]}, "freeze: no stage or layer matches 'conv9'; the stages are 0, 1, 2, 3"),
        ({"stage_lr": {"stem": 0.1}}, "stage_lr: no stage or layer matches 'stem'"),
        ({"freeze": ["*"]}, "freeze leaves no weights to train"),
    ],
)
def test_unmatched_layer_patterns_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        stepped(0, **settings)
    assert words in str(caught.value)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_computes_in_half_with_float32_weights(tmp_path: Path, precision: str) -> None:
    seen = Quiet()
    run = trainer(tmp_path, config(precision=precision, epochs=4), seen)
    kinds = []

    def look(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        if module.training:
            kinds.append(output.dtype)

    run.net[0].register_forward_hook(look)
    run.run()
    assert set(kinds) == {torch.bfloat16 if precision == "bf16" else torch.float16}
    assert seen.epochs[-1].val_accuracy == 1.0
    assert {parameter.dtype for parameter in run.net.parameters()} == {torch.float32}
    assert run.stepper.scaler.is_enabled() == (precision == "fp16")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile meets torch's own old parts
def test_compiled_network_follows_the_same_curve(tmp_path: Path) -> None:
    seen, compiled = Quiet(), Quiet()
    plain = trainer(tmp_path / "plain", config(epochs=2), seen)
    other = trainer(tmp_path / "compiled", config(epochs=2, compile=True), compiled)
    for run in (plain, other):
        run.net[4] = nn.Identity()  # what notes its inputs
        run.run()
    for a, b in zip(seen.epochs, compiled.epochs, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-3)
    assert [*other.net.state_dict()] == [*plain.net.state_dict()]


def test_nan_gradient_is_skipped(tmp_path: Path) -> None:
    seen = Quiet()
    run = trainer(tmp_path, config(skip_nan=2, ema=0.9, epochs=2), seen)
    calls = iter(range(1000))

    def poison(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor | None:
        return output * float("nan") if module.training and next(calls) in (3, 15) else None

    run.net[0].register_forward_hook(poison)
    run.run()
    assert run.stepper.num_skipped == 2
    assert all(value.isfinite().all() for value in run.net.state_dict().values())
    assert all(record.train_loss < 1 for record in seen.epochs)
    again = trainer(tmp_path / "again", config(skip_nan=1, epochs=2))
    calls = iter(range(1000))
    again.net[0].register_forward_hook(poison)
    with pytest.raises(CnnkitError, match="2 NaN/Inf gradients, but skip_nan allows 1"):
        again.run()


def test_fp16_loss_scale_adapts_without_counting_skips(tmp_path: Path) -> None:
    run = trainer(tmp_path, config(precision="fp16", skip_nan=1, epochs=3))
    run.stepper.scaler._init_scale = 2.0**30  # overflows at first
    run.run()
    assert run.stepper.num_skipped == 0
    assert run.stepper.scaler.get_scale() < 2.0**30


def test_batch_size_trial_leaves_the_network_unchanged() -> None:
    import cnnkit.train.autotune.batch_size as memory

    net = create("lenet_bn").train()
    before = [value.clone() for value in net.state_dict().values()]
    assert memory._step_fits(net, torch.zeros(4, 1, 28, 28))
    assert all(a.equal(b) for a, b in zip(before, net.state_dict().values(), strict=True))


def test_patience_ends_a_run_without_improvement(tmp_path: Path) -> None:
    seen = Quiet()
    run = trainer(tmp_path, config(epochs=20, patience=2, lr=1e-9), seen)
    run.validation = run.train.__class__(stripes(40, 2), 16, run.train.preprocess)
    scores = iter([0.1, 0.3, 0.2, 0.3, 0.9])
    import cnnkit.train.loop as loop

    real = loop.evaluate
    try:
        loop.evaluate = lambda *_: type("M", (), {"accuracy": next(scores), "loss": 1.0})()
        why = run.run()
    finally:
        loop.evaluate = real
    assert "no improvement for 2 epochs since epoch 2 (--patience)" in why
    assert [record.epoch for record in seen.epochs] == [1, 2, 3, 4]


def test_time_limit_stops_within_an_epoch_and_the_run_resumes(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", config())
    whole.run()
    run = trainer(tmp_path / "run", config(max_time=1e-6))
    assert "minutes (--max-time) reached" in run.run()
    assert run.step == 1
    again = trainer(tmp_path / "run", config())
    again.resume()
    assert (again.epoch, again.step) == (1, 1)
    assert again.run() == f"finished {again.config.epochs} epochs"
    assert all(
        a.equal(b) for a, b in zip(whole.net.state_dict().values(), again.net.state_dict().values(), strict=True)
    )


def test_checkpoints_are_written_every_few_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(tmp_path, config(epochs=1, checkpoint_steps=5))
    saved: list[int] = []
    monkeypatch.setattr(Trainer, "_save", lambda self: saved.append(self.step))
    run.run()
    assert saved == [0, 5, 10, 0]


# --- the objective


MIXTURE = Targets(Y, Y.flip(0), 0.3)


@pytest.mark.parametrize("targets", [Targets(Y), MIXTURE], ids=["plain", "mixed"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0], [0.02, 0.0, 40.0]])
def test_smoothing_and_class_weights_match_their_definition(
    smoothing: float, weights: list[float] | None, targets: Targets
) -> None:
    """An image's loss is the cross entropy with its smoothed label, times the weight of the label's own class."""
    logits = torch.randn(12, 3)
    objective = Objective(config(label_smoothing=smoothing), weights and torch.tensor(weights))
    weight = torch.tensor(weights or [1.0] * 3, dtype=torch.float64)

    def expected(labels: torch.Tensor) -> torch.Tensor:
        smooth = F.one_hot(labels, 3) * (1 - smoothing) + smoothing / 3
        return -(weight[labels][:, None] * smooth * logits.double().log_softmax(1)).sum()

    shares = [(targets.first, targets.share)]
    if targets.second is not None:
        shares.append((targets.second, 1 - targets.share))
    total = sum(share * expected(labels) for labels, share in shares)
    torch.testing.assert_close(objective.total(logits, targets).double(), total, rtol=1e-5, atol=1e-5)
    if weights is None or not smoothing:  # as torch has it, to the bit
        own = weights and torch.tensor(weights)
        parts = [
            F.cross_entropy(logits, labels, own, reduction="sum", label_smoothing=smoothing) for labels, _ in shares
        ]
        same = parts[0] if len(parts) == 1 else targets.share * parts[0] + (1 - targets.share) * parts[1]
        assert objective.total(logits, targets).equal(same)


@pytest.mark.parametrize(("common", "rare"), [(300, 6), (19, 1), (40, 1)])
def test_class_weights_keep_each_class_at_the_minimum(common: int, rare: int) -> None:
    """One row of logits for the images of each class: they end at the smoothed label, however rare the class is."""
    labels = torch.tensor([0] * common + [1] * rare)
    objective = Objective(config(label_smoothing=0.1), balanced_weights(labels, 2))
    rows = torch.zeros(2, 2, requires_grad=True)
    optimizer = torch.optim.LBFGS([rows], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        total = objective.total(rows[labels], Targets(labels)) / len(labels)
        total.backward()
        return total

    optimizer.step(loss)
    expected = torch.tensor([[0.95, 0.05], [0.05, 0.95]])
    torch.testing.assert_close(rows.detach().softmax(1), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("mixed", [{}, {"mixup": 0.4}, {"cutmix": 1.0}], ids=str)
def test_accumulated_weighted_smoothed_batch_equals_the_whole_batch(mixed: dict[str, float]) -> None:
    settings = {"optimizer": "sgd", "label_smoothing": 0.1, **mixed}
    weights = torch.tensor([0.1, 1.0, 9.0])
    whole, divided = (stepped(3, accumulate=parts, class_weights=weights, **settings) for parts in (1, 3))
    torch.testing.assert_close(parameters(divided), parameters(whole))


@pytest.mark.parametrize("settings", [{}, {"mixup": 0.2}, {"accumulate": 4}], ids=str)
def test_rare_class_and_smoothed_labels_are_learned(settings: dict[str, float]) -> None:
    """300 bright images of one class and 6 dark ones of the other, from all settings of a user."""
    labels = torch.tensor([0] * 300 + [1] * 6)
    bright = torch.where(labels == 0, 200, 40).view(-1, 1, 1, 1)
    images = (bright + torch.randint(-20, 20, (306, 1, 8, 8))).to(torch.uint8)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    asked = {"class_weights": "balanced", "label_smoothing": 0.1, "epochs": 20, "validation": 0, "progress": False}
    run = cnnkit.fit(net, (images, labels), test_data=(images[299:301], labels[299:301]), **asked, **settings)
    found = cnnkit.load(run.path, net=net).predict(images.permute(0, 2, 3, 1).numpy())
    assert [int(label) for label in found.labels] == labels.tolist()
    if "mixup" not in settings:
        assert run.history["train_accuracy"][-1] == 1.0


def test_balanced_class_weights_average_to_one() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [3])
    weights = balanced_weights(labels, 4)
    assert weights.tolist() == pytest.approx([10 / 18, 10 / 9, 0, 10 / 3])
    assert weights[labels].mean().item() == pytest.approx(1)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_mixup_mixes_images_and_labels(mixup: float, cutmix: float) -> None:
    """Images whose pixels are their label: what a mixed image is made of is the target's shares."""
    x = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 16, 12).clone()
    y = torch.arange(8)
    settings = config(mixup=mixup, cutmix=cutmix)
    boxes = set()
    for seed in range(40):
        torch.manual_seed(seed)
        mixed, targets = mix(settings, x, y)
        expected = targets.share * targets.first + (1 - targets.share) * targets.second
        torch.testing.assert_close(mixed.mean((1, 2, 3)), expected.float(), atol=1e-5, rtol=1e-5)
        boxes.add(bool((mixed == mixed.round()).all()))
    assert boxes == {bool(cutmix)} if not (mixup and cutmix) else {True, False}
    assert x[3].eq(3).all(), "the batch itself is left alone"
    alone, targets = mix(settings, x[:1], y[:1])
    assert alone.equal(x[:1])
    assert targets.second is None


@given(share=st.floats(0, 1), logits=st.lists(st.floats(-5, 5), min_size=6, max_size=6))
def test_mixup_loss_is_the_mixture_of_losses(share: float, logits: list[float]) -> None:
    values = torch.tensor(logits).view(2, 3)
    first, second = torch.tensor([0, 1]), torch.tensor([2, 2])
    objective = Objective(config())
    total = objective.total(values, Targets(first, second, share))
    expected = sum(
        part * F.cross_entropy(values, labels, reduction="sum")
        for part, labels in ((share, first), (1 - share, second))
    )
    torch.testing.assert_close(total, expected)


# --- memory


def test_out_of_memory_error_says_what_to_try() -> None:
    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ):
        with (
            pytest.raises(CnnkitError, match=r"batch_size 64 in 1 part.*--accumulate 2.*--batch-size 32"),
            explain_memory(config(batch_size=64)),
        ):
            raise error
    with pytest.raises(RuntimeError, match="something else"), explain_memory(config()):
        raise RuntimeError("something else")


def test_fitting_batch_size_follows_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import cnnkit.train.autotune.batch_size as memory

    net = create("lenet").train()
    sizes = []
    for free in (2**24, 2**26, 2**40):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        sizes.append(fitting_batch(net, (1, 28, 28), 54_000, config()))
    assert sizes[0] < sizes[1] < sizes[2] == 1024
    assert all(size & (size - 1) == 0 for size in sizes)
    assert fitting_batch(net, (1, 28, 28), 1300, config()) == 64, "an epoch has twenty steps"
    assert fitting_batch(net, (1, 28, 28), 70, config()) == 16
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**6)
    with pytest.raises(UsageError, match="not even two images"):
        fitting_batch(net, (1, 28, 28), 54_000, config())
    assert net.training
