"""The model hub, through the package huggingface_hub: detectors are uploaded to it and downloaded from it.

The hub is the one that `HF_ENDPOINT` names. The token is that of `HF_TOKEN` or of `hf auth login`; it is read by
huggingface_hub and stands in no message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ray_kplm import notes
from ray_kplm.detectors.pretrained_config import MODEL_CONFIG, WEIGHTS
from ray_kplm.errors import ConfigError, DataError, KplmError, StorageError
from ray_kplm.extras import missing
from ray_kplm.redaction import redact
from ray_kplm.storage import Folder
from ray_kplm.storage.time_limit import SLOWEST_BYTES_S, TimeLimit, TimeLimitError

LIMIT_S = 120.0
"""Time that the requests of a push or of a download may take, besides that of the content at 2 Mbit/s."""
_ASK_S = 10.0
"""Time for one answer of the hub about a model."""
_NOTICE_S = 15.0
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Pushed:
    """What was pushed: the address of the model, and the commit."""

    url: str
    commit: str


def check_name(name: str) -> str:
    """Return a name on the hub. Raises ConfigError if it is none."""
    if not _NAME.fullmatch(name) or ".." in name or "--" in name or name.endswith((".git", ".", "-")):
        raise ConfigError(f"{name!r}: is no name on a model hub; give user/name, of letters, digits, '-', '_' and '.'")
    return name


def check_push(name: str) -> None:
    """Check what a push needs, before anything is computed.

    Raises:
        ConfigError: the name is not valid, the package huggingface_hub is missing, or there is no token.
    """
    check_name(name)
    if not _hub().get_token():
        raise ConfigError("no token for the model hub: set HF_TOKEN to one that may write, or run `hf auth login`")


def local_folder(name: str, revision: str | None = None) -> str:
    """Return the folder of a detector: a path or URI as it is, a name on the hub as the folder into which it is downloaded.

    What exists here is a path, and so is what begins with `.`, `/` or `~`, and what is no `user/name`.

    Raises:
        ConfigError: a package is missing, or a folder is given with a revision.
        DataError: there is no such folder, model or revision.
        StorageError: the hub does not answer, or refuses.
    """
    is_path = "://" in name or name.startswith((".", "/", "~", "\\")) or not _NAME.fullmatch(name)
    folder = os.path.expanduser(name)
    if is_path or Folder.at(folder).exists():
        if revision is not None:
            raise ConfigError(f"revision = {revision!r}: {name} is a folder, which has none; leave the revision out")
        if not Folder.at(folder).exists():
            raise DataError(
                f"{name}: no such folder; give a folder that `kplm push --folder` wrote, or user/name of a model hub"
            )
        return folder
    return download(name, revision)


def download(name: str, revision: str | None = None) -> str:
    """Download a detector, or find it in the cache of huggingface_hub, and return its folder.

    Both files are of one commit. Without a connection, what was downloaded before is used.

    Raises:
        ConfigError: the package huggingface_hub is missing, or the name is not valid.
        DataError: there is no such model or revision, or it has no detector.
        StorageError: the hub does not answer, or refuses.
    """
    check_name(name)
    hub = _hub()
    what = name if revision is None else f"{name} at {revision}"
    info = _asked(what, lambda: _model_info(hub, name, revision), LIMIT_S)
    sizes = {} if info is None else {one.rfilename: one.size or 0 for one in info.siblings or ()}

    def files() -> str:
        given = {"etag_timeout": _ASK_S, "local_files_only": info is None}
        folder: str = os.path.dirname(hub.hf_hub_download(name, MODEL_CONFIG, revision=revision, **given))
        hub.hf_hub_download(
            name, WEIGHTS, revision=os.path.basename(folder), **given
        )  # the folder is named by the commit
        return folder

    if info is not None and (missing := [file for file in (MODEL_CONFIG, WEIGHTS) if file not in sizes]):
        raise DataError(f"{what}: has no {' and no '.join(missing)} on the hub; give a model that `kplm push` wrote")
    size = sum(sizes.get(file, 0) for file in (MODEL_CONFIG, WEIGHTS))
    return _asked(what, files, LIMIT_S + size / SLOWEST_BYTES_S)


def push(
    folder: str, name: str, files: Sequence[str], *, message: str, private: bool = False, revision: str | None = None
) -> Pushed:
    """Upload files of a folder as one commit. The model is created if there is none of this name.

    Args:
        folder: a local folder.
        name: `user/name`.
        files: names in the folder.
        message: of the commit.
        private: whether a new model is private.
        revision: the branch, which is created if there is none; None: the main branch.

    Raises:
        ConfigError: the name is not valid, or there is no token.
        DataError: there is no such user or organisation.
        StorageError: the hub does not answer, or refuses.
    """
    check_push(name)
    hub = _hub()

    def upload() -> Pushed:
        api = hub.HfApi(library_name="ray-kplm")
        api.create_repo(name, private=private or None, exist_ok=True)
        if revision is not None:
            api.create_branch(name, branch=revision, exist_ok=True)
        operations = [hub.CommitOperationAdd(file, os.path.join(folder, file)) for file in files]
        done = api.create_commit(name, operations, commit_message=message, revision=revision)
        return Pushed(f"{api.endpoint}/{name}", str(done.oid))

    size = sum(os.path.getsize(os.path.join(folder, file)) for file in files)
    return _asked(name, upload, LIMIT_S + size / SLOWEST_BYTES_S)


def _model_info(hub: Any, name: str, revision: str | None) -> Any:
    """Return the hub's answer about a model; None without a connection, where the cache may have it."""
    try:
        return hub.HfApi(library_name="ray-kplm").model_info(
            name, revision=revision, timeout=_ASK_S, files_metadata=True
        )
    except hub.errors.OfflineModeIsEnabled:
        return None
    except Exception as error:
        if _is_of_connection(error) and not isinstance(error, OSError):
            return None
        raise


