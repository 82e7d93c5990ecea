"""Completion for bash and zsh: commands, their options, and the values of those that have a choice."""

from __future__ import annotations

from collections.abc import Sequence

from iagan_lightning.commands.options import COMMON, Option, load
from iagan_lightning.commands.pages import MACHINE
from iagan_lightning.commands.shorthand import KINDS

# $2 is the word at hand, $3 the one before it. Where nothing fits, the shell completes files.
SCRIPT = """\
_iagan() {{
    local words="" command="${{COMP_WORDS[1]}}"
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands} --help --version --completion"
    elif [[ "$2" == -* ]]; then
        case "$command" in
{options}
        esac
    else
        case "$command $3" in
{values}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$2"))
}}
complete -o default -F _iagan iagan
"""
BEFORE = {
    "bash": "",
    "zsh": "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n",
}


def completion(shell: str, commands: Sequence[str]) -> str:
    """Return the script that a shell has to evaluate.

    Raises:
        ValueError: for a shell that is not known.

    Example:
        >>> "--data.root" in completion("bash", ["denoising"])
        True
    """
    if shell not in BEFORE:
        raise ValueError(f"--completion is one of {', '.join(BEFORE)}; {shell!r} was given")
    about = load()
    tasks = list(about["tasks"])
    operators = _of_all(about["operators"])
    task = [*about["data"], *about["run"], *_of_all(about["methods"]), *operators]
    own = about["train-prior"]
    options: dict[str, list[Option]] = {
        "|".join(tasks): task,
        "train-prior": [*own["data"], *own["run"], *_of_all(own["methods"])],
        **{
            name: [each for each in about["commands"][name]["arguments"] if "nargs" not in each]
            for name in about["commands"]
        },
    }
    options["check-operator"] += operators
    options["reproduce"] += task
    trainer = [f"--trainer.{name}" for name in about["trainer"]] or [f"--{each['name']}" for each in MACHINE]
    common = [*(f"--{name}" for name in COMMON if len(name) > 1), *trainer, "--operator", "--operator.kind"]
    lines, values = [], []
    for names, each in options.items():
        words = [f"--{option['name']}" for option in each]
        words += common if names.partition("|")[0] in (*tasks, "train-prior", "reproduce") else ["--help"]
        lines.append(f'        {names}) words="{" ".join(sorted(set(words)))}" ;;')
        chosen = {option["name"]: option["choices"] for option in each if option.get("choices")}
        chosen |= {option["name"]: ["true", "false"] for option in each if option.get("kinds") == ["bool"]}
        for name, choices in chosen.items():
            patterns = "|".join(f'"{command} --{name}"' for command in names.split("|"))
            values.append(f'        {patterns}) words="{" ".join(map(str, choices))}" ;;')
    values += [
        '        *" --operator.kind") words="' + " ".join(KINDS) + '" ;;',
        '        *" --operator"|"check-operator check-operator") words="' + " ".join(about["operators"]) + '" ;;',
        '        "train-prior --model") words="' + " ".join(own["methods"]) + '" ;;',
        '        *" --model") words="' + " ".join(about["methods"]) + '" ;;',
        '        "priors priors") words="list get" ;;',
    ]
    script = SCRIPT.format(commands=" ".join(commands), values="\n".join(values), options="\n".join(lines))
    return BEFORE[shell] + script


def _of_all(classes: dict[str, list[Option]]) -> list[Option]:
    """Return the options of all classes; the choices of one that several have are all of theirs."""
    merged: dict[str, Option] = {}
    for options in classes.values():
        for option in options:
            before = merged.get(option["name"], option)
            choices = [*dict.fromkeys([*before.get("choices", ()), *option.get("choices", ())])]
            merged[option["name"]] = option | ({"choices": choices} if choices else {})
    return list(merged.values())
