"""The networks of PGGAN in the pickles of the original TensorFlow code.

Such a file holds one network or three of them (generator, discriminator, and the generator's running average), each
as a dictionary: variables by name, settings, and source code, which is ignored here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from iagan_lightning.generators.base import WeightsError
from iagan_lightning.generators.network_pickle import check_apart
from iagan_lightning.safety import printable

# What a network must have been built with for its variables to mean what PGGAN computes; absent means just that.
SETTINGS = {
    "normalize_latents": True,
    "use_wscale": True,
    "use_pixelnorm": True,
    "use_leakyrelu": True,
    "label_size": 0,
}


def variables_of(content: Any) -> dict[str, dict[str, Tensor]]:
    """Return the variables of the network in a pickle by their TensorFlow names, below the name of the network.

    Of three networks that is the last, Gs, the average; one that is alone is called G.

    Raises:
        WeightsError: for a pickle that holds something else than networks. The message does not name the file.
    """
    network = content[-1] if isinstance(content, tuple | list) and content else content
    state = getattr(network, "state", None)
    if not isinstance(state, dict) or not isinstance(state.get("variables"), list):
        raise WeightsError(f"holds a {type(content).__name__} without a network and its variables")
    settings = state.get("static_kwargs")
    for name, wanted in SETTINGS.items():
        if isinstance(settings, dict) and settings.get(name, wanted) != wanted:
            raise WeightsError(
                f"holds a network made with {name} {printable(str(settings[name])[:80])}; only {wanted} is supported"
            )
    try:
        arrays = [(str(name), variable.value) for name, variable in state["variables"]]
        check_apart(array for _, array in arrays)
        variables = {name: _tensor(array) for name, array in arrays}
    except WeightsError:
        raise
    except (AttributeError, TypeError, ValueError) as error:
        raise WeightsError("holds variables that are no pairs of a name and an array") from error
    return {"Gs" if network is not content and len(content) == 3 else "G": variables}


def _tensor(value: np.ndarray) -> Tensor:
    """Return a copy in this machine's byte order: floating-point numbers as float32, others as int64."""
    return torch.from_numpy(value.astype(np.float32 if value.dtype.kind == "f" else np.int64))
