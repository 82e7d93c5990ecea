"""Help, versions, completion, configurations and messages: what is seen before anything is computed."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from iagan_lightning.cli import COMMANDS, TASKS, main
from iagan_lightning.commands import describe
from iagan_lightning.commands.completion import completion
from iagan_lightning.commands.front import check_words
from iagan_lightning.commands.options import load
from iagan_lightning.commands.pages import page_of

ROOT = Path(__file__).parent.parent


def fresh(code, *arguments):
    """Run Python in a process of its own; returns its output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, cwd=ROOT
    )
    return done.stderr + done.stdout


def printed(*arguments):
    """Return what a command prints on standard output."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), contextlib.suppress(SystemExit):
        main(list(arguments))
    return stream.getvalue()


# Help ------------------------------------------------------------------------------------------------------------


def test_the_shipped_descriptions_are_those_of_the_code():
    """After a change of options: python -m iagan_lightning.commands.describe."""
    assert json.loads(json.dumps(describe.describe())) == load()


@pytest.fixture(scope="module")
def parser_help():
    """The live parser's own help of a task, and of train-prior."""
    return {name: printed(name, "--help", "all") for name in ("super-resolution", "train-prior")}


def test_all_options_are_in_the_long_help_and_described_as_the_parser_has_them(parser_help):
    about = load()
    own = about["train-prior"]
    for text, options in (
        (parser_help["super-resolution"], [*about["data"], *about["run"], *about["methods"]["IAGAN"]]),
        (parser_help["train-prior"], [*own["data"], *own["run"]]),
    ):
        live = set(re.findall(r"^  --([\w.]+)", text, re.MULTILINE))
        assert {option["name"] for option in options} <= live
        foreign = ("trainer", "model.help", "operator", "print_config", "config", "seed_everything")
        groups = {"data", "model", "dip_settings", "help"}
        missing = {name for name in live - groups if not name.startswith(foreign)} - {each["name"] for each in options}
        assert not missing
    assert "--trainer.gradient_clip_val" in parser_help["super-resolution"]
    for option in about["data"]:  # defaults too
        stated = re.search(
            rf"^  --{option['name']} .*?default:\s+(\S+?)\)", parser_help["super-resolution"], re.M | re.S
        )
        assert stated and stated[1].replace("null", "None") == str(option["default"])


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("width", [80, 120])
def test_own_help_is_two_pages_at_most(command, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main([command, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: iagan {command}")
    assert len(lines) < 120
    if command not in ("reproduce", *TASKS, "train-prior"):
        assert all(len(line) <= width for line in lines)


@pytest.mark.parametrize("command", TASKS)
def test_groups_of_a_tasks_help(command):
    page = page_of(command, ["--help"])
    heads = re.findall(r"^(data|operator|prior|method|output|machine)\b", page, re.MULTILINE)
    assert heads == ["data", "operator", "prior", "method", "output", "machine"]
    for option in (*load()["data"], *(each for each in load()["run"] if "dip_settings" not in each["name"])):
        assert f"--{option['name']}" in page, "only stages and Deep Image Prior have settings that are left out"
    default = describe.tasks.TASKS[command]
    for key, value in default.defaults.items():
        assert re.search(rf"--operator\.{key} .*?\[{value}\]", page, re.DOTALL)


def test_help_is_about_the_method_and_the_operator_that_are_named():
    page = page_of("denoising", ["--model", "ilo", "--operator.kind", "blur", "--help"])
    assert "--model.radius" in page and "--model.latent|features|joint.steps" in page
    assert "--operator.kernel" in page
    assert "--model.latent|joint" not in page
    page = page_of("denoising", ["--model=iagan_lightning.DIP", "-h"])
    assert "--model.preset" in page and "--model.generator" not in page


def test_help_on_classes_of_ones_own(capsys):
    assert page_of("inpainting", ["--operator", "user_operator.Masked", "--help"]) is None, "an import has to tell"
    assert main(["inpainting", "--operator", "user_operator.Masked", "--help"]) == 0
    page = capsys.readouterr().out
    assert "--operator.kind_of_mask  [planes]" in page or re.search(r"--operator.kind_of_mask\s+\[planes\]", page)
    assert len(page.splitlines()) < 120
    assert main(["inpainting", "--operator", "nowhere.At", "--help"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


HEAVY = "('torch', 'pytorch_lightning', 'jsonargparse', 'numpy', 'PIL', 'yaml', 'ray', 'pyarrow', 'fsspec')"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--version"], "torch "),
        (["super-resolution", "--help"], "--data.root"),
        (["train-prior", "--help"], "--checkpoint_every"),
        (["report", "--help"], "folder of a run"),
        (["--completion", "bash"], "complete -o default"),
        (["denoising", "--nosie_std", "0.1"], "did you mean --noise_std?"),
        (["denoising", "--data.size", "big"], "a whole number"),
        (["denoising", "--data.root", "nowhere"], "no such folder or file"),
        (["denoising", "--noise_std", "loud"], "such as 0.04"),
    ],
)
def test_nothing_heavy_is_imported_for_help_and_mistakes(arguments, shown):
    code = (
        "import sys; from iagan_lightning.cli import main; main(sys.argv[1:]); "
        f"print('imported:', [name for name in {HEAVY} if name in sys.modules])"
    )
    output = fresh(code, *arguments)
    assert shown in output
    assert output.endswith("imported: []\n"), output


def test_versions_are_those_that_decide_about_numbers(capsys):
    assert main(["--version"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    packages = ("torch", "pytorch-lightning", "torchmetrics", "numpy", "pillow")
    assert {name: lines[name] for name in packages} == {name: version(name) for name in packages}
    assert next(iter(lines)) == "iagan"


def test_a_command_loads_torchvision_only_where_it_is_used():
    """TorchMetrics has stand-ins of it, which are the real ones as soon as they are called."""
    code = """
import sys
from iagan_lightning.cli import _command
_command("denoising")
print([name for name in ("torchmetrics", "torchvision", "scipy") if name in sys.modules])
from torchmetrics.functional.image import arniqa
module = sys.modules["torchmetrics.functional.image.arniqa"]
norm, network = module.transforms.Normalize([0.5], [0.5]), module.resnet50
import scipy.signal, torchvision
print(isinstance(norm, torchvision.transforms.Normalize), network.__call__.__name__, scipy.signal.__file__ is not None)
"""
    pytest.importorskip("torchvision")
    assert fresh(code).splitlines() == ["['torchmetrics']", "True __call__ True"]


# Completion ------------------------------------------------------------------------------------------------------


def completed(*words):
    script = completion("bash", COMMANDS)
    array = " ".join(f"'{word}'" for word in ("iagan", *words))
    last, before = words[-1], (["iagan", *words])[-2]
    code = f"{script}\nCOMP_WORDS=({array}); COMP_CWORD={len(words)}; _iagan iagan '{last}' '{before}'; "
    done = subprocess.run(["bash", "-c", code + 'echo "${COMPREPLY[@]}"'], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["super"], ["super-resolution"]),
        (["re"], ["report", "reproduce", "rebuild"]),
        (["denoising", "--data.f"], ["--data.fit"]),
        (["denoising", "--data.fit", ""], ["crop", "resize", "pad"]),
        (["deblurring", "--model", "I"], ["IAGAN", "ILO"]),
        (["inpainting", "--operator.kind", "f"], ["fourier"]),
        (["inpainting", "--trainer.prec"], ["--trainer.precision"]),
        (["train-prior", "--checkp"], ["--checkpoint_every"]),
        (["report", "--o"], ["--out"]),
        (["check-operator", "Gr"], ["Grayscale"]),
        (["denoising", "--data.root", "tests/test_he"], []),  # files, which are bash's own part
    ],
)
def test_completion_in_bash(words, expected):
    assert completed(*words) == expected


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_completion_knows_all_commands():
    assert set(COMMANDS) <= set(completed(""))
    for command in COMMANDS:
        assert {"--help"} <= set(completed(command, "--")), command


# Configurations --------------------------------------------------------------------------------------------------


def test_the_printed_configuration_is_commented_and_in_the_order_of_the_help(tmp_path, capsys):
    text = printed("super-resolution", "--data.limit", "7", "--print_config")
    tops = re.findall(r"^(\w+):", text, re.MULTILINE)
    assert tops[:4] == ["noise_std", "data", "operator", "model"]
    assert tops[-1] == "trainer"
    content = yaml.safe_load(text)
    assert content["data"]["limit"] == 7
    assert "  # use only the first so many pictures\n  limit: 7\n" in text
    assert re.search(r"# evaluations of the objective, at most\n +steps: null", text)
    (tmp_path / "all.yaml").write_text(text)
    again = printed("super-resolution", "--config", str(tmp_path / "all.yaml"), "--print_config")
    assert yaml.safe_load(again) == content
    trained = yaml.safe_load(printed("train-prior", "--data.root", str(ROOT), "--print_config"))
    assert [*trained][:: len(trained) - 1] == ["data", "trainer"]
    few = yaml.safe_load(printed("denoising", "--noise_std", "0.1", "--print_config=skip_default"))
    assert few["noise_std"] == 0.1 and "tensorboard" not in few


# Messages: one list, all of which is read -------------------------------------------------------------------------

FILES = {
    "mixed.yaml": "denoising: {noise_std: 0.1}\nnoise_std: 0.2\n",
    "misspelt.yaml": "nosie_std: 0.1\n",
    "inside.yaml": "data: {rot: x}\n",
    "list.yaml": "- 3\n",
    "number.yaml": "operator: 3\n",
}
MESSAGES = {
    "supper-resolution": "unknown task 'supper-resolution': did you mean super-resolution?",
    "radon": "unknown task 'radon': choose one of super-resolution, ",
    "--completion fish": "--completion is one of bash, zsh; 'fish' was given",
    "denoising --nosie_std 0.1": "denoising has no option --nosie_std: did you mean --noise_std?",
    "denoising --data.rot x": "denoising has no option --data.rot: did you mean --data.root?",
    "denoising --generator began64": "did you mean --model.generator",
    "denoising --zzz 3": "denoising has no option --zzz (iagan denoising --help)",
    "denoising --model.preest fast": "IAGAN has no option --model.preest: did you mean --model.preset?",
    "denoising --model.pres fast": "IAGAN has no option --model.pres: did you mean --model.preset?",
    "denoising --model csgm --model.joint.steps 3": "CSGM has no option --model.joint.steps",
    "denoising --trainer.precison 16": "denoising has no option --trainer.precison: did you mean --trainer.precision?",
    "super-resolution --operator.scal 3": "BicubicDownsampling has no option --operator.scal: did you mean "
    "--operator.scale?",
    "super-resolution --operator GaussianSensing --operator.scale 3": "GaussianSensing has no option "
    "--operator.scale: it has --operator.ratio, ",
    "denoising --operator.scale 3": "Identity has no option --operator.scale: it has no settings",
    "denoising --operator user_operator.Untyped --operator.stepp 3": "Untyped has no option --operator.stepp: did you "
    "mean --operator.step?",
    "denoising --operator Bicubik": "'Bicubik' was given: did you mean --operator.kind bicubic?",
    "denoising --operator BicubicDownsamplin": "'BicubicDownsamplin' was given: did you mean BicubicDownsampling?",
    "denoising --operator user_operator.WrongAdjont": "did you mean WrongAdjoint?",
    "denoising --operator nothing.At": "nothing.At, given for --operator, cannot be used: No module named 'nothing'",
    "denoising --operator.kind gausian": "'gausian' was given: did you mean gaussian?",
    "denoising --operator 3": "--operator is a class, by name or as package.module.Class; '3' was given",
    "denoising --operator": "--operator needs a value",
    "denoising --data.limit": "--data.limit needs a value",
    "denoising --model csmg": "--model is a class, by name or as package.module.Class; 'csmg' was given: did you mean "
    "CSGM?",
    "denoising --model nothing.At": "nothing.At, given for --model, cannot be imported: No module named 'nothing'",
    "denoising --model.latent 3": "--model.latent is a file of settings or {name: value}; '3' was given",
    "denoising --trainer.callbacks Timr": "'Timr' was given: did you mean Timer?",
    "denoising --data 3": "--data is a file of settings or {name: value}; '3' was given",
    "denoising --data.size big": "--data.size is a whole number or null; 'big' was given",
    "denoising --data.size 1.5": "--data.size is a whole number or null; '1.5' was given",
    "denoising --data.align maybe": "--data.align is one of true, false; 'maybe' was given",
    "denoising --data.fit stretch": "--data.fit is one of crop, resize, pad; 'stretch' was given",
    "denoising --data.limit 0": "data.limit is at least 1; 0 was given",
    "denoising --noise_std loud": "such as 0.04 or 10/255, or unknown; 'loud' was given",
    "denoising --seed_everything x": "--seed_everything is one of true, false or a whole number; 'x' was given",
    "denoising --data.root nowhere": "no such folder or file: nowhere",
    "denoising extra": "'extra' belongs to no option",
    "denoising --print_config=nonsense": "--print_config takes skip_default and skip_unset; 'nonsense' was given",
    "denoising --config mixed.yaml": "mixed.yaml mixes sections of tasks (denoising) with plain options (noise_std)",
    "inpainting --config mixed.yaml": "mixed.yaml mixes sections of tasks (denoising) with plain options (noise_std)",
    "denoising --config misspelt.yaml": "denoising has no option --nosie_std: did you mean --noise_std?",
    "denoising --config inside.yaml": "denoising has no option --data.rot: did you mean --data.root?",
    "denoising --config list.yaml": "a config holds options with their values, name: value; '- 3' was given",
    "denoising --config number.yaml": "--operator is a class, by name or as package.module.Class; '3' was given",
    "super-resolution --operator.size big": "--operator.size is a list such as [32,48] or null; 'big' was given",
    "inpainting --operator.box [1,2]": "--operator.box is a list of 4, such as [1,2,3,4]; '[1, 2]' was given",
    "inpainting --operator.ratio 3": "ratio lies in (0, 1]",
    "check-operator": "check-operator needs target (iagan check-operator --help)",
    "check-operator user_operator.WrongAdjont": "did you mean WrongAdjoint?",
    "check-operator user_operator.Untyped --operator.stepp 3": "did you mean --operator.step?",
    "check-operator Blur --image_shape 3": "--image_shape is a list such as",
    f"check-operator Blur --seed {2**64}": "seed is a whole number of at most 64 bits; 18446744073709551616 was given",
    "check-operator Blur --sed 3": "check-operator has no option --sed: did you mean --seed?",
    "report": "report needs folders (iagan report --help)",
    "report x --outt y": "report has no option --outt: did you mean --out?",
    "priors gett": "action is one of list, get; 'gett' was given",
    "train-prior": "train-prior needs --data.root (iagan train-prior --help)",
    "train-prior --stps 3": "train-prior has no option --stps: did you mean --steps?",
    "train-prior --data.root . --model BEGANTrainin": "'BEGANTrainin' was given: did you mean BEGANTraining?",
    "train-prior --data.root . --model.resolution big": "--model.resolution is a whole number; 'big' was given",
    "import-prior x": "import-prior needs --out (iagan import-prior --help)",
    "rebuild --genrator x y": "rebuild has no option --genrator: did you mean --generator?",
    "reproduce --tabel 1": "reproduce has no option --tabel: did you mean --table?",
    "reproduce --table 1": "reproduce needs --data.root (iagan reproduce --help)",
}
TERMS = (
    r"Callable|typing|collections\.abc|tuple\[|Union|Optional|Literal|Namespace|NoneType|<class|Traceback|Parser key"
)


def test_every_message_is_one_line_for_people(tmp_path, monkeypatch, capfd):
    """Run with -s to read them all from top to bottom."""
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    seen = {}
    for words in MESSAGES:
        try:
            status = main(words.split())
        except SystemExit as stop:
            status = stop.code
        seen[words] = (status, capfd.readouterr().err)
    print(*(f"$ iagan {words}\n  {error}" for words, (_, error) in seen.items()), sep="")
    for words, (status, error) in seen.items():
        assert status == 2, words
        assert error.startswith("iagan: error: ") and error.count("\n") == 1, (words, error)
        assert MESSAGES[words] in error, (words, error)
        assert not re.search(TERMS, error), (words, error)
        assert len(error) < 320, (words, error)


@pytest.mark.parametrize(
    "words",
    [
        "denoising --noise 0.1 --data.siz 32 --dip_settings.step 3 --model.latent.step 3",  # completed by argparse
        "denoising --model.init_args.preset paper --operator.class_path my.Op --model.latent {steps:3}",
        "denoising --config any.yaml --model.anything 3 --operator.anything 3",
        "denoising --model my.Method --model.anything 3 --operator my.Op --operator.anything 3",
        "denoising --trainer.anything 3 --trainer.callbacks+=a.B --trainer.callbacks.path x",
        "denoising --data.size null --data.images_per_fit auto --back_projection discrepancy --back_projection true",
        "denoising --noise_std 10/255 --data.shift -3 --quiet --json --print_config=skip_default -c any.yaml",
        "denoising --model.generator.class_path my.G --model.generator.init_args.size 3 --data.limit 1_000",
        "super-resolution --operator.size [3,4] --operator.scale=0x2 --seed_everything true",
        "compressed-sensing --operator.kind fourier --operator.design quadrant --operator FourierSensing",
        "denoising --operator operators.Blur --operator.anything 3 --data.root null --data.fit 'crop' --lpips none",
        "denoising --model mine.IAGAN --model.anything 3",
        "denoising --operator.kind blur --operator.size 3 --operator Identity --model IAGAN --model.joint.steps 3 "
        "--model csgm",
        "check-operator my.Op --operator.anything 3 --image_shape [3,8,8]",
        "check-operator GaussianSensing --operator.ratio .5",
        "reproduce --table 1 --data.root x --lpips none --model.latent.steps 3 --operator.anything 3",
        "train-prior --data.root . --model VAEGANTraining --trainer.devices 2 --steps 10",
    ],
)
def test_the_front_door_lets_through_what_the_parser_has_to_judge(words):
    command, *others = words.split()
    check_words(command, others)
