"""What a check of all files found, for the screen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from unveil.data.audit import Duplicate, duplicates, empty_classes, listed, missing_classes
from unveil.data.manifest import Manifest

MOST = 20
"""How many files of a kind are listed; the manifest has all."""
SILENT, LOUD = 2**-15, 1.5
"""The loudest sample of what counts as silent, and of what counts as louder than it can be; 1 is full scale."""


@dataclass
class Checked:
    """All rows, measured.

    Args:
        manifest: with absolute paths.
        files: the manifests that were written.
        unchanged: how many files were not decoded again.
        empty_folders: without any media file.
    """

    manifest: Manifest
    files: list[str]
    unchanged: int = 0
    empty_folders: list[str] = field(default_factory=list)

    @cached_property
    def bad(self) -> list[tuple[str, str]]:
        """The files that cannot be read: (path, what the decoder said)."""
        return self.manifest.bad_files()

    @cached_property
    def count(self) -> int:
        """How many files there are."""
        return self.manifest.files

    @cached_property
    def duration(self) -> float:
        """Seconds, all files together."""
        columns = (self.manifest.column(name) for name in ("path", "duration"))
        return sum(seconds or 0.0 for seconds in dict(zip(*columns, strict=True)).values())

    @cached_property
    def silent(self) -> list[str]:
        """Sound files in which no sample is louder than the last of 16 bits."""
        return self._peaks(lambda peak: peak <= SILENT)

    @cached_property
    def clipped(self) -> list[str]:
        """Sound files whose loudest sample is far beyond full scale; what codecs overshoot by is not meant."""
        return self._peaks(lambda peak: peak > LOUD)

    def _peaks(self, meant: Callable[[float], bool]) -> list[str]:
        peaks = dict(zip(self.manifest.column("path"), self.manifest.column("peak"), strict=True))
        return [path for path, peak in peaks.items() if peak is not None and meant(peak)]

    @cached_property
    def duplicates(self) -> list[Duplicate]:
        """Files of the same content; those across splits first."""
        return duplicates(self.manifest)

    def sentences(self) -> Iterator[tuple[str, str]]:
        """(style, text), in the order in which they matter least to most: the last stays on the screen."""
        again = f" ({self.unchanged:,} unchanged since the last check)" if self.unchanged else ""
        yield (
            "",
            f"{self.count - len(self.bad):,} of {self.count:,} files are good{again}"
            + (f", {_span(self.duration)} in all" if self.duration else ""),
        )
        for folder in self.empty_folders[:MOST]:
            yield "yellow", f"no media file in {folder}"
        for split, classes in missing_classes(self.manifest).items():
            yield "yellow", f"split {split} lacks the {_classes(classes)}"
        harmless = [found for found in self.duplicates if not found.leaks and not found.contradicts]
        if harmless:
            yield "yellow", f"there more than once: {len(harmless):,}"
            yield from (("", "  " + listed(found.paths)) for found in harmless[:MOST])
        for found, note in (
            (self.silent, "without a sound, from beginning to end: {:,} (they are read all the same)"),
            (self.clipped, "louder than full scale, and cut there when they are read: {:,}"),
        ):
            if found:
                yield "yellow", note.format(len(found))
                yield from (("", f"  {path}") for path in found[:MOST])
        if self.bad:
            yield "red", f"{len(self.bad):,} bad:"
            yield from (("", f"  {error}") for _, error in self.bad[:MOST])
            if self.bad[MOST:]:
                yield "", f"  and {len(self.bad) - MOST:,} more; the column error of the manifest has all"
        if empty := empty_classes(self.manifest):
            yield "bold red", f"WARNING: no readable file of the {_classes(empty)}"
        wrong = [found for found in self.duplicates if found.contradicts and not found.leaks]
        if wrong:
            yield "bold red", f"WARNING: the same content with different labels: {len(wrong):,}"
            yield from (("", f"  {listed(found.paths)}: {' | '.join(found.labels)}") for found in wrong[:MOST])
        leaks = [found for found in self.duplicates if found.leaks]
        if leaks:
            yield (
                "bold red",
                f"WARNING: the same content in several splits, so that what is tested was trained on: {len(leaks):,}",
            )
            yield from (("", f"  {', '.join(found.splits)}: {listed(found.paths)}") for found in leaks[:MOST])
        yield "", f"written to {', '.join(self.files)}"


def _classes(names: list[str]) -> str:
    return f"{'class' if len(names) == 1 else 'classes'} {listed(names, 8)}"


def _span(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"
