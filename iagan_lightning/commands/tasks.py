"""The tasks as methods of a Trainer, made into commands by LightningCLI: signatures and docstrings are the options."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from iagan_lightning.commands.configs import options_of, stated_settings
from iagan_lightning.commands.options import known
from iagan_lightning.commands.pages import task_page, wanted
from iagan_lightning.commands.parsing import SeededCLI, own_sections, parse
from iagan_lightning.commands.print_config import asks_for_config, print_commented
from iagan_lightning.commands.shorthand import (
    KINDS,
    find_own_classes,
    spell_out_flags,
    spell_out_kind,
    spell_out_method,
    spell_out_samples,
)
from iagan_lightning.data import ImageData
from iagan_lightning.methods import TestTimeModule
from iagan_lightning.methods.precision import check_precision
from iagan_lightning.methods.trainer_arguments import check_arguments, check_callbacks
from iagan_lightning.operators import (
    BicubicDownsampling,
    Blur,
    GaussianSensing,
    Identity,
    Inpainting,
    Operator,
)
from iagan_lightning.results.files import as_json
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.shards import ShardedOutput
from iagan_lightning.results.table import print_summary
from iagan_lightning.runs.environment import environment
from iagan_lightning.runs.fingerprint import determining_settings
from iagan_lightning.runs.local import on_this_machine
from iagan_lightning.runs.operators import Operators
from iagan_lightning.runs.options import RunOptions
from iagan_lightning.runs.processes import Companions, Place, find_place, own_device
from iagan_lightning.runs.run import Engine, Run
from iagan_lightning.signals import Ended
from iagan_lightning.urls import is_url


class TaskTrainer(pl.Trainer):
    """A Trainer with a method per task. Its arguments are those of the Trainers that it makes, one for each image."""

    def __init__(self, *, devices: int | str = 1, num_nodes: int = 1, **kwargs: Any) -> None:
        if kwargs.get("strategy", "auto") != "auto":
            raise ValueError(
                f"an image is adapted on one device, so trainer.strategy is auto; {kwargs['strategy']!r} was given. "
                "trainer.devices and trainer.num_nodes share the images out"
            )
        check_arguments(kwargs)
        try:
            super().__init__(devices=devices, num_nodes=num_nodes, **kwargs)
        except (
            RuntimeError,
            TypeError,
            MisconfigurationException,
        ) as error:  # settings, or srun's, that Lightning does not take
            raise ValueError(str(error)) from error
        check_precision(self.precision)
        check_callbacks(self)
        self.place = find_place(self.num_devices, num_nodes)
        self.settings: dict[str, Any] = {}  # filled by TaskCLI: arguments of the Trainer of each image
        self.config: dict[str, Any] = {}  # filled by TaskCLI: everything that was set
        self.options = RunOptions()  # filled by TaskCLI
        self.args: list[str] = []  # filled by TaskCLI: the command, for further processes
        self.exit_status = 0

    def reconstruct(self, task: str, model: TestTimeModule, data: ImageData, operator: Operators) -> None:
        """Run a task over a data set, print its table, and keep the exit status."""
        options = self.options
        if options.out is None and self.place.external:
            raise ValueError("give --out: all processes and machines share one folder for the results")
        named = Path("runs") / f"{task}-{time.strftime('%Y%m%d-%H%M%S')}"
        kind = ShardedOutput if options.out_format == "parquet" else OutputFolder
        if kind is OutputFolder and is_url(options.out):
            raise ValueError(f"{options.out}: an object store takes --out_format parquet; folders are for disks")
        folder = kind(options.out or named, new=options.out is None)
        self.place, engine = self._engine(options)
        trainer = {key: value for key, value in self.settings.items() if value is not None}
        callbacks = trainer.pop("callbacks", [])
        trainer.update(own_device(self, self.place, trainer.get("plugins")))
        self.place.share_cores()
        companions = Companions()
        run = Run(
            model,
            data,
            operator,
            options,
            out=folder,
            seed=int(self.config.get("seed_everything") or 0),
            trainer=trainer,
            callbacks=callbacks if isinstance(callbacks, Sequence) else [callbacks],
            place=self.place,
            engine=engine,
        )

        def record() -> None:
            folder.check_settings(determining_settings(task, self.config, run))
            if self.place.rank == 0:
                folder.write("config.yaml", yaml.safe_dump(self.config, sort_keys=False))
                folder.write("environment.json", as_json(environment()))
            settled = ["--seed_everything", str(run.seed), "--out", str(folder.root)]
            companions.start([*self.args, *settled], self.place)

        try:
            with companions:
                summary = run(record)
        except Ended as ended:
            if options.out is None:
                ended.again = f"the same command with --out {folder.root}"
            raise
        if self.place.rank != 0:
            pass
        elif options.json:
            print(as_json({"out": str(folder.root), "skipped": run.skipped, **summary}), end="")
        elif not options.quiet:
            print_summary(summary, folder, noisy=options.level != 0)
        self.exit_status = 1 if run.failed else 0

    def _engine(self, options: RunOptions) -> tuple[Place, Engine]:
        """Return which of several processes this is, and what has the images made.

        Raises:
            ValueError: for what does not go together, and where Ray is not installed.
        """
        if options.engine == "local":
            if self.place.size > 1 and is_url(options.out):
                raise ValueError(
                    f"{options.out}: several processes of one machine share a folder of a disk; an object store takes "
                    "the results of one, or of --engine ray"
                )
            return self.place, on_this_machine
        from iagan_lightning.runs.on_ray import OnRay

        given = self.settings.get("devices") if "devices" in stated_settings(self.args, "trainer") else None
        if given is not None and not str(given).isdigit():
            raise ValueError(f"trainer.devices is how many devices Ray is to use, or left out; {given} was given")
        place = Place(since=self.place.since)  # of a batch script, say: Ray shares the images out, not SLURM
        return place, OnRay(None if given is None else int(given), self.settings.get("accelerator"))


@dataclass(frozen=True)
class Task:
    """What one command does.

    Args:
        summary: first line of its help.
        operator: class of A unless the user names another.
        defaults: settings of operators that have them, where the user gave neither them nor one of ``instead``.
        instead: settings that make the defaults needless.
        own: what to give with measurements of one's own, where the defaults would only guess how they came about.
    """

    summary: str
    operator: type[Operator]
    defaults: dict[str, Any] = field(default_factory=dict)
    instead: tuple[str, ...] = ()
    own: str | None = None


TASKS = {
    "compressed-sensing": Task(
        "Reconstruct pictures from few linear measurements: random projections, or Fourier coefficients.",
        GaussianSensing,
        {"ratio": 0.3},
        ("matrix", "mask"),
    ),
    "super-resolution": Task(
        "Enlarge pictures: true ones (measured first, to judge the result), or your own low-resolution ones.",
        BicubicDownsampling,
        {"scale": 4},
        ("size",),
    ),
    "deblurring": Task("Undo a known blur: uniform over 9 x 9 pixels, or any kernel of yours.", Blur),
    "inpainting": Task(
        "Fill in missing pixels: random ones, a box, or what your mask leaves black.",
        Inpainting,
        {"ratio": 0.5},
        ("box", "mask"),
        "--operator.mask FILE, white where it is intact, --operator.box [top,left,height,width] of the damage, or "
        "--data.alpha mask for what is transparent",
    ),
    "denoising": Task("Remove noise of a known level, given with --noise_std.", Identity),
}

OURS = frozenset(TASKS)
DRAWN = ("ratio", "seed", "design")  # what random operators follow from

OPERATOR = """

        Args:
            operator: A, made for the image shape at hand: a class of iagan_lightning.operators (or --operator.kind
                {kinds}), or the class path of your own. {default} by default.
