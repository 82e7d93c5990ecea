"""Which tensors of a file are the generator's: averaged ones where there are any, without the names that wrappers add.

Training scripts store much beside a generator: optimisers, discriminators, and the generator a second time, as the
moving average that its images should be made with. Nothing here knows a format; it goes by names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from iagan_lightning.generators.base import WeightsError
from iagan_lightning.safety import printable

# What compilation, data parallelism, Lightning Fabric and sharding put between a module's name and its weights'.
WRAPPERS = {"_orig_mod", "module", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}

# Words in the name of a network: g_ema, avgG, params_ema, EMA, generator_averaged, g_running, Gs, state_dict_ema ...
AVERAGED = {"averaged", "average", "averaging", "avg", "ema", "gs", "polyak", "running", "shadow", "smoothed", "swa"}
GENERATOR = {"g", "gen", "generator"}
CURRENT = {"current", "online", "student"}  # beside an average of another name
OTHERS = {"critic", "d", "dis", "disc", "discriminator", "encoder"}
OTHERS |= {"adam", "adamw", "moment", "moments", "opt", "optim", "optimiser", "optimizer", "optimizers"}
# What optimisers average lies in the weights' own shapes, and under such names it is no average of weights.
OF_GRADIENTS = re.compile(r"(exp|grad|square|sq)_?avg|avg_?sq", re.IGNORECASE)

DEEPEST = 8  # mappings within mappings; a pickle can hold one that holds itself
LONGEST = 32  # parts of a name

# A network is looked for by tensors of its own: BEGAN, PGGAN in three layouts, Pyramid, MobileStyleGAN, StyleGAN2.
ANCHORS = (
    {"l0.weight"},
    {"features.0.conv.weight"},
    {"formatLayer.weight"},
    {"4x4/Dense/weight"},
    {"linear.weight", "blocks.0.shortcut.weight"},
    {"input", "mapping.0.weight"},
    {"style.1.weight", "input.input"},
)


class Found(NamedTuple):
    """A state dict, and where in its file it was.

    Attributes:
        state: the tensors of one network.
        where: path in the file; empty where the file holds that network alone.
        averaged: whether it is a moving average of the weights.
        beside: tensors that lie beside the network.
    """

    state: dict[str, Tensor]
    where: str = ""
    averaged: bool = False
    beside: Mapping[str, Tensor] = {}

    def __str__(self) -> str:
        """Return where it was, in words."""
        return f"{printable(self.where) or 'the whole file'}, {'averaged' if self.averaged else 'not averaged'}"


def find_network(content: Any, wanted: Collection[str] = ()) -> Found | None:
    """Return the generator among everything that a file holds; None where there is none.

    Args:
        content: what was read: mappings of tensors, of mappings, and of anything else, which is passed over.
        wanted: names of the network's tensors; one of ``ANCHORS`` when left out.

    Raises:
        WeightsError: where several networks could be meant. The message does not name the file.

    Example:
        >>> old, new = torch.zeros(1), torch.ones(1)
        >>> print(find_network({"generator": {"l0.weight": old}, "g_ema": {"module.l0.weight": new}, "step": 3}))
        g_ema, averaged
        >>> find_network({"l0.weight": old}).where, find_network({"discriminator": {"l0.weight": old}})
        ('', None)
    """
    tensors = dict(_walk(content))
    names = _without_wrappers(tensors)
    known = {_bare(name): name for name in wanted}
    if len(known) < len(wanted):  # a network whose own parts are called as wrappers are
        names, known = {".".join(path): path for path in tensors}, {name: name for name in wanted}
    found = _networks(names, known)
    if not found:
        return None
    ranks = {prefix: _rank(prefix, names) for prefix in found}
    best = min(ranks.values())
    states = {prefix: _below(prefix, found[prefix], names, tensors) for prefix, rank in ranks.items() if rank == best}
    prefix, state = next(iter(states.items()))
    if not all(_same(state, other) for other in states.values()):
        places = ", ".join(sorted(printable(place.rstrip(".")[:80]) for place in states)[:4])
        raise WeightsError(f"holds several networks that could be meant ({places}): store the right one by itself")
    averaged, where = not best[1], prefix.rstrip(".")
    parent = prefix[: -len(where.rpartition(".")[2]) - 1] if where else ""
    beside = _below(parent, found[prefix], names, tensors)
    if not averaged and (other := _unnamed_average(content, names, tensors, state)):
        where, state, averaged = *other, True
    return Found({known.get(key, key): value for key, value in state.items()}, where, averaged, beside)


def largest_mapping(content: Any) -> dict[str, Tensor]:
    """Return the mapping with most tensors by their names in the whole file; an empty one where there are none."""
    tensors = dict(_walk(content))
    if not tensors:
        return {}
    [(place, _)] = Counter(path[:-1] for path in tensors).most_common(1)
    return {".".join(path): value for path, value in tensors.items() if path[:-1] == place}


# Names -----------------------------------------------------------------------------------------------------------


def _walk(content: Any, lists: bool = False) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield all tensors (or lists of tensors) in mappings of mappings, each with the keys that lead to it.

    A mapping that lies in several places is seen at the first: of a pickle it may hold itself, and itself in turn.
    """
    seen: set[int] = set()
    ahead: list[tuple[tuple[str, ...], Any]] = [((), content)]
    while ahead:
        path, mapping = ahead.pop()
        if not isinstance(mapping, Mapping) or id(mapping) in seen:
            continue
        seen.add(id(mapping))
        for key, value in mapping.items():
            if isinstance(value, Tensor):
                if not lists:
                    yield (*path, str(key)), value
            elif isinstance(value, list | tuple):
                if lists and value and all(isinstance(item, Tensor) for item in value):
                    yield (*path, str(key)), list(value)
            elif len(path) < DEEPEST:
                ahead.append(((*path, str(key)), value))


