"""The README's promises: its Python runs, its commands exist, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from iagan_lightning.cli import COMMANDS, HELP

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    namespace = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), namespace)
    if page.name == "README.md":
        assert len(blocks) >= 3
        assert namespace["module"].results["iagan_bp"].shape == (1, 3, 16, 16)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_commands_exist():
    commands = re.findall(r"^iagan (.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert commands
    assert {shlex.split(command)[0] for command in commands} <= set(COMMANDS)
    assert all(task in HELP for task in COMMANDS)
