"""``iagan reproduce``: the paper's tables and figures, ours beside the published ones.

Every row is a run of the task's own command in a folder of its own, so it is resumed, checked and read like any other
run, and its ``config.yaml`` repeats it alone.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

import torch
import yaml

from iagan_lightning.checks import check_choice
from iagan_lightning.commands.configs import CONFIG
from iagan_lightning.commands.messages import for_people
from iagan_lightning.commands.tasks import run_task
from iagan_lightning.data.samples import ImageData
from iagan_lightning.generators import load_generator
from iagan_lightning.methods.presets import Preset
from iagan_lightning.operators.fourier import Design
from iagan_lightning.paper import EXPERIMENTS, figures, tables
from iagan_lightning.paper.experiments import CALIBRATED, RATIOS, Dataset, Experiment, Row, rows_of
from iagan_lightning.results.files import read_json, write_bytes, write_picture, write_text
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.sheet import stack_sheets
from iagan_lightning.terminal import Notice

EPILOG = """\
All other options are handed to every run: --lpips squeeze, --seed_everything 1, --trainer.accelerator cpu,
--model.latent.restarts 5, --dip_settings.steps 500, --config configs/paper/public_code.yaml ... (iagan TASK --help).

written to OUT/table-N/ (or OUT/fig2/, OUT/misaligned/): one run folder per row; table.csv, table.md, table.tex with our
figures beside the published ones; figureN.png with pictures placed as in the paper's Figure N, sheet-ROW.png for rows
of which it has none; with table 1 the masks, as in Figure 5; with fig2 the curve of Figure 2 as PNG and CSV. The same
command goes on where it stopped; with a higher --limit it adds images. N counts the images of the command at hand:
others that lie in its run folders, of another --data.root or a higher --limit, are in none of its means and sheets.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(for_people(message, ["reproduce"]) or f"reproduce: {message}")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options that are not handed on."""
    parser = _Parser(
        prog="iagan reproduce",
        description="Run a table or figure of the paper and write our figures beside the published ones.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--table", required=True, metavar="|".join(EXPERIMENTS), help="what to run")
    parser.add_argument("--data.root", dest="root", required=True, metavar="DIR", help="folder of true images")
    parser.add_argument("--limit", type=int, metavar="N", help="use only the first N images")
    parser.add_argument(
        "--preset", default="paper", metavar="paper|fast|best", help="paper (the default) takes hours a row"
    )
    parser.add_argument("--generator", default="began64", metavar="NAME|PATH", help="its size is that of the images")
    parser.add_argument(
        "--dataset", metavar="|".join(get_args(Dataset)), help="whose rows; CelebA-HQ from 512 pixels on by default"
    )
    parser.add_argument(
        "--dip", default="true", metavar="true|false", help="false leaves out Deep Image Prior, the slowest column"
    )
    parser.add_argument("--ratios", metavar="R,R,...", help=f"of fig2; {','.join(map(str, RATIOS))} by default")
    parser.add_argument("--out", metavar="DIR", help="runs/reproduce-GENERATOR-PRESET by default")
    return parser


def run_reproduce(args: Sequence[str]) -> int:
    """Run a table and return the exit status: 1 where an image or a row failed.

    Raises:
        ValueError: for arguments that do not parse or do not fit, and where no row could be run at all.
    """
    given, others = parser().parse_known_args(list(args))
    table, preset, with_dip = given.table, given.preset, given.dip == "true"
    check_choice("table", table, EXPERIMENTS)
    check_choice("preset", preset, Preset)
    check_choice("dip", given.dip, ("true", "false"))
    ratios = _ratios(given.ratios)
    if given.limit is not None and given.limit < 1:
        raise ValueError(f"limit is at least 1; {given.limit} was given")
    image_shape = load_generator(given.generator).image_shape
    dataset: Any = given.dataset or ("CelebA-HQ" if image_shape[1] >= 512 else "CelebA")
    check_choice("dataset", dataset, Dataset)
    ImageData(given.root).samples(0, image_shape, check=False)  # a folder without pictures fails here, not in every row

    experiment = EXPERIMENTS[table]
    name = f"table-{table}" if table[0].isdigit() else table
    out = Path(given.out or Path("runs") / f"reproduce-{Path(given.generator).stem}-{preset}") / name
    config, options = _config_first(others)
    status, problems = 0, {}
    rows = rows_of(table, dataset, image_shape[1], ratios)
    images = Path(given.root).resolve().name
    report = Report(table, experiment, dataset, rows, with_dip, out, image_shape, Path(given.generator).stem, images)
    for row in rows:
        common = ["--data.root", given.root, "--model.generator", given.generator, "--model.preset", preset]
        limit = [] if given.limit is None else ["--data.limit", str(given.limit)]
        dip = ["--dip", str(experiment.dip and with_dip).lower()]

        print(f"{report.name}, {row.title}: {report.folder(row).root}", file=sys.stderr)
        try:
            out_option = ["--out", str(report.folder(row).root)]
            done = run_task([row.task, *config, *common, *limit, *row.options, *dip, *options, *out_option])
        except ValueError as error:  # too large for the memory, say: the other rows are worth having
            problems[row.title] = str(error)
            print(f"{row.title} is left out: {error}", file=sys.stderr)
            continue
        status = max(status, done)
        report.take(row)
        report.write()
    if len(problems) == len(rows):
        raise ValueError(next(iter(problems.values())))
    print("\n" + report.write())
    return 1 if problems else status


class RowFolder(OutputFolder):
    """The run folder of a row as one command sees it: of its images, only those that the command has asked for.

    Args:
        root: the folder.
        asked: names of these images.
    """

    def __init__(self, root: Path, asked: frozenset[str]) -> None:
        super().__init__(root)
        self.asked = asked

    def is_done(self, name: str) -> bool:
        """Tell whether an image is finished, and one of the command's."""
        return name in self.asked and super().is_done(name)

    def done(self) -> Iterator[dict[str, Any]]:
        """Return the metrics of the command's finished images, in the order of their names."""
        return (record for record in super().done() if record["image"] in self.asked)


