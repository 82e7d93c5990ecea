"""``iagan report``: the page in a real browser, made from real runs on tiny settings."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from iagan_lightning.cli import main
from iagan_lightning.page.collect import collect, read_curves

HOSTILE = "<img src=x onerror=window.hacked=1>"
NAMES = ("a", "b #1%3F &amp; 'c\"", HOSTILE)


@pytest.fixture(scope="module")
def outs(tiny_weights, tmp_path_factory):
    """Two runs over pictures with hostile names, and one over measurements without truth."""
    place = tmp_path_factory.mktemp("report")
    for i, name in enumerate(NAMES):
        for folder, size in (("pictures", 16), ("small", 4)):
            (place / folder).mkdir(exist_ok=True)
            pixels = np.random.default_rng(i).integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / folder / f"{name}.png")
    (place / "pictures" / "broken.png").write_text("no picture")
    common = ["super-resolution", "--model.generator", str(tiny_weights), "--lpips", "none", "--tensorboard", "0"]
    common += ["--model.latent.steps", "6", "--model.joint.steps", "4", "--trainer.accelerator", "cpu"]
    runs = {
        "exact": (1, "--data.root", place / "pictures"),
        "noisy": (1, "--data.root", place / "pictures", "--noise_std", "20/255"),
        "blind": (0, "--data.measurements", place / "small"),
    }
    for name, (status, *own) in runs.items():
        assert main([*common, *map(str, own), "--out", str(place / name)]) == status
    return place


@pytest.fixture
def visit(browser):
    """Open a page without a network; whatever it complains of fails the test."""
    complaints, contexts = [], []

    def visit(path, width=1280):
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.resolve().as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []


def column(page, place):
    return page.locator(f"#table tbody tr > :nth-child({place})").all_inner_texts()


def loaded(page, where):
    """Return how many pictures there are, all of them loaded."""
    page.wait_for_function(
        "where => [...document.querySelectorAll(where)].every(e => { e.loading = 'eager'; return e.complete; })",
        arg=where,
    )
    widths = page.locator(where).evaluate_all("all => all.map(e => e.naturalWidth)")
    assert all(widths), widths
    return len(widths)


# On disk ---------------------------------------------------------------------------------------------------------


def test_curves_tell_the_way_to_the_result(outs):
    folder = outs / "exact" / "images" / "a"
    rows = list(csv.DictReader((folder / "curves.csv").read_text().splitlines()))
    assert [row["stage"] for row in rows] == ["latent"] * 6 + ["joint"] * 4
    assert [int(row["evaluation"]) for row in rows] == list(range(10))
    record = json.loads((folder / "metrics.json").read_text())
    for stage in ("latent", "joint"):
        lowest = min(float(row["objective"]) for row in rows if row["stage"] == stage)
        assert lowest == pytest.approx(record["objective"][stage], rel=1e-3)
    best = min((row for row in rows if row["stage"] == "joint"), key=lambda row: float(row["objective"]))
    assert float(best["psnr"]) == pytest.approx(record["methods"]["iagan"]["psnr"], abs=1e-2)
    assert float(best["residual"]) == pytest.approx(record["methods"]["iagan"]["residual"], rel=1e-3)
    blind = list(csv.DictReader((outs / "blind" / "images" / "a" / "curves.csv").read_text().splitlines()))
    assert set(blind[0]) == {"evaluation", "stage", "objective", "residual"}


def test_long_curves_are_thinned_out_and_keep_their_ends(tmp_path):
    path = tmp_path / "curves.csv"
    lines = [f"{i},{'latent' if i < 1600 else 'joint'},{1 / (i + 1)},nan" for i in range(2100)]
    path.write_text("\n".join(["evaluation,stage,objective,residual", *lines]))
    curves = read_curves(path)
    assert curves["stages"] == [["latent", 0], ["joint", 1600]]
    assert {0, 1599, 1600, 2099} <= set(curves["evaluation"])
    assert len(curves["objective"]) == len(curves["evaluation"]) < 150
    assert set(curves["residual"]) == {None}
    path.write_text("something else")
    assert read_curves(path) is None


def test_environment_is_recorded(outs):
    recorded = json.loads((outs / "exact" / "environment.json").read_text())
    assert {"iagan-lightning", "python", "torch", "cpu threads", "gpus"} <= set(recorded)


def test_the_table_is_that_of_the_run(outs):
    shown = {row["method"]: row for row in collect([outs / "exact"], outs / "page.html")["summary"]}
    summary = json.loads((outs / "exact" / "summary.json").read_text())["methods"]
    assert set(shown) == set(summary)
    for method, row in shown.items():
        assert row["n"] == 3
        for metric in ("psnr", "residual"):
            assert row[metric] == pytest.approx(summary[method][metric])


def test_a_shortened_baseline_is_called_so(outs, tmp_path):
    runs = [tmp_path / "short", tmp_path / "full"]
    for run, title in zip(runs, ("DIP (short)", "DIP"), strict=True):
        shutil.copytree(outs / "exact", run)
        for path in run.rglob("metrics.json"):
            record = json.loads(path.read_text())
            record["methods"]["dip"] = record["methods"]["csgm"]
            path.write_text(json.dumps({**record, "titles": {"dip": title} if "short" in title else {}}))
    page = tmp_path / "page.html"
    for folders, title in ((runs[:1], "DIP (short)"), (runs[1:], "DIP"), (runs, "DIP / DIP (short)")):
        shown = collect(folders, page)
        assert (shown["methods"]["dip"], shown["titles"]["dip"]) == (title, title)
        assert shown["titles"]["truth"] == "truth"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such folder: nowhere"),
        (["EMPTY"], "holds no finished image"),
        (["OUT", "--out", "page.png"], "ending in .html"),
        (["OUT", "OUT"], "the same folder was given twice"),
        (["DAMAGED"], "metrics.json is damaged"),
        ([], "arguments are required"),
    ],
)
def test_bad_input(outs, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged" / "images" / "a").mkdir(parents=True)
    (tmp_path / "damaged" / "images" / "a" / "metrics.json").write_text("{")
    places = {"OUT": outs / "exact", "EMPTY": tmp_path / "empty", "DAMAGED": tmp_path / "damaged"}
    assert main(["report", *(str(places.get(argument, argument)) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


# In a browser ----------------------------------------------------------------------------------------------------


def test_one_run(outs, visit, capsys):
    assert main(["report", str(outs / "exact")]) == 0
    path = outs / "exact" / "report.html"
    assert f"written: {path}" in capsys.readouterr().out
    page = visit(path)
    assert page.title() == "exact"
    assert page.evaluate("window.hacked") is None, "a name became markup"
    assert HOSTILE in page.locator("#list article h3").all_text_contents()
    assert loaded(page, "article img") == 3 * 7
    assert "UnidentifiedImageError" in page.locator("#failed").inner_text()

    psnr = page.locator("#table th[data-column='2'] button")
    psnr.click()
    falling = [float(text) for text in column(page, 3)]
    assert falling == sorted(falling, reverse=True)
    psnr.click()
    assert [float(text) for text in column(page, 3)] == sorted(falling)
    page.locator("#table th[data-column='0'] button").click()
    assert column(page, 1) == sorted(column(page, 1), key=str.lower)

    scores = {
        name: json.loads((outs / "exact" / "images" / name / "metrics.json").read_text())["methods"]["iagan_bp"]["psnr"]
        for name in NAMES
    }
    names = page.locator("#list article h3")
    assert names.all_text_contents() == sorted(scores, key=scores.get), "worst first"
    page.get_by_label("Order").select_option("best")
    assert names.all_text_contents() == sorted(scores, key=scores.get, reverse=True)
    page.get_by_label("Filter by name").fill("ONERROR")
    assert names.all_text_contents() == [HOSTILE]
    assert page.locator("#distributions circle").count() == 3 * 5
    assert page.locator("#curves path").count() == 3 * 3


def test_one_image(outs, visit):
    assert main(["report", str(outs / "exact")]) == 0
    page = visit(outs / "exact" / "report.html")
    page.get_by_role("button", name=f"{NAMES[1]}, CSGM-BP").click()
    dialog = page.locator("#detail")
    assert dialog.locator("h3").first.inner_text() == NAMES[1]
    assert page.get_by_label("Right picture").input_value() == "csgm_bp"
    assert loaded(page, "#detail img") == 2 + 7 + 7 + 2 * 5

    box = dialog.locator(".slider").bounding_box()
    over = dialog.locator(".slider .over")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 20)
    page.mouse.up()
    cut = over.evaluate("e => getComputedStyle(e).clipPath")
    assert 75 < float(cut.split()[-1].rstrip("%)")) < 85, cut

    zoomed = dialog.locator(".compare .cell:not(.whole):not(.error) img").first
    dialog.locator(".cell.whole").first.click(position={"x": 2, "y": 2})
    assert zoomed.evaluate("e => e.style.transformOrigin").startswith("0%")

    links = dialog.locator(".links a")
    assert {"truth.png", "iagan_bp.png", "metrics.json", "curves.csv"} <= set(links.all_inner_texts())
    for target in links.evaluate_all("all => all.map(e => decodeURIComponent(new URL(e.href).pathname))"):
        assert (outs / "exact" / "images" / NAMES[1]).samefile(target.rpartition("/")[0])
    dialog.get_by_label("Next image").click()
    assert dialog.locator("h3").first.inner_text() != NAMES[1]
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_errors_are_dark_where_there_are_none(outs, visit, tmp_path):
    """The error map is made by the browser: of a picture that is the truth it is black, of its opposite bright."""
    run = tmp_path / "run"
    shutil.copytree(outs / "exact" / "images" / "a", run / "images" / "a")
    with Image.open(run / "images" / "a" / "truth.png") as truth:
        pixels = np.asarray(truth)
    Image.fromarray(pixels).save(run / "images" / "a" / "iagan.png")
    Image.fromarray(np.where(pixels < 128, 255, 0).astype(np.uint8)).save(run / "images" / "a" / "iagan_bp.png")
    assert main(["report", str(run)]) == 0
    page = visit(run / "report.html")
    page.get_by_role("button", name="a, IAGAN", exact=True).click()
    loaded(page, "#detail img")
    mean = {}
    for name in ("IAGAN", "IAGAN-BP"):
        cell = page.get_by_label(f"Error of {name}", exact=True)
        cell.screenshot(path=tmp_path / "cell.png")
        with Image.open(tmp_path / "cell.png") as picture:
            inner = np.asarray(picture.convert("RGB"))[10:-10, 10:-10]
        mean[name] = inner.mean()
    assert mean["IAGAN"] < 6
    assert mean["IAGAN-BP"] > 200


def test_several_runs_beside_each_other(outs, visit, tmp_path):
    path = tmp_path / "both.html"
    assert main(["report", str(outs / "exact"), str(outs / "noisy"), "--out", str(path)]) == 0
    page = visit(path, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "wider than a phone"
    assert len(column(page, 1)) == 5 + 3
    assert set(column(page, 2)) == {"exact", "noisy"}
    assert page.locator("article").count() == 3
    assert loaded(page, "article img") == 3 * (7 + 5)
    page.locator("article figure button").first.click()
    page.get_by_label("Run", exact=True).select_option("1")
    assert loaded(page, "#detail img") == 2 + 5 + 5 + 2 * 3


def test_without_truth(outs, visit):
    assert main(["report", str(outs / "blind")]) == 0
    page = visit(outs / "blind" / "report.html")
    assert page.locator("#table thead").inner_text().count("Residual") == 1
    assert "PSNR" not in page.locator("#table").inner_text()
    assert page.locator("#distributions svg.chart").count() == 1
    assert page.locator("#curves svg.chart").count() == 2
    page.locator("article figure button").last.click()
    assert page.locator("#detail .cell.error").count() == 0
    assert loaded(page, "#detail img") == 2 + 6 + 6


def test_many_images_are_made_as_they_are_needed(outs, visit, tmp_path):
    """As many as need thumbnails: links carry the full size, cards appear when one scrolls to them."""
    run = tmp_path / "many"
    for i in range(60):
        folder = run / "images" / f"{i:03d}"
        folder.mkdir(parents=True)
        shutil.copy(outs / "exact" / "images" / "a" / "metrics.json", folder)
        for name in ("truth", "iagan_bp"):
            Image.fromarray(np.full((160, 160, 3), 4 * i, np.uint8)).save(folder / f"{name}.png")
    assert main(["report", str(run)]) == 0
    page = visit(run / "report.html")
    assert page.evaluate("data.exact") is False
    before = page.locator("article").count()
    assert before < 30
    page.locator("article").last.scroll_into_view_if_needed()
    page.wait_for_function("before => document.querySelectorAll('article').length > before", arg=before)
    page.locator("article figure button").first.click()
    assert loaded(page, "#detail img") > 0
    sizes = page.locator("#detail .slider img").evaluate_all("all => all.map(e => [e.naturalWidth, e.src.slice(0, 5)])")
    assert sizes == [[160, "file:"]] * 2
