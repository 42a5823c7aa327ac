"""Feature maps, filters, effective receptive fields and sheets against truncated networks, weights and formulas."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cnnkit.anatomy import trace
from cnnkit.cli.source import open_net
from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.data import read_image, write_image
from cnnkit.deploy import Bundle, save_bundle
from cnnkit.explain import effective_receptive_field, feature_maps, filters
from cnnkit.figures import contact_sheet, stack_sheets
from cnnkit.nets import ZOO, create
from cnnkit.ops import Conv2D, MultiChannelConv2D
from helpers.cli import ROOT, Cli, one_line

DIGIT = ROOT / "examples/digits/1793-is-0.png"
LINE, PAPER = 128, 255


class Wired(nn.Module):
    """No Sequential: a part that gives two tensors, one that never runs, and a layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.twice, self.idle = nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Identity()
        self.pool = nn.MaxPool2d(2, return_indices=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.twice(self.pool(self.twice(self.conv(x)))[0])


def state(net: nn.Module) -> tuple[object, ...]:
    """What looking must not change."""
    modules = [*net.modules()]
    assert all(parameter.grad is None for parameter in net.parameters())
    return (
        [module.training for module in modules],
        [len(module._forward_hooks) for module in modules],
        {name: value.tolist() for name, value in net.state_dict().items()},
    )


# --- feature maps


def test_stages_equal_the_truncated_network() -> None:
    net, x = create("lenet_bn"), torch.randn(3, 1, 28, 28)
    net.conv1.eval()  # modes are mixed, and stay so
    before = state(net)
    maps = feature_maps(net, x)
    assert state(net) == before
    net.eval()
    assert list(maps) == ["conv1", "conv2", "dense", "head"]
    for stop, output in enumerate(maps.values(), start=1):
        assert output.equal(net[:stop](x))
        assert not output.requires_grad
    inner = feature_maps(net, x, iter(["conv2.0", "conv1"]))
    assert list(inner) == ["conv2.0", "conv1"]
    assert inner["conv2.0"].equal(net.conv2[0](net.conv1(x)))


def test_probe_trains_on_features() -> None:
    features = feature_maps(create("lenet"), torch.randn(2, 1, 28, 28), ["dense"])["dense"]
    nn.Linear(84, 2)(features).sum().backward()  # tensors of inference mode would refuse


def test_in_place_layer_does_not_change_the_previous_map() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True))
    x = torch.randn(1, 1, 8, 8)
    maps = feature_maps(net, x)
    assert maps["0"].min() < 0
    assert maps["1"].equal(maps["0"].relu())
    single = nn.Conv2d(1, 4, 3)
    assert feature_maps(single, x)["0"].equal(single(x))


def test_features_accept_any_module() -> None:
    net, x = Wired(), torch.randn(1, 1, 8, 8)
    assert feature_maps(net, x, ["twice"])["twice"].equal(net(x))  # its last output
    assert list(feature_maps(net, x, ["conv"])) == ["conv"]
    same = nn.Tanh()
    assert feature_maps(nn.Sequential(same, nn.Conv2d(1, 1, 3), same), x, ["2"])["2"].shape == (1, 1, 6, 6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("conv11", "unknown layer 'conv11'; did you mean 'conv1'? known: conv1, conv2, dense, head"),
        ("conv2.9", "unknown layer 'conv2.9'; did you mean 'conv2.2'? known: conv2.0, conv2.1, conv2.2"),
        ("conv2.0.weight", "unknown layer 'conv2.0.weight'; did you mean 'conv2.0'? known: conv2.0, conv2.1, conv2.2"),
        ("dens.1.x", "unknown layer 'dens'; did you mean 'dense'? known: conv1, conv2, dense, head"),
    ],
)
def test_wrong_layer_name_error_names_the_wrong_part(name: str, message: str) -> None:
    net = create("lenet")
    before = state(net)
    with pytest.raises(UsageError) as caught:
        feature_maps(net, torch.randn(1, 1, 28, 28), ["conv1", name])
    assert str(caught.value) == message
    with pytest.raises(UsageError, match="unknown layer"):
        filters(net, name)
    assert state(net) == before


