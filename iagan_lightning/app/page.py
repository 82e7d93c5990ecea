"""The page: what a user sees of ``choices`` and ``work``. Gradio is imported by ``build`` alone.

Annotations are no strings here: gradio reads those of its handlers to see which of them want the request.
"""

import secrets
from collections.abc import Iterator
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
BEGIN = "Drop a picture, or choose an example."
NOISE = "Noise: standard deviation, in levels of 255"
CSS = """
.gradio-container { max-width: 1180px !important; min-width: min(1180px, 100%); margin: 0 auto; }
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

    def settings(task: str, how: str, chosen: str) -> tuple[Any, ...]:
        """Show the settings of a task with their defaults."""
        choice, known = CHOICES[task], knows(task, how)
        ways = [(f"It is {choice.own}", "own")] if choice.own else []
        ways += [("It is good: degrade it first, to see how far it comes back", "known")] if choice.known else []
        given = choice.defaults.get
        by_face = [("the best for each face", CHOSEN_BY_FACE)] if task == "photo" else []
        kept = chosen if chosen in names and (task != "photo" or prior) else ""
        scales = SCALES.get(task, (2,))
        return (
            gr.update(choices=ways, value="known" if known else "own", visible=len(ways) > 1),
            gr.update(
                choices=[*by_face, *((printable(Path(name).name), name) for name in names)],
                value=kept or (prior or CHOSEN_BY_FACE if by_face else names[0]),
            ),
            gr.update(
                choices=[(f"{scale} times", scale) for scale in scales],
                value=given("scale", scales[0]),
                visible=choice.shows("scale", known),
            ),
            gr.update(visible=choice.shows("ratio", known)),
            gr.update(visible=choice.shows("width", known)),
            gr.update(
                value=given("noise", 0.0) if known else 0.0,
                label=NOISE + "; 0: estimate it" * (task == "denoising" and not known),
                visible=choice.shows("noise", known),
            ),
        )

    def job_of(
        file: str | None, task: str, how: str, prior: str, scale: int, ratio: float, width: float, noise: float,
        align: bool, best: bool, seed: float,
    ) -> Job:  # fmt: skip
        if not file:
            raise ValueError("no picture yet: drop one, or choose an example")
        path = Path(file)
        return Job(
            task, path, printable(path.stem), prior, knows(task, how), int(scale or 2), float(ratio), float(width),
            float(noise or 0), None, bool(align), "best" if best else "fast", int(seed or 0),
        )  # fmt: skip

    def look(*given: Any) -> tuple[Any, ...]:
        """Show the picture as it will be taken, to be drawn on where that is asked for."""
        nothing = gr.update(value=None, visible=False)
        if not given[0]:
            return nothing, nothing, paragraphs([BEGIN])
        try:
            job = job_of(*given)
            if job.task == "photo":
                height, width = (photograph := read_photograph(job.picture)).size
                said = f"A photograph of {width} x {height} pixels."
                picture = to_pillow(photograph.pixels * 2 - 1)
                return gr.update(value=fitted(picture), visible=True), nothing, paragraphs([said])
            ready = framed(job)
        except (OSError, ValueError, MemoryError) as error:
            return nothing, nothing, problem(error)
        said = ready.remark or f"A picture of {ready.x.shape[2]} x {ready.x.shape[1]} pixels, taken as it is."
        picture = to_pillow(ready.x).convert("RGB")
        if job.task != "inpainting":
            return gr.update(value=fitted(picture), visible=True), nothing, paragraphs([said])
        ground = picture.resize((CANVAS, CANVAS), Image.Resampling.NEAREST)
        drawn = {"background": ground, "layers": [], "composite": ground}
        return nothing, gr.update(value=drawn, visible=True), paragraphs([said, "Draw over what is to be filled in."])

    def run(request: gr.Request, drawn: Any, *given: Any) -> Iterator[dict[Any, Any]]:
        """Do what was chosen, and show how it forms."""
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
                    yield {status: paragraphs([waiting(news.before)])}
                else:
                    now = (
                        {live: picture_of(news.image, "The reconstruction as it forms")}
                        if news.image is not None
                        else {}
                    )
                    yield {status: paragraphs([news.text or "Preparing the prior."]), **now}
        except StoppedError:
            yield {**ended, status: paragraphs(["StoppedError. Nothing was kept; all settings are as they were."])}
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

    def by_task(task: str, chosen: str, example: bool) -> tuple[Any, ...]:
        """Show the settings of another task: an example is a good picture, any other one the user's problem."""
        return settings(task, "known" if example else "own", chosen)

    def stop(request: gr.Request) -> None:
        desk.stop(str(request.session_hash))

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
                how = gr.Radio([], label="The picture", visible=False)
                which = gr.Dropdown([], label="Prior", allow_custom_value=False)
                scale = gr.Radio([], label="Scale", visible=False)
                ratio = gr.Slider(0.05, 0.9, 0.3, step=0.05, label="Part of the frequencies that is measured")
                width = gr.Slider(0.5, 4, 2, step=0.25, label="Width of the blur: standard deviation, in pixels")
                noise = gr.Slider(0, 75, 0, step=1, label=NOISE)
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
                status = gr.HTML(paragraphs([BEGIN]), elem_classes="said", elem_id="status")
                preview = gr.Image(
                    label="The picture as it is taken", interactive=False, visible=False, buttons=[], format="png"
                )
                editor = gr.ImageEditor(
                    label="The picture as it is taken, to be drawn on", type="pil", sources=(), transforms=(),
                    brush=gr.Brush(default_size=32, colors=["#e60000"], color_mode="fixed"), layers=False,
                    visible=False, canvas_size=(CANVAS, CANVAS), buttons=[], format="png",
                )  # fmt: skip
                live = gr.HTML(elem_classes="said")
                with gr.Column(visible=False) as results:
                    slider = gr.ImageSlider(label="Input and result", format="png", interactive=False, buttons=[])
                    words = gr.HTML(elem_classes="said", elem_id="words")
                    with gr.Row():
                        get_picture = gr.DownloadButton("Download the picture")
                        get_metrics = gr.DownloadButton("Download the metrics")
                    extra = gr.HTML(elem_classes="said")
        gr.Markdown("A result shows what is likely, not what was there. Do not use it to tell who somebody is.")

        given = [file, task, how, which, scale, ratio, width, noise, align, best, seed]
        shown_settings = [how, which, scale, ratio, width, noise]
        looked = [preview, editor, status]
        private = {"api_visibility": "private", "show_progress": "hidden"}
        page.load(by_task, [task, which, example], shown_settings, **private)
        task.input(by_task, [task, which, example], shown_settings, **private).then(look, given, looked, **private)
        how.input(settings, [task, how, which], shown_settings, **private).then(look, given, looked, **private)
        file.upload(lambda: False, None, example, **private)
        gr.on([file.change, which.input, align.input], look, given, looked, **private, trigger_mode="always_last")
        for button, path in examples:
            button.click(lambda path=path: (str(path), True), None, [file, example], **private).then(
                by_task, [task, which, example], shown_settings, **private
            ).then(look, given, looked, **private)
        outputs = [status, live, slider, words, extra, get_picture, get_metrics, results, go, halt]
        go.click(
            run, [editor, *given], outputs, **private, concurrency_limit=2 * desk.line.longest, trigger_mode="once"
        )
        halt.click(stop, None, None, **private, queue=False)
        page.unload(stop)
    page.queue(default_concurrency_limit=4, max_size=8 * desk.line.longest)
    return page