def _is_of_connection(error: Exception) -> bool:
    """Return whether an error is of the HTTP client of huggingface_hub, whose package depends on its version."""
    return type(error).__module__.partition(".")[0] in ("httpx", "httpx2")


def _asked(what: str, request: Callable[[], _T], limit_s: float) -> _T:
    """Return the answer of the hub, with its errors in one line."""
    errors = _hub().errors
    limit = TimeLimit(limit_s, _NOTICE_S, lambda: notes.note(f"kplm: waiting for the model hub ({what}) ..."))
    try:
        return limit.call(request)
    except KplmError:
        raise
    except TimeLimitError:
        raise StorageError(f"{what}: the model hub did not finish in {limit_s:.0f} s; try again later") from None
    except errors.HFValidationError as error:
        raise ConfigError(f"{what}: is no name on a model hub ({_line(error)}); give user/name") from None
    except errors.RevisionNotFoundError:
        raise DataError(
            f"{what}: no such branch, tag or commit on the hub; leave the revision out for the main branch"
        ) from None
    except errors.GatedRepoError:
        raise StorageError(f"{what}: its owner must grant access first; ask on its page, then set HF_TOKEN") from None
    except errors.LocalEntryNotFoundError:
        raise StorageError(
            f"{what}: the model hub cannot be reached, and it was not downloaded before; check the network, HF_ENDPOINT and "
            "HF_HUB_OFFLINE"
        ) from None
    except errors.RepositoryNotFoundError:
        raise DataError(
            f"{what}: no such model on the hub, or a private one; check the name, and set HF_TOKEN to a token that may read it"
        ) from None
    except errors.HfHubHTTPError as error:
        raise StorageError(_refused(what, error)) from None
    except OSError as error:  # of the connection, of the cache's disk
        raise StorageError(f"{what}: {_line(error)}; check the network and the disk, then try again") from None
    except Exception as error:
        if not _is_of_connection(error):
            raise
        raise StorageError(
            f"{what}: the model hub cannot be reached ({_line(error)}); check the network and HF_ENDPOINT, then try again"
        ) from None


def _refused(what: str, error: Any) -> str:
    """Return the line about an answer that is an error, by its status."""
    status = int(getattr(error.response, "status_code", 0))
    said = _line(getattr(error, "server_message", None) or error)
    ways = {
        401: "the token is not valid or has expired; set HF_TOKEN to another one",
        403: "the token may not do this; set HF_TOKEN to one that may write there",
        409: "somebody else changed it at the same moment; try again",
        413: "it is too large for the hub",
        429: "too many requests; try again later",
    }
    return f"{what}: the model hub refuses with status {status} ({said}): {ways.get(status, 'try again later')}"


def _line(error: object) -> str:
    return redact(" ".join(str(error).split()))[:160]


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ModuleNotFoundError:
        raise missing("huggingface_hub") from None
    hub: Any = huggingface_hub
    if notes.is_quiet:
        hub.utils.disable_progress_bars()
    return hub
