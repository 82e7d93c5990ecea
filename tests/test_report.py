"""``iagan report``: the page in a real browser, made from real runs on tiny settings."""

import csv
import json
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image

from iagan_lightning.cli import main
from iagan_lightning.results.page.collect import collect, read_curves

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

    def visit(path, width=1280, **settings):
        settings = {"reduced_motion": "reduce", **settings}
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **settings)
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


def split(page):
    """Return how much of the slider the left picture fills, in percent."""
    cut = page.locator("#detail .slider .over").evaluate("e => getComputedStyle(e).clipPath")
    return float(cut.rstrip(")").split()[-1].rstrip("px%"))


def letters(page):
    """Return the heights of the letters of all charts, and fail where a chart is wider than its place."""
    return page.locator("svg.chart").evaluate_all(
        """all => all.map(e => {
            if (e.getBoundingClientRect().right > e.closest('.panel').getBoundingClientRect().right) throw 'too wide';
            return 11 * e.getScreenCTM().a;
        })"""
    )


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


@pytest.mark.parametrize("given", ["exact/", "./exact", "exact//."])
def test_however_a_folder_is_written_its_page_is_the_same(outs, monkeypatch, given):
    monkeypatch.chdir(outs)
    pages = []
    for folder in ("exact", given):
        assert main(["report", folder]) == 0
        pages.append((outs / "exact" / "report.html").read_bytes())
    assert pages[0] == pages[1]
    assert b"images/a/iagan.png" in pages[0]


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
        ([], "report needs folders"),
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
    assert page.locator("#table th[aria-sort]").evaluate_all("all => all.map(e => e.ariaSort)") == ["ascending"]
    page.locator("#table th[data-column='0'] button").focus()
    page.keyboard.press("Enter")
    assert column(page, 1) == sorted(column(page, 1), key=str.lower)
    page.keyboard.press("Space")
    assert column(page, 1) == sorted(column(page, 1), key=str.lower, reverse=True)
    assert page.locator("#table th[aria-sort]").get_attribute("data-column") == "0"
    assert page.locator("#table th[aria-sort]").get_attribute("aria-sort") == "descending"

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
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 20)
    page.mouse.up()
    at = split(page)
    assert 75 < at < 85
    page.keyboard.press("ArrowLeft")
    assert at - 12 < split(page) < at, "the handle moves by the keyboard"
    page.keyboard.press("Home")
    assert split(page) == 0

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


def test_the_address_names_the_open_picture(outs, visit, tmp_path):
    """Opening is one step of the history: back closes, forward opens again, a link opens the same picture."""
    path = tmp_path / "both.html"
    assert main(["report", str(outs / "exact"), str(outs / "noisy"), "--out", str(path)]) == 0
    page = visit(path)
    dialog = page.locator("#detail")
    page.get_by_role("button", name=f"{NAMES[1]}, CSGM", exact=True).first.click()
    first = page.url
    page.get_by_label("Run", exact=True).select_option("1")
    page.get_by_label("Right picture").select_option("iagan")
    linked = page.url
    assert linked != first
    dialog.get_by_label("Next image").click()
    assert page.url != linked
    page.go_back()
    assert not dialog.is_visible()
    assert "#" not in page.url
    page.go_forward()
    assert dialog.is_visible()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    page.wait_for_function("location.hash === ''")

    other = visit(path)
    other.goto(linked)
    other.reload()
    assert other.locator("#detail h3").first.inner_text() == NAMES[1]
    assert other.get_by_label("Run", exact=True).input_value() == "1"
    assert other.get_by_label("Right picture").input_value() == "iagan"
    other.get_by_label("Close").click()
    other.wait_for_function("location.hash === ''")
    other.evaluate("name => { location.hash = new URLSearchParams({ image: name }); }", HOSTILE)
    assert other.locator("#detail h3").first.inner_text() == HOSTILE
    other.evaluate("location.hash = 'image=of+another+run'")
    other.locator("#detail").wait_for(state="hidden")
    assert other.evaluate("window.hacked") is None


