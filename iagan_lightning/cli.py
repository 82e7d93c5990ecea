"""The command ``iagan``: one word for the task, then LightningCLI's options.

Nothing heavy is imported before the first word is known, so help and mistakes answer at once. One handler turns
every user error into one line on standard error and exit status 2.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from iagan_lightning import signals
from iagan_lightning.deferred import import_torchmetrics
from iagan_lightning.terminal import drop_output, prepare_streams, show_notices, without_traceback

HELP = """\
usage: iagan TASK [options]

Reconstruct images with a generator that adapts itself to each image (IAGAN, AAAI 2020).

tasks:
  super-resolution    enlarge pictures by 2, 4, 8 ... in agreement with every pixel given
  compressed-sensing  from few random projections or Fourier coefficients
  deblurring          undo a known blur
  inpainting          fill in missing pixels
  denoising           remove noise of a known level

  photo               photographs enlarged, and the faces in them restored
  app                 the tasks and photo as a page in your browser
  report              the results of a run, or of several, as one HTML page
  priors              the priors that have names: list them, fetch one
  train-prior         train a generator on your own pictures
  import-prior        convert a generator's weights from elsewhere
  reproduce           the paper's tables and figures, ours beside the published ones
  check-operator      is your operator linear, are its adjoint and pseudo-inverse right
  rebuild             an image again, from what --save weights kept of it
  export              results in Parquet shards as folders

  iagan TASK --help             the options of a task or command; --help all has the rest
  iagan TASK --print_config     all options as YAML, for --config FILE

options:
  --help, -h           this text
  --version            the versions that decide about numbers
  --completion SHELL   completion of commands, options and choices: eval "$(iagan --completion bash)", or zsh

exit status: 0 every image is done, 1 some failed (named on stderr), 2 bad arguments,
             130 interrupted by Ctrl-C, 143 ended by SIGTERM: the same command goes on
"""

TASKS = ("super-resolution", "compressed-sensing", "deblurring", "inpainting", "denoising")
COMMANDS = (
    *TASKS, "photo", "app", "report", "priors", "train-prior", "import-prior", "reproduce", "check-operator", "rebuild",
    "export",
)  # fmt: skip


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Example:
        >>> main(["--version"])  # doctest: +ELLIPSIS
        iagan 0.1.0
        torch ...
        0
    """
    if args is not None:
        return _run(list(args))
    prepare_streams()  # a process of its own: whatever reads its output
    show_notices()
    signals.catch()
    try:
        status = _run(sys.argv[1:])
        sys.stdout.flush()  # a full disk behind it is told of here, not when Python ends
    except signals.Ended as ended:
        return signals.tell(ended)
    except BaseException as error:
        if asked := signals.asked():  # what went wrong on the way out, or what a library made of the signal
            return signals.tell(asked, "" if isinstance(error, SystemExit) else " ".join(str(error).split()))
        if not isinstance(error, OSError):
            raise
        drop_output()
        return _refuse(f"standard output: {error}")
    finally:
        signals.drop()
    return status


def _run(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if args else 2
    try:
        if _answered(args[0], args[1:]):
            return 0
    except ValueError as error:
        return _refuse(str(error))
    try:
        run = _command(args[0])
        signals.begin_work()
        return run(args if run.__name__ == "run_task" else args[1:])
    except KeyboardInterrupt:
        print("iagan: interrupted; the same command goes on where this one stopped", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        if signals.asked() or os.environ.get("IAGAN_TRACEBACK"):
            raise
        return _refuse(str(error))


def _answered(word: str, others: list[str]) -> bool:
    """Print what is asked for where that needs no heavy import, and tell whether that was all.

    Raises:
        ValueError: for words that cannot be.
    """
    from iagan_lightning.commands import completion, front, messages, pages

    option, _, value = word.partition("=")
    if option == "--version":
        print(front.versions())
    elif option == "--completion":
        print(completion.completion(value or (others or [""])[0], COMMANDS), end="")
    elif word not in COMMANDS:
        if not _added(word):
            hint = messages.meant(word, COMMANDS) or f": choose one of {', '.join(COMMANDS)}"
            raise ValueError(f"unknown task {word!r}{hint} (iagan --help)")
        return False
    elif (text := pages.page_of(word, others)) is not None:
        print(text, end="")
    else:
        front.check_words(word, others)
        return False
    return True


def _command(word: str) -> Callable[[list[str]], int]:
    """Import what a word runs: tasks share a module, each other command has its own."""
    name = word.replace("-", "_") if word in COMMANDS and word not in TASKS else "task"
    # On Lightning, which wants TorchMetrics.
    if name in ("task", "photo", "app", "train_prior", "reproduce", "check_operator"):
        import_torchmetrics()
    module = import_module(f"iagan_lightning.commands.{'tasks' if name == 'task' else name}")
    run: Callable[[list[str]], int] = getattr(module, f"run_{name}")
    return run


def _added(name: str) -> bool:
    """Tell whether a task was added by the program that calls this, or is registered by another package."""
    from iagan_lightning.plugins import load, registered

    here = name in getattr(sys.modules.get("iagan_lightning.commands.tasks"), "TASKS", {})
    if not here and name in registered("tasks"):
        from iagan_lightning.commands.tasks import add_task

        add_task(name, load("tasks", name))
        return True
    return here


def _refuse(message: str) -> int:
    print(f"iagan: error: {' '.join(without_traceback(message).split())}", file=sys.stderr)
    return 2
