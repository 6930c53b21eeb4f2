"""With the first test here, what takes minutes begins."""

from tests.images.machine import head_start  # noqa: F401
