"""Ten corpora as people have them go from text to a filled mask by five commands, with few flags beside their names."""

import csv
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import textwrap

import pytest

from tests import buckets, compiling, pages

GERMAN = ('der Fluss liegt an einer alten Brücke über Köln Bücher Straße weiß größer müde Häuser Äpfel Öl schön Tür '
          'früh und die Stadt ist nicht weit von hier Menschen gehen täglich zum Markt kaufen Brot Käse').split()
ENGLISH = ('the river runs by an old bridge near town people walk to market every day and buy bread cheese apples '
           'books are read in houses along streets where children play while evening falls slowly').split()
JAPANESE = '私 は パン を 食べ ます 学生 です が 本 読み 東京 駅 で 友達 と 会い まし た 雨 降っ て 静か な'.split()
CHINESE = '今天 天气 很 好 我们 去 公园 看 书 学生 在 学校 学习 历史 老 城市 有 一 座 大 桥 人们 每天 买 面包'.split()


def documents(words, joined: str, end: str, count: int = 90) -> list[list[str]]:
  """Documents as lists of sentences."""
  draw = random.Random(0)
  begin = lambda text: text[:1].upper() + text[1:]
  return [[begin(joined.join(draw.choices(words, k=draw.randint(5, 14)))) + end for _ in range(draw.randint(4, 9))]
          for _ in range(count)]


def plain(words, joined=' ', end='.') -> str:
  return '\n\n'.join('\n'.join(document) for document in documents(words, joined, end))


def folder(place: pathlib.Path, suffix: str, texts: list[str]) -> pathlib.Path:
  place.mkdir()
  for number, text in enumerate(texts):
    (place / f'{number}{suffix}').write_text(text)
  return place


def of_csv(place):
  with (place / 'rows.csv').open('w', newline='') as file:
    csv.writer(file).writerows([['id', 'text'], *(
        [number, ' '.join(document)] for number, document in enumerate(documents(ENGLISH, ' ', '.')))])
  return place / 'rows.csv'


def of_parquet(place):
  import pyarrow
  import pyarrow.parquet
  texts = [' '.join(document) for document in documents(ENGLISH, ' ', '.')]
  pyarrow.parquet.write_table(pyarrow.table({'text': texts}), place / 'rows.parquet')
  return place / 'rows.parquet'


def written(place, name: str, text: str) -> pathlib.Path:
  (place / name).write_text(text)
  return place / name


def of_pdf(place):
  """Lines of 50 columns with words cut at their end, pages with numbers between form feeds."""
  pages_of = []
  for number, document in enumerate(documents(ENGLISH, ' ', '.'), 1):
    lines = textwrap.wrap(' '.join(document), 50)
    cut = [re.sub(r' (\w{2})(\w{3,})$', r' \1-', line) for line in lines]
    pages_of.append('\n'.join([*cut, '', f'{number}']))
  return written(place, 'report.txt', '\f'.join(pages_of))


def of_code(place):
  draw, names = random.Random(0), ['value', 'count', 'name', 'rows', 'total', 'items', 'index', 'limit']
  word = lambda: draw.choice(names)
  one = lambda: (f'def {word()}_of({word()}):\n  """{word().title()}."""\n  '
                 f'for {word()} in range({draw.randint(1, 99)}):\n    if {word()} > {word()}:\n      '
                 f'return {word()} + {draw.randint(1, 99)}\n')
  return folder(place / 'code', '.py', ['\n\n'.join(one() for _ in range(8)) for _ in range(90)])


CORPORA = {  # how it is made, what masks are filled in, and the flag that it needs, which is told without it
    'a folder of .txt': (lambda place: folder(place / 'texts', '.txt', plain(ENGLISH).split('\n\n')), 'the [MASK]'),
    'CSV': (of_csv, 'the [MASK] runs'),
    'JSON lines with content': (lambda place: written(place, 'rows.jsonl', '\n'.join(
        json.dumps({'id': number, 'content': ' '.join(document)})
        for number, document in enumerate(documents(ENGLISH, ' ', '.')))), 'the [MASK]', '--text-field', 'content'),
    'Parquet': (of_parquet, 'the [MASK] runs'),
    'a sentence a line': (lambda place: written(place, 'lines.txt', plain(ENGLISH).replace('\n\n', '\n')),
                          'the [MASK]'),
    'PDF': (of_pdf, 'the [MASK] runs'),
    'German': (lambda place: written(place, 'de.txt', plain(GERMAN)), 'die [MASK] ist nicht weit'),
    'Japanese': (lambda place: written(place, 'ja.txt', plain(JAPANESE, '', '。')), '私は[MASK]を食べます'),
    'Chinese': (lambda place: written(place, 'zh.txt', plain(CHINESE, '', '。')), '今天[MASK]气很好'),
    'Python code': (of_code, 'for [MASK] in range'),
}
SIZE = {'Chinese': 38}  # of a vocabulary: the corpora are small
RECIPE = {'a sentence a line': 'sample_no_nsp'}  # one document has no next-sentence negatives: `sample` says so
SMALL = ['--model.hidden-size', '16', '--model.layers', '1', '--model.heads', '2', '--model.intermediate-size', '16',
         '--run.steps', '2']


def commands(corpus: pathlib.Path, name: str, size: int, recipe: str, text: str, *flags: str) -> list[list[str]]:
  """With at most two flags beside what is read and written: the size, or the recipe, and one that the corpus needs."""
  return [['vocabulary', '--input', str(corpus), *flags, '--size', str(size), '--output', f'{name}.txt'],
          ['prepare', '--for', recipe, '--input', str(corpus), *flags, '--vocabulary', f'{name}.txt', '--output',
           f'{name}-data'],
          ['pretrain', recipe, '--data', f'{name}-data', '--run-dir', f'{name}-run', *SMALL],
          ['export', f'{name}-run'], ['fill-mask', f'{name}-run/export', text]]


@pytest.mark.slow
def test_five_commands(tmp_path):
  every = {name: commands(make(tmp_path), f'c{number}', SIZE.get(name, 120), RECIPE.get(name, 'sample'), *more)
           for number, (name, (make, *more)) in enumerate(CORPORA.items())}
  argv = [word for those in every.values() for command in those for word in (*command, '+')]
  environment = os.environ | {'PYTHONPATH': os.pathsep.join([str(pages.ROOT), *sys.path]),
                              'XLA_FLAGS': compiling.FLAGS, 'PYTHONWARNINGS': 'ignore'}
  done = subprocess.run([sys.executable, '-P', pages.ROOT / 'tests/without.py', '-', *argv], cwd=tmp_path,
                        env=environment, capture_output=True, text=True, timeout=3 * buckets.SECONDS)
  found = [json.loads(line) for line in done.stdout.splitlines()]
  assert len(found) == 5 * len(CORPORA), done.stderr[-2000:]
  for number, (name, those) in enumerate(every.items()):
    results = found[5 * number:5 * number + 5]
    failed = [(command[0], result['errors']) for command, result in zip(those, results) if result['code']]
    said = [line for result in results for line in result['errors'].splitlines() if line.startswith('bert-jax: ')]
    print(name, f'failed: {failed}' if failed else 'done', *said, sep='\n  ')
    assert not failed, name
    assert len(results[-1]['out'].splitlines()) > 3
  lower = {name: json.loads((tmp_path / f'c{number}.txt.json').read_text())['lower_case']
           for number, name in enumerate(every)}
  assert [name for name, is_lower in lower.items() if not is_lower] == ['German', 'Japanese']
