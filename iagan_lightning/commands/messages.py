"""What is said about words that cannot be: what was given, what is allowed, and what was probably meant."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from iagan_lightning.commands.options import known, load, words_of
from iagan_lightning.commands.shorthand import KINDS

TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "list": "a list",
    "tuple": "a list such as [32,48]",
    "NoneType": "null",
}


def meant(word: str, among: Iterable[str], dashes: str = "") -> str:
    """Return a question that names the words nearest to one, two where they are as near; nothing where none is near.

    Example:
        >>> meant("nosie_std", ["noise_std", "out"], "--"), meant("x", ["noise_std"])
        (': did you mean --noise_std?', '')
    """
    given = word.lower()
    names = {name.lower(): name for name in among}
    if inside := {name: own for name, own in names.items() if _above(name) == _above(given) != ""}:
        return _question(
            _nearest(given.rpartition(".")[2], {name.rpartition(".")[2]: name for name in inside}), names, dashes
        )
    longer = [name for name in names if len(given) > 2 and name.startswith(given)]
    parts = {name.rpartition(".")[2]: name for name in reversed(names)}  # --generator for --model.generator
    near = longer[:2] or _nearest(given, {name: name for name in names}) or _nearest(given, parts)
    return _question(near, names, dashes)


def _above(name: str) -> str:
    return name.rpartition(".")[0]


def _nearest(word: str, among: Mapping[str, str]) -> list[str]:
    near = difflib.get_close_matches(word, among, n=2, cutoff=0.7)
    ratios = [difflib.SequenceMatcher(None, each, word).ratio() for each in near]
    return [among[each] for each, ratio in zip(near, ratios, strict=True) if ratio > ratios[0] - 0.05]


def _question(near: Sequence[str], names: Mapping[str, str], dashes: str) -> str:
    return f": did you mean {' or '.join(dashes + names[name] for name in near)}?" if near else ""


def unknown_option(command: str, name: str, args: Sequence[str] = ()) -> str:
    """Return the sentence about an option that a command does not have.

    Example:
        >>> unknown_option("denoising", "nosie_std")
        'denoising has no option --nosie_std: did you mean --noise_std?'
    """
    if command not in (*load()["tasks"], *load()["commands"], "train-prior"):
        command, names = "this command", []
    else:
        about = known(command, args)
        names = [*about.names, *(f"trainer.{each}" for each in load()["trainer"])]
        part, dot, _ = name.partition(".")
        owner = about.owners.get(part, "")
        if dot and owner and "." not in owner:
            own = [each for each in about.options if each.startswith(f"{part}.")]
            hint = meant(name, own, "--") or f": {_listed(own) or 'it has no settings'}"
            return f"{owner} has no option --{name}{hint}"
    hint = meant(name, names, "--") or (f" (iagan {command} --help)" if names else "")
    return f"{command} has no option --{name}{hint}"


def _listed(names: Sequence[str]) -> str:
    shown = [f"--{name}" for name in names if name.count(".") == 1]
    return f"it has {', '.join(shown)}" if shown else ""


def allowed(name: str, kinds: Iterable[str], choices: Sequence[Any], given: str) -> str:
    """Return the sentence about a value of the wrong kind."""
    words = {"int": "int", "float": "float", "str": "str", "null": "NoneType"}
    choices = [*map(str, choices), *(["true", "false"] if "bool" in kinds else [])]
    parts = [f"one of {', '.join(choices)}"] if choices else []
    parts += [TYPES[words[kind]] for kind in kinds if kind in words]
    return f"--{name} is {' or '.join(parts)}; {given!r} was given"


def for_people(complaint: str, args: Sequence[str]) -> str | None:
    """Return what a parser says as a sentence without its own terms; None for what is said well enough elsewhere.

    Args:
        complaint: the parser's.
        args: the words of the command, its name first.

    Example:
        >>> for_people("unrecognized arguments: --nosie_std 0.1", ["denoising", "--nosie_std", "0.1"])
        'denoising has no option --nosie_std: did you mean --noise_std?'
    """
    command, words = (args[0], args[1:]) if args else ("", [])
    if found := re.match(r"unrecognized arguments: (\S+)", complaint):
        if not found[1].startswith("-"):
            return f"{found[1]!r} belongs to no option: those of {command} begin with --"
        return unknown_option(command, found[1].partition("=")[0].lstrip("-"), words)
    if found := re.search(r"does not accept option '(?:--)?([\w.]+)'", complaint):
        return unknown_option(command, found[1], words)
    keys = [key.removeprefix(f"{command}.") for key in re.findall(r'Parser key "([^"]+)":', complaint)]
    key, option = keys[0] if keys else "", f"--{'.'.join(dict.fromkeys(keys))}"
    if found := re.search(r"Option '([\w.]+)' is not accepted", complaint):
        kind = re.search(r"class_path[ =]'([\w.]+)'", complaint)
        if kind and key:
            hint = meant(found[1], _settings(kind[1]), f"--{key}.")
            return f"{kind[1].rpartition('.')[2]} has no option --{key}.{found[1]}{hint}"
    if found := re.search(r"No module named '([\w.]+)'|module '([\w.]+)' has no attribute '(\w+)'", complaint):
        module = found[1] or found[2]
        option, value = _option_of(words, lambda value: value.startswith(module))
        if option:
            hint = meant(found[3], vars(sys.modules[module])) if module in sys.modules and found[3] else ""
            cannot = "used" if option == "--operator" else "imported"
            return f"{value}, given for {option}, cannot be {cannot}: {found[0]}{hint}"
    if found := re.search(r"Expected a dot import path string: (.*)", complaint):
        given = found[1].strip()
        hint = meant(given, _classes(key)) or (meant(given, KINDS, "--operator.kind ") if key == "operator" else "")
        return f"--{key} is a class, by name or as package.module.Class; {given!r} was given{hint}"
    if found := re.search(r"Expected an import path or a subclass spec, but got (\S+)\.", complaint):
        return f"--{key} is a class, by name or as package.module.Class; {found[1]!r} was given"
    if found := re.search(r"Expected a tuple with (\d+) elements.*?[Vv]alue: (\[.*?\])", complaint, re.DOTALL):
        count = int(found[1])
        example = f"[{','.join(map(str, range(1, count + 1)))}]"
        return f"{option} is a list of {count}, such as {example}; {found[2]!r} was given"
    if found := re.search(r"Unable to load config '(.*?)'\s+- Parser key", complaint):
        option, _ = _option_of(words, found[1].__eq__)
        return f"{option or '--' + key} is a file of settings or {{name: value}}; {found[1]!r} was given"
    if found := re.search(r"(?m)Expected an? <class '(\w+)'>\. Got value: (.*?)(?:\. Got value: .*)?$", complaint):
        wanted = "true or false" if found[1] == "bool" else TYPES.get(found[1], found[1])
        each = "each of " if re.search(r"Given value: \[", complaint) else ""
        return f"{each}{option} is {wanted}; {found[2]!r} was given"
    if found := re.match(r"argument (--\S+): expected one argument", complaint):
        return f"{found[1]} needs a value"
    if found := re.match(r"argument (\w+): invalid choice: (\S+) \(choose from (.*)\)", complaint):
        return f"{found[1]} is one of {found[3].replace(chr(39), '')}; {found[2]} was given"
    if found := re.match(r"(?:\w+: )?the following arguments are required: (.*)", complaint):
        about = load()["commands"].get(command, {}).get("arguments", ())
        plain = {each["name"] for each in about if "nargs" in each}
        names = [name if name in plain else f"--{name.removeprefix('--')}" for name in found[1].split(", ")]
        return f"{command} needs {', '.join(names)} (iagan {command} --help)"
    if found := re.match(r"Invalid option \"(.*)\" for --print_config", complaint):
        return f"--print_config takes skip_default and skip_unset; {found[1]!r} was given"
    if found := re.match(r"Unexpected config: (.*)", complaint, re.DOTALL):
        return f"a config holds options with their values, name: value; {' '.join(found[1].split())!r} was given"
    return None


def mixture(file: str, sections: Sequence[str], plain: Sequence[str], task: str) -> str:
    """Return the sentence about a config with sections of tasks and options beside them."""
    return (
        f"{file} mixes sections of tasks ({', '.join(sections)}) with plain options ({', '.join(plain)}): write the "
        f"options into a section, such as {task}, or have no sections"
    )


def _option_of(words: Sequence[str], fits: Callable[[str], bool]) -> tuple[str, str]:
    """Return the last option whose value fits, with its value; empty where none does."""
    named = [(f"--{name}", value) for name, value in words_of(words) if value is not None and fits(value)]
    target = [("--operator", words[0])] if words and not words[0].startswith("-") and fits(words[0]) else []
    return [("", ""), *target, *named][-1]


def _settings(class_path: str) -> list[str]:
    """Return the names of what a class is made from; it has been imported by whoever complains."""
    import inspect

    module, _, name = class_path.rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)
    try:
        return [*inspect.signature(kind).parameters] if kind is not None else []
    except (TypeError, ValueError):
        return []


def _classes(key: str) -> list[str]:
    """Return the names of the classes that an option takes."""
    about = load()
    if key == "operator":
        return [*about["operators"]]
    if key == "model":
        return [*about["methods"], *about["train-prior"]["methods"]]
    names: list[str] = []
    for module in ("pytorch_lightning.callbacks", "pytorch_lightning.loggers", "iagan_lightning.callbacks"):
        names += getattr(sys.modules.get(module), "__all__", [])
    return names