def test_unsupported_features_are_refused() -> None:
    x = torch.randn(1, 1, 8, 8)
    with pytest.raises(UsageError, match="idle does not run in this network"):
        feature_maps(Wired(), x)
    with pytest.raises(UsageError, match="pool outputs no tensor"):
        feature_maps(Wired(), x, ["pool"])
    net = create("lenet")
    before = state(net)
    with pytest.raises(UsageError, match=r"the network does not accept a batch of 1 x 3 x 28 x 28: .*channels"):
        feature_maps(net, torch.randn(1, 3, 28, 28))
    with pytest.raises(UsageError, match=r"does not accept a batch of 1 x 1 x 2 x 2: the window of 3 x 3 is larger"):
        feature_maps(MultiChannelConv2D(1, 1, 3), torch.randn(1, 1, 2, 2))
    with pytest.raises(UsageError, match=r"x must be N x C x H x W, not \(1, 28, 28\)"):
        feature_maps(net, torch.randn(1, 28, 28))
    assert state(net) == before


# --- filters


def test_filters_are_copies_of_the_weights() -> None:
    net = create("lenet")
    for name, layer in {
        None: net.conv1[0],
        "conv1": net.conv1[0],
        "conv2": net.conv2[0],
        "conv2.0": net.conv2[0],
    }.items():
        assert filters(net, name).equal(layer.weight)
    filters(net).zero_()
    assert net.conv1[0].weight.abs().min() > 0
    from_scratch = nn.Sequential(nn.Flatten(0, 0), MultiChannelConv2D(2, 5, (3, 4)))
    assert filters(from_scratch).equal(from_scratch[1].weight)
    one = Conv2D((2, 3))
    assert filters(one).equal(one.weight.view(1, 1, 2, 3))
    assert not filters(one).requires_grad


def test_network_without_convolution_is_refused() -> None:
    with pytest.raises(UsageError, match="dense has no convolution"):
        filters(create("lenet"), "dense")
    with pytest.raises(UsageError, match="the network has no convolution"):
        filters(nn.Linear(1, 1))
    with pytest.raises(UsageError, match="unknown layer 'x'; known: 0"):
        filters(nn.Linear(1, 1), "x")


# --- effective receptive fields


def ones(kernel: int, layers: int) -> nn.Sequential:
    net = nn.Sequential(*(nn.Conv2d(1, 1, kernel) for _ in range(layers))).double()
    for parameter in net.parameters():
        nn.init.ones_(parameter)
    return net


@pytest.mark.parametrize(
    ("kernel", "layers", "size", "profile"),
    [
        (2, 4, 9, [0, 0, 1, 4, 6, 4, 1, 0, 0]),  # Pascal's triangle
        (3, 2, 9, [0, 0, 1, 2, 3, 2, 1, 0, 0]),
        (3, 2, 8, [0, 0, 1, 2, 3, 2, 1, 0]),  # of an even side the lower middle
    ],
)
def test_effective_field_of_ones_is_binomial(kernel: int, layers: int, size: int, profile: list[int]) -> None:
    row = torch.tensor(profile).double()
    expected = torch.outer(row, row) / row.sum() ** 2
    torch.testing.assert_close(effective_receptive_field(ones(kernel, layers), (1, size, size)), expected)


