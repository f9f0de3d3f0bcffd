"""Results in an object store, or on any other file system that pyarrow or fsspec knows: s3://, gs://, abfs://, ...

pyarrow reads S3, Google Cloud Storage and Azure by itself (https://arrow.apache.org/docs/python/filesystems.html),
with the credentials of the environment; for other schemes fsspec needs the package that belongs to them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from oss_eval.errors import OssEvalError, StoreError, UsageError

SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)
NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
"""Names of runs and of their files. A key in a bucket may be anything, `../../.bashrc` too."""
NATIVE = frozenset({"s3", "gs", "gcs", "abfs", "abfss"})
CHUNK = 1 << 20
SMALL = 1 << 25
Signature = list[int]
"""Size and time of the last change, ns."""
HINT = (
    "check the URL, and that the credentials of its provider are set (for S3: AWS_ACCESS_KEY_ID, "
    "AWS_SECRET_ACCESS_KEY, AWS_REGION or a profile; AWS_ENDPOINT_URL for another server)"
)


class ObjectStore:
    """The runs in one folder of a file system. Every method raises StoreError where the store can't be reached."""

    def __init__(self, url: str) -> None:
        """Raises UsageError for a URL that nothing is installed for."""
        self.url = public_place(url).rstrip("/")
        """Without what may be secret in it."""
        self._secretive = url.partition("?")[0].rstrip("/") != self.url
        try:
            native = urlsplit(url).scheme.lower() in NATIVE
            self._fs, self._base = _native(url) if native else _by_fsspec(url)
        except (ImportError, ValueError, TypeError) as error:
            reason = "a / in a key is written %2F" if self._secretive else str(error)
            raise UsageError(
                f"{self.url} can't be opened: {reason}",
                "s3://, gs:// and abfs:// need nothing else; other schemes need the package of fsspec for them",
            ) from None
        except Exception as error:  # noqa: BLE001 (every file system has its own errors)
            raise self._failed(error) from None
        self._folders = str(self._fs.type_name) not in {"s3", "gcs"}
        """Whether a folder has to be there before a file in it, and a file is there before it is complete."""

    def runs(self) -> list[str]:
        """Names of the folders, which may be runs, sorted."""
        return sorted(name for name, _ in self._list("", recursive=False, folders=True))

    def files(self, run: str) -> dict[str, Signature]:
        """The files of a run by name, such as `requests/part-000000.parquet`; none with other names than ours."""
        return dict(self._list(run, recursive=True, folders=False))

    def read(self, run: str, name: str) -> bytes | None:
        """The content of a small file; None where there is none."""
        try:
            with self._told(), self._fs.open_input_stream(self._path(run, name)) as source:
                content: bytes = source.read(SMALL)
        except FileNotFoundError:
            return None
        return content

    def get(self, run: str, name: str, path: Path) -> None:
        """Copy a file to `path`, which gets its name when it is complete. Raises FileNotFoundError."""
        temporary = path.with_name(f".{path.name}")
        with here(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._told(), self._fs.open_input_stream(self._path(run, name)) as source:
            with here(path):
                target = temporary.open("wb")
            with target:
                while piece := source.read(CHUNK):
                    with here(path):
                        target.write(piece)
        with here(path):
            temporary.replace(path)

    def put(self, run: str, name: str, content: Path | bytes, between: Callable[[], None] = lambda: None) -> None:
        """Store a file. It is there when this returns, and not before it is complete. `between` is called before
        each piece of CHUNK bytes. Raises FileNotFoundError for a path that is gone."""
        if isinstance(content, bytes):
            self._put(run, name, iter([content]), between)
            return
        try:
            source = content.open("rb")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(f"can't read {content}: {error.strerror}") from None
        with source:
            self._put(run, name, _pieces(source), between)

    def signature(self, run: str, name: str) -> Signature | None:
        """Of a file; None where there is none."""
        from pyarrow.fs import FileType

        with self._told():
            info = self._fs.get_file_info(self._path(run, name))
        return None if info.type == FileType.NotFound else [int(info.size or 0), int(info.mtime_ns or 0)]

    def delete(self, run: str, name: str) -> None:
        """Delete a file, if it is there."""
        with contextlib.suppress(FileNotFoundError), self._told():
            self._fs.delete_file(self._path(run, name))

    def remove(self, run: str) -> None:
        """Delete a run, if it is there."""
        with contextlib.suppress(FileNotFoundError), self._told():
            self._fs.delete_dir(self._path(run))

    def _put(self, run: str, name: str, pieces: Iterator[bytes], between: Callable[[], None]) -> None:
        path = self._path(run, name)
        folder, _, file = path.rpartition("/")
        writing = f"{folder}/.{file}" if self._folders else path
        try:
            with self._told():
                if self._folders:
                    self._fs.create_dir(folder, recursive=True)
                target = self._fs.open_output_stream(writing)
                try:
                    for piece in pieces:
                        between()
                        target.write(piece)
                except BaseException:
                    # Closing completes an object, so half of one has to go. Of a process that is killed here,
                    # there is none: an upload in parts that nobody completes is no object.
                    with contextlib.suppress(Exception):
                        target.close()
                        self._fs.delete_file(writing)
                    raise
                target.close()
                if self._folders:
                    self._fs.move(writing, path)
        except FileNotFoundError:
            raise StoreError(f"{self.url} is not there", "create the bucket or folder first") from None

    def _path(self, *parts: str) -> str:
        return "/".join(part for part in (self._base.rstrip("/"), *parts) if part)

    def _list(self, run: str, recursive: bool, folders: bool) -> list[tuple[str, Signature]]:
        from pyarrow.fs import FileSelector, FileType

        base = self._path(run)
        with self._told():
            infos = self._fs.get_file_info(FileSelector(base, allow_not_found=True, recursive=recursive))
        wanted = FileType.Directory if folders else FileType.File
        named = [(info.path[len(base) :].strip("/"), info) for info in infos if info.type == wanted]
        return [
            (name, [int(info.size or 0), int(info.mtime_ns or 0)])
            for name, info in named
            if NAME.fullmatch(name) and name.count("/") <= recursive
        ]

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the file system as StoreError, but for a file that is not there."""
        try:
            yield
        except (FileNotFoundError, OssEvalError):
            raise
        except Exception as error:  # noqa: BLE001 (every file system has its own errors)
            raise self._failed(error) from None

    def _failed(self, error: Exception) -> StoreError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = str(reason).strip().partition("\n")[0][:300]
        return StoreError(f"{self.url}: {type(error).__name__ if self._secretive else reason}", HINT)


@contextlib.contextmanager
def here(path: Path) -> Iterator[None]:
    """Errors of this machine's disk as StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"can't write to {path.parent}: {error.strerror or error}") from None


def _pieces(source: IO[bytes]) -> Iterator[bytes]:
    while piece := source.read(CHUNK):
        yield piece


def _native(url: str) -> tuple[Any, str]:
    from pyarrow.fs import FileSystem

    found: tuple[Any, str] = FileSystem.from_uri(url)
    return found


def _by_fsspec(url: str) -> tuple[Any, str]:
    import fsspec  # type: ignore[import-untyped]
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    system, path = fsspec.core.url_to_fs(url)
    return PyFileSystem(FSSpecHandler(system)), str(path)


def public_place(url: str) -> str:
    """A URL without its query and without a user's password or secret key, which may hold a `/`."""
    scheme, _, rest = url.partition("?")[0].partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}://{place if ':' in user else user + at + place}"
