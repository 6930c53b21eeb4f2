"""A headless browser for the pages' tests. Missing on a laptop is a skip, in CI a failure."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def _missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}; requirements/dev.txt and .ci/run provide it")
    pytest.skip(what)


@contextmanager
def browser() -> Iterator[Any]:
    """A browser as playwright drives it; not longer than a module, since asyncio runs nothing else meanwhile."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("playwright is not installed")
    if found is None:
        _missing("no Chromium is installed (Debian's chromium-headless-shell)")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=found)
        yield chromium
        chromium.close()
