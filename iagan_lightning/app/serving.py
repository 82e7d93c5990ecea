"""Serving the page on this machine: a port that is ours, a folder that is removed, nothing that calls elsewhere."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from iagan_lightning.app.folder import temporary_folder
from iagan_lightning.app.page import CSS, build
from iagan_lightning.app.work import Desk
from iagan_lightning.safety import MAX_PIXELS

MISSING = "iagan app needs gradio: pip install 'iagan-lightning[app]'"
LARGEST = 100 * 2**20  # bytes of an upload
LOCAL = ("127.0.0.1", "localhost", "::1")
SYSTEM_FONTS = ("system-ui", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif")
MONOSPACED = ("ui-monospace", "Consolas", "monospace")


def require_gradio() -> None:
    """Raise ValueError where gradio is not installed; it is not imported, since it must know its folder before."""
    if find_spec("gradio") is None:
        raise ValueError(MISSING)


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: name or address.
        port: 0 for any that is free.

    Raises:
        ValueError: for a port that is taken or no port, and for a host that is not this machine's.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"--port is a number from 0 (any that is free) to 65535; {port} was given")
    try:
        [(family, kind, _, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        own = socket.socket(family, kind)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"--host {host} is no address of this machine: {error}") from error
    try:
        if os.name == "posix":  # a port that was in use until just now
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.bind(address)
        own.listen(128)
    except OSError as error:
        own.close()
        raise ValueError(
            f"{host}:{port} cannot be listened on ({error.strerror or error}): choose another --port, or 0 for any "
            "that is free"
        ) from error
    return own


@contextmanager
def served(host: str, port: int, prior: str | None = None, desk: Desk | None = None) -> Iterator[str]:
    """Serve the page, and return its address; in the end everything of it is gone.

    Raises:
        ValueError: for a port that is taken, and where gradio is not installed.
    """
    with listening(host, port) as own, _environment() as folder:
        desk = Desk() if desk is None else desk
        try:
            server, thread = _started(own, host, build(desk, folder, prior))
        except ImportError as error:
            raise ValueError(f"{MISSING} ({error})") from error
        try:
            name = f"[{host}]" if ":" in host else host
            yield f"http://{name}:{own.getsockname()[1]}/"
        finally:
            desk.close()
            server.should_exit = True
            thread.join(10)


@contextmanager
def _environment() -> Iterator[Path]:
    """Give gradio a folder of its own and Pillow our bound, for as long as the page is open."""
    with temporary_folder() as folder:
        ours = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(folder), "HF_HUB_DISABLE_TELEMETRY": "1"}
        before, bound = {name: os.environ.get(name) for name in ours}, Image.MAX_IMAGE_PIXELS
        os.environ.update(ours)
        Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # what gradio reads itself; Pillow refuses twice as much
        try:
            yield folder
        finally:
            Image.MAX_IMAGE_PIXELS = bound
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def _started(own: socket.socket, host: str, page: Any) -> tuple[Any, threading.Thread]:
    """Return the server of a page, at work in a thread."""
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(openapi_url=None)
    if host in LOCAL:  # a page from elsewhere must not reach this one under a name of its own
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    theme = gr.themes.Default(primary_hue="blue", secondary_hue="blue", font=SYSTEM_FONTS, font_mono=MONOSPACED)
    theme.set(button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800")
    page.has_launched = True  # without this gradio reads files that were not uploaded, where they lie
    gr.mount_gradio_app(
        app, page, "/", server_name=host, server_port=own.getsockname()[1], footer_links=[], run_history=False,
        show_error=True, max_file_size=LARGEST, ssr_mode=False, enable_monitoring=False, pwa=False, mcp_server=False,
        theme=theme, css=CSS,
    )  # fmt: skip
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1, lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [own]}, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
        if not thread.is_alive():
            raise ValueError("the server of the page did not start")
    return server, thread
