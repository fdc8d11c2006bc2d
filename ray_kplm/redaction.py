"""Credentials in URIs: found where a URI comes in, and removed from every text that goes out.

A URI holds credentials as a password before its host (`s3://KEY:SECRET@bucket`) or as a parameter (`?secret_key=...`). They
are refused, because a URI is written to configurations, manifests, reports and logs; the environment is the place for them.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from types import TracebackType

HIDDEN = "***"
"""What stands in place of a credential."""

_PORT = r"\d{1,5}(?:[/?#\s,;)\]]|$)"
_OBJECT_STORE = re.compile(r"((?:s3|gs|gcs|abfss?|az|wasbs?)[an]?://)([^\s/@:'\"]*?(?::|%3A)[^\s'\"<>]*@)", re.I)
"""Their URIs have no port, and a secret key may hold slashes."""
_ANY = re.compile(rf"([a-z][\w+.-]*://)([^\s/@:'\"?#]*?:(?!{_PORT})[^\s'\"<>]*@|[^\s/@:'\"?#]*?%3A[^\s/'\"<>]*@)", re.I)
_ENCODED = re.compile(rf"(%3A%2F%2F)([^\s/@:&'\"]*?(?::|%3A)(?!{_PORT}|\d{{1,5}}%2F)[^\s&'\"<>]*?(?:%40|@))", re.I)
"""The same in a URI that is the percent-encoded parameter of another one."""
_NAMES = (
    r"[\w.-]*(?:secret|password|passwd|pwd|token|signature|credential|access[-_]?key|account[-_]?key|api[-_]?key)[\w.-]*"
    r"|sig|sas"
)
_PARAMETER = re.compile(rf"((?:[?&;]|%3F|%26)(?:{_NAMES})(?:=|%3D))[^\s&#'\"<>;]*[^\s&#'\"<>;:,.)]", re.I)
_WHOLE_PARAMETER = re.compile(rf"(?<=[?&])(?:{_NAMES})=[^&#]*&?", re.I)


def redact(text: str) -> str:
    """Return a text with `***` in place of the credentials of all URIs in it. Other text is returned as it is."""
    for pattern in (_OBJECT_STORE, _ANY):
        text = pattern.sub(rf"\1{HIDDEN}@", text)
    return _PARAMETER.sub(rf"\1{HIDDEN}", _ENCODED.sub(rf"\1{HIDDEN}%40", text))


def has_credentials(uri: str) -> bool:
    """Return whether a text is a URI that holds credentials. A path without `scheme://` holds none."""
    return "://" in uri and redact(uri).replace(HIDDEN, "") != uri.replace(HIDDEN, "")


def without_credentials(uri: str) -> str:
    """Return a URI without its credentials, as it is given when they are in the environment; other text as it is."""
    if not has_credentials(uri):
        return uri
    for pattern in (_OBJECT_STORE, _ANY):
        uri = pattern.sub(r"\1", uri)
    uri = _WHOLE_PARAMETER.sub("", _ENCODED.sub(r"\1", uri))
    return uri.rstrip("?&")


def way_out(uri: str) -> str:
    """Return what to do in place of giving credentials in a URI of this kind of storage."""
    scheme = uri.partition("://")[0].lower()
    variables = {
        "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN)",
        "gs": "GOOGLE_APPLICATION_CREDENTIALS",
        "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
        "abfs": "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET",
        "abfss": "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET",
    }
    names = variables.get(scheme, "what its own tools read there")
    return (
        f"holds credentials, which would be written to files and logs: leave them out, and set {names} in the "
        "environment, or give the machine a role"
    )


class RedactingFormatter(logging.Formatter):
    """Formats a log record, with its traceback, without credentials."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of the record."""
        return redact(super().format(record))


def print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an unexpected error with its traceback and without credentials: for `sys.excepthook`."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))
    sys.stderr.flush()
