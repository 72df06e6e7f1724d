"""URLs of file systems, through fsspec: any store that it speaks to, with the pip line of a package that is missing."""

from __future__ import annotations

import re
from typing import Any

from h3lab.errors import MissingExtra, UnknownName, UsageError, redacted
from h3lab.worlds import PIP

#: What a URL usually begins with; fsspec knows more.
_SCHEMES = "file s3 gs abfs hdfs webhdfs http https ftp sftp smb memory zip tar github postgresql mysql sqlite".split()

#: What has a bucket where other URLs have a host; user and password before it would be part of its name.
_BUCKETS = ("s3", "s3a", "gs", "gcs")


def is_url(text: str) -> bool:
    """Whether a text names a file system too."""
    return "://" in text or "::" in text


def reached(text: str) -> tuple[Any, str]:
    """The file system of a path or URL, and the path in it. MissingExtra, or UsageError for a scheme nobody knows."""
    import fsspec

    if not is_url(text):
        return fsspec.filesystem("file"), text
    _check(text)
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


def _check(text: str) -> None:
    """UsageError for a password that a library would take for a port, a path or a bucket, and show."""
    for url in re.split(r"::(?=[\w+.-]+://)", text):
        scheme, _, rest = url.partition("://")
        place = re.split("[/?#]", rest, maxsplit=1)[0]
        if "@" in rest and not re.fullmatch(r"(?:.*@)?(?:\[.*\]|[^:]*)(?::\d*)?", place):
            raise UsageError(
                f"{redacted(text)}: what is password and what is host cannot be told. Write / ? # and @ of the "
                "password as %2F %3F %23 and %40."
            )
        if scheme in _BUCKETS and ":" in place.rpartition("@")[0]:
            raise UsageError(
                f"{redacted(text)}: {scheme}:// takes no key and secret in its URL. Leave them to the environment (for "
                "s3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) or to fsspec's configuration."
            )
