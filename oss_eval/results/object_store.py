"""Results in an object store, or on any other file system that pyarrow or fsspec knows: s3://, gs://, abfs://, ...

pyarrow reads S3, Google Cloud Storage and Azure by itself (https://arrow.apache.org/docs/python/filesystems.html),
with the credentials of the environment; for other schemes fsspec needs the package that belongs to them.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from oss_eval.errors import StoreError, UsageError

SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)
NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
"""Names of runs and of their files. A key in a bucket may be anything, `../../.bashrc` too."""
NATIVE = frozenset({"s3", "gs", "gcs", "abfs", "abfss"})
CHUNK = 1 << 20
Signature = list[int]
"""Size and time of the last change, ns."""


class ObjectStore:
    """The runs in one folder of a file system. Every method raises StoreError where the store can't be reached."""

    def __init__(self, url: str) -> None:
        """Raises UsageError for a URL that nothing is installed for."""
        self.url = url.rstrip("/")
        """Without its query, which may hold keys."""
        scheme = urlsplit(url).scheme.lower()
        try:
            self._fs, self._base = _native(url) if scheme in NATIVE else _by_fsspec(url)
        except (ImportError, ValueError, TypeError) as error:
            raise UsageError(
                f"{public_place(url)} can't be opened: {error}",
                "s3://, gs:// and abfs:// need nothing else; other schemes need the package of fsspec for them",
            ) from None
        except OSError as error:
            raise self._failed(error) from None
        self.url = public_place(url).rstrip("/")

    def runs(self) -> list[str]:
        """Names of the folders, which may be runs, sorted."""
        return sorted(name for name, _ in self._list("", recursive=False, folders=True))

    def files(self, run: str) -> dict[str, Signature]:
        """The files of a run by name, such as `requests/part-000000.parquet`; none with other names than ours."""
        return dict(self._list(run, recursive=True, folders=False))

    def read(self, run: str, name: str) -> bytes | None:
        """The content of a small file; None where there is none."""
        try:
            with self._fs.open_input_stream(self._path(run, name)) as source:
                content: bytes = source.read(CHUNK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(error) from None
        return content

    def get(self, run: str, name: str, path: Path) -> None:
        """Copy a file to `path`, which gets its name when it is complete. Raises FileNotFoundError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}")
        try:
            with self._fs.open_input_stream(self._path(run, name)) as source, temporary.open("wb") as target:
                shutil.copyfileobj(source, target, CHUNK)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._failed(error) from None
        temporary.replace(path)

    def put(self, run: str, name: str, content: Path | bytes) -> None:
        """Store a file. It is there when this returns, and not before it is complete. Raises FileNotFoundError for
        a path that is gone."""
        try:
            if isinstance(content, bytes):
                with self._create(run, name) as target:
                    target.write(content)
                return
            with content.open("rb") as source, self._create(run, name) as target:
                shutil.copyfileobj(source, target, CHUNK)
        except FileNotFoundError:
            if isinstance(content, Path) and not content.exists():
                raise
            raise StoreError(f"{self.url} is not there", "create the bucket or folder first") from None
        except OSError as error:
            raise self._failed(error) from None

    def signature(self, run: str, name: str) -> Signature | None:
        """Of a file; None where there is none."""
        from pyarrow.fs import FileType

        try:
            info = self._fs.get_file_info(self._path(run, name))
        except OSError as error:
            raise self._failed(error) from None
        return None if info.type == FileType.NotFound else [int(info.size or 0), int(info.mtime_ns or 0)]

    def delete(self, run: str, name: str) -> None:
        """Delete a file, if it is there."""
        try:
            self._fs.delete_file(self._path(run, name))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._failed(error) from None

    def remove(self, run: str) -> None:
        """Delete a run, if it is there."""
        try:
            self._fs.delete_dir(self._path(run))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._failed(error) from None

    def _create(self, run: str, name: str) -> Any:
        path = self._path(run, name)
        if _has_folders(self._fs):
            self._fs.create_dir(path.rpartition("/")[0], recursive=True)
        return self._fs.open_output_stream(path)

    def _path(self, *parts: str) -> str:
        return "/".join(part for part in (self._base.rstrip("/"), *parts) if part)

    def _list(self, run: str, recursive: bool, folders: bool) -> list[tuple[str, Signature]]:
        from pyarrow.fs import FileSelector, FileType

        base = self._path(run)
        try:
            infos = self._fs.get_file_info(FileSelector(base, allow_not_found=True, recursive=recursive))
        except OSError as error:
            raise self._failed(error) from None
        wanted = FileType.Directory if folders else FileType.File
        named = [(info.path[len(base) :].strip("/"), info) for info in infos if info.type == wanted]
        return [
            (name, [int(info.size or 0), int(info.mtime_ns or 0)])
            for name, info in named
            if NAME.fullmatch(name) and name.count("/") <= recursive
        ]

    def _failed(self, error: OSError) -> StoreError:
        reason = str(error.strerror or error).strip().partition("\n")[0][:300]
        return StoreError(
            f"{self.url}: {reason}",
            "check the URL, and that the credentials of its provider are set (for S3: AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY, AWS_REGION or a profile; AWS_ENDPOINT_URL for another server)",
        )


def _native(url: str) -> tuple[Any, str]:
    from pyarrow.fs import FileSystem

    found: tuple[Any, str] = FileSystem.from_uri(url)
    return found


def _by_fsspec(url: str) -> tuple[Any, str]:
    import fsspec  # type: ignore[import-untyped]
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    system, path = fsspec.core.url_to_fs(url)
    return PyFileSystem(FSSpecHandler(system)), str(path)


def _has_folders(system: Any) -> bool:
    """Whether a folder has to be there before a file in it."""
    return str(system.type_name) not in {"s3", "gcs"}


def public_place(url: str) -> str:
    """A URL without its query, which may hold keys, and without a user's password."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{'' if ':' in user else user + at}{host}{parts.path}"