def test_effective_field_averages_absolute_gradients() -> None:
    """Two outputs: -1 and 3 at the first pixel, 0 and 4 + 1 at the second; then squares, whose gradient is 2 x."""
    net = nn.Conv2d(2, 2, (1, 2), bias=False)
    net.weight.data = torch.tensor([[[[-1.0, 0.0]], [[3.0, 4.0]]], [[[0.0, 0.0]], [[0.0, 1.0]]]])
    torch.testing.assert_close(effective_receptive_field(net, (2, 1, 2)), torch.tensor([[4 / 9, 5 / 9]]))

    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x**2).sum(3, keepdim=True)

    generator = torch.Generator().manual_seed(5)
    x = torch.stack([torch.randn(1, 1, 1, 4, generator=generator) for _ in range(3)]).abs().mean(0).view(1, 4)
    field = effective_receptive_field(nn.Sequential(Square()), (1, 1, 4), samples=3, seed=5)
    torch.testing.assert_close(field, x / x.sum())


def test_effective_field_lies_within_the_theoretical_field() -> None:
    net, size = create("lenet", image_size=(40, 44)), (1, 40, 44)
    field = effective_receptive_field(net, size, samples=3)
    [theory] = [stage.receptive for stage in trace(net, size).stages if stage.name == "conv2"]
    height, width = feature_maps(net, torch.zeros(1, *size))["conv2"].shape[-2:]
    top, left = theory.start[0] + height // 2 * theory.step[0], theory.start[1] + width // 2 * theory.step[1]
    inside = torch.zeros(40, 44, dtype=torch.bool)
    inside[top : top + theory.size[0], left : left + theory.size[1]] = True
    assert field[~inside].eq(0).all()
    rows, columns = field.sum(1).nonzero().flatten(), field.sum(0).nonzero().flatten()
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (top, top + 15, left, left + 15)
    torch.testing.assert_close(field.sum(), torch.tensor(1.0))


def test_effective_field_is_seeded_and_restores_the_state() -> None:
    net = create("lenet_bn")
    before, random = state(net), torch.get_rng_state()
    with torch.no_grad():  # gradients are its own business
        first = effective_receptive_field(net, (1, 28, 28), "conv2", samples=2)
    assert state(net) == before
    assert torch.get_rng_state().equal(random)
    assert first.equal(effective_receptive_field(net, (1, 28, 28), samples=2))  # conv2 is the last map
    assert not first.equal(effective_receptive_field(net, (1, 28, 28), samples=2, seed=1))
    assert effective_receptive_field(net, (1, 28, 28), "conv1.0").count_nonzero() == 25
    assert not first.requires_grad


def test_effective_field_without_gradient_is_refused() -> None:
    net = create("lenet")
    with pytest.raises(UsageError, match="dense outputs no feature map"):
        effective_receptive_field(net, (1, 28, 28), "dense")
    with pytest.raises(UsageError, match="the network outputs no feature map"):
        effective_receptive_field(nn.Sequential(nn.Flatten()), (1, 2, 2))
    with pytest.raises(UsageError, match="samples must be an int >= 1, not 0"):
        effective_receptive_field(net, (1, 28, 28), samples=0)
    with pytest.raises(UsageError, match="does not accept a batch of 1 x 1 x 8 x 8"):
        effective_receptive_field(net, (1, 8, 8))
    dead = nn.Conv2d(1, 1, 1)
    nn.init.zeros_(dead.weight)
    with pytest.raises(CnnkitError, match="no gradient arrives from the last map in 20 samples"):
        effective_receptive_field(dead, (1, 2, 2))


# --- sheets


def tiles(sheet: Tensor, side: int) -> Tensor:
    """Cut a sheet of one row of square tiles into N x C x side x side, and check what is between them."""
    number = (sheet.shape[2] + 4) // (side + 6)
    assert sheet.shape[1:] == (side + 2, number * (side + 6) - 4)
    cut = [sheet[:, 1:-1, start + 1 : start + 1 + side] for start in range(0, sheet.shape[2], side + 6)]
    rest = sheet.clone()
    for start in range(0, sheet.shape[2], side + 6):
        assert rest[:, 0, start : start + side + 2].eq(LINE).all()
        assert rest[:, :, start].eq(LINE).all()
        rest[:, :, start : start + side + 2] = PAPER
    assert rest.eq(PAPER).all()
    return torch.stack(cut)


