"""Text as it is read on Beam: sources, their sections, chunks of documents."""

from collections.abc import Iterator

from input_pipeline.text import sources


def chunks(pipeline, parts: list[sources.Part]):
  """(a name, chunk) of a mix; names sort as the input does."""
  import apache_beam as beam
  return (pipeline
          | 'sources' >> beam.Create(list(enumerate(parts)))
          | 'spread sources' >> beam.Reshuffle()
          | 'sections' >> beam.FlatMap(_sections, sources.SECTION_BYTES)
          | 'spread sections' >> beam.Reshuffle()
          | 'split' >> beam.FlatMap(_chunks, sources.CHUNK_BYTES)
          | 'spread chunks' >> beam.Reshuffle())  # also keeps each from being worked on twice


def _sections(numbered: tuple[int, sources.Part], section_bytes: int) -> Iterator[tuple[str, sources.Part]]:
  """(its place in the input, part) for every part of a source that one worker reads."""
  place, whole = numbered
  for number, part in enumerate(sources.divided([whole], section_bytes)):
    yield f'{place:08d}-{number:08d}', part


def _chunks(placed: tuple[str, sources.Part], chunk_bytes: int) -> Iterator[tuple[str, sources.Chunk]]:
  """(its name, chunk) for every chunk of a part."""
  place, part = placed
  for number, chunk in enumerate(sources.chunks([part], chunk_bytes)):
    yield f'{place}-{number:08d}', chunk
