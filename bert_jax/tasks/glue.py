"""The tasks of GLUE, XNLI and SIB-200: how their original files are read, their classes, official figures and files.

GLUE: gluebenchmark.com (arXiv:1804.07461). Its tables are tab-separated, and quotes in them are text like any other.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.errors import require
from bert_jax.tasks import sentences, tables
from bert_jax.tasks.sentences import Example
from bert_jax.tasks.task import Answer, Settings, Task
from input_pipeline import storage
from input_pipeline.errors import DataError
from input_pipeline.text import tabular

FILES: Mapping[str, tuple[str, ...]] = {'train': ('train.tsv',), 'validation': ('dev.tsv',), 'test': ('test.tsv',)}
INDEX = 'index', 'id', 'idx'  # columns with an example's number
DISAGREED = '-'  # the label of examples of MultiNLI on which annotators did not agree
LANGUAGE = 'language'  # the column of XNLI's files, which hold fifteen


@dataclasses.dataclass(frozen=True)
class Language(Settings):
  """What a task is told whose files are of several languages."""
  language: str = tables.LANGUAGE
  """The language, as files and rows of several languages tell it: en, zh …"""


@dataclasses.dataclass(frozen=True)
class Layout:
  """A task as its authors ship it. Of names of columns the first is taken that is there."""
  name: str  # as its folder and its submission file are called
  text: tuple[str, ...]
  pair: tuple[str, ...] = ()
  label: tuple[str, ...] = ('label',)
  classes: tuple[str, ...] = ('0', '1')
  """In the order of their numbers, as submissions call them; (): the label is a number of `span`."""
  also: Mapping[str, str] = dataclasses.field(default_factory=dict)
  """What TFDS and others call a class -> the class."""
  span: tuple[float, float] = (0, 5)
  files: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=lambda: FILES)
  headless: tuple[str, ...] = ()
  """The columns of a file that does not name them."""
  loose: bool = False
  """Whether rows that lack cells are passed over, and texts may be empty: both are so in the original."""
  original: int = 1
  """How many of the names of a column are those of the original's files; the others are those of TFDS and the like."""
  submissions: Mapping[str, str] | None = None
  """{split: its file of predictions}; None: the test split's, called by the name."""


NLI = 'entailment', 'neutral', 'contradiction'
_OF_NLI = {'蕴含': 'entailment', '中立': 'neutral', '矛盾': 'contradiction', 'contradictory': 'contradiction'}
TOPICS = 'entertainment', 'geography', 'health', 'politics', 'science/technology', 'sports', 'travel'

COLA = Layout('CoLA', ('sentence',), label=('acceptability', 'label'), also={'unacceptable': '0', 'acceptable': '1'},
              headless=('source', 'acceptability', 'star', 'sentence'))
SST2 = Layout('SST-2', ('sentence',), also={'negative': '0', 'positive': '1'})
MRPC = Layout('MRPC', ('#1 String', 'sentence1'), ('#2 String', 'sentence2'), ('Quality', 'label'),
              also={'not_equivalent': '0', 'equivalent': '1'})
STSB = Layout('STS-B', ('sentence1',), ('sentence2',), ('score', 'label'), ())
QQP = Layout('QQP', ('question1',), ('question2',), ('is_duplicate', 'label'),
             also={'not_duplicate': '0', 'duplicate': '1'}, loose=True)
MNLI = Layout('MNLI', ('sentence1', 'premise', 'Premise'), ('sentence2', 'hypothesis', 'Hypothesis'),
              ('gold_label', 'label', 'Label'), NLI, _OF_NLI, original=3,
              files={'train': ('train.tsv',), 'validation': ('dev_matched.tsv',),
                     'validation_mismatched': ('dev_mismatched.tsv',), 'test': ('test_matched.tsv',),
                     'test_mismatched': ('test_mismatched.tsv',),
                     'ax': ('diagnostic-full.tsv', 'diagnostic.tsv', 'AX.tsv', 'diagnostic/diagnostic.tsv',
                            'AX/AX.tsv')},
              submissions={'test': 'MNLI-m.tsv', 'test_mismatched': 'MNLI-mm.tsv', 'ax': 'AX.tsv'})
