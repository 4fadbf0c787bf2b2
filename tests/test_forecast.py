"""What is told before the work: about what it then is, by every engine; nothing where it cannot be known; and bars."""

import bz2
import dataclasses
import gzip
import json
import lzma
import pathlib
import re
import time

import corpora
import pytest

from input_pipeline import records
from input_pipeline.engines import bars
from input_pipeline.prepare import corpus, forecast, jobs, portions, settings
from input_pipeline.text import sources
from input_pipeline.vocabulary import tokenizer

KINDS = {'.txt': bytes, '.txt.gz': gzip.compress, '.txt.bz2': bz2.compress, '.txt.xz': lzma.compress}
# In what all figures may differ from what then is: a part of the text tells of all.
SURE = 1.3


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'vocab.txt').write_text('\n'.join(corpora.TOKENS) + '\n')
  return tmp_path


def write(folder: pathlib.Path, documents: int, kind: str = '.txt', name: str = 'a') -> pathlib.Path:
  path = folder / f'{name}{kind}'
  path.write_bytes(KINDS[kind]('\n\n'.join(map(corpora.text_of, range(documents))).encode()))
  return path


def asked(folder: pathlib.Path, input: str, **chosen) -> settings.Prepare:
  return settings.Prepare(input, str(folder / 'vocab.txt'), str(folder / 'data'), sequence_length=32, **chosen)


def job_of(prepare: settings.Prepare, folder: pathlib.Path) -> jobs.Job:
  return jobs.Job(prepare, sources.mixture(prepare.input), tokenizer.load(prepare.vocabulary), folder, folder, folder)


@pytest.mark.parametrize('kind, chosen', [*[(kind, {}) for kind in KINDS], ('.txt', {'limit': 40}),
                                          ('.txt', {'first': 40}), ('.txt', {'shards': 3, 'validation_share': 0.})])
def test_what_is_expected_is_about_what_is_made(folder, kind, chosen, monkeypatch):
  monkeypatch.setattr(portions, 'TOKENS', 9000)  # so that there are several shards
  path, small = write(folder, 300, kind), write(folder, 20, kind, 'b')
  prepare = asked(folder, f'{path}=1.5,{small}', **chosen)
  found = forecast.of(job_of(prepare, folder))
  manifest = corpus.prepare(prepare, progress=False)
  near = lambda ours, theirs: theirs / SURE <= ours <= theirs * SURE
  assert 'first' in chosen or near(found.text, manifest.counts['bytes'])  # of its last chunk all is read
  assert near(sum(found.tokens.values()), sum(split.tokens for split in manifest.splits.values()))
  made = {name: len(split.shards) for name, split in manifest.splits.items()}
  assert len(found.shards) == len(made) and near(sum(found.shards.values()), sum(made.values()))


def test_nothing_is_expected_where_nobody_asks_or_it_cannot_be_known(folder):
  path = write(folder, 30)
  job = job_of(asked(folder, str(path)), folder)
  assert forecast.of(job) and forecast.of(dataclasses.replace(job, progress=False)) is None
  (folder / 'empty.txt').write_text('')
  (folder / 'wrong.txt').write_bytes(b'A \xff byte.\n' * 9)
  (folder / 'cut.txt.gz').write_bytes(gzip.compress(b'one two three. ' * 9000)[:-9])
  for name in ('empty.txt', 'wrong.txt', 'cut.txt.gz'):
    assert forecast.of(job_of(asked(folder, str(folder / name)), folder)) is None


def told(capfd) -> list[str]:
  return [line for line in capfd.readouterr().err.splitlines() if 'plan: ' in line]


PLAN = (r'bert-jax: (--engine ray )?plan: about [\d.]+ kB of text in \d+ chunks?, [\d,]+ tasks; [\d,]+ tokens in '
        r'shards, 2 of train and 1 of validation; a worker needs about \d+ MB of memory; [\d.]+ [kM]?B(ytes)? ')


@pytest.mark.parametrize('engine', ['processes', pytest.param('beam', marks=pytest.mark.beam),
                                    pytest.param('ray', marks=pytest.mark.ray)])
def test_every_engine_tells_its_plan_once_before_the_work(engine, folder, capfd, request):
  arguments = request.getfixturevalue('ray_nodes').direct if engine == 'ray' else ()
  prepare = asked(folder, str(write(folder, 60)), engine=engine, shards=2)
  capfd.readouterr()
  corpus.prepare(dataclasses.replace(prepare, output=str(folder / 'silent')), progress=False, arguments=arguments)
  assert told(capfd) == []
  corpus.prepare(prepare, arguments=arguments)
  [line] = told(capfd)
  assert re.match(PLAN, line), line
  corpus.prepare(prepare, arguments=arguments)  # it is there
  assert told(capfd) == []
  (folder / 'c.jsonl').write_text(json.dumps({'text': 'one'}) + '\n{"text": ')
  with pytest.raises(records.DataError, match='c.jsonl'):
    corpus.prepare(dataclasses.replace(prepare, input=str(folder / 'c.jsonl'), overwrite=True), arguments=arguments)
  assert told(capfd) == []


class Bar:
  """One that is looked at."""

  def __init__(self):
    self.n, self.seen = 0, []

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass

  def update(self, more):
    self.n += more
    self.seen.append(self.n)


def test_shards_that_come_are_seen_by_looking(monkeypatch):
  """And a storage that fails meanwhile ends nothing."""
  made, bar, found = [], Bar(), iter([0, 1, OSError('down'), 2])
  monkeypatch.setattr(bars, 'bar', lambda *what: made.append(what) or bar)
  monkeypatch.setattr(bars, '_PERIOD', 0.01)

  def count() -> int:
    one = next(found, 3)
    if isinstance(one, OSError):
      raise one
    return one

  with bars.watched(count, 3, True):
    while 3 not in bar.seen:
      time.sleep(0.01)
  assert made == [('shards', bars.SHARDS, 3, True)] and bar.seen == sorted(bar.seen) and {1, 2, 3} <= {*bar.seen}
