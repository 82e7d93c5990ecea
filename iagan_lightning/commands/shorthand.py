"""The words of a command line: short ways to say things, made into what LightningCLI understands."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Sequence

from iagan_lightning.plugins import load, registered

METHODS = {name.lower(): f"iagan_lightning.{name}" for name in ("IAGAN", "CSGM", "ILO", "DIP")}

# --operator.kind NAME, a short way to say --operator CLASS
KINDS = {
    "gaussian": "GaussianSensing",
    "fourier": "FourierSensing",
    "bicubic": "BicubicDownsampling",
    "blur": "Blur",
    "inpainting": "Inpainting",
    "identity": "Identity",
    "grayscale": "Grayscale",
}


def find_own_classes() -> None:
    """Let the words name the user's own classes, and the operators that other packages register."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # python -m does the same
    for name in registered("operators"):
        load("operators", name)  # then --operator finds it by its name


def spell_out_kind(args: Sequence[str]) -> list[str]:
    """Replace --operator.kind NAME by --operator CLASS.

    Example:
        >>> spell_out_kind(["compressed-sensing", "--operator.kind", "fourier"])
        ['compressed-sensing', '--operator', 'FourierSensing']
    """
    spelled: list[str] = []
    for word in args:
        option, _, value = word.partition("=")
        if option == "--operator.kind":
            spelled += ["--operator.kind"] + ([value] if value else [])
        else:
            spelled.append(word)
    while "--operator.kind" in spelled:
        place = spelled.index("--operator.kind")
        kind = spelled[place + 1] if place + 1 < len(spelled) else ""
        if kind not in KINDS:
            raise ValueError(f"operator.kind is one of {', '.join(KINDS)}; {kind!r} was given{_meant(kind)}")
        spelled[place : place + 2] = ["--operator", KINDS[kind]]
    return spelled


def _meant(kind: str) -> str:
    near = difflib.get_close_matches(kind, KINDS, n=1)
    return f": did you mean {near[0]}?" if near else ""


def spell_out_samples(args: Sequence[str]) -> list[str]:
    """Replace --samples by --views: each view is one of several pictures that agree with y.

    Example:
        >>> spell_out_samples(["denoising", "--samples", "4"]), spell_out_samples(["denoising", "--samples=4"])
        (['denoising', '--views', '4'], ['denoising', '--views=4'])
    """
    return [re.sub(r"^--samples(?==|$)", "--views", word) for word in args]


def spell_out_flags(args: Sequence[str]) -> list[str]:
    """Replace --quiet and --json without a value by --quiet true and --json true.

    Example:
        >>> spell_out_flags(["denoising", "--quiet", "--json", "false"])
        ['denoising', '--quiet', 'true', '--json', 'false']
    """
    spelled: list[str] = []
    for word, after in zip(args, [*args[1:], "--"], strict=True):
        spelled += [word, "true"] if word in ("--quiet", "--json") and after.startswith("--") else [word]
    return spelled


def spell_out_method(args: Sequence[str]) -> list[str]:
    """Say the method's class where the command line leaves it open, and replace a method's short name by its class.

    Example:
        >>> spell_out_method(["denoising", "--model", "csgm"])
        ['denoising', '--model', 'iagan_lightning.IAGAN', '--model', 'iagan_lightning.CSGM']
    """
    others = registered("methods")
    spelled, after = [], ""
    for word in args:
        option, equals, value = word.partition("=")
        name = value if option == "--model" and equals else word if after == "--model" else None
        after = word
        if name is not None and name.lower() in METHODS:
            word = f"{option}={METHODS[name.lower()]}" if equals else METHODS[name.lower()]
        elif name in others:
            path = others[name].value.replace(":", ".")
            word = f"{option}={path}" if equals else path
        spelled.append(word)
    # Ahead of everything else, so that a config or another --model has the last word.
    return [*spelled[:1], "--model", METHODS["iagan"], *spelled[1:]]
