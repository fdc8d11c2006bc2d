"""Published files are checked when they are read.

A *unit* is a folder that is published as a whole: the step of a run, a dataset, an exported detector. Its manifest holds a
*record* of every file, SHA-256 and size, which the writer computes from what it writes. Until the manifest is there the records
lie beside the files, so that the driver need not read what the workers of other machines wrote, and a step that continues knows
what was written before its interruption:

    <unit>/.written/part-00000.parquet      the record of <unit>/part-00000.parquet; removed once the manifest has it
    <unit>/manifest.json                    outputs: {"part-00000.parquet": {"sha256": ..., "size": ..., "footer": ...}}

A Parquet file is checked once in a process. Of a large one of which few columns are wanted, only the footer is checked, and the
checksums of the pages that are read; of an Arrow file always the footer, and the checksums of the columns. A unit without
records, of an older version, is read unchecked.
"""

from __future__ import annotations

import io
import json
import posixpath
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

from ray_kplm.errors import DamageError
from ray_kplm.storage import Folder
from ray_kplm.storage.arrow_file import decode_arrow
from ray_kplm.storage.file_content import seal
from ray_kplm.storage.file_records import CLAIM as CLAIM
from ray_kplm.storage.file_records import MANIFEST as MANIFEST
from ray_kplm.storage.file_records import OUTPUTS as OUTPUTS
from ray_kplm.storage.file_records import WRITTEN, HashingStream, is_hidden, is_own, read_record, record_of
from ray_kplm.storage.file_records import Record as Record
from ray_kplm.storage.file_records import difference as difference
from ray_kplm.storage.file_records import read_manifest as read_manifest

_NARROW_BYTES = 2**20
"""A Parquet file above this size is not read as a whole for few columns."""
_NARROW_SHARE = 0.5
"""Columns are few if they are less than this share of the file."""
_READERS = 16
"""Records that are read concurrently."""

_published: dict[str, dict[str, Record]] = {}
"""The records of units whose manifests this process has read, by the address of the unit."""
_checked: set[tuple[str, str]] = set()
"""Address and SHA-256 of the Parquet files that this process has checked."""


