"""What `--input` names: a mix of sources, each with its weight, as chunks that any process can turn into documents.

A source that is no file is one class like those of files.py and data_sets.py, and one line in SOURCES; a format of
files is one line in formats.FORMATS.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator

from input_pipeline import records, storage
from input_pipeline.text import data_sets, files, formats, listing, transforms
from input_pipeline.text.source import Parsed, Source, Stamp

CHUNK_BYTES = 2 << 20  # of raw text that a worker gets at once
SECTION_BYTES = 16 << 20  # of a large file, compressed or not, that one worker reads


@dataclasses.dataclass(frozen=True)
class Part:
  """A source and its part in a mix."""
  source: Source
  weight: float  # how often each document is taken
  stamp: Stamp
  again: tuple[str, ...] = ()  # what else `--input` calls it, or calls it once more
  transform: transforms.Transform | None = None  # what is done to its documents


@dataclasses.dataclass(frozen=True)
class Chunk:
  """Raw documents of one source, ready to be sent to another process."""
  source: Source
  content: object  # what its `documents` takes
  weight: float = 1
  transform: transforms.Transform | None = None
  more: tuple['Chunk', ...] = ()  # what follows it, of other small files: a chunk for each would be slow

  def size(self) -> int:
    """Bytes of text; 0 where that is not known."""
    own = self.content.size() if isinstance(self.content, files.RawDocuments) else 0
    return own + sum(chunk.size() for chunk in self.more)


Input = str | tuple[str, ...]  # what `--input` names, each of them as a weighted list


def documents(input: Input, format: str | None = None, counts: collections.Counter | None = None,
              options: formats.Options = formats.USUAL) -> Iterator[formats.Document]:
  """The documents of `--input` one after the other, as often as its weights say; `counts` receives what was seen and
  dropped."""
  parts = mixture(input, format, options)
  tell_repeats(parts)
  for chunk in chunks(parts):
    parsed = parse(chunk)
    if counts is not None:
      counts.update(parsed.counts)
    for document, often in taken(parsed.documents, chunk.weight)[0]:
      yield from [document] * often


def divided(parts: Iterable[Part], section_bytes: int) -> list[Part]:
  """The same documents in the same order, where large files are sections, which can be read beside each other.

  Raises DataError, StorageError.
  """
  def of(part: Part) -> list[Part]:
    if not isinstance(part.source, files.File) or part.stamp.bytes <= section_bytes:
      return [part]
    return [_section(part, own) for own in part.source.sections(section_bytes, part.stamp.bytes)]

  return [own for many in storage.beside_each_other(of, list(parts)) for own in many]


def _section(part: Part, source: files.File) -> Part:
  if source.section is None:
    return part
  size = source.section.end - source.section.start
  return dataclasses.replace(part, source=source, stamp=dataclasses.replace(part.stamp, bytes=size))


def is_section(part: Part) -> bool:
  return isinstance(part.source, files.File) and part.source.section is not None


def chunks(parts: list[Part], chunk_bytes: int = CHUNK_BYTES) -> Iterator[Chunk]:
  """The parts of a mix as chunks, in their order. Raises DataError."""
  held: list[Chunk] = []
  size = 0
  each = (Chunk(part.source, content, part.weight, part.transform) for part in parts
          for content in part.source.chunks(chunk_bytes))
  for chunk in each:
    length = chunk.size() or chunk_bytes
    if held and (size + length > chunk_bytes or chunk.weight != held[0].weight):
      yield dataclasses.replace(held[0], more=tuple(held[1:]))
      held, size = [], 0
    held.append(chunk)
    size += length
  if held:
    yield dataclasses.replace(held[0], more=tuple(held[1:]))


def parse(chunk: Chunk) -> Parsed:
  """The documents of a chunk, and the count of everything else in it. Raises DataError."""
  documents: list[formats.Document] = []
  counts: collections.Counter = collections.Counter()
  for one in (chunk, *chunk.more):
    parsed = one.source.documents(one.content)
    counts.update(parsed.counts)
    documents += transforms.apply(chunk.transform, parsed.documents, counts, one.source.name)
  counts['documents'] = len(documents)
  return Parsed(tuple(documents), counts)


def taken(documents: Iterable[formats.Document], weight: float) -> tuple[list[tuple[formats.Document, int]], int]:
  """The documents that a source with this weight gives, each with how often it is taken; and how many it leaves out."""
  found = [(document, times(document, weight)) for document in documents]
  kept = [(document, often) for document, often in found if often]
  return kept, len(found) - len(kept)


def times(document: formats.Document, weight: float) -> int:
  """How often a document of a source with this weight is taken: 0.3 takes 3 of 10, 2.5 takes all twice and half of them
  thrice."""
  if weight == int(weight):
    return int(weight)
  digest = hashlib.blake2b(b'weight ', digest_size=8)
  for field in (document.id, document.text):  # ids may repeat
    digest.update(field.encode('utf-8', 'surrogatepass'))
  return int(weight) + (int.from_bytes(digest.digest(), 'little') < (weight - int(weight)) * 2**64)


def names(input: Input) -> tuple[str, ...]:
  return (input,) if isinstance(input, str) else input


def shown(input: Input) -> str:
  return ' '.join(names(input))


def mixture(input: Input, format: str | None = None, options: formats.Options = formats.USUAL) -> list[Part]:
  """The sources of A=WEIGHT,B=WEIGHT …, each once, however often it is named. Raises DataError, StorageError.

  A weight that is not there is 1. A name with a comma or an equals sign in it works where there is such a file.
  """
  if format is not None and format not in formats.FORMATS:
    raise records.DataError(f'--format {format} is not one of {", ".join(formats.FORMATS)}')
  parts: dict[str, Part] = {}
  for name, weight in [weighted for one in names(input) for weighted in _weighted_names(one)]:
    with storage.named_errors(f'--input {name}'):
      found = [(source, source.stamp()) for source in _sources(name, format, options)]
    for source, stamp in found:
      first = parts.get(stamp.identity)
      if first is None:
        parts[stamp.identity] = Part(source, weight, stamp)
        continue
      parts[stamp.identity] = dataclasses.replace(first, again=(*first.again, source.name))
      if first.weight != weight:
        raise records.DataError(
            f'--input {name} names {source.name} with the weights {first.weight:g} and {weight:g}: '
            'give it one weight, or choose globs that do not overlap')
  if format is not None and not any(isinstance(part.source, files.File) for part in parts.values()):
    raise records.DataError(
        f'--format {format} has no effect on --input {shown(input)}, which names no file: leave --format out')
  _refuse_what_has_no_effect(input, list(parts.values()), options)
  transform = transforms.named(options.transform)
  return [dataclasses.replace(part, transform=transform) for part in parts.values()]


def tell_repeats(parts: list[Part]) -> None:
  """Says on standard error what is named more than once, as overlapping globs do."""
  repeated = [part for part in parts if part.again]
  if not repeated:
    return
  first = repeated[0]
  other = next((f' (also as {name})' for name in first.again if name != first.source.name), '')
  more = f', and {len(repeated) - 1:,} more likewise' if len(repeated) > 1 else ''
  files.tell(f'--input names {first.source.name} {len(first.again) + 1} times{other}{more}: each is read once')


def absolute(part: Part) -> Part:
  """The same for a process with another working directory; what messages call it stays."""
  if not isinstance(part.source, files.File | data_sets.DataSet):
    return part
  return dataclasses.replace(part, source=part.source.absolute())


def _refuse_what_has_no_effect(input: Input, parts: list[Part], options: formats.Options) -> None:
  """Of the options that differ from the usual, those that nothing in the input uses. Opens files only to find one that
  does."""
  usual = dataclasses.asdict(formats.USUAL)
  left = {name for name, value in dataclasses.asdict(options).items() if value != usual[name]} - {'transform'}
  kinds = set()
  for part in parts if left else ():
    if isinstance(part.source, data_sets.DataSet):
      left -= set(formats.FIELDS)
    elif isinstance(part.source, files.File) and not part.source.once:
      kinds.add(kind := part.source.kind())
      left -= set(formats.FORMATS[kind].uses)
    else:
      left = set()  # what it uses is not known before it is read
    if not left:
      return
  for name in sorted(left):
    read_as = f', which is read as {" and ".join(sorted(kinds))}' if kinds else ''
    raise records.DataError(
        f'--{name.replace("_", "-")} has no effect on --input {shown(input)}{read_as}: leave it out')


def read_once(parts: list[Part]) -> list[str]:
  """The names of those that can be read only once: standard input, pipes."""
  return [part.source.name for part in parts if isinstance(part.source, files.File) and part.source.once]


def content(parts: list[Part]) -> str:
  """Tells what is in the files of a mix from any other content; '' where there are none, or one is read once."""
  found = [part.source for part in parts if isinstance(part.source, files.File)]
  if not found or read_once(parts):
    return ''
  return hashlib.blake2b('\n'.join(storage.beside_each_other(files.File.content, found)).encode(),
                         digest_size=16).hexdigest()


def _weighted_names(input: str) -> list[tuple[str, float]]:
  with storage.named_errors(f'--input {input}'):
    single = ',' not in input or _exists(input)
  found = []
  for name in [input] if single else [name for name in input.split(',') if name]:
    stem, equals, weight = name.rpartition('=')
    if not equals or _exists(name):
      stem, weight = name, '1'
    try:
      found.append((stem, float(weight)))
    except ValueError as error:
      raise records.DataError(f'--input {name}: there is no such file, and {weight!r} is not a weight') from error
    if not 0 < found[-1][1] <= 100:
      raise records.DataError(f'--input {name}: a weight is how often a document is taken, above 0 and at most 100')
  return found


def _exists(name: str) -> bool:
  return _kind(name) not in SOURCES and storage.path(name).expanduser().exists()


def _kind(name: str) -> str:
  return name.partition(':')[0]


def _sources(name: str, format: str | None, options: formats.Options) -> list[Source]:
  return SOURCES.get(_kind(name), listing.named)(name, format, options)


# What a name of `--input` begins with, before its colon if it has one -> the sources that it names; any other name is
# of files.
SOURCES: dict[str, Callable[[str, str | None, formats.Options], list[Source]]] = {
    'sample': listing.sample, 'tfds': data_sets.named, listing.STANDARD_INPUT: listing.standard_input}