def test_sheet_scales_each_map_with_square_pixels() -> None:
    maps = torch.tensor([[[-3.0, 0.0], [1.0, 2.0]], [[0.0, 10.0], [20.0, 40.0]], [[7.0, 7.0], [7.0, 7.0]]])
    sheet = contact_sheet(maps)
    assert sheet.dtype == torch.uint8
    expected = torch.tensor([[[0, 153], [204, 255]], [[0, 64], [128, 255]], [[0, 0], [0, 0]]], dtype=torch.uint8)
    large = expected.repeat_interleave(32, 1).repeat_interleave(32, 2)
    assert tiles(sheet, 64)[:, 0].equal(large)
    assert tiles(contact_sheet(maps.double() * 1e30, tile=3), 4)[:, 0, ::2, ::2].equal(expected)


def test_zero_is_grey_on_symmetric_scale() -> None:
    weights = torch.tensor([[[0.0, 1.0, -2.0]], [[0.0, 0.0, 0.0]]])
    sheet = contact_sheet(weights.expand(2, 3, 3), symmetric=True, tile=1)
    assert tiles(sheet, 3)[0, 0, 0].tolist() == [128, 191, 0]
    assert tiles(sheet, 3)[1].unique().tolist() == [128]
    colour = torch.zeros(1, 3, 3, 3)
    colour[0, 0, 0, 0], colour[0, 2, 1, 1] = 4.0, -2.0  # one scale for red, green and blue
    sheet = tiles(contact_sheet(colour, symmetric=True, tile=1), 3)[0]
    assert sheet[:, 0, 0].tolist() == [255, 128, 128]
    assert sheet[:, 1, 1].tolist() == [128, 128, 64]


def test_sheet_keeps_images_and_shrinks_large_maps() -> None:
    picture = torch.randint(100, 120, (1, 3, 64, 64), dtype=torch.uint8)
    assert tiles(contact_sheet(picture), 64).equal(picture)
    wide = contact_sheet(torch.full((1, 300, 600), 9, dtype=torch.uint8))
    assert wide.shape == (1, 130, 258)
    assert wide[:, 1:-1, 1:-1].unique().tolist() == [9]