QNLI = Layout('QNLI', ('question',), ('sentence',), classes=('entailment', 'not_entailment'))
RTE = Layout('RTE', ('sentence1',), ('sentence2',), classes=('entailment', 'not_entailment'))
WNLI = Layout('WNLI', ('sentence1',), ('sentence2',), also={'not_entailment': '0', 'entailment': '1'})
# run_classifier.py XnliProcessor: trained on a translation, evaluated on rows of the language.
XNLI = Layout('XNLI', ('sentence1', 'premise'), ('sentence2', 'hypo', 'hypothesis'), ('gold_label', 'label'), NLI,
              _OF_NLI, original=3, submissions={},
              files={'train': ('multinli/multinli.train.{language}.tsv', 'multinli.train.{language}.tsv'),
                     'validation': ('xnli.dev.tsv',), 'test': ('xnli.test.tsv',)})
SIB200 = Layout('SIB-200', ('sentence', 'text'), label=('label', 'category'), classes=TOPICS, original=2,
                submissions={}, files={split: (f'{split}.tsv',) for split in tables.SPLITS})
_OF_TFDS = {'validation': ('validation', 'validation_matched'), 'validation_mismatched': ('validation_mismatched',),
            'test': ('test', 'test_matched'), 'test_mismatched': ('test_mismatched',), 'train': ('train',)}

# ---------------------------------------------------------------- reading


def find(data: storage.PathLike, split: str, own: Settings, layout: Layout) -> tables.Part | None:
  """Where a split is: in the original's file, in DATA or its folder of the task's name, or in a table called by it.

  None where there is none. Raises ConfigError, DataError.
  """
  language = getattr(own, 'language', tables.LANGUAGE)
  if str(data).startswith(tabular.TFDS):
    _require_language(data, language)
    return _in_tfds(str(data), split)
  directory = storage.path(data)
  names = [name.format(language=language) for name in layout.files.get(split, ())]
  found = next((path for name in names for path in (directory / name, directory / layout.name / name) if path.exists()),
               None)
  if found is not None:
    if not any('{' in name for files in layout.files.values() for name in files):
      _require_language(found, language)
    return tables.Part((str(found),), split)
  original = any((directory / name).exists() for files in layout.files.values() for name in files)
  return None if original or split not in tables.SPLITS else tables.find(data, split, own)


def _require_language(where: storage.PathLike, language: str) -> None:
  require(language == tables.LANGUAGE,
          f'--language {language} changes nothing as {where} tells no language: leave it out')


def _in_tfds(name: str, split: str) -> tables.Part | None:
  there = tabular.splits_of(name)
  if split == 'ax':  # a data set of its own, glue/ax, which is only a test
    return tables.Part((f'{name}:test',), split) if there == ('test',) else None
  found = next((word for word in _OF_TFDS[split] if word in there), None)
  return tables.Part((f'{name}:{found}',), split) if found else None


def read(part: tables.Part | storage.Path, own: Settings, layout: Layout) -> list[Example]:
  """The examples of a split, those without a label with None. Raises DataError, which names the file and the line."""
  keep = {*layout.text, *layout.pair, *layout.label, *INDEX, LANGUAGE}
  found: list[Example] = []
  for name in tables.names_of(part):
    original = name.endswith('.tsv') and not name.startswith(tabular.TFDS)
    table = (tabular.read_unquoted(name, keep, layout.headless, layout.loose) if original
             else tabular.read(name, keep))
    if table.dropped:
      tables.tell(f'{name}: {table.dropped:,} rows have fewer cells than columns, and are passed over')
    found += _examples(table, part, own, layout, original)
  found = [example for example in found if tables.takes(part, tables.SHARE, example.text, example.text_pair)]
  return sentences.checked(found, part, ' or '.join(layout.label))


def _examples(table: tabular.Table, part: tables.Part | storage.Path, own: Settings, layout: Layout,
              original: bool) -> list[Example]:
  column = functools.partial(_column, table, layout, original)
  text, pair = column(layout.text), column(layout.pair) if layout.pair else ''
  label = column(layout.label, required=sentences.is_labelled(part))
  index = next((name for name in INDEX if name in table.columns), '')
  language = getattr(own, 'language', '') if LANGUAGE in table.columns else ''
  found, disagreed = [], 0
  for row in table.rows:
    if language and row.cells.get(LANGUAGE) != language:
      continue
    if label and row.cells.get(label) == DISAGREED and layout.classes == NLI:
      disagreed += 1
      continue
    texts = [sentences.text_of(row, name, empty=layout.loose) for name in (text, pair) if name]
    found.append(Example(texts[0], texts[1] if pair else None,
                         _label(row, label, layout, original) if label else None, row.place,
                         str(row.cells.get(index, ''))))
  if disagreed:
    tables.tell(f'{table.name}: {disagreed:,} examples on whose label annotators did not agree are passed over')
  return found


