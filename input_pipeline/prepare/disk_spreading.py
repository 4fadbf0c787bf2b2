"""Pieces on their way from runs to shards in two rounds (spreading.py), as files of a disk that every process sees.

They need as much of the disk as the runs, once more. A process holds one slice of a bundle at a time, or what of a cell
is in all bundles.
"""

import pathlib
from collections.abc import Callable, Sequence

from input_pipeline import records
from input_pipeline.prepare import columns, spill, spreading, writing
from input_pipeline.prepare.spill import Decisions
from input_pipeline.prepare.spreading import Cells, Range, Rounds

Files = Sequence[pathlib.Path]


def spread(paths: Files, decisions: list[Decisions], cells: Cells, rounds: Rounds, folder: pathlib.Path,
           submit: Callable) -> list[Files]:
  """The files in which the pieces of each cell are; `submit` is an executor's."""
  sliced = spreading.slices(cells.ranges, rounds.slices)
  wholes = list(map(spreading.whole, sliced))
  futures = [submit(_write_slices, runs, own, cells.split, wholes, folder / f'{spill.SPLITS[cells.split]}-{number:06d}')
             for number, (runs, own) in enumerate(zip(spreading.slices(paths, rounds.bundles),
                                                      spreading.slices(decisions, rounds.bundles)))]
  of_slices = list(zip(*[future.result() for future in futures]))
  return [files for files, own in zip(of_slices, sliced) for _ in own]


def _write_slices(runs: Files, decisions: Sequence[Decisions], split: int, wholes: list[Range],
                  name: pathlib.Path) -> list[pathlib.Path]:
  """A file for each slice of a bundle."""
  files = []
  for number, whole in enumerate(wholes):
    [[*parts]] = spreading.select(list(map(spill.read, runs)), decisions, split, [whole])
    files.append(name.with_name(f'{name.name}-{number:06d}.slice'))
    spill.write(files[-1], spill.of_pieces(columns.merge(parts)), {})
  return files


def write_shard(path: pathlib.Path, files: Sequence[Files], ranges: Sequence[Range], unknown_id: int
                ) -> tuple[records.Shard, dict[str, int]]:
  """One shard, cell by cell, of the files that each is in."""
  merged = (columns.merge([columns.between(spill.read(file).pieces, *cell) for file in own])
            for own, cell in zip(files, ranges))
  return writing.write_shard(path, merged, unknown_id)