"""


def _method(name: str, task: Task) -> Callable[..., None]:
    """Return the Trainer's method of a task: its signature and docstring become the command's options and help."""

    def run(
        self: TaskTrainer,
        model: TestTimeModule,
        datamodule: ImageData,
        operator: Callable[[tuple[int, int, int]], Operator] = task.operator,
    ) -> None:
        given = (self.config["operator"] or {}).get("init_args") or {}
        operators = Operators(operator, given, task.defaults, task.instead)
        if datamodule.measurements is not None:
            if task.own and operators.defaults and datamodule.alpha != "mask":
                raise ValueError(f"where is the damage of {datamodule.measurements}? Give {task.own}")
            class_path = (self.config["operator"] or {}).get("class_path", "")
            if datamodule.alpha != "mask":
                _refuse_a_guess(class_path, given, stated_settings(self.args, "operator"), datamodule.measurements)
        self.reconstruct(name, model, datamodule, operators)

    defaults = "".join(f" with {key} {value}" for key, value in task.defaults.items())
    run.__doc__ = task.summary + OPERATOR.format(kinds="|".join(KINDS), default=task.operator.__name__ + defaults)
    run.__name__ = name
    return run


def _refuse_a_guess(class_path: str, given: Mapping[str, Any], stated: Collection[str], measurements: str) -> None:
    """Raise ValueError where an operator would be drawn at random for measurements that another one has made.

    Args:
        class_path: of the operator.
        given: its settings, defaults filled in.
        stated: which of them the user gave.
        measurements: where these lie.
    """
    drawn = [key for key in DRAWN if key in given]
    files = [key for key in ("matrix", "mask", "box") if key in given]
    if not class_path.startswith("iagan_lightning.") or not files or any(given[key] is not None for key in files):
        return
    if missing := [f"--operator.{key}" for key in drawn if key not in stated]:
        raise ValueError(
            f"what has made the measurements in {measurements}? Give --operator.{' or --operator.'.join(files)}, or "
            f"what they were drawn with: {' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} left open"
        )


def _refuse_idle_settings(config: Any, args: Sequence[str]) -> None:
    """Take away settings of Deep Image Prior beside the method where the command line declines it.

    Args:
        config: of the task, defaults filled in.
        args: of the command line.

    Raises:
        ValueError: where it was neither asked for nor declined.
    """
    settings = config["dip_settings"]
    given = [name for name, value in vars(settings).items() if value is not None]
    if config["dip"] or not given:
        return
    if "--dip" in dict(options_of(args)):
        for name in given:
            settings[name] = None
        return
    names = " and ".join(f"--dip_settings.{name}" for name in given)
    if config["model"]["class_path"].endswith(".DIP"):
        raise ValueError(f"{names} is of Deep Image Prior beside a method; --model dip has --model.settings.{given[0]}")
    raise ValueError(f"{names} is of Deep Image Prior beside the method: add --dip true, or leave it out")


def add_task(name: str, task: Task) -> None:
    """Make a task a command: ``iagan NAME``.

    Raises:
        ValueError: for a name that the Trainer or another task has already.

    Example:
        >>> from iagan_lightning.operators import Grayscale
        >>> add_task("colourise", Task("Colour grey pictures.", Grayscale))
        >>> "colourise" in TASKS
        True
        >>> del TASKS["colourise"]; delattr(TaskTrainer, "colourise")
    """
    if TASKS.get(name) is not task and (name in OURS or (name not in TASKS and hasattr(TaskTrainer, name))):
        raise ValueError(f"there is a {name} already: give your task another name")
    TASKS[name] = task
    setattr(TaskTrainer, name, _method(name, task))  # LightningCLI takes the command's name from the method's


for _name, _task in TASKS.items():
    add_task(_name, _task)


class TaskCLI(SeededCLI):
    """LightningCLI with the tasks as its subcommands."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the task methods, and which of their arguments are built from --model and --data."""
        return {name: {"model", "datamodule"} for name in TASKS}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options that all tasks have."""
        parser.add_class_arguments(RunOptions, None)

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Keep the arguments: further processes run the same command."""
        self.args = list(args)
        super().parse_arguments(parser, self.args)
        _refuse_idle_settings(self.config[self.config["subcommand"]], self.args)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Build the Trainer, and leave its arguments with it for the Trainers of the images."""
        settings = vars(self.config_init[self.subcommand].trainer).copy()
        if isinstance(settings["callbacks"], list):
            settings["callbacks"] = list(settings["callbacks"])  # the Trainer adds its own to the list that it gets
        if self.config_init[self.subcommand].engine == "ray":  # the devices are the cluster's, none of this process
            kwargs |= {"accelerator": "cpu", "devices": 1, "num_nodes": 1}
        trainer = super().instantiate_trainer(**kwargs)
        assert isinstance(trainer, TaskTrainer)
        trainer.settings = settings
        return trainer

    def instantiate_classes(self) -> None:
        """Build everything, and leave the configuration with the Trainer, to be written beside the results."""
        super().instantiate_classes()
        assert isinstance(self.trainer, TaskTrainer)
        config = self.config[self.subcommand].as_dict()
        config.pop("config", None)
        self.trainer.config = _plain(config)
        self.trainer.args = self.args
        chosen = self.config_init[self.subcommand]
        self.trainer.options = RunOptions(**{field.name: chosen[field.name] for field in fields(RunOptions)})


def run_task(args: Sequence[str]) -> int:
    """Run one of the tasks and return the exit status.

    Raises:
        ValueError: for arguments that do not parse or do not fit.
    """
    find_own_classes()
    spelled = spell_out_samples(spell_out_flags(spell_out_kind(args)))
    words = spell_out_method(own_sections(spelled, TASKS))
    if asked := wanted(args):
        return _help(words, asked)
    if asks_for_config(words):
        about = known(args[0] if args[0] in OURS else "denoising", args[1:])
        print_commented(lambda: _parse(words), list(about.options.values()))
    cli = _parse(words)
    assert isinstance(cli.trainer, TaskTrainer)
    return cli.trainer.exit_status


def _help(words: Sequence[str], asked: str) -> int:
    """Print the options of a task with a method or an operator that is not ours, or everything there is."""
    method, operator = (
        [word for before, word in pairwise(words) if before == option] for option in ("--model", "--operator")
    )
    if asked == "all":  # the parser knows the method's own options only when asked for them by name
        for last in (["--help"], ["--model.help", method[-1]]):
            with suppress(SystemExit):
                _parse([word for word in words if word not in ("-h", "--help", "--help=all", "all")] + last)
        return 0
    from iagan_lightning.commands import describe

    task = TASKS[words[0]]
    kind = _class(method[-1], "iagan_lightning")
    of = _class(operator[-1], "iagan_lightning.operators") if operator else task.operator
    page = task_page(
        words[0], describe.of_task(task), kind.__name__, describe.of_class(kind, "model."), of.__name__,
        describe.of_operator(of),
    )  # fmt: skip
    print(page, end="")
    return 0


def _class(name: str, home: str) -> Any:
    """Return the class of a name, ours without its module.

    Raises:
        ValueError: where there is none.
    """
    module, _, short = name.rpartition(".")
    try:
        return getattr(import_module(module or home), short)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name} cannot be imported: {error}") from error


def _parse(words: Sequence[str]) -> TaskCLI:
    settings = {"trainer_class": TaskTrainer, "subclass_mode_model": True}
    return parse(TaskCLI, TestTimeModule, ImageData, words, "iagan", **settings)


def _plain(value: Any) -> Any:
    """Return a configuration as what YAML can hold."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)
