"""The batch size that fits into memory, and the error when a batch does not."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.core.memory import free_bytes, is_about_memory
from cnnkit.core.modes import eval_mode
from cnnkit.train.config import TrainConfig

__all__ = ["explain_memory", "fitting_batch"]

LARGEST = 1024  # images; larger batches learn less from each image
FEWEST_STEPS, SMALLEST = 20, 16  # at least so many steps per epoch, if that leaves batches of SMALLEST images
SHARE = 0.7  # of the free memory, as allocators leave gaps
COPIES = 5  # of the weights: themselves, their gradients, two of Adam's, a moving average
TEMPORARY = 2  # peak memory of a step, relative to the tensors saved for the backward pass


@contextmanager
def explain_memory(config: TrainConfig) -> Iterator[None]:
    """Turn torch's out-of-memory errors into a CnnkitError that says what to try."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_about_memory(error):
            raise
        half = max(1, int(config.batch_size) // 2)
        raise CnnkitError(
            f"out of memory with batch_size {config.batch_size} in {config.accumulate} part(s); resume from the last "
            f"checkpoint with --accumulate {2 * config.accumulate}, or start again with --batch-size {half} or auto"
        ) from error


def fitting_batch(net: nn.Module, image: tuple[int, int, int], num_images: int, config: TrainConfig) -> int:
    """Return the largest power of two of images C x H x W whose training step fits into the device's free memory.

    The tensors saved for the backward pass are measured on two images; a GPU then tries a step with as many as that
    allows, and with half of them until it succeeds. At most LARGEST, and few enough that an epoch has FEWEST_STEPS
    steps. Raises UsageError if not even two fit.
    """
    device = next(net.parameters()).device
    per_image = _saved_bytes(net, torch.zeros(2, *image, device=device)) // 2 * TEMPORARY
    weights = sum(parameter.numel() * parameter.element_size() for parameter in net.parameters())
    free = SHARE * free_bytes(device) - COPIES * weights
    fits = int(min(free // max(per_image, 1) * config.accumulate, LARGEST, max(SMALLEST, num_images // FEWEST_STEPS)))
    while fits >= 2:
        size = 1 << (fits.bit_length() - 1)
        part = max(size // config.accumulate, 2)
        if device.type == "cpu" or _step_fits(net, torch.zeros(part, *image, device=device)):
            return size
        fits = size // 2
    raise UsageError(f"not even two images of {image} fit into memory: use a smaller --image-size or network")


def _saved_bytes(net: nn.Module, x: Tensor) -> int:
    saved: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    own = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    # evaluation mode saves the same tensors, and leaves the moving statistics alone
    with eval_mode(net), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        net(x)
    return sum(size for pointer, size in saved.items() if pointer not in own)


def _step_fits(net: nn.Module, x: Tensor) -> bool:
    net = copy.deepcopy(net)  # so that its moving statistics do not see the zeros
    try:
        torch.autograd.grad(net(x).sum(), [parameter for parameter in net.parameters() if parameter.requires_grad])
    except RuntimeError as error:
        if not is_about_memory(error):
            raise
        torch.cuda.empty_cache()
        return False
    return True