def test_sheet_fills_rows_evenly() -> None:
    sheet = contact_sheet(torch.arange(41).view(41, 1, 1).float())  # 20 of 70 pixels go into 1444: 3 rows of 14
    assert sheet.shape == (1, 3 * 70 - 4, 14 * 70 - 4)
    values = [int(sheet[0, 70 * (i // 14) + 9, 70 * (i % 14) + 9]) for i in range(42)]
    assert values == [round(255 * i / 40) for i in range(41)] + [PAPER]  # maps of one pixel have one scale


def test_other_channels_are_columns_of_one_scale() -> None:
    weights = torch.zeros(3, 2, 1, 1)
    weights[:, :, 0, 0] = torch.tensor([[1.0, -0.5], [0.0, 8.0], [2.0, 2.0]])
    sheet = contact_sheet(weights, symmetric=True, tile=1)
    assert sheet.shape == (1, 2 * 7 - 4, 3 * 7 - 4)
    assert sheet[0, 1::7, 1::7].tolist() == [[255, 128, 255], [64, 255, 255]]


def test_invalid_sheets_are_refused() -> None:
    for shape in ((5, 5), (0, 5, 5), (2, 3, 0, 4), (1, 1, 1, 1, 1)):
        with pytest.raises(UsageError, match="maps must be non-empty, N x H x W"):
            contact_sheet(torch.zeros(shape))
    with pytest.raises(
        UsageError, match="a sheet of 2000 x 7 x 7 needs more than 4,096 pixels a side; show fewer maps"
    ):
        contact_sheet(torch.zeros(2000, 7, 7))
    assert contact_sheet(torch.zeros(1000, 7, 7)).shape[1] <= 4096
    assert contact_sheet(torch.full((1, 2, 2), torch.nan)).max() == LINE  # black within its line


def test_sheet_titles_are_drawn_above() -> None:
    red = torch.zeros(3, 10, 50, dtype=torch.uint8)
    red[0] = 200
    page = stack_sheets({"first": torch.full((1, 20, 900), 7, dtype=torch.uint8), "second": red})
    height = page.shape[1]
    assert page.shape == (3, height, 900 + 32)
    assert page[:, -26:-16, 16:66].equal(red)
    assert page[:, -26:-16, 66:].eq(PAPER).all()
    strip = (height - 16 - 20 - 10) // 2
    assert page[:, strip : strip + 20, 16:-16].eq(7).all()
    for start in (0, strip + 20):
        ink = (page[0, start : start + strip] < 100).nonzero()
        assert len(ink) > 50
        assert ink[:, 1].max() < 120
    assert stack_sheets({"a title wider than its sheet": red}).shape[2] > 200


# --- the verbs


@pytest.fixture
def bundle() -> tuple[Path, nn.Sequential]:
    net = create("lenet", in_channels=3, num_classes=2, image_size=(24, 20))
    card = Bundle(
        net="lenet", arguments={}, in_channels=3, image_size=(24, 20), classes=("a", "b"), mean=(0.5,), std=(0.25,),
        data="digits", data_dir=None, split_sha256="", metrics={}, versions={},
    )  # fmt: skip
    save_bundle(Path("runs/mine/best"), net, card)
    return Path("runs/mine"), net.eval()


def rows(page: Tensor, sheets: list[Tensor]) -> None:
    """Assert that the page holds these sheets, in order, from the left margin on, and nothing under the last."""
    top = 0
    for sheet in sheets:
        height, width = sheet.shape[1:]
        found = [y for y in range(top, page.shape[1] - height) if page[:, y : y + height, 16 : 16 + width].equal(sheet)]
        assert len(found) == 1
        top = found[0] + height
    assert top == page.shape[1] - 16


def test_features_command_reads_a_run(cli: Cli, bundle: tuple[Path, nn.Sequential]) -> None:
    run, net = bundle
    picture = torch.randint(0, 256, (3, 24, 20), dtype=torch.uint8)
    write_image(Path("photo.png"), picture)
    result = cli("features", run, "photo.png", "--channels", 10, "--device", "cpu")
    assert result.code == 0, result.err
    assert result.out == (
        f"photo-features.png: conv1 6 of 6, conv2 10 of 16, dense 10 of 84, head 2 of 2 maps of lenet from {run}\n"
    )
    x = (picture[None] / 255 - 0.5) / 0.25
    evenly = {1: range(6), 2: [0, 1, 3, 4, 6, 8, 9, 11, 12, 14], 3: [0, 8, 16, 25, 33, 42, 50, 58, 67, 75], 4: range(2)}
    maps = [net[:stop](x)[0].detach()[list(few)] for stop, few in evenly.items()]
    expected = [contact_sheet(picture[None], tile=128), *(contact_sheet(few).expand(3, -1, -1) for few in maps[:2])]
    expected += [contact_sheet(few[:, None, None], tile=32).expand(3, -1, -1) for few in maps[2:]]
    rows(read_image(Path("photo-features.png")), expected)
    assert cli("features", run, DIGIT).code == 0  # grey, where the network takes colours


def test_features_of_zoo_layers_are_returned(cli: Cli) -> None:
    result = cli("features", "lenet", DIGIT, "--layer", "conv2.0", "--layer", "conv1", "--output", "x.png")
    assert result.code == 0, result.err
    assert result.out == "x.png: conv2.0 16 of 16, conv1 6 of 6 maps of lenet with random weights\n"
    page = read_image(Path("x.png"))
    assert page.shape[0] == 1
    assert cli("features", "lenet", DIGIT, "--layer", "conv2.0", "--layer", "conv1", "--output", "y.png").code == 0
    assert read_image(Path("y.png")).equal(page)  # the random weights are the same each time


def test_filters_command_draws_colour_and_columns(cli: Cli, bundle: tuple[Path, nn.Sequential]) -> None:
    run, net = bundle
    result = cli("filters", run)
    assert result.out == f"mine-filters.png: 6 of 6 filters of lenet from {run}\n"
    rows(read_image(Path("mine-filters.png")), [contact_sheet(net.conv1[0].weight, symmetric=True, tile=96)])
    assert cli("filters", run / "best", "--layer", "conv2", "--output", "two.png").code == 0
    rows(read_image(Path("two.png")), [contact_sheet(net.conv2[0].weight, symmetric=True)])
    assert cli("filters", "lenet").out == "lenet-filters.png: 6 of 6 filters of lenet with random weights\n"
    assert read_image(Path("lenet-filters.png")).shape[0] == 1


def test_many_filters_show_only_the_first(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def wide(**arguments: object) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(1, 18, 3), nn.Conv2d(18, 20, 3), nn.Conv2d(20, 4, 1))

    monkeypatch.setitem(ZOO, "wide", replace(ZOO["lenet"], build=wide))
    source = open_net("wide")
    assert not source.net.training
    for layer, number, shown in (("0", 18, 18), ("1", 20, 16), ("2", 4, 4)):
        result = cli("filters", "wide", "--layer", layer, "--output", "x.png")
        assert result.out == f"x.png: {shown} of {number} filters of wide with random weights\n"
        few = source.net[int(layer)].weight[:shown, :16]
        rows(read_image(Path("x.png")), [contact_sheet(few, symmetric=True, tile=96 if layer == "0" else 64)])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["features", "lenett", "small.png"], 2, ["unknown network 'lenett'", "did you mean 'lenet'", "either"]),
        (["filters", "lenett"], 2, ["unknown network 'lenett'", "did you mean 'lenet'", "run folder or bundle"]),
        (["features", "runs/x", "small.png"], 2, ["runs/x: no such folder; pass a run folder or a bundle"]),
        (["filters", "./lenet"], 2, ["is not a run folder or a bundle"]),
        (["filters", "file"], 2, ["file is not a run folder or a bundle"]),
        (["features", "lenet", "nowhere.png"], 3, ["nowhere.png: no such file"]),
        (["features", "lenet", "file"], 3, ["file: not an image"]),
        (["features", "lenet", "small.png", "--output", "./small.png"], 2, ["small.png is the input image"]),
        (["features", "lenet", "small.png", "--output", "x.what"], 2, ["x.what: images cannot be written", "use .png"]),
        (["features", "lenet", "small.png", "--layer", "conv3"], 2, ["unknown layer 'conv3'", "did you mean 'conv2'"]),
        (["features", "lenet", "small.png", "--channels", "0"], 2, ["channels must be an int >= 1, not 0"]),
        (["features", "lenet", "small.png", "--device", "gpu"], 2, ["unknown device 'gpu'"]),
        (["filters", "lenet", "--layer", "head"], 2, ["head has no convolution"]),
        (["filters", "lenet", "--output", "no/x.png"], 1, ["no/x.png: No such file or directory"]),
    ],
)
def test_bad_input_is_one_clear_line(cli: Cli, arguments: list[str], code: int, words: list[str]) -> None:
    Path("lenet").mkdir()
    Path("file").write_text("text")
    write_image(Path("small.png"), torch.zeros(1, 2, 2, dtype=torch.uint8))
    one_line(cli(*arguments), code, *words)
    assert {path.name for path in Path().iterdir()} <= {"lenet", "file", "small.png"}