class Report:
    """What is written of an experiment, from the run folders of the rows that this command has run."""

    def __init__(
        self,
        table: str,
        experiment: Experiment,
        dataset: Dataset,
        rows: Sequence[Row],
        with_dip: bool,
        out: Path,
        image_shape: tuple[int, int, int],
        generator: str,
        images: str,
    ) -> None:
        self.table, self.experiment, self.dataset, self.rows, self.out = table, experiment, dataset, rows, out
        self.methods = tuple(method for method in experiment.methods if with_dip or method != "dip")
        self.image_shape, self.generator, self.images = image_shape, generator, images
        names = {"fig2": "Figure 2", "misaligned": "Misaligned images", CALIBRATED: "Table 1, calibrated"}
        self.name = names.get(table, f"Table {table}")
        self.asked: dict[Row, frozenset[str]] = {}

    def folder(self, row: Row) -> RowFolder:
        """Return the run folder of a row, without an image as long as the row was not run."""
        return RowFolder(self.out / row.name, self.asked.get(row, frozenset()))

    def take(self, row: Row) -> None:
        """Let a row that was run show the images that it was run for."""
        folder = OutputFolder(self.out / row.name)
        data = ImageData(**yaml.safe_load(folder.read("config.yaml"))["data"])
        samples = data.samples(0, self.image_shape, check=False, known=folder.names())
        self.asked[row] = frozenset(sample.name for sample in samples)

    def write(self) -> str:
        """Write tables and figures of everything that is done, and return the Markdown."""
        cells = [
            cell
            for row in self.rows
            for cell in tables.cells_of(row, self.methods, self.folder(row), self.table, self.dataset)
        ]
        about = self._about()
        grids = []
        if self.table == "fig2":
            grids.append(tables.curves(cells, self.methods))
        grids.append(tables.quality(cells, self.methods, self.dataset))
        grids.append(tables.run_time(cells, str(about["device"])))
        caption = " ".join([f"{self.name}: {self.experiment.title}.", *self._notes(about, cells)])
        page = "\n\n".join([f"# {self.name}, {self.dataset}", *map(tables.as_markdown, grids), caption]) + "\n"
        latex = "\n\n".join([f"% {caption}", *map(tables.as_latex, grids)]) + "\n"
        self.out.mkdir(parents=True, exist_ok=True)
        write_text(self.out / "table.csv", tables.as_csv(self.table, self.dataset, cells, about))
        write_text(self.out / "table.md", page)
        write_text(self.out / "table.tex", latex)
        self._draw(cells)
        return page

    def _about(self) -> dict[str, Any]:
        """Return what all cells share, as the runs themselves have recorded it."""
        about: dict[str, Any] = {"generator": self.generator, "size": self.image_shape[1], "preset": "", "device": ""}
        for row in self.rows:
            record = next(self.folder(row).done(), None)
            if record is not None:
                settings = read_json(self.folder(row).root / "settings.json")
                generator = f"{self.generator} ({settings['generator']['class']} {settings['weights'][:8]})"
                precise = settings["precision"] in (None, "32-true", "32", 32)
                return about | {
                    "generator": generator,
                    "preset": record["preset"] if precise else f"{record['preset']} in {settings['precision']}",
                    "device": device_name(record["device"]),
                }
        return about

    def _notes(self, about: dict[str, Any], cells: Sequence[tables.Cell]) -> list[str]:
        notes = [
            f"Ours: generator {about['generator']}, {about['size']} x {about['size']} pixels, preset "
            f"{about['preset']}. PSNR is 10 log10(1 / mean MSE) in dB, the paper's average; N is the number of images. "
            "LPIPS of different backbones cannot be compared with one another; the paper's is AlexNet's. "
            "CSGM's time is the latent stage's, IAGAN's that and the joint stage's. "
            f"The sheets are arranged as Figure {self.experiment.arrangement(self.dataset).number}."
        ]
        theirs = "PGGAN" if self.dataset == "CelebA-HQ" else "BEGAN"
        notes.append(
            f"The published figures are of {self.dataset} and a {theirs}, ours of this generator and the images of "
            f"{self.images}: compare the methods within a column, not the columns."
        )
        if self.table == "fig2":
            notes.append("MSE is that of images in [0, 1]; the paper shows it as a curve only.")
            done = {row.title: next(self.folder(row).done(), {"operator": ""}) for row in self.rows}
            if structured := [title for title, record in done.items() if "design='dct'" in record["operator"]]:
                standing_in = "In place of a dense Gaussian matrix, structured random projections (StructuredSensing)"
                notes.append(f"{standing_in}: {', '.join(structured)}.")
        if any(cell.title == "DIP (short)" for cell in cells):
            notes.append("DIP (short) took fewer steps than the official schedule.")
        if "dip" in self.methods and self.table in ("1", CALIBRATED, "4"):
            notes.append("DIP has no official settings for this task; those of x4 super-resolution were used.")
        return notes

    def _draw(self, cells: Sequence[tables.Cell]) -> None:
        figure = self.experiment.arrangement(self.dataset)
        runs = {row: self.folder(row) for row in self.asked}
        shown = {row.title: run for row, run in runs.items() if row.name in figure.rows}
        if self.table == "fig2":
            self._save(f"figure{figure.number}.png", [figures.lines_of_figure_1(figure, shown)] if shown else [])
            write_text(self.out / "figure2.csv", tables.as_curves(cells, self.methods))
            try:
                write_bytes(self.out / "figure2.png", figures.curve(cells, self.methods))
            except ImportError:
                warnings.warn("no plot of Figure 2: pip install 'iagan-lightning[plot]'", Notice, stacklevel=2)
            return
        several = len(figure.rows) > 1
        groups = [figures.lines_of(figure, run, self.methods, title * several) for title, run in shown.items()]
        self._save(f"figure{figure.number}.png", groups)
        for row in self.rows:
            if row.name not in figure.rows:
                self._save(f"sheet-{row.name}.png", [figures.lines_of(figure, self.folder(row), self.methods)])
        if self.table in ("1", CALIBRATED):
            design: Design = "quadrant" if self.table == "1" else "published-difficulty"
            write_picture(self.out / "figure5-masks.png", figures.masks(self.image_shape, design=design))

    def _save(self, name: str, groups: Sequence[Sequence[Sequence[figures.Picture | None]]]) -> None:
        sheets = [picture for lines in groups if (picture := figures.sheet(lines)) is not None]
        if sheets:
            write_picture(self.out / name, stack_sheets(sheets))
        else:  # of an earlier command, beside a table that does not show it
            (self.out / name).unlink(missing_ok=True)


def device_name(device: str) -> str:
    """Return what a run time belongs to: a GPU's name, or how many threads of the CPU.

    Example:
        >>> device_name("cpu").startswith("CPU, ")
        True
    """
    if device.startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}" if device == "cpu" else device


def _ratios(text: str | None) -> tuple[float, ...]:
    if text is None:
        return RATIOS
    try:
        ratios = tuple(float(part) for part in text.strip("[]").split(","))
    except ValueError:
        ratios = ()
    if not ratios or not all(0 < ratio <= 1 for ratio in ratios):
        raise ValueError(f"ratios are numbers in (0, 1] with commas between, such as 0.122,0.61; {text!r} was given")
    return ratios


def _config_first(options: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return configurations, which rows override, and all other options, which override rows.

    Example:
        >>> _config_first(["--lpips", "none", "-c", "a.yaml", "--config=b.yaml"])
        (['--config', 'a.yaml', '--config', 'b.yaml'], ['--lpips', 'none'])
    """
    config: list[str] = []
    rest: list[str] = []
    words = iter(options)
    for word in words:
        option, equals, file = word.partition("=")
        if option in CONFIG:
            config += [CONFIG[0], file if equals else next(words, "")]
        else:
            rest.append(word)
    return config, rest
