"""Made-up files of every task of GLUE, in the layouts that GLUE ships: headers, order of columns, marks, odd rows."""

import pathlib

CLASSES = {'MNLI': ('entailment', 'neutral', 'contradiction'), 'QNLI': ('entailment', 'not_entailment'),
           'RTE': ('entailment', 'not_entailment')}
PARSES = ('promptID', 'pairID', 'genre', 'sentence1_binary_parse', 'sentence2_binary_parse', 'sentence1_parse',
          'sentence2_parse')
TRAIN, HELD_OUT = 12, 5


def label(folder: str, number: int) -> str:
  if folder == 'STS-B':
    return f'{number * 5 / TRAIN:.3f}'
  classes = CLASSES.get(folder, ('0', '1'))
  return classes[number % len(classes)]


def texts(number: int) -> tuple[str, str]:
  """With what trips a reader of CSV: a quote that is never closed, one that begins a cell, other spaces, a comma."""
  first = ('" He said so , did he ?', 'a "quoted" word', 'plain words', '" whole "',
           'caf\xe9\u2028here\x85and')[number % 5]
  return f'{first} {number}', f'the second {number} of "two'


def write(root: pathlib.Path) -> pathlib.Path:
  """All tasks below `root`, as download_glue_data.py leaves them."""
  for folder in ('CoLA', 'SST-2', 'MRPC', 'STS-B', 'QQP', 'MNLI', 'QNLI', 'RTE', 'WNLI', 'diagnostic'):
    (root / folder).mkdir(parents=True)
    for name in files(folder):
      rows = [line(folder, name, number) for number in range(TRAIN if name == 'train.tsv' else HELD_OUT)]
      head = header(folder, name)
      text = '\n'.join('\t'.join(row) for row in ([head] if head else []) + rows) + '\n' * (name != 'dev.tsv')
      (root / folder / name).write_bytes((b'\xef\xbb\xbf' if folder == 'MRPC' else b'') + text.encode())
  (root / 'MRPC/dev_ids.tsv').write_text('1\t2\n')
  return root


def files(folder: str) -> tuple[str, ...]:
  if folder == 'diagnostic':
    return 'diagnostic.tsv',
  if folder == 'MNLI':
    return 'train.tsv', 'dev_matched.tsv', 'dev_mismatched.tsv', 'test_matched.tsv', 'test_mismatched.tsv'
  return 'train.tsv', 'dev.tsv', 'test.tsv'


def header(folder: str, name: str) -> list[str]:
  test = name.startswith(('test', 'diagnostic'))
  labels = [] if test else ['label']
  if folder == 'CoLA':
    return ['index', 'sentence'] if test else []
  if folder == 'SST-2':
    return ['index', 'sentence'] if test else ['sentence', 'label']
  if folder == 'MRPC':
    return ['index' if test else 'Quality', '#1 ID', '#2 ID', '#1 String', '#2 String']
  if folder == 'STS-B':
    return ['index', 'genre', 'filename', 'year', 'old_index', 'source1', 'source2', 'sentence1', 'sentence2'] + (
        [] if test else ['score'])
  if folder == 'QQP':
    return ['id', 'question1', 'question2'] if test else [
        'id', 'qid1', 'qid2', 'question1', 'question2', 'is_duplicate']
  if folder == 'MNLI':
    five = [*(f'label{i}' for i in range(1, 6)), 'gold_label']
    judged = {'train.tsv': ['label1', 'gold_label'], 'dev_matched.tsv': five, 'dev_mismatched.tsv': five}
    return ['index', *PARSES, 'sentence1', 'sentence2', *judged.get(name, [])]
  if folder == 'QNLI':
    return ['index', 'question', 'sentence', *labels]
  return ['index', 'sentence1', 'sentence2', *labels]


def line(folder: str, name: str, number: int) -> list[str]:
  first, second = texts(number)
  known = {'sentence': second if folder == 'QNLI' else first, 'sentence1': first, 'sentence2': second,
           '#1 String': first, '#2 String': second, 'question': first, 'question1': first, 'question2': second,
           'index': str(number), 'id': str(number)}
  known |= dict.fromkeys(('label', 'score', 'Quality', 'is_duplicate', 'gold_label'), label(folder, number))
  head = header(folder, name) or ['source', 'label', 'star', 'sentence']
  return [known.get(column, '' if column == 'star' else f'x{number}') for column in head]
