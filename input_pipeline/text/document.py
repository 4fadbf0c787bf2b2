"""A document, and how a format makes one."""

import dataclasses
import hashlib

READ = 1 << 20  # bytes that a format reads at once
BOM = b'\xef\xbb\xbf'

Raw = tuple[int, bytes, tuple]  # (byte offset in the decompressed file, bytes of one document, context)


@dataclasses.dataclass(frozen=True)
class Document:
  id: str
  title: str
  text: str  # a sentence or a paragraph a line; as it came, not normalised


def make(id_: object, title: str, text: str) -> Document | str:
  """WikiExtractor, and what follows it, repeats the title as the first line: it is no prose.

  But a text that is its title is no line of such a page.
  """
  is_title, text = text == title, text.strip()
  first, _, rest = text.partition('\n')
  if title and first.strip() == title.strip() and not is_title:
    text = rest.strip()
  if not text:
    return 'empty'
  return Document(content_id(text) if id_ in (None, '') else str(id_), title, text)


def content_id(text: str) -> str:
  """The id of a document that brings none: it does not change when other documents are added or files renamed."""
  return hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]
