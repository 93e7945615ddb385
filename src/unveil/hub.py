"""Folders to and from the Hugging Face Hub, through `huggingface_hub`; only data comes in, and only under the names asked for.

The server is huggingface.co, or the one that HF_ENDPOINT names; the token is that of `hf auth login`, or HF_TOKEN.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unveil.errors import UserError

#: Before a name, where otherwise a file is given: hub:NAME, hub:OWNER/NAME@REVISION.
PREFIX = "hub:"
NAME = re.compile(r"(?:[\w.-]+/)?[\w.-]+")


def push(folder: Path, files: Sequence[str], name: str, private: bool = False, message: str = "") -> str:
    """Put files of a folder into a repository, which is made where it is missing; returns the address of its page.

    Args:
        folder: holds them.
        files: their names; others stay here.
        name: OWNER/NAME, or NAME for one of the token's owner.
        private: of a repository that is made.
        message: of the commit.

    Raises:
        UserError: no such extra, no token, no right, no network.
    """
    hub = _package("--push")
    _check(name, f"--push {name}")
    with _telling(f"--push {name}"):
        api = _api(hub)
        if api.token is None and hub.get_token() is None:
            raise UserError(
                f"--push {name} needs a token: log in with `hf auth login`, or set HF_TOKEN to one that may write."
            )
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=address.repo_id,
            folder_path=folder,
            allow_patterns=list(files),
            commit_message=message or "Upload a network",
        )
    return str(address)


def pull(source: str, files: Sequence[str]) -> Path:
    """Fetch those of `files` that a repository has into the Hub's cache on this machine; returns their folder.

    Args:
        source: hub:NAME, or hub:NAME@REVISION.
        files: names of data files, without folders. Nothing else is fetched.

    Raises:
        UserError: no such extra, repository or revision; no right; no network.
    """
    hub = _package(source)
    name, _, revision = source.removeprefix(PREFIX).partition("@")
    _check(name, source)
    with _telling(source):
        info = _api(hub).model_info(name, revision=revision or None)
        there = {sibling.rfilename for sibling in info.siblings or []}
        wanted = [file for file in files if file in there]
        if not wanted:
            raise UserError(f"{source} holds none of {', '.join(files)}: it is no network that can be read here.")
        fetched = [
            Path(hub.hf_hub_download(name, file, revision=info.sha or revision or None, endpoint=_endpoint()))
            for file in wanted
        ]
    return fetched[0].parent


def _package(what: str) -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise UserError(f"{what} needs huggingface_hub, which is not installed: pip install 'unveil[hub]'") from error
    return huggingface_hub


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _api(hub: Any) -> Any:
    from unveil import __version__

    return hub.HfApi(endpoint=_endpoint(), library_name="unveil", library_version=__version__)


def _check(name: str, what: str) -> None:
    if not NAME.fullmatch(name) or ".." in name:
        raise UserError(f"{what}: {name!r} is no name of a repository; one is OWNER/NAME.")


@contextmanager
def _telling(what: str) -> Iterator[None]:
    """The Hub's errors as sentences."""
    from huggingface_hub import errors

    try:
        yield
    except UserError:
        raise
    except errors.GatedRepoError as error:
        raise UserError(f"{what}: its owner lets only those in who have asked: ask on its page, and log in.") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{what}: there is no such repository, or it is private and the token may not see it (`hf auth login`)."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{what}: the repository has no such revision.") from error
    except errors.LocalTokenNotFoundError as error:
        raise UserError(f"{what} needs a token: log in with `hf auth login`, or set HF_TOKEN.") from error
    except errors.HFValidationError as error:
        raise UserError(f"{what}: {error}") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise UserError(
                f"{what}: the token may not do that (HTTP {status}). Log in as its owner: hf auth login."
            ) from error
        raise UserError(f"{what}: the Hub refused: {str(error).strip().splitlines()[0]}") from error
    except (ConnectionError, OSError, _http_errors()) as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
            raise  # of this machine's disk
        where = _endpoint() or "huggingface.co"
        raise UserError(
            f"{what}: {where} cannot be reached ({type(error).__name__}). Is this machine online?"
        ) from error


def _http_errors() -> type[Exception]:
    """The root of the errors of the client that huggingface_hub speaks HTTP with: it was requests, then httpx, then its heir."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(kind for kind in HfHubHTTPError.__mro__[1:] if kind.__module__.partition(".")[0] != "huggingface_hub")  # type: ignore[return-value]
