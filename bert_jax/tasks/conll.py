"""CoNLL files: a word and its tag a line, a blank line after each sentence; entities in tags of four schemes, and their
figures.

Whatever the file's scheme, tags are IOB2 once they are read: B- on the first word of an entity, I- on its others, O
outside. IOB1 (CoNLL-2003's own) has B- only where an entity follows another of its type; BIOES has E- on the last word
and S- on an only one.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence

from input_pipeline import storage
from input_pipeline.errors import DataError
from input_pipeline.text import given

DOCUMENT = '-DOCSTART-'  # the word of a line that begins a document; it is no word of a sentence
OUTSIDE = 'O'
# What other files call these letters: BMES and BMEWO of Chinese corpora, BILOU.
LETTERS = {'B': 'B', 'I': 'I', 'M': 'I', 'E': 'E', 'L': 'E', 'S': 'S', 'U': 'S', 'W': 'S'}
_TAG = re.compile(f'([{"".join(LETTERS)}])-(.+)')
_GAP = re.compile('[ \t]+')  # not of Unicode: a word may hold a no-break space


@dataclasses.dataclass(frozen=True)
class Columns:
  """Where a line has what; -1 is its last column."""
  word: int = 0
  tag: int = -1
  comment: str = ''
  """What lines begin with that are left out, such as '# '; '': a line with a # has a word as any other."""


@dataclasses.dataclass(frozen=True)
class Sentence:
  """The words of a sentence, each with its tag."""
  words: tuple[str, ...]
  tags: tuple[str, ...]  # in IOB2; as they stand where they are of no entities; () where the file has none
  document: int  # the number of its document, from 0
  lines: tuple[int, ...]  # of the file, each word's
  file: str  # its name, for messages


def read(path: storage.Path, columns: Columns = Columns(), scheme: str = 'auto') -> list[Sentence]:
  """The sentences of a file, their tags by `scheme`: a key of SCHEMES, or '' for tags of no entities, as they stand.

  Columns lie between tabs where the first line of a word has one, else between spaces and tabs. Where that line is of
  a word only, so are all, and there are no tags. Raises DataError, which names file and line.
  """
  sentences = list(_sentences(path, given.whole(path).split('\n'), columns))
  if not sentences:
    raise DataError(f'{path} holds no sentence: wanted a word and its tag a line, and a blank line after each sentence')
  if not scheme or not sentences[0].tags:
    return sentences
  parts = [[_parts(tag, f'{path}, line {line}') for tag, line in zip(sentence.tags, sentence.lines)]
           for sentence in sentences]
  check = SCHEMES[scheme]
  if fault := check([(part, sentence.lines) for part, sentence in zip(parts, sentences)]):
    raise DataError(f'{path}, {fault}')
  return [dataclasses.replace(sentence, tags=_iob2(part)) for part, sentence in zip(parts, sentences)]


def _sentences(path: storage.Path, lines: Sequence[str], columns: Columns) -> Iterator[Sentence]:
  """The file's sentences, with its own tags."""
  no_words = (DOCUMENT, columns.comment) if columns.comment else (DOCUMENT,)
  first = next((line for line in lines if line.strip() and not line.startswith(no_words)), '')
  by_tabs = lambda line: [field.strip(' ') for field in line.rstrip(' \t\r').split('\t')]
  by_gaps = lambda line: _GAP.split(line.strip(' \t\r'))
  split = by_tabs if '\t' in first.strip() else by_gaps
  tagged = len(split(first)) > 1
  words: list[str] = []
  tags: list[str] = []
  places: list[int] = []
  document, begun = 0, False
  for number, line in enumerate([*lines, ''], 1):
    if columns.comment and line.startswith(columns.comment):
      continue
    if line.strip() and not line.startswith(DOCUMENT):
      word, tag = _fields(split(line), columns, tagged, f'{path}, line {number}')
      words.append(word)
      tags.append(tag)
      places.append(number)
      continue
    if words:
      yield Sentence(tuple(words), tuple(tags) if tagged else (), document, tuple(places), str(path))
      words, tags, places, begun = [], [], [], True
    document += begun and line.startswith(DOCUMENT)


def _fields(fields: Sequence[str], columns: Columns, tagged: bool, where: str) -> tuple[str, str]:
  """A line's word and its tag, '' where the file has none. Raises DataError."""
  count = len(fields)
  has = f'{where} has {count} column{"s" * (count > 1)}, {" | ".join(fields):.40}: wanted'
  if not tagged:
    if count > 1:
      raise DataError(f'{has} only a word, as in the first line of one')
    return fields[0], ''
  found = [fields[column] for column in (columns.word, columns.tag) if -count <= column < count]
  if len(found) < 2 or (columns.word - columns.tag) % count == 0 or not all(found):
    raise DataError(f'{has} the word in column {columns.word} and its tag in column {columns.tag} (-1: the last); '
                    'others are named by --word-column and --tag-column')
  return found[0], found[1]

# ---------------------------------------------------------------- entities

Part = tuple[str, str]  # B, I, E, S or O, and the entity's type
Placed = Sequence[tuple[Sequence[Part], Sequence[int]]]  # of each sentence its parts, and their lines
NOTHING: Part = (OUTSIDE, '')  # before and after a sentence


def _parts(tag: str, where: str) -> Part:
  if tag == OUTSIDE:
    return NOTHING
  found = _TAG.fullmatch(tag)
  if not found:
    raise DataError(f'{where}: the tag is {tag:.40}: wanted {OUTSIDE}, or B- or I- and a type, such as B-PER; tags '
                    'of another kind are of the task word_tags')
  return LETTERS[found[1]], found[2]


