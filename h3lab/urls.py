"""URLs of file systems, through fsspec: any store that it speaks to, with the pip line of a package that is missing,
and an end to the waiting for a server that says nothing.
"""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

from h3lab import servers
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
        system, path = fsspec.core.url_to_fs(text, **_options(text))
        _limit(system)
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


def server(text: str) -> str:
    """The server of a URL and as whom it is asked, as it may be shown: ``webhdfs://me@host:9870``."""
    scheme, _, rest = text.rpartition("::")[2].partition("://")
    if scheme in ("s3", "s3a"):
        return _s3_server(rest.partition("/")[0])
    place = urlsplit(f"//{rest}")
    user = f"{place.username}@" if place.username else ""
    return f"{scheme}://{user}{place.netloc.rpartition('@')[2]}"


def _s3_server(bucket: str) -> str:
    """With endpoint and name of the key, which is no secret: both come from elsewhere than the URL."""
    import fsspec

    told = fsspec.config.conf.get("s3", {})
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    endpoint = told.get("endpoint_url") or next((os.environ[name] for name in names if name in os.environ), "AWS")
    key = told.get("key") or os.environ.get("AWS_ACCESS_KEY_ID")
    return f"s3://{bucket} at {redacted(endpoint)}" + (f" with key {key}" if key else "")


def _options(text: str) -> dict[str, dict[str, Any]]:
    """By file system what bounds its waiting. Asking again is ``servers``' affair: tries of tries would multiply."""
    import fsspec

    seconds, found = servers.timeout_seconds(), dict[str, dict[str, Any]]()
    for scheme in set(re.findall(r"(\w+)://", text)):
        if scheme in ("s3", "s3a"):
            once = {"mode": "standard", "total_max_attempts": 1}
            bounds = {"config_kwargs": {"connect_timeout": seconds, "read_timeout": seconds, "retries": once}}
        elif scheme in ("http", "https"):
            import aiohttp

            limit = aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)
            bounds = {"client_kwargs": {"timeout": limit}}
        else:
            continue
        usual = fsspec.config.conf.get(scheme, {})
        found[scheme] = {name: {**ours, **usual.get(name, {})} for name, ours in bounds.items()}
    return found


def _limit(system: Any) -> None:
    """What no option of a file system bounds."""
    if "s3" in system.protocol:
        system.retries = 1
    if "webhdfs" in system.protocol and system.session.get_adapter(system.url).__class__.__name__ != "Limited":
        _limit_session(system.session)


def _limit_session(session: Any) -> None:
    """Give a session of requests a time limit, for it has none, and an eye for data nodes: fsspec takes the words of
    their errors for the bytes of a file, and an answer that ended in its head, before its length, for an empty one."""
    from requests import ConnectionError, HTTPError
    from requests.adapters import HTTPAdapter

    class Limited(HTTPAdapter):
        def send(self, request: Any, *given: Any, timeout: Any = None, **options: Any) -> Any:
            return super().send(request, *given, timeout=timeout or servers.timeout_seconds(), **options)

    def look(response: Any, *given: Any, **options: Any) -> None:
        # A head that was cut short is taken for a whole one.
        if response.status_code == 307 and "location" not in response.headers:
            raise ConnectionError(f"the answer of {urlsplit(response.url).netloc} ends in its head", response=response)
        if response.status_code >= 400 and "namenoderpcaddress=" in response.url:
            raise HTTPError(f"{response.status_code} {response.reason} of a data node", response=response)
        asked = parse_qs(urlsplit(response.url).query)
        if response.status_code == 200 and asked.get("op") == ["OPEN"] and "length" in asked:
            wanted, come = int(asked["length"][0]), len(response.content)
            if come < wanted:
                raise ConnectionError(f"the answer ended after {come:,} of {wanted:,} bytes", response=response)

    session.mount("http://", Limited())
    session.mount("https://", Limited())
    session.hooks["response"].append(look)
