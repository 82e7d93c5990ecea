"""The page: what a user sees of ``choices`` and ``work``. Gradio is imported by ``build`` alone.

Annotations are no strings here: gradio reads those of its handlers to see which of them want the request.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from iagan_lightning.app.choices import (
    CHOICES,
    CHOSEN_BY_FACE,
    EXAMPLES,
    SCALES,
    Job,
    finds_faces,
    prior_named,
    priors,
)
from iagan_lightning.app.folder import remove_older
from iagan_lightning.app.framed import framed
from iagan_lightning.app.job import Outcome
from iagan_lightning.app.showing import fitted, intact, paragraphs, picture_of, problem, waiting
from iagan_lightning.app.watch import StoppedError
from iagan_lightning.app.work import Desk, Waiting
from iagan_lightning.data.images import to_pillow
from iagan_lightning.photo.picture import know_heic, read_photograph
from iagan_lightning.results.files import as_json, write_bytes, write_text
from iagan_lightning.safety import printable

CANVAS = 512  # pixels of what is drawn on
DAY = 86400.0
STAY = 5.0  # seconds after which a page that is gone is noticed
PAGES = 1000  # that may be open
TAKEN = "The picture as it is taken"
BEGIN = "Drop a picture, or choose an example."
NOISE = "Noise: standard deviation, in levels of 255"
CSS = """
.gradio-container { max-width: 1180px !important; min-width: min(1180px, 100%); margin: 0 auto; }
.or, .min_value, .max_value { color: inherit !important; }
.said { font-size: 1rem; line-height: 1.5; }
.said p { margin: 0.2rem 0; }
.said .problem { color: #b00020; font-weight: 600; }
.dark .said .problem { color: #ff8a80; }
.said img { width: 100%; max-width: 512px; image-rendering: pixelated; border-radius: 4px; }
"""
EXAMPLE_NAMES = {"astronaut": "Astronaut", "grace_hopper": "Grace Hopper"}


def build(desk: Desk, folder: Path, prior: str | None = None) -> Any:
    """Return the page, a ``gradio.Blocks``.

    Args:
        desk: which does what is asked for.
        folder: where results are written; gradio knows it as its own (``GRADIO_TEMP_DIR``).
        prior: name or file, the first to choose from.
    """
    import gradio as gr

    know_heic()
    names = priors(prior)
    first = "photo" if finds_faces() else "super-resolution"

    def knows(task: str, how: str) -> bool:
        return CHOICES[task].known and (how == "known" or not CHOICES[task].own)

    # What a user can choose is the same all the time, shown or not: a click may come before the page has followed the
    # last one, and gradio refuses a choice that it has taken away.
    def ways(task: str) -> list[tuple[str, str]]:
        return [
            (f"It is {CHOICES[task].own}", "own"),
            ("It is good: degrade it first, to see how it comes back", "known"),
        ]

    def settings(task: str, how: str) -> tuple[Any, ...]:
        """Show the settings of a task."""
        choice, known = CHOICES[task], knows(task, how)
        noise = NOISE + "; 0: estimate it" * (task == "denoising" and not known)
        level = choice.defaults.get("noise", 0.0) if known else 0.0
        return (
            gr.update(choices=ways(task), value=how, visible=bool(choice.own) and choice.known),
            gr.update(visible=task == "photo"),
            gr.update(visible=task == "super-resolution" and known),
            gr.update(visible=choice.shows("ratio", known)),
            gr.update(visible=choice.shows("width", known)),
            gr.update(value=level, label=noise, visible=choice.shows("noise", known)),
        )

    def by_task(task: str, example: bool) -> tuple[Any, ...]:
        """Show the settings of another task: an example is a good picture, any other one the user's problem."""
        return settings(task, "known" if example else "own")

    def job_of(
        file: str | None, task: str, how: str, prior: str, times: int, by: int, ratio: float, width: float,
        noise: float, align: bool, best: bool, seed: float,
    ) -> Job:  # fmt: skip
        if not file:
            raise ValueError("no picture yet: drop one, or choose an example")
        path = Path(file)
        return Job(
            task, path, printable(path.stem), prior or (CHOSEN_BY_FACE if task == "photo" else names[0]),
            knows(task, how), times if task == "photo" else by, ratio, width, noise or 0.0, None, align,
            "best" if best else "fast", int(seed or 0),
        )  # fmt: skip

    def look(*given: Any) -> tuple[Any, ...]:
        """Show the picture as it will be taken, to be drawn on where that is asked for."""
        nothing = gr.update(value=None, visible=False)
        if not given[0]:
            return "", nothing, paragraphs([BEGIN])
        try:
            job = job_of(*given)
            if job.task == "photo":
                height, width = (photograph := read_photograph(job.picture)).size
                said = f"A photograph of {width} x {height} pixels."
                picture = to_pillow(photograph.pixels * 2 - 1)
                return picture_of(picture, TAKEN), nothing, paragraphs([said])
            ready = framed(job)
        except (OSError, ValueError, MemoryError) as error:
            return "", nothing, problem(error)
        said = ready.remark or f"A picture of {ready.x.shape[2]} x {ready.x.shape[1]} pixels, taken as it is."
        picture = to_pillow(ready.x).convert("RGB")
        if job.task != "inpainting":
            return picture_of(picture, TAKEN), nothing, paragraphs([said])
        ground = picture.resize((CANVAS, CANVAS), Image.Resampling.NEAREST)
        drawn = {"background": ground, "layers": [], "composite": ground}
        return "", gr.update(value=drawn, visible=True), paragraphs([said, "Draw over what is to be filled in."])

    def run(request: gr.Request, drawn: Any, *given: Any) -> Iterator[dict[Any, Any]]:
        """Do what was chosen, and show how it forms."""
        # Each of them says everything: where the browser is busy, gradio's page overwrites those that it has not shown.
        begun = {go: gr.update(interactive=False), halt: gr.update(interactive=True), results: gr.update(visible=False)}
        ended = {go: gr.update(interactive=True), halt: gr.update(interactive=False), live: ""}
        yield {**begun, status: paragraphs(["Beginning."]), live: ""}
        remove_older(folder, DAY)
        try:
            job = job_of(*given)
            if job.task == "inpainting":
                size = prior_named(job.prior).image_shape[1:]
                job = replace(job, mask=intact((drawn or {}).get("layers") or [], size))
            for news in desk.work(str(request.session_hash), job):
                if isinstance(news, Outcome):
                    yield {**ended, **shown(job, news)}
                elif isinstance(news, Waiting):
                    yield {**begun, status: paragraphs([waiting(news.before)]), live: ""}
                else:
                    now = "" if news.image is None else picture_of(news.image, "The reconstruction as it forms")
                    yield {**begun, status: paragraphs([news.text or "Preparing the prior."]), live: now}
        except StoppedError:
            yield {**ended, status: paragraphs(["Stopped. Nothing was kept; all settings are as they were."])}
        except Exception as error:  # whatever it is, the page stays usable
            yield {**ended, status: problem(error)}

    def shown(job: Job, outcome: Outcome) -> dict[Any, Any]:
        place = folder / "results" / secrets.token_hex(8)
        place.mkdir(parents=True)
        of_result, of_metrics = place / f"{job.name}_iagan.png", place / f"{job.name}.iagan.json"
        write_bytes(of_result, outcome.png)
        write_text(of_metrics, as_json(outcome.record))
        after = fitted(outcome.after)
        before = outcome.before.convert("RGB").resize(after.size, Image.Resampling.NEAREST)
        return {
            status: paragraphs(["Done."]),
            results: gr.update(visible=True),
            slider: (before, after),
            words: paragraphs(outcome.words),
            extra: paragraphs([outcome.about]) + picture_of(outcome.extra, outcome.about),
            get_picture: gr.update(value=str(of_result)),
            get_metrics: gr.update(value=str(of_metrics)),
        }

    def stop(request: gr.Request) -> None:
        desk.stop(str(request.session_hash))

    # Gradio closes the stream of a page's answers with the last one that is due. A click at that very moment is taken,
    # and its answers go where nobody listens; an answer that is always due keeps the stream open.
    async def stay() -> AsyncIterator[None]:
        while True:
            await asyncio.sleep(STAY)
            yield

    with gr.Blocks(title="iagan", analytics_enabled=False) as page:
        example = gr.State(False)
        gr.Markdown(
            "# iagan\nReconstruct a picture with a prior that adapts itself to it. Nothing leaves this machine."
        )
        with gr.Row():
            with gr.Column():
                file = gr.File(label="Picture", type="filepath", height=120)
                with gr.Row():
                    examples = [
                        (gr.Button(f"Example: {EXAMPLE_NAMES.get(path.stem, path.stem)}", size="sm"), path)
                        for path in sorted(EXAMPLES.glob("*.png"))
                    ]
                task = gr.Dropdown(
                    [(choice.label, name) for name, choice in CHOICES.items()], value=first, label="What to do"
                )
                how = gr.Radio(ways(first), value="own", label="The picture", visible=CHOICES[first].known)
                chosen = "For a photograph the best for each face" + (f", else {names[0]}" if not prior else "")
                which = gr.Dropdown(
                    [
                        *([] if prior else [(chosen, CHOSEN_BY_FACE)]),
                        *((printable(Path(name).name), name) for name in names),
                    ],
                    value=prior or CHOSEN_BY_FACE,
                    label="Prior",
                )
                times = gr.Radio(
                    [(f"{scale} times", scale) for scale in SCALES["photo"]], value=CHOICES["photo"].defaults["scale"],
                    label="Enlarge it", visible=first == "photo",
                )  # fmt: skip
                by = gr.Radio(
                    [(f"{scale} times", scale) for scale in SCALES["super-resolution"]], label="Make it smaller first",
                    value=CHOICES["super-resolution"].defaults["scale"], visible=False,
                )  # fmt: skip
                ratio = gr.Slider(
                    0.05, 0.9, 0.3, step=0.05, label="Part of the frequencies that is measured", visible=False
                )
                width = gr.Slider(
                    0.5, 4, 2, step=0.25, label="Width of the blur: standard deviation, in pixels", visible=False
                )
                noise = gr.Slider(0, 75, 0, step=1, label=NOISE, visible=first != "photo")
                with gr.Accordion("More settings", open=False):
                    align = gr.Checkbox(
                        finds_faces(), label="Cut out the face as the prior knows it", interactive=finds_faces()
                    )
                    best = gr.Checkbox(False, label="Two views: better, tells how sure it is, twice the time")
                    seed = gr.Number(0, label="Seed of all random numbers", precision=0, minimum=0)
                with gr.Row():
                    go = gr.Button("Reconstruct", variant="primary")
                    halt = gr.Button("Stop", variant="stop", interactive=False)
            with gr.Column():
                taken = gr.HTML(paragraphs([BEGIN]), elem_classes="said", elem_id="taken")
                preview = gr.HTML(elem_classes="said")
                editor = gr.ImageEditor(
                    label=f"{TAKEN}, to be drawn on", type="pil", sources=(), transforms=(),
                    brush=gr.Brush(default_size=32, colors=["#e60000"], color_mode="fixed"), layers=False,
                    visible=False, canvas_size=(CANVAS, CANVAS), buttons=[], format="png",
                )  # fmt: skip
                status = gr.HTML(elem_classes="said", elem_id="status")
                live = gr.HTML(elem_classes="said")
                with gr.Column(visible=False) as results:
                    slider = gr.ImageSlider(label="Input and result", format="png", interactive=False, buttons=[])
                    words = gr.HTML(elem_classes="said", elem_id="words")
                    with gr.Row():
                        get_picture = gr.DownloadButton("Download the picture")
                        get_metrics = gr.DownloadButton("Download the metrics")
                    extra = gr.HTML(elem_classes="said")
        gr.Markdown("A result shows what is likely, not what was there. Do not use it to tell who somebody is.")

        given = [file, task, how, which, times, by, ratio, width, noise, align, best, seed]
        shown_settings = [how, times, by, ratio, width, noise]
        looked = [preview, editor, taken]
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        task.input(by_task, [task, example], shown_settings, **private).then(look, given, looked, **private)
        how.input(settings, [task, how], shown_settings, **private).then(look, given, looked, **private)
        file.upload(lambda: False, None, example, **private)
        gr.on([file.change, which.input, align.input], look, given, looked, **private, trigger_mode="always_last")
        for button, path in examples:
            button.click(lambda path=path: (str(path), True), None, [file, example], **private).then(
                by_task, [task, example], shown_settings, **private
            ).then(look, given, looked, **private)
        outputs = [status, live, slider, words, extra, get_picture, get_metrics, results, go, halt]
        go.click(
            run, [editor, *given], outputs, **private, concurrency_limit=2 * desk.line.longest, trigger_mode="once"
        )
        halt.click(stop, None, None, **private, queue=False)
        page.load(stay, None, None, **private, concurrency_limit=None)
        page.unload(stop)
    page.max_threads = PAGES  # places at the queue, of which each open page takes one; threads are begun as needed
    page.queue(default_concurrency_limit=4, max_size=8 * desk.line.longest)
    return page