def _bare(name: str) -> str:
    """Return a dotted name without the parts that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _without_wrappers(paths: Collection[tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return dotted names and the paths that they stand for; wrappers stay where they tell two of them apart."""
    names = {_bare(".".join(path)): path for path in paths}
    return names if len(names) == len(paths) else {".".join(path): path for path in paths}


def _networks(names: Collection[str], known: Collection[str]) -> dict[str, str]:
    """Return what stands before the names of each network that may be the generator, and one of its names."""
    anchors = set(known) or set().union(*ANCHORS)
    hits: dict[str, set[str]] = {}
    for name in names:
        parts = name.split(".")
        for cut in range(len(parts) if len(parts) <= LONGEST else 0):
            if (rest := ".".join(parts[cut:])) in anchors:
                hits.setdefault("".join(f"{part}." for part in parts[:cut]), set()).add(rest)
    if known:  # as much of it as there is
        most = max(map(len, hits.values()), default=0)
        hits = {prefix: there for prefix, there in hits.items() if len(there) == most}
    else:
        hits = {prefix: there for prefix, there in hits.items() if any(anchor <= there for anchor in ANCHORS)}
    return {prefix: prefix + min(there) for prefix, there in hits.items() if not _is_another(prefix)}


def _words(name: str) -> set[str]:
    """Return the words of a name in lower case: avgG and g_ema_model are of two and three.

    Example:
        >>> sorted(_words("netG.GEMA_avg")), sorted(_words("EMAModel"))
        (['avg', 'g', 'gema', 'net'], ['ema', 'model'])
    """
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+[A-Za-z]*", name)}


def _is_another(name: str) -> bool:
    """Return whether a name is that of another network than the generator, or of what an optimiser keeps.

    Example:
        >>> [_is_another(name) for name in ("netD", "optG.ema", "exp_avg", "exp.avgG", "g_ema")]
        [True, True, True, False, False]
    """
    return bool(_words(name) & OTHERS or OF_GRADIENTS.search(name))


def _rank(prefix: str, names: Collection[str]) -> tuple[bool, bool, bool]:
    """Return what puts one network behind another: it is marked as not averaged, not averaged, not called generator."""
    words = _words(prefix)
    averaged = bool(words & AVERAGED) or f"{prefix}n_averaged" in names  # PyTorch's AveragedModel counts
    return bool(words & CURRENT), not averaged, not words & GENERATOR


def _below(
    prefix: str, member: str, names: Mapping[str, tuple[str, ...]], tensors: Mapping[tuple[str, ...], Tensor]
) -> dict[str, Tensor]:
    """Return the tensors behind a prefix that lie in one mapping with a member of theirs."""
    mapping = names[member][:-1]
    return {
        name[len(prefix) :]: tensors[path]
        for name, path in names.items()
        if path[:-1] == mapping and name.startswith(prefix) and name != f"{prefix}n_averaged"
    }


def _same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    if a is b:
        return True
    return a.keys() == b.keys() and all(
        a[key].shape == b[key].shape and a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]) for key in a
    )


# Averages whose names are not the network's -----------------------------------------------------------------------


def _unnamed_average(
    content: Any,
    names: Mapping[str, tuple[str, ...]],
    tensors: Mapping[tuple[str, ...], Tensor],
    state: Mapping[str, Tensor],
) -> tuple[str, dict[str, Tensor]] | None:
    """Return the average of a network that is stored as a list in its order, or by names without dots."""

    def is_average(name: str) -> bool:
        return bool(_words(name) & AVERAGED) and not _is_another(name)

    shapes = [value.shape for value in state.values()]
    for path, values in _walk(content, lists=True):
        if is_average(".".join(path)) and [value.shape for value in values] == shapes:
            return ".".join(path), dict(zip(state, values, strict=True))
    first = next(iter(state)).replace(".", "")
    for name in names:
        place = name[: -len(first)]
        if name.endswith(f".{first}") and is_average(place):
            paths = [names.get(place + key.replace(".", "")) for key in state]
            if None not in paths and len(set(paths)) == len(paths):
                averaged = [tensors[path] for path in paths if path is not None]
                return place.rstrip("."), dict(zip(state, averaged, strict=True))
    return None