@dataclass(frozen=True, eq=False)
class CheckedFolder(Folder):
    """A folder of a unit, which keeps the records of what is written, and compares with them what is read.

    Its methods also raise DamageError for a file that is not as its record says, or that was published and is lost.
    """

    root: str
    """Path of the unit."""
    remedy: str
    """The way out, for errors."""

    @classmethod
    def of(cls, folder: Folder, remedy: str) -> CheckedFolder:
        """Return the folder of a unit."""
        return cls(folder.filesystem, folder.path, folder.path, remedy, guard=folder.guard)

    def way_out(self, name: str) -> str:
        """Return what to do about a damaged file."""
        return self.remedy

    def __truediv__(self, name: str) -> CheckedFolder:
        return replace(self, path=f"{self.path}/{name}")

    @property
    def parent(self) -> CheckedFolder:
        """The folder that contains this one; its files belong to the same unit."""
        return replace(self, path=self.path.rsplit("/", 1)[0])

    @property
    def unit(self) -> CheckedFolder:
        """The unit's own folder."""
        return replace(self, path=self.root)

    @property
    def unchecked(self) -> Folder:
        """The same folder without records and checks."""
        return Folder(self.filesystem, self.path, guard=self.guard)

    # -- writing

    @contextmanager
    def writing(self, name: str, *, durable: bool = True) -> Iterator[pa.NativeFile]:
        """Open a stream as `Folder.writing` does, and keep the record of what is written."""
        with super().writing(name, durable=durable) as stream:
            hashing = HashingStream(stream)
            yield pa.PythonFile(hashing, mode="w")
        if not is_own(name):
            self._keep(name, hashing.record(name))

    def _keep(self, name: str, record: Record) -> None:
        # It need not survive a loss of power: without it the file is hashed when the unit is published.
        self._records.write_bytes(quote(self._key(name), safe=""), json.dumps(record).encode(), durable=False)

    @property
    def _records(self) -> Folder:
        return Folder(self.filesystem, f"{self.root}/{WRITTEN}", guard=self.guard)

    def _key(self, name: str) -> str:
        """Return the path of a file of this folder, relative to the unit."""
        return posixpath.relpath(f"{self.path}/{name}", self.root)

    @property
    def _address(self) -> str:
        return f"{self.filesystem.type_name}://{self.root}"

    def place(self, key: str) -> tuple[CheckedFolder, str]:
        """Return the folder and the name of a file that is given relative to the unit."""
        folder = posixpath.normpath(posixpath.join(self.root, posixpath.dirname(key)))
        return replace(self, path=folder), posixpath.basename(key)

    def delete(self) -> None:
        """Remove the folder with everything in it."""
        super().delete()
        _published.pop(self._address, None)

    def is_whole(self, name: str) -> bool:
        """Return whether a file that an interrupted step wrote is there and undamaged; its record is kept if it had none."""
        if not super().is_file(name):
            return False
        try:
            content, record = self._read(name)
            if record is None:
                with self.parsing(name):
                    if name.endswith(".parquet"):
                        pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
                    elif name.endswith(".arrow"):
                        decode_arrow(pa.BufferReader(content))
                self._keep(name, record_of(name, content))
        except DamageError:
            return False
        return True

    # -- reading

    def record(self, name: str, *, again: bool = False) -> Record | None:
        """Return the record of a file, None if there is none.

        Args:
            name: of the file.
            again: whether to read a manifest that this process knows already.
        """
        if is_own(name):
            return None
        published = self._outputs(again=again)
        if published is not None:
            return published.get(self._key(name))
        return read_record(self._records, quote(self._key(name), safe=""))

    def _outputs(self, *, again: bool = False) -> dict[str, Record] | None:
        """Return the records in the manifest; none of an older version; None if there is no manifest."""
        if again or self._address not in _published:
            _published.pop(self._address, None)
            if not self.unit.is_file(MANIFEST):
                return None
            _published[self._address] = read_manifest(self.unit).get(OUTPUTS, {})
        return _published[self._address]

    def is_file(self, name: str) -> bool:
        """Return whether there is a file of this name, or was one when the unit was published: reading it raises then."""
        if super().is_file(name):
            return True
        return (
            not is_own(name)
            and self._key(name) in (self._outputs() or {})
            and self.record(name, again=True) is not None
        )

    def parts(self) -> list[str]:
        """Return the sorted names of a table's parts: those that were published, if that is recorded."""
        keys = self._outputs()
        if not keys:
            return super().parts()
        here = [key for key in keys if posixpath.dirname(key) == self._key("").rstrip(".")]
        return sorted(name for name in map(posixpath.basename, here) if name.startswith("part-"))

    def read_bytes(self, name: str) -> bytes:
        """Return the content of a file, which is as its record says."""
        return self._read(name)[0]

    def _read(self, name: str) -> tuple[bytes, Record | None]:
        record = self.record(name)
        try:
            content = super().read_bytes(name)
        except FileNotFoundError:
            raise self._lost(name) from None
        if record is not None and difference(record, content):
            record = self.record(name, again=True)  # the unit may have been made again since its manifest was read
            if record is not None and (found := difference(record, content)):
                raise self.damage(name, f"is damaged: {found}")
        return content, record

    def _lost(self, name: str) -> Exception:
        """Return the error about a file that is not there."""
        if self.record(name, again=True) is None:
            return FileNotFoundError(f"{self}/{name}")
        return self.damage(name, "is lost, and it was published")

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Return a Parquet file as a table, with all columns or these; see the module for what is checked."""
        record = self.record(name)
        mark = (f"{self._address}/{self._key(name)}", "" if record is None else str(record["sha256"]))
        if record is None or mark in _checked or self._is_narrow(name, columns, record):
            try:
                return super().read_table(name, columns)
            except FileNotFoundError:
                raise self._lost(name) from None
        content, record = self._read(name)
        with self.parsing(name):
            table = pq.read_table(pa.BufferReader(content), columns=columns, page_checksum_verification=True)
        if record is not None:
            _checked.add((mark[0], record["sha256"]))
        return table

    def _is_narrow(self, name: str, columns: list[str] | None, record: Record) -> bool:
        """Return whether the columns are few of a large file, and its footer is as its record says."""
        if columns is None or record["size"] <= _NARROW_BYTES or "footer" not in record:
            return False
        try:
            footer = self._retry(lambda: self._read_footer(name))
        except FileNotFoundError:
            return False
        if zlib.crc32(footer) != record["footer"]:
            return False
        found = pq.read_metadata(io.BytesIO(b"PAR1" + footer))
        groups = [found.row_group(i) for i in range(found.num_row_groups)]
        chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
        wanted = sum(c.total_compressed_size for c in chunks if c.path_in_schema.split(".")[0] in columns)
        return bool(wanted < _NARROW_SHARE * record["size"])

    def _read_footer(self, name: str) -> bytes:
        with self.filesystem.open_input_file(f"{self.path}/{name}") as file:
            size = file.size()
            length = int.from_bytes(file.read_at(min(8, size), max(size - 8, 0))[:4], "little") + 8
            return bytes(file.read_at(min(length, size), max(size - length, 0)))

    def read_arrow(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return columns of an Arrow IPC file. Its footer is compared with its record, and each column with the footer."""
        try:
            return super().read_arrow(name, columns)
        except FileNotFoundError:
            raise self._lost(name) from None

    def _check_footer(self, name: str, size: int, footer: bytes) -> None:
        found = {"size": size, "footer": zlib.crc32(footer)}
        for again in (False, True):  # the unit may have been made again since its manifest was read
            record = self.record(name, again=again) or {}
            if all(record.get(key, value) == value for key, value in found.items()):
                return
        what = "its footer is not that of what was published"
        if size != record.get("size", size):
            what = f"it has {size} bytes instead of {record['size']}"
        raise self.damage(name, f"is damaged: {what}")

    # -- the unit as a whole

    def publish(
        self,
        manifest: Mapping[str, Any],
        names: Iterable[str] | None = None,
        outputs: Mapping[str, Record] | None = None,
    ) -> dict[str, Any]:
        """Write the manifest, with the records of all files of the unit. Everything is on the medium before it is there.

        Args:
            manifest: what else it holds.
            names: files of which there may be no record, relative to the unit; by default all in its own folder.
            outputs: further records.

        Returns:
            The manifest as it was written.
        """
        unit = self.unit
        found = {**(outputs or {}), **unit._collect(names)}
        unit.sync({posixpath.dirname(name) for name in found} | {""})
        sealed = seal({**manifest, OUTPUTS: found})
        unit.write_json(MANIFEST, sealed)
        unit.sync(("", "..", "../.."))
        _published.pop(self._address, None)
        self._records.delete()
        return sealed

    def unpublish(self, damaged: Iterable[str]) -> None:
        """Undo `publish`, so that the step or the dataset is continued: without the damaged files, which are removed."""
        unit, lost = self.unit, set(damaged)
        for name, record in (unit._outputs(again=True) or {}).items():
            if name in lost:
                folder, base = unit.place(name)
                folder.delete_file(base)
                self._records.delete_file(quote(name, safe=""))
            else:
                unit._keep(name, record)
        unit.delete_file(MANIFEST)  # last: until then the damage is noticed
        _published.pop(self._address, None)

    def _collect(self, names: Iterable[str] | None) -> dict[str, Record]:
        """Return the records of the unit's files; those that have none are read."""
        kept = self.written()
        here = self.unchecked.names() if names is None else names
        wanted = {name for name in {*kept, *here} if not is_own(name) and not is_hidden(name)}
        found = {}
        for name, size in self.sizes(wanted).items():
            record = kept.get(name) or self._record_of(name)
            if record["size"] != size:
                folder, base = self.place(name)
                raise folder.damage(base, f"has {size} bytes instead of {record['size']} since it was written")
            found[name] = record
        return found

    def written(self) -> dict[str, Record]:
        """Return the records of what was written since the unit was published last, by path relative to the unit."""
        keys = self._records.names()
        with ThreadPoolExecutor(_READERS) as readers:
            found = readers.map(lambda key: read_record(self._records, key), keys)
            return {unquote(key): record for key, record in zip(keys, found, strict=True) if record is not None}

    def _record_of(self, key: str) -> Record:
        folder, base = self.place(key)
        return record_of(base, folder.unchecked.read_bytes(base))

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Return the sizes of those of the unit's files that exist, in bytes, by their sorted names: a listing a folder."""
        wanted = sorted(names)
        here: dict[str, int] = {}
        for folder in sorted({posixpath.dirname(name) for name in wanted}):
            path = posixpath.normpath(f"{self.root}/{folder}")
            here |= {
                posixpath.join(folder, i.base_name): i.size for i in Folder(self.filesystem, path)._list() if i.is_file
            }
        return {name: here[name] for name in wanted if name in here}

    def check_sizes(self) -> None:
        """Raise DamageError if a published file is lost, or has another size. Costs a listing."""
        outputs = self._outputs(again=True) or {}
        here = self.sizes(outputs)
        for name, record in outputs.items():
            folder, base = self.place(name)
            if name not in here:
                raise folder.damage(base, "is lost, and it was published")
            if here[name] != record["size"]:
                raise folder.damage(base, f"is damaged: it has {here[name]} bytes instead of {record['size']}")

    def check(self) -> None:
        """Raise DamageError if a published file is lost or damaged. Reads all of them."""
        for name in self._outputs(again=True) or {}:
            folder, base = self.place(name)
            folder.read_bytes(base)

    def is_sound(self) -> bool:
        """Return whether the unit is published, and none of its files is damaged or lost. Reads all of them."""
        try:
            if self.unit.is_file(MANIFEST):
                read_manifest(self.unit)
                self.check()
                return True
        except DamageError:
            pass
        return False
