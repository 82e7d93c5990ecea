"""``iagan app``: what it runs for each choice, who waits for whom, and the page in a real browser."""

import asyncio
import gc
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iagan_lightning import Stage
from iagan_lightning.app import serving
from iagan_lightning.app.choices import CHOICES, EXAMPLES, Job, finds_faces
from iagan_lightning.app.folder import HELD, PREFIX, remove_left, remove_older, temporary_folder
from iagan_lightning.app.framed import framed
from iagan_lightning.app.job import Outcome, check, do
from iagan_lightning.app.showing import intact
from iagan_lightning.app.watch import StoppedError, Watch
from iagan_lightning.app.work import Desk, News, Waiting
from iagan_lightning.cli import main
from iagan_lightning.operators import BicubicDownsampling

pytestmark = [
    # gradio 6.31 asks pandas 3 for what is to go
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio.queueing"),
    # and leaves event loops of its own behind, whose sockets Python closes when it finds them.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(autouse=True, scope="module")
def _loops():
    """Let Python find them here, and not in the middle of a test that knows nothing of them."""
    yield
    asyncio.set_event_loop(None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(3):
            gc.collect()


ENDLESS = Stage(optimizer="adam", steps=100_000, stop="never")  # L-BFGS ends where it cannot move
SHORT = {"latent": Stage(steps=4), "joint": Stage(steps=4)}
PORTRAIT = EXAMPLES / "astronaut.png"


def quietly(job, **settings):
    return do(replace(job, **settings), Watch(lambda text, image: None, threading.Event()))


def pixels(content):
    """Return the pixels of a picture, of its file or of its content, as numbers that can be subtracted."""
    picture = content if isinstance(content, Image.Image) else Image.open(io.BytesIO(content))
    return np.asarray(picture.convert("RGB")).astype(int)


def as_images(values):
    """Return pixels (H, W, 3) as (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(values).permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.fixture
def job(folder, tiny_weights):
    """A job on a picture of noise as large as the tiny prior's, cut short."""
    return Job("denoising", folder / "0.png", "a", str(tiny_weights), settings=SHORT)


# What is run ------------------------------------------------------------------------------------------------------


def test_a_small_picture_is_enlarged_in_agreement_with_its_pixels(job, tmp_path):
    small = np.random.default_rng(0).integers(60, 200, (4, 8, 3), dtype=np.uint8)
    Image.fromarray(small).save(tmp_path / "small.png")
    outcome = quietly(job, task="super-resolution", picture=tmp_path / "small.png")
    assert np.array_equal(pixels(outcome.before), small)
    result = as_images(pixels(outcome.png))
    assert result.shape == (1, 3, 16, 16)
    reduced = BicubicDownsampling((3, 16, 16), size=(4, 8))(result)
    # clamped to what a file can hold, so not everywhere exact
    assert ((reduced - as_images(small.astype(int))).abs() * 127.5).median() < 1
    assert "PSNR" not in " ".join(outcome.words)
    assert "truth" not in outcome.record


def test_what_is_intact_stays_as_it_is(job):
    mask = torch.ones(16, 16, dtype=torch.bool)
    mask[4:8, 4:12] = False
    outcome = quietly(job, task="inpainting", mask=mask)
    given = pixels(Image.open(job.picture))
    assert np.abs(pixels(outcome.png) - given)[mask.numpy()].max() <= 1
    assert np.abs(pixels(outcome.png) - given)[~mask.numpy()].max() > 20
    invented = np.asarray(outcome.extra)
    assert invented[mask.numpy()].max() == 0
    assert invented[~mask.numpy()].max() > 0
    assert "invented" in outcome.about


def test_transparent_parts_are_missing_without_a_drawing(job, tmp_path):
    given = Image.open(job.picture).convert("RGBA")
    given.paste((0, 0, 0, 0), (3, 3, 9, 9))
    given.save(tmp_path / "torn.png")
    outcome = quietly(job, task="inpainting", picture=tmp_path / "torn.png")
    invented = np.asarray(outcome.extra) > 0
    assert invented[3:9, 3:9].any()
    assert not invented[:3].any()


@pytest.mark.parametrize(
    "settings",
    [
        {"task": "super-resolution", "scale": 4},
        {"task": "denoising", "noise": 25.0},
        {"task": "deblurring", "width": 1.0, "noise": 2.0},
        {"task": "compressed-sensing", "ratio": 0.5},
    ],
    ids=lambda settings: settings["task"],
)
def test_a_known_picture_is_degraded_first_and_judged(job, settings):
    outcome = quietly(job, known=True, **settings)
    said = " ".join(outcome.words)
    best = outcome.record["methods"][outcome.record["offered"]]
    error = (pixels(outcome.png) - pixels(Image.open(job.picture))) / 255
    psnr = -10 * np.log10((error**2).mean())
    assert best["psnr"] == pytest.approx(psnr, abs=0.1)
    assert f"{best['psnr']:.1f} dB" in said
    assert "Residual" in said
    assert ("The prior does not know" in said) or ("The prior knows" in said)
    assert outcome.record["operator"].startswith(
        {"super-resolution": "Bicubic", "denoising": "Identity", "deblurring": "Blur"}.get(settings["task"], "Fourier")
    )
    assert outcome.record["noise_std"] == pytest.approx(settings.get("noise", 0) / 255)


def test_two_views_tell_how_sure_a_result_is(job):
    outcome = quietly(job, task="compressed-sensing", known=True, preset="best")
    assert "sure" in outcome.about
    assert outcome.record["uncertainty"]["mean"] > 0


def test_noise_that_is_not_named_is_estimated(job, tmp_path):
    clean = np.full((160, 160, 3), 128.0)
    noisy = clean + 20 * np.random.default_rng(0).standard_normal(clean.shape)
    Image.fromarray(noisy.round().astype(np.uint8)).save(tmp_path / "noisy.png")
    large = replace(job, prior="faces128", picture=tmp_path / "noisy.png", align=False)
    Image.open(tmp_path / "noisy.png").crop((0, 0, 128, 128)).save(tmp_path / "cut.png")
    outcome = quietly(large, picture=tmp_path / "cut.png", settings={"latent": Stage(steps=2), "joint": Stage(steps=2)})
    assert 255 * outcome.record["noise_std"] == pytest.approx(20, abs=1.5)
    assert "estimated as" in outcome.words[0]
    Image.fromarray(clean.astype(np.uint8)).save(tmp_path / "clean.png")
    with pytest.raises(ValueError, match="no noise was found"):
        quietly(large, picture=tmp_path / "clean.png")


def test_a_photograph_comes_back_enlarged_with_its_lines(tmp_path):
    pytest.importorskip("facenet_pytorch", reason="needs the extra align")
    small = Image.open(PORTRAIT).resize((48, 48), Image.Resampling.BOX)
    small.save(tmp_path / "small.png")
    told = []
    watch = Watch(lambda text, image: told.append((text, image)), threading.Event())
    outcome = do(Job("photo", tmp_path / "small.png", "small", "faces64", scale=2, settings=SHORT), watch)
    result = pixels(outcome.png)
    assert result.shape == (96, 96, 3)
    assert (
        np.abs(result.reshape(48, 2, 48, 2, 3).mean((1, 3)) - pixels(small)).max() <= 1 or outcome.record["noise_std"]
    )
    assert outcome.words[0].startswith("small: 48 x 48 to 96 x 96 pixels, small_iagan.png")
    assert len(outcome.record["faces"]) == 1
    assert any(image is not None and image.shape == (3, 64, 64) for _, image in told)
    assert any(text.startswith("face 1 of 1, by faces64: ") for text, _ in told)


def test_a_face_is_cut_out_of_what_is_there_and_nothing_beyond(tmp_path):
    if not finds_faces():
        pytest.skip("needs the extra align")
    ready = framed(Job("denoising", PORTRAIT, "a", "began64"))
    assert ready.x.shape == (3, 64, 64)
    assert ready.remark.startswith("Its largest face is brought from 1")
    assert (ready.x[:, 1:] != ready.x[:, :-1]).any(0).float().mean() > 0.9, "no row is the border's, repeated"
    Image.new("RGB", (300, 200), "grey").save(tmp_path / "wall.png")
    assert "no face was found" in framed(Job("denoising", tmp_path / "wall.png", "a", "began64")).remark
    assert framed(Job("denoising", PORTRAIT, "a", "faces128")).remark == "", "of the prior's size: the very pixels"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "inpainting"}, "nothing is missing yet: draw over"),
        ({"task": "inpainting", "mask": torch.zeros(16, 16, dtype=torch.bool)}, "nothing of it is left"),
        ({"task": "super-resolution"}, "16 x 16 pixels is not smaller than the 16 x 16"),
        ({"task": "denoising"}, "no noise was found"),
        ({"task": "compressed-sensing"}, "takes a picture that is known"),
        ({"task": "photo", "known": True}, "takes a picture as it is"),
        ({"task": "colourise"}, "task is one of photo"),
        ({"task": "denoising", "noise": 25.0, "prior": "nothing64"}, "nothing64"),
    ],
)
def test_refusals(job, settings, message):
    with pytest.raises(ValueError, match=message):
        quietly(job, **settings)