def test_one_image_by_the_keyboard(outs, visit):
    assert main(["report", str(outs / "exact")]) == 0
    page = visit(outs / "exact" / "report.html")
    opener = page.get_by_role("button", name="a, IAGAN", exact=True)
    opener.focus()
    page.keyboard.press("Enter")
    names = []
    page.get_by_label("Next image").focus()
    for _ in NAMES:
        names.append(page.locator("#detail h3").first.inner_text())
        page.keyboard.press("Enter")  # the button keeps the focus from image to image
    assert sorted(names) == sorted(NAMES)
    assert page.locator("#detail h3").first.inner_text() == names[0]
    page.keyboard.press("ArrowLeft")
    assert page.locator("#detail h3").first.inner_text() == names[-1]

    zoomed = page.locator("#detail .compare .cell:not(.whole):not(.error) img").first
    before = zoomed.evaluate("e => e.style.transformOrigin")
    page.get_by_label("Place of the detail").focus()
    page.keyboard.press("ArrowRight")
    assert zoomed.evaluate("e => e.style.transformOrigin") != before
    assert page.locator("#detail h3").first.inner_text() == names[-1], "the arrows belong to what has the focus"
    page.keyboard.press("Escape")
    assert not page.locator("#detail").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_that_axe_complains_of(outs, visit, tmp_path, width, scheme):
    """Names, alternative texts, headings, contrast and the keyboard, for the page and for an open picture."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe: pip install '.[test]'").Axe()
    path = tmp_path / "both.html"
    assert main(["report", str(outs / "exact"), str(outs / "noisy"), "--out", str(path)]) == 0
    assert main(["report", str(outs / "exact")]) == 0
    for file in (path, outs / "exact" / "report.html"):
        page = visit(file, width, color_scheme=scheme)
        for picture in (False, True):
            if picture:
                page.locator("article figure button").last.click()
                loaded(page, "#detail img")
            found = axe.run(page)
            assert len(found.response["passes"]) > 10
            assert found.response["violations"] == [], found.generate_report()


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


def test_the_slider_follows_a_finger(outs, visit):
    assert main(["report", str(outs / "exact")]) == 0
    page = visit(outs / "exact" / "report.html", width=390, has_touch=True, is_mobile=True)
    page.locator("article figure button").last.tap()
    box = page.locator("#detail .slider").bounding_box()
    y = box["y"] + 40
    finger = page.context.new_cdp_session(page)
    for kind, share in (("touchStart", 0.5), ("touchMove", 0.4), ("touchMove", 0.25), ("touchEnd", None)):
        points = [] if share is None else [{"x": box["x"] + share * box["width"], "y": y}]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert 20 < split(page) < 30


def test_links_lead_to_the_files_from_wherever_the_page_is(outs, visit, tmp_path):
    path = tmp_path / "pages" / "of mine #1" / "both.html"
    assert main(["report", str(outs / "exact"), str(outs / "noisy"), "--out", str(path)]) == 0
    page = visit(path)
    targets = page.locator("#settings .links a").evaluate_all("all => all.map(e => e.href)")
    page.locator("article figure button").first.click()
    targets += page.locator("#detail .links a").evaluate_all("all => all.map(e => e.href)")
    assert len(targets) > 2 * 6 + 8
    for target in targets:
        assert Path(unquote(urlsplit(target).path)).resolve().is_relative_to(outs.resolve())
        assert Path(unquote(urlsplit(target).path)).exists(), target


@pytest.mark.parametrize("width", [390, 800, 1400])
def test_letters_of_charts_keep_their_size(outs, visit, width):
    assert main(["report", str(outs / "exact")]) == 0
    page = visit(outs / "exact" / "report.html", width)
    assert letters(page) == [11] * 4
    page.set_viewport_size({"width": 360, "height": 900})
    page.wait_for_timeout(300)
    assert letters(page) == [11] * 4
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_what_the_page_calls_best(outs, visit):
    """Residuals of rounding are alike; with noise the smallest residual is none to be proud of."""
    best = "all => all.filter(e => e.matches('.best')).map(e => e.cellIndex + ' ' + e.parentNode.cells[0].innerText)"
    for name, expected in {"exact": {"11 CSGM-BP", "11 IAGAN-BP"}, "noisy": set()}.items():
        assert main(["report", str(outs / name)]) == 0
        page = visit(outs / name / "report.html")
        bold = set(page.locator("#table td").evaluate_all(best))
        psnr = {row["method"]: row["psnr"]["mean"] for row in page.evaluate("data.summary")}
        assert f"2 {page.evaluate('data.methods')[max(psnr, key=psnr.get)]}" in bold
        residual = page.evaluate("2 + 3 * data.metrics.findIndex(metric => metric.key === 'residual')")
        assert {cell for cell in bold if cell.startswith(f"{residual} ")} == {
            f"{residual} {cell.split()[1]}" for cell in expected
        }


def test_a_run_may_call_a_method_by_another_title(outs, tmp_path):
    for name, title in (("official", "DIP"), ("short", "DIP (short)")):
        folder = tmp_path / name / "images" / "a"
        shutil.copytree(outs / "exact" / "images" / "a", folder)
        record = json.loads((folder / "metrics.json").read_text())
        record["methods"]["dip"] = record["methods"]["csgm"]
        (folder / "metrics.json").write_text(json.dumps({**record, "titles": {"dip": title}}))
    short, official = (collect([tmp_path / name], tmp_path / "page.html") for name in ("short", "official"))
    assert (short["methods"]["dip"], official["methods"]["dip"]) == ("DIP (short)", "DIP")
    assert short["titles"]["dip"] == "DIP (short)"
    both = collect([tmp_path / "official", tmp_path / "short"], tmp_path / "page.html")
    assert both["methods"]["dip"] == "DIP / DIP (short)"


def test_without_truth(outs, visit):
    assert main(["report", str(outs / "blind")]) == 0
    page = visit(outs / "blind" / "report.html")
    assert page.locator("#table thead").inner_text().count("Residual") == 1
    assert "PSNR" not in page.locator("#table").inner_text()
    assert page.locator("#distributions svg.chart").count() == 1
    assert page.locator("#curves svg.chart").count() == 2
    page.locator("article figure button").last.click()
    assert page.locator("#detail .cell.error").count() == 0
    assert "truth" not in page.locator("#detail").inner_text()
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
    page.keyboard.press("Escape")
    page.locator("nav a", has_text="Images").click()
    page.locator("article").nth(9).scroll_into_view_if_needed()
    page.locator("article").nth(9).locator("figure button").first.click()
    place = page.evaluate("scrollY")
    page.go_back()
    page.locator("#detail").wait_for(state="hidden")
    page.wait_for_timeout(300)
    assert page.evaluate("scrollY") == place, "back at the picture, not at the head of the section"
    page.set_viewport_size({"width": 390, "height": 900})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "wider than a phone"