def iob2(tags: Sequence[str]) -> tuple[str, ...]:
  """Tags of any scheme in IOB2, as conlleval reads them: an entity begins where I- follows none of its type, too."""
  return _iob2([_parts(tag, 'a prediction') for tag in tags])


def _iob2(parts: Sequence[Part]) -> tuple[str, ...]:
  return tuple(letter if letter == OUTSIDE else f'{"B" if begins else "I"}-{kind}'
               for (letter, kind), begins in zip(parts, map(_begins, [NOTHING, *parts], parts)))


def _begins(before: Part, part: Part) -> bool:
  """Whether an entity begins with `part`, whatever the scheme."""
  return part[0] in 'BS' or part[0] in 'IE' and (before[0] in 'OES' or before[1] != part[1])


def _fault(sentences: Placed, wrong: Callable[[Part, Part], bool]) -> str:
  """Where the first part is that is `wrong` after the one before it, in words; '' where none is."""
  for parts, lines in sentences:
    for i, (before, part) in enumerate(zip([NOTHING, *parts], [*parts, NOTHING])):
      if wrong(before, part):
        if i == len(parts):
          return f'line {lines[-1]}: the sentence ends with {_tag(before)}'
        return f'line {lines[i]}: {_tag(part)} follows {_tag(before) if i else "nothing"}'
  return ''


def _tag(part: Part) -> str:
  return '-'.join(filter(None, part))


def _strange(sentences: Placed) -> str:
  return _fault(sentences, lambda before, part: part[0] in 'ES')


def _opened(sentences: Placed) -> str:
  """Where an entity begins without B-, which IOB2 has not."""
  return _fault(sentences, lambda before, part: part[0] == 'I' and _begins(before, part))


def _marked(sentences: Placed) -> str:
  """Where B- stands and no entity of its type ends, which IOB1 has not."""
  return _fault(sentences, lambda before, part: part[0] == 'B' and (before[0] == OUTSIDE or before[1] != part[1]))


def as_iob1(sentences: Placed) -> str:
  """Of IOB1 any B- and I- will do: it is how IOB2, and what is neither, are read too."""
  return (fault := _strange(sentences)) and f'{fault}, and IOB1 has only B- and I-: leave --scheme out'


def as_iob2(sentences: Placed) -> str:
  if fault := _strange(sentences):
    return f'{fault}, and IOB2 has only B- and I-: leave --scheme out'
  return (fault := _opened(sentences)) and (
      f'{fault}, and in IOB2 an entity begins with B-: mend it, or let it begin one by --scheme iob1')


def as_bioes(sentences: Placed) -> str:
  def wrong(before: Part, part: Part) -> bool:
    within = before[0] in 'BI'
    return within != (part[0] in 'IE') or within and before[1] != part[1]
  return (fault := _fault(sentences, wrong)) and (
      f'{fault}, and in BIOES an entity is S-, or B- to E-: mend it, or name another --scheme')


def told_apart(sentences: Placed) -> str:
  """The file's own: BIOES where it has E- or S-, IOB1 where I- begins an entity, else IOB2."""
  if _strange(sentences):
    return as_bioes(sentences)
  opened, marked = _opened(sentences), _marked(sentences)
  return f'{opened}, which is IOB1, and {marked}, which is IOB2: mend one, or read both by --scheme iob1' if (
      opened and marked) else ''


# By the scheme's name: what is wrong with the tags of a file, '' where nothing is.
SCHEMES: dict[str, Callable[[Placed], str]] = {
    'auto': told_apart, 'iob1': as_iob1, 'iob2': as_iob2, 'bioes': as_bioes}

# ---------------------------------------------------------------- figures and files


def figures(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
  """Precision, recall and F1 of entities by seqeval, strictly in IOB2, of all and of each type of `gold`; accuracy of
  words. Both are in IOB2, so that conlleval gives the same.

  An entity counts where its type and all its words are right.
  """
  from seqeval.metrics.v1 import precision_recall_fscore_support as scores
  from seqeval.scheme import IOB2
  gold, predicted = list(map(list, gold)), list(map(list, predicted))
  words = [(a, b) for one, other in zip(gold, predicted, strict=True) for a, b in zip(one, other, strict=True)]
  names = 'precision', 'recall', 'f1'
  found = {'accuracy': sum(a == b for a, b in words) / len(words)}
  kinds = sorted({tag[2:] for pair in words for tag in pair if tag != OUTSIDE})
  if not kinds:
    return {**dict.fromkeys(names, 0.0), **found}
  of_all = scores(gold, predicted, average='micro', scheme=IOB2, zero_division=0)
  by_kind = scores(gold, predicted, average=None, scheme=IOB2, zero_division=0)
  found = {**dict(zip(names, map(float, of_all))), **found}
  wanted = {tag[2:] for tags in gold for tag in tags}
  for kind, values in zip(kinds, zip(*by_kind), strict=True):
    found |= {f'{kind}_{name}': float(value) for name, value in zip(names, values) if kind in wanted}
  return found


def write(path: storage.Path, sentences: Sequence[Sentence], predicted: Sequence[Sequence[str]]) -> None:
  """Lines of word, its tag, and the tag that was predicted, as conlleval reads them; without the file's own tag where
  it has none. conlleval takes a space for the next column, so that one within a word or a tag is written as _.
  """
  one = lambda field: re.sub(r'\s', '_', field)
  blocks = []
  for sentence, tags in zip(sentences, predicted, strict=True):
    columns = [sentence.words, *filter(None, [sentence.tags]), tags]
    blocks.append(''.join(' '.join(map(one, fields)) + '\n' for fields in zip(*columns, strict=True)))
  storage.write_whole(path, '\n'.join(blocks) + '\n')
