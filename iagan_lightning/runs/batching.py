"""How many images go side by side: as many as memory holds."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from iagan_lightning.generators import Generator

MOST = 64  # beyond that a GPU is busy anyway, and a failure would cost many images
SHARE = 0.8  # of the free memory; the rest is for workspaces of the convolutions and for metrics


def images_that_fit(generator: Generator, device: torch.device, history: int = 0) -> int:
    """Return how many images the joint stage can hold on a device.

    On a CPU it is 1: its cores are busy with one image, and several side by side are slower per image.

    Args:
        generator: G, on the CPU.
        device: where the images will be adapted.
        history: pairs of vectors that the joint stage's optimiser keeps besides (L-BFGS).

    Example:
        >>> from iagan_lightning.generators import BEGAN
        >>> images_that_fit(BEGAN(16, 4, 8), torch.device("cpu"))
        1
    """
    if device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    return int(max(1, min(MOST, SHARE * free // bytes_per_image(generator, history))))


def bytes_per_image(generator: Generator, history: int = 0) -> int:
    """Return about how many bytes the joint stage of one image takes.

    Its own weights six times (value, gradient, Adam's two moments, the best so far, one in passing), and twice what
    one evaluation keeps for its gradient, which is measured by making one.

    Example:
        >>> from iagan_lightning.generators import BEGAN
        >>> small, large = (bytes_per_image(BEGAN(n, 4, 8)) for n in (16, 32))
        >>> small < large
        True
    """
    weights = sum(p.numel() * p.element_size() for p in generator.parameters())
    return (6 + 2 * history) * weights + 2 * bytes_for_gradient(generator)


def bytes_for_gradient(generator: Generator) -> int:
    """Return how many bytes one evaluation of one image keeps for its gradient in latent and weights, image included.

    Example:
        >>> from iagan_lightning.generators import BEGAN
        >>> bytes_for_gradient(BEGAN(16, 4, 8)) > 4 * 3 * 16 * 16
        True
    """
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    parameters = {name: p.detach().requires_grad_() for name, p in generator.named_parameters()}
    with torch.enable_grad(), saved_tensors_hooks(note, lambda tensor: tensor):
        image = torch.func.functional_call(generator, parameters, generator.sample_latent(1, 0))
    return sum(kept.values()) + image.numel() * image.element_size()


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, on a GPU or elsewhere.

    Example:
        >>> out_of_memory(MemoryError()), out_of_memory(ValueError("too large"))
        (True, False)
    """
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
