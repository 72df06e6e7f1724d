"""URLs of file systems, through fsspec: any store that it speaks to, with the pip line of a package that is missing."""

from __future__ import annotations

from typing import Any

from h3lab.errors import MissingExtra, UnknownName, UsageError, redacted
from h3lab.worlds import PIP

#: What a URL usually begins with; fsspec knows more.
_SCHEMES = "file s3 gs abfs hdfs webhdfs http https ftp sftp smb memory zip tar github postgresql mysql sqlite".split()


def is_url(text: str) -> bool:
    """Whether a text names a file system too."""
    return "://" in text or "::" in text


def reached(text: str) -> tuple[Any, str]:
    """The file system of a path or URL, and the path in it. MissingExtra, or UsageError for a scheme nobody knows."""
    import fsspec

    if not is_url(text):
        return fsspec.filesystem("file"), text
    try:
        system, path = fsspec.core.url_to_fs(text)
        return system, path
    except ImportError as error:
        scheme = text.partition("://")[0]
        package = next((name for name in PIP if name in str(error)), error.name or f"the fsspec package for {scheme}")
        line = f"pip install {PIP.get(package, package)}"
        raise MissingExtra(f"{scheme}:// needs a package that is not installed. Install it with: {line}") from error
    except ValueError as error:
        scheme = text.partition("://")[0]
        if "Protocol not known" in str(error):
            raise UnknownName("kind of URL", scheme, _SCHEMES, redacted(text)) from error
        raise UsageError(f"{redacted(text)} cannot be opened: {redacted(str(error))}.") from error
