"""What `kplm ingest` says of a source: images, what was rejected, what was decided."""

from __future__ import annotations

import dataclasses

import pyarrow as pa

from ray_kplm.datasets.listing import count_kinds, losses_text
from ray_kplm.storage import Folder

REJECTED, NOTES = "rejected.parquet", "notes.parquet"
"""Tables of a dataset: inputs that are not used, and inputs that are and of which something is to say."""

_SHOWN = 200  # characters of an example


@dataclasses.dataclass(frozen=True)
class IngestReport:
    """What became of a source."""

    dataset: str
    images: dict[str, int]
    """Images of each split."""
    rejected: dict[str, int]
    """Rejected inputs by kind of reason; each one is in rejected.parquet."""
    other_files: int
    """Files of the source that are no images."""
    reused_parts: int
    """Parts that an interrupted run had left whole."""
    existed: bool
    """The same dataset was already there; nothing was done."""
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)
    """Files of kinds that are not read, by extension."""
    notes: list[str] = dataclasses.field(default_factory=list)
    """What was decided about the source, and what is doubtful about it, a line each."""

    def __str__(self) -> str:
        splits = ", ".join(f"{count} {split}" for split, count in self.images.items())
        lead = "already there: " if self.existed else ""
        line = f"{self.dataset}: {lead}{splits}; {losses_text(self.rejected, self.other_files, self.skipped)}"
        return "\n".join([line, *self.notes])


def kinds_of(rejected: pa.Table) -> dict[str, int]:
    """Return the number of rows of a table of rejected or noted inputs by kind."""
    return count_kinds(rejected["reason"].to_pylist())


def example(rejected: pa.Table) -> list[str]:
    """Return a line with one of the rejected inputs."""
    if not rejected.num_rows:
        return []
    text = " ".join(f"{rejected['source'][0]}: {rejected['reason'][0]}".split())
    return [f"not used, and listed in {REJECTED}, e.g. {text if len(text) <= _SHOWN else f'{text[:_SHOWN]}...'}"]


def notes_text(root: Folder) -> list[str]:
    """Return a line about the inputs that are used and of which something is to say."""
    if not root.is_file(NOTES):
        return []
    kinds = kinds_of(root.read_table(NOTES))
    return [f"used, and listed in {NOTES}: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}"]