def _column(table: tabular.Table, layout: Layout, original: bool, names: Sequence[str], required: bool = True) -> str:
  """The first of the names that is a column; '' where there is none and none is required. Raises DataError."""
  if original:  # other names are those of other files
    names = names[:layout.original]
  for name in names:
    if name in table.columns:
      return name
  if not required:
    return ''
  alike = [key for key, its in LAYOUTS.items() if its is not layout and all(
      its_names[0] in table.columns for its_names in (its.text, its.pair or its.text, its.label))]
  as_in = f', as in files of {" and ".join(alike)}: is it of another task?' if alike else ''
  raise DataError(f'{table.name} has no column {" or ".join(map(repr, names))}, as {layout.name} has: it has '
                  f'{tables.shown(table.columns)}{as_in}')


def _label(row: tabular.Row, column: str, layout: Layout, original: bool) -> str | float | None:
  cell = row.cells.get(column)
  if cell is None or cell == -1:  # -1: in test sets without labels, of `datasets`
    return None
  if not layout.classes:
    return sentences.number_of(row, column, *layout.span)
  if isinstance(cell, int) and not isinstance(cell, bool) and 0 <= cell < len(layout.classes):
    return layout.classes[cell]
  # the words of TFDS are no excuse for a TSV of another task
  word = layout.also.get(str(cell), str(cell)) if not original or layout.classes == NLI else str(cell)
  if word not in layout.classes:
    raise DataError(f'{row.place}: the label (column {column!r}) is {str(cell)[:40]!r}, and {layout.name} has '
                    f'{", ".join(layout.classes)}: is it a file of another task?')
  return word

# ---------------------------------------------------------------- predictions


def write(directory: storage.Path, examples: Sequence[Example], answers: Sequence[Answer], split: str,
          layout: Layout) -> None:
  """The file that gluebenchmark.com takes of this split: index and prediction, a header before them."""
  sentences.write(directory, examples, answers, split)
  submissions = {'test': f'{layout.name}.tsv'} if layout.submissions is None else layout.submissions
  if split not in submissions:
    return
  said = [answer['label'] if layout.classes else f'{min(max(answer["label"], layout.span[0]), layout.span[1]):.3f}'
          for answer in answers]
  lines = ['index\tprediction', *(f'{example.index or number}\t{prediction}'
                                  for number, (example, prediction) in enumerate(zip(examples, said)))]
  storage.write_whole(directory / submissions[split], '\n'.join(lines) + '\n')

# ---------------------------------------------------------------- the tasks


def labels(examples: Sequence[Example], layout: Layout) -> tuple[str, ...]:
  """The task's classes; the examples must have two at least. Raises DataError."""
  sentences.classes(examples)
  return layout.classes


def task(layout: Layout, *figures: str, settings: type[Settings] = Settings) -> Task:
  """A task of this layout with these official figures, of which the first compares checkpoints."""
  kind = sentences.CLASSIFICATION if layout.classes else sentences.REGRESSION
  of: dict[str, Any] = {'labels': functools.partial(labels, layout=layout)} if layout.classes else {}
  return dataclasses.replace(
      kind, files=layout.files,
      find=functools.partial(find, layout=layout), read=functools.partial(read, layout=layout),
      metrics=functools.partial(sentences.figures, names=figures), best=figures[0],
      write=functools.partial(write, layout=layout), settings=settings, **of)


# The figures are those of gluebenchmark.com's table; the first is the one that the paper's table 1 has.
TASKS: dict[str, Task] = {
    'cola': task(COLA, 'matthews'), 'sst2': task(SST2, 'accuracy'), 'mrpc': task(MRPC, 'f1', 'accuracy'),
    'stsb': task(STSB, 'spearman', 'pearson'), 'qqp': task(QQP, 'f1', 'accuracy'),
    'mnli': task(MNLI, 'accuracy', settings=Language), 'qnli': task(QNLI, 'accuracy'), 'rte': task(RTE, 'accuracy'),
    'wnli': task(WNLI, 'accuracy'), 'xnli': task(XNLI, 'accuracy', settings=Language),
    'sib200': task(SIB200, 'accuracy', 'f1', settings=Language)}
LAYOUTS = {'cola': COLA, 'sst2': SST2, 'mrpc': MRPC, 'stsb': STSB, 'qqp': QQP, 'mnli': MNLI, 'qnli': QNLI, 'rte': RTE,
           'wnli': WNLI, 'xnli': XNLI, 'sib200': SIB200}