def test_what_is_no_picture_is_refused(job, tmp_path):
    for name, content in (("a.png", b"no picture"), ("b.png", b"\x89PNG\r\n\x1a\n" + bytes(20)), ("c.png", b"")):
        (tmp_path / name).write_bytes(content)
        for task in ("denoising", "photo") if finds_faces() else ("denoising",):
            with pytest.raises(OSError):
                quietly(job, task=task, noise=5.0, picture=tmp_path / name)
    Image.new("1", (16000, 8000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match="more"):
        quietly(job, noise=5.0, picture=tmp_path / "bomb.png")


def test_without_the_detector_a_photograph_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    with pytest.raises(ValueError, match="needs the detector of faces: pip install 'iagan-lightning"):
        check(Job("photo", PORTRAIT))


def test_a_drawing_is_a_mask_at_any_scale():
    layer = Image.new("RGBA", (512, 512), (0, 0, 0, 0))
    layer.paste((230, 0, 0, 255), (128, 64, 256, 128))
    mask = intact([layer], (16, 16))
    expected = torch.ones(16, 16, dtype=torch.bool)
    expected[2:4, 4:8] = False
    assert torch.equal(mask, expected)
    assert intact([Image.new("RGBA", (512, 512), (0, 0, 0, 0))], (16, 16)) is None
    assert intact([], (16, 16)) is None


def test_every_task_of_the_command_line_is_on_the_page():
    from iagan_lightning.cli import TASKS

    assert set(CHOICES) == {*TASKS, "photo"}
    assert next(iter(CHOICES)) == "photo"


# Who waits for whom -----------------------------------------------------------------------------------------------


def test_one_after_another_in_the_order_in_which_they_came(job):
    gates, order = {name: threading.Event() for name in "abc"}, []

    def slow(job, watch):
        order.append(job.name)
        gates[job.name].wait(30)
        return "done"

    desk = Desk(carry_out=lambda job, watch: slow(job, watch) and outcome)
    outcome = Outcome(*[Image.new("L", (1, 1))] * 3, "", [], b"", {})
    works = {name: desk.work(name, replace(job, name=name)) for name in "abc"}
    assert isinstance(next(works["a"]), News)
    assert next(works["b"]) == Waiting(1)
    assert next(works["c"]) == Waiting(2)
    gates["a"].set()
    assert list(works["a"])[-1] is outcome
    assert not isinstance(next(works["b"]), Waiting)
    assert next(works["c"]) == Waiting(1)
    works["c"].close()  # gone while it waits
    desk.stop("b")
    gates["b"].set()
    list(works["b"])
    assert order == ["a", "b"]
    assert next(desk.work("d", replace(job, name="a"))) != Waiting(1)


def test_too_many_are_sent_away(job):
    hold = threading.Event()
    desk = Desk(2, lambda job, watch: hold.wait(30))
    first, second = desk.work("a", job), desk.work("b", job)
    next(first), next(second)
    with pytest.raises(ValueError, match="2 reconstructions are under way or wait already"):
        next(desk.work("c", job))
    hold.set()


@pytest.mark.parametrize("how", ["stop", "close", "desk"])
def test_work_ends_in_the_middle_and_makes_room(job, how):
    """By the button, by a page that is gone, and at the end of all; the next job is done as if nothing had been."""
    desk = Desk()
    long = replace(job, noise=25.0, settings={"latent": ENDLESS, "joint": Stage(steps=4)})
    work = desk.work("a", long)
    while (news := next(work)).image is None:
        assert isinstance(news, News)
    [thread] = desk._threads
    if how == "close":
        work.close()
    elif how == "desk":
        desk.close()
    else:
        desk.stop("a")
        with pytest.raises(StoppedError):
            list(work)
    thread.join(30)
    assert not thread.is_alive()
    assert isinstance(list(desk.work("b", replace(long, settings=SHORT)))[-1], Outcome)


# The folder -------------------------------------------------------------------------------------------------------


def stay(above, pipe):
    """Hold a folder until the end of this process."""
    with temporary_folder(above) as folder:
        (folder / "upload.png").write_text("private")
        pipe.send(folder)
        time.sleep(100)


def test_what_a_killed_page_left_is_removed_and_nothing_else(tmp_path, processes):
    mine, its = processes.Pipe()
    other = processes.Process(target=stay, args=(tmp_path, its))
    other.start()
    try:
        assert mine.poll(60)
        folder = mine.recv()
        assert (folder.stat().st_mode & 0o077) == 0
        (tmp_path / f"{PREFIX}foreign").mkdir()
        (tmp_path / f"{PREFIX}link").symlink_to(folder)
        assert remove_left(tmp_path) == [], "its process lives"
    finally:
        other.kill()
        other.join()
    assert (folder / "upload.png").exists()
    with temporary_folder(tmp_path) as own:
        assert not folder.exists()
        assert remove_left(tmp_path) == []
        assert (own / HELD).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{PREFIX}foreign", f"{PREFIX}link"]


def test_what_is_older_than_a_day_is_removed(tmp_path):
    for name in ("old", "new", HELD):
        (tmp_path / name).write_text("")
    os.utime(tmp_path / "old", (0, 0))
    os.utime(tmp_path / HELD, (0, 0))
    remove_older(tmp_path, 86400)
    assert {path.name for path in tmp_path.iterdir()} == {"new", HELD}


# The command ------------------------------------------------------------------------------------------------------


def test_without_gradio(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["app"]) == 2
    error = capsys.readouterr().err
    assert error == "iagan: error: iagan app needs gradio: pip install 'iagan-lightning[app]'\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prior", "nothing64"], "nothing64"),
        (["--port", "70000"], "--port is a number from 0"),
        (["--port", "many"], "--port is a whole number; 'many' was given"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid is no address"),
        (["TAKEN"], "choose another --port, or 0"),
    ],
)
def test_bad_input(capsys, arguments, message):
    pytest.importorskip("gradio", reason="needs the extra app")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = ["--port", str(other.getsockname()[1])]
        assert main(["app", *(taken if arguments == ["TAKEN"] else arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_help_and_imports_do_without_gradio():
    code = (
        "import sys, iagan_lightning\nfrom iagan_lightning.cli import main\nmain(['--help']); main(['app', '--help'])\n"
        "assert not {'gradio', 'torch'} & {*sys.modules}\nimport iagan_lightning.commands.app\n"
        "assert 'gradio' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "iagan app [options]" in done.stdout


# The page over the wire -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def desk():
    """A desk that cuts work short unless its name says that it is to last."""
    endless = {"latent": ENDLESS, "joint": Stage(steps=4)}
    return Desk(carry_out=lambda job, watch: do(replace(job, settings=endless if "long" in job.name else SHORT), watch))


@pytest.fixture(scope="module")
def address(desk, tiny_weights):
    """The page on a port of its own; uploads of more than a megabyte are too large."""
    pytest.importorskip("gradio", reason="needs the extra app")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(serving, "LARGEST", 2**20)
        warnings.simplefilter("ignore")  # of gradio's own imports, and in its threads
        with serving.served("127.0.0.1", 0, str(tiny_weights), desk) as address:
            yield address


def ask(address, path, body=None, **headers):
    """Return the status and the text of an answer."""
    request = urllib.request.Request(address + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def upload(address, name, content):
    head = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    body = head + content + b"\r\n--b--\r\n"
    return ask(address, "gradio_api/upload", body, **{"Content-Type": "multipart/form-data; boundary=b"})


def test_nothing_but_what_was_uploaded_is_handed_out(address, tmp_path):
    (tmp_path / "secret.png").write_bytes(PORTRAIT.read_bytes())
    for path in ("/etc/passwd", str(tmp_path / "secret.png"), f"{Path.cwd()}/setup.cfg", "../../../../etc/passwd"):
        status, text = ask(address, f"gradio_api/file={path}")
        assert status in (403, 404), path
        assert "root:" not in text
    status, text = upload(address, "portrait.png", PORTRAIT.read_bytes())
    assert status == 200
    [path] = json.loads(text)
    assert path.startswith(os.environ["GRADIO_TEMP_DIR"])
    assert ask(address, f"gradio_api/file={path}")[0] == 200


def test_a_file_that_was_not_uploaded_is_not_read(address, tmp_path):
    """Whoever writes the request by hand names a file of this machine in the place of an upload."""
    config = json.loads(ask(address, "config")[1])
    named = {each["id"]: each for each in config["components"]}
    [file] = [key for key, each in named.items() if each["type"] == "file"]
    look = next(each for each in config["dependencies"] if [file, "change"] in each["targets"])
    (tmp_path / "secret.png").write_bytes(PORTRAIT.read_bytes())
    given = [named[key]["props"].get("value") for key in look["inputs"]]
    given[0] = {"path": str(tmp_path / "secret.png"), "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": given, "fn_index": look["id"], "session_hash": "byhand"}).encode()
    assert ask(address, "gradio_api/queue/join", body, **{"Content-Type": "application/json"})[0] == 200
    _, events = ask(address, "gradio_api/queue/data?session_hash=byhand")
    [ended] = [json.loads(line[6:]) for line in events.splitlines() if '"process_completed"' in line]
    assert not ended["success"]
    assert "secret" not in json.dumps(ended["output"].get("data", ""))


def test_uploads_are_bounded(address):
    assert upload(address, "large.png", bytes(2**20 + 2**16))[0] == 413


def test_a_page_from_elsewhere_has_no_name_for_this_one(address):
    assert ask(address, "", Host="example.com")[0] == 400
    assert ask(address, "", Host="localhost")[0] == 200


# In a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture
def visit(browser, address):
    """Open the page; what it complains of, or asks of another host, fails the test."""
    complaints, contexts, asked = [], [], []

    def visit(width=1280, script="", **settings):
        context = browser.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce", **settings)
        contexts.append(context)
        context.add_init_script(script)
        page = context.new_page()
        page.set_default_timeout(240_000)  # a reconstruction on a busy machine
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        context.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.get_by_text("Drop a picture, or choose an example.").wait_for()
        page.get_by_role("button", name="Reconstruct").wait_for()
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []
    assert asked
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


@pytest.fixture
def picture(tmp_path):
    def picture(name, size=16):
        path = tmp_path / f"{name}.png"
        values = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(values).save(path)
        return path

    return picture


def give(page, path, task):
    """Upload a picture and choose what to do."""
    page.locator("input[type=file]").first.set_input_files(path)
    page.get_by_text(path.stem).wait_for()
    page.get_by_label("What to do").click()
    page.get_by_role("option", name=task).click()


def go(page):
    page.get_by_role("button", name="Reconstruct").click()


def said(page, text):
    """Wait until the page says something; else tell what it says."""
    told = page.locator("#status, #taken")
    try:
        told.get_by_text(text).wait_for()
    except Exception as error:
        raise AssertionError(f"{text!r} is not said; the page says {told.all_inner_texts()}") from error


def draw(page):
    """Draw a line over the picture."""
    canvas = page.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    page.wait_for_timeout(1500)  # the page says nowhere that the picture lies on it
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5, steps=8)
    page.mouse.up()
    page.wait_for_timeout(1500)  # nor that it has handed in what was drawn


@pytest.mark.slow
def test_a_picture_with_a_mask_from_upload_to_download(visit, picture, tmp_path):
    page = visit()
    path = picture("torn & <b>")
    go(page)
    said(page, "No picture yet: drop one, or choose an example.")
    give(page, path, "Fill in missing parts")
    said(page, "Draw over what is to be filled in.")
    go(page)
    said(page, "Nothing is missing yet: draw over what is to be filled in.")
    draw(page)
    go(page)
    said(page, "Done.")
    words = page.locator("#words").inner_text()
    assert "Residual: the result leaves nothing that could be seen of the input unexplained." in words
    assert "The prior" in words
    assert "PSNR" not in words
    assert page.get_by_alt_text("What was invented").count() == 1
    for button, end in (("picture", "_iagan.png"), ("metrics", ".iagan.json")):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Download the {button}").click()
        assert download.value.suggested_filename.startswith("torn") and download.value.suggested_filename.endswith(end)
        download.value.save_as(tmp_path / f"result{end}")
    result, given = pixels(Image.open(tmp_path / "result_iagan.png")), pixels(Image.open(path))
    same = (np.abs(result - given) <= 1).all(-1)
    assert same[0].all() and same[-1].all(), "what was not drawn over stays"
    assert not same[7:9].all()
    assert json.loads((tmp_path / "result.iagan.json").read_text())["operator"].startswith("Inpainting")


@pytest.mark.slow
def test_stop_in_the_middle_and_begin_again(visit, picture):
    page = visit()
    give(page, picture("long"), "Compressed sensing")
    go(page)
    page.get_by_alt_text("The reconstruction as it forms").wait_for()
    said(page, "latent, evaluation")
    page.get_by_role("button", name="Stop").click()
    said(page, "Stopped.")
    assert page.get_by_alt_text("The reconstruction as it forms").count() == 0
    page.get_by_label("Clear").click()
    give(page, picture("short"), "Compressed sensing")
    go(page)
    said(page, "Done.")
    assert "PSNR against the true picture" in page.locator("#words").inner_text()


# What the server tells a page arrives late, what the page asks of it does not.
LATE = """
const ask = window.fetch;
window.fetch = async (...all) => {
  const answer = await ask(...all);
  if (!answer.url.includes("queue/data")) return answer;
  const late = new TransformStream({
    async transform(piece, to) { await new Promise(go => setTimeout(go, 1500)); to.enqueue(piece); }
  });
  return new Response(answer.body.pipeThrough(late), answer);
};
"""


@pytest.mark.slow
def test_a_click_while_the_answer_to_the_last_one_is_on_its_way(visit, picture):
    """Gradio ends a stream of answers with the last one; what is asked for until its end arrives is lost."""
    page = visit(script=LATE)
    give(page, picture("short"), "Compressed sensing")
    page.wait_for_timeout(1000)
    go(page)
    said(page, "Done.")


@pytest.mark.slow
def test_a_browser_that_is_slow(visit, picture):
    """It shows few of the updates, and what it leaves out was only in those."""
    page = visit()
    give(page, picture("long"), "Compressed sensing")
    page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": 20})
    go(page)
    said(page, "latent, evaluation")
    page.get_by_role("button", name="Stop").click()
    said(page, "Stopped.")
    page.get_by_label("Clear").click()
    give(page, picture("short"), "Compressed sensing")
    go(page)
    said(page, "Done.")
    page.get_by_role("button", name="Download the picture").wait_for()
    assert page.get_by_role("button", name="Reconstruct").is_enabled()


@pytest.mark.slow
def test_two_users_at_once_and_one_who_leaves(visit, picture):
    first, second = visit(), visit()
    give(first, picture("long"), "Compressed sensing")
    go(first)
    said(first, "latent, evaluation")
    give(second, picture("short"), "Compressed sensing")
    go(second)
    said(second, "Waiting: 1 reconstruction is before yours, which begins by itself.")
    first.close()
    said(second, "Done.")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_that_axe_complains_of(visit, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe: pip install '.[test]'").Axe()
    page = visit(width, color_scheme=scheme)

    def look():
        found = axe.run(page).response["violations"]
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    look()
    page.get_by_role("button", name="Example: Astronaut").focus()
    page.keyboard.press("Enter")
    said(page, "pixels")
    page.get_by_label("What to do").click()
    page.get_by_role("option", name="Remove noise").click()
    page.get_by_label("It is good: degrade it first").wait_for()
    assert page.get_by_label("It is good: degrade it first").is_checked(), "an example is a picture that is known"
    page.get_by_role("button", name="Reconstruct").focus()
    page.keyboard.press("Enter")
    said(page, "Done.")
    page.get_by_role("button", name="Download the picture").wait_for()
    look()


# From start to end ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_is_left_of_a_page_that_was_ended(tmp_path):
    """Ended by SIGKILL it leaves its folder, which the next one removes; SIGTERM and Ctrl-C leave nothing."""
    pytest.importorskip("gradio", reason="needs the extra app")
    places = tmp_path / "tmp"
    places.mkdir()
    environment = {**os.environ, "TMPDIR": str(places)}
    command = [sys.executable, "-m", "iagan_lightning", "app", "--port", "0"]
    left = 0
    for number, status in ((signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with subprocess.Popen(
            command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            # Whoever runs the tests in the background has SIGINT ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ) as app:  # fmt: skip
            try:
                address = app.stdout.readline().split()[0]
                assert upload(address, "a.png", PORTRAIT.read_bytes())[0] == 200
                assert len(list(places.glob(f"{PREFIX}*"))) == 1, "that of a killed one is gone"
                begun = time.monotonic()
                app.send_signal(number)
                out, error = app.communicate(timeout=60)
            finally:
                app.kill()  # nothing where it has ended
            assert (app.returncode, out, error) == (status, "", "")
            assert time.monotonic() - begun < 30
        left = len(list(places.glob(f"{PREFIX}*")))
        assert left == (number == signal.SIGKILL)
    assert [path.name for path in tmp_path.iterdir()] == ["tmp"], "nothing where it was started"
