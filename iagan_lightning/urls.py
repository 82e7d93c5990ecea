"""What opens object stores and Parquet files, where it is installed; imports nothing of it before it is needed."""

from __future__ import annotations

from typing import Any

EXTRA = "pip install 'iagan-lightning[ray]'"


def is_url(path: object) -> bool:
    """Tell whether a path is a URL such as s3://bucket/folder, which fsspec opens.

    Example:
        >>> is_url("s3://bucket/run"), is_url("runs/a")
        (True, False)
    """
    return "://" in str(path)


def filesystem(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, and the path in it.

    Raises:
        ValueError: where fsspec, or what it needs for this kind of URL, is missing.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ValueError(f"{url} needs fsspec: {EXTRA}") from None
    try:
        files, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{url} cannot be opened: {error}") from error
    return files, str(path)


def parquet() -> tuple[Any, Any]:
    """Return pyarrow and its Parquet reader.

    Raises:
        ValueError: where it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(f"Parquet needs pyarrow: {EXTRA}") from None
    return pyarrow, pyarrow.parquet
