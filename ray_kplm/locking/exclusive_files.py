"""Small files that are created only where there is none, and rewritten only while they exist: the claims of drivers.

* On a file system, which may be NFS, a file is written aside and then linked to its name; the link fails where the name
  exists. It is rewritten in place, so a file that was removed does not come back.
* On S3, both are conditional requests (`If-None-Match: *` and `If-Match`). pyarrow cannot make these (25.0), so they need
  botocore: `pip install "ray-kplm[s3]"`.
* On other storage, and on S3 without botocore, files are written unconditionally: `is_exclusive` is false, and the caller
  looks for other files after it has written its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import uuid
from collections.abc import Callable
from typing import Any, Protocol

from pyarrow import fs as pafs

from ray_kplm.storage import Folder

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""Error codes of a file system that has no links."""
_GONE = (errno.ENOENT, errno.ESTALE)
"""Error codes for a file that was removed, on NFS by another client."""
_EXISTS, _NOT_FOUND, _CONFLICT, _UNKNOWN = 412, 404, 409, (400, 405, 501)
"""HTTP status of S3: a condition does not hold; no such object; another request at the same moment; no conditional requests."""
_TIMEOUT_S = 10
_BINARY = getattr(os, "O_BINARY", 0)  # of Windows


class ExclusiveFiles(Protocol):
    """The files of one folder."""

    is_exclusive: bool
    """Whether `create` and `rewrite` are atomic."""

    def create(self, name: str, content: bytes) -> bool:
        """Write a new file; return False, and change nothing, if one of this name exists."""

    def rewrite(self, name: str, content: bytes) -> bool:
        """Replace the content of a file that this object created; return False if it was removed or replaced since."""


def exclusive_files(folder: Folder) -> ExclusiveFiles:
    """Return the best that the storage of a folder can do. Its methods raise what those of `Folder` do."""
    if folder.is_local:
        return _LocalFiles(folder)
    if isinstance(folder.filesystem, pafs.S3FileSystem) and (client := _s3_client(folder.filesystem)) is not None:
        return _S3Files(folder, client)
    return _PlainFiles(folder)


class _PlainFiles:
    """Files of storage without conditions."""

    is_exclusive = False

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def create(self, name: str, content: bytes) -> bool:
        self._folder.write_bytes(name, content)
        return True

    def rewrite(self, name: str, content: bytes) -> bool:
        if not self._folder.is_file(name):
            return False
        self._folder.write_bytes(name, content)
        return True


class _LocalFiles:
    """Files of a file system."""

    is_exclusive = True

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def create(self, name: str, content: bytes) -> bool:
        return self._folder._retry(lambda: self._create(f"{self._folder.path}/{name}", content))

    def _create(self, path: str, content: bytes) -> bool:
        os.makedirs(self._folder.path, exist_ok=True)
        aside = f"{self._folder.path}/.{uuid.uuid4().hex}.partial"
        try:
            _write_new(aside, content)
            os.link(aside, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _write_new(path, content)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside)
        return True

    def rewrite(self, name: str, content: bytes) -> bool:
        return self._folder._retry(lambda: _rewrite(f"{self._folder.path}/{name}", content))


def _write_new(path: str, content: bytes) -> bool:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    except FileExistsError:
        return False
    try:
        os.write(handle, content)
    finally:
        os.close(handle)
    return True


def _rewrite(path: str, content: bytes) -> bool:
    try:
        handle = os.open(path, os.O_WRONLY | _BINARY)  # does not create it
        try:
            os.write(handle, content)
            os.ftruncate(handle, len(content))
            return os.fstat(handle).st_nlink > 0
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno in _GONE:
            return False
        raise


class _S3Files:
    """Objects of S3, by conditional requests. A server that does not know these turns it into `_PlainFiles`."""

    def __init__(self, folder: Folder, client: Any) -> None:
        self._folder, self._client = folder, client
        self._plain = _PlainFiles(folder)
        self._etags: dict[str, str] = {}
        self.is_exclusive = True

    def create(self, name: str, content: bytes) -> bool:
        if not self.is_exclusive:
            return self._plain.create(name, content)
        return self._put(name, content, lambda: self._plain.create(name, content), IfNoneMatch="*")

    def rewrite(self, name: str, content: bytes) -> bool:
        if not self.is_exclusive:
            return self._plain.rewrite(name, content)
        return self._put(name, content, lambda: self._plain.rewrite(name, content), IfMatch=self._etags[name])

    def _put(self, name: str, content: bytes, otherwise: Callable[[], bool], **condition: str) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, _, key = f"{self._folder.path}/{name}".partition("/")

        def put() -> bool | None:
            try:
                answer = self._client.put_object(Bucket=bucket, Key=key, Body=content, **condition)
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                code = str(error.response["Error"]["Code"])
                if status == _EXISTS:  # also where an earlier attempt arrived whose answer was lost
                    return self._holds(name, bucket, key, content)
                if status == _NOT_FOUND and "IfMatch" in condition:
                    return False
                if status in _UNKNOWN:
                    return None
                raise OSError(errno.EIO if status != _CONFLICT else errno.EAGAIN, _arrow_code(code)) from error
            except BotoCoreError as error:
                raise OSError(errno.EIO, " ".join(str(error).split())) from error
            self._etags[name] = answer["ETag"]
            return True

        done: bool | None = self._folder._retry(put)
        if done is None:
            self.is_exclusive = False
            return otherwise()
        return done

    def _holds(self, name: str, bucket: str, key: str, content: bytes) -> bool:
        """Return whether an object has this content."""
        from botocore.exceptions import ClientError

        try:
            answer = self._client.get_object(Bucket=bucket, Key=key)
        except ClientError:
            return False
        self._etags[name] = answer["ETag"]
        return bool(answer["Body"].read() == content)


def _arrow_code(code: str) -> str:
    """Return an error code of S3 as pyarrow spells it: NO_SUCH_BUCKET for NoSuchBucket."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", code).upper()


def _s3_client(filesystem: pafs.S3FileSystem) -> Any | None:
    """Return a botocore client for the same store with the same credentials; None without botocore, or for an assumed role."""
    try:
        import botocore.session
        from botocore import UNSIGNED
        from botocore.config import Config
    except ImportError:
        return None
    options = filesystem.__reduce__()[1][0]
    if options.get("role_arn"):
        return None
    endpoint = options.get("endpoint_override") or None
    if endpoint and "://" not in endpoint:
        endpoint = f"{options.get('scheme') or 'https'}://{endpoint}"
    config = Config(
        connect_timeout=_TIMEOUT_S,
        read_timeout=_TIMEOUT_S,
        retries={"total_max_attempts": 2},
        signature_version=UNSIGNED if options.get("anonymous") else None,
        s3={"addressing_style": "virtual" if options.get("force_virtual_addressing") else "path"} if endpoint else None,
    )
    keys = {
        "aws_access_key_id": options.get("access_key"),
        "aws_secret_access_key": options.get("secret_key"),
        "aws_session_token": options.get("session_token"),
    }
    return botocore.session.get_session().create_client(
        "s3",
        region_name=filesystem.region or None,
        endpoint_url=endpoint,
        config=config,
        **({name: value for name, value in keys.items() if value} if options.get("access_key") else {}),
    )
