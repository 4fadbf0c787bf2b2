"""Data is kept while its input holds the same, whatever the clock says; a disk that is full is a sentence."""

import dataclasses
import json
import os
import resource
import subprocess
import sys

import corpora
import pytest

import input_pipeline
from input_pipeline import records
from input_pipeline.prepare import corpus

PREPARE = '''
import sys
from input_pipeline.prepare import corpus, settings
if __name__ == '__main__':
  try:
    corpus.prepare(settings.Prepare(*sys.argv[1:4], sequence_length=32, workers=int(sys.argv[4])), progress=False)
  except Exception as error:
    print(error)
    sys.exit(error.exit_code)
'''


def test_content_that_changes_is_noticed_and_time_that_changes_is_not(tmp_path):
  prepare, manifest = corpora.make(tmp_path)
  os.utime(prepare.input, (1, 1))
  assert corpus.prepare(prepare, progress=False) == manifest
  text = (tmp_path / 'corpus.txt').read_text()
  (tmp_path / 'corpus.txt').write_text(text.replace('one', 'two', 1))
  os.utime(prepare.input, (1, 1))
  with pytest.raises(records.DataError, match='before its files changed'):
    corpus.prepare(prepare, progress=False)
  assert corpus.prepare(dataclasses.replace(prepare, overwrite=True), progress=False).splits != manifest.splits
  (tmp_path / 'corpus.txt').write_text(text)
  with pytest.raises(records.DataError, match='before its files changed'):
    corpus.prepare(prepare, progress=False)


def test_data_from_before_there_was_a_hash_is_kept(tmp_path):
  prepare, manifest = corpora.make(tmp_path)
  path = tmp_path / 'data' / records.MANIFEST
  content = json.loads(path.read_text())
  del content['settings']['content_of_files']
  path.write_text(json.dumps(content))
  assert corpus.prepare(prepare, progress=False).splits == manifest.splits


def test_what_is_read_once_is_not_taken_for_the_same(tmp_path, monkeypatch):
  prepare, manifest = corpora.make(tmp_path)
  for overwrite in (False, True):
    with open(prepare.input) as standard_input:
      monkeypatch.setattr('sys.stdin', standard_input)
      again = dataclasses.replace(prepare, input='-', overwrite=overwrite)
      if overwrite:
        assert corpus.prepare(again, progress=False).splits == manifest.splits
      else:
        with pytest.raises(records.DataError, match='read once, cannot be told'):
          corpus.prepare(again, progress=False)


@pytest.mark.parametrize('workers', [1, 2])
def test_a_full_disk_is_a_sentence(tmp_path, workers):
  """A limit of file sizes stands for it: writing fails in the same places."""
  corpora.make(tmp_path)
  limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
  done = subprocess.run(
      [sys.executable, '-c', PREPARE, *(tmp_path / name for name in ('corpus.txt', 'vocab.txt', 'full')), str(workers)],
      env=os.environ | {'PYTHONPATH': os.path.dirname(input_pipeline.__path__[0])}, preexec_fn=limit,
      capture_output=True, text=True, timeout=120)
  assert (done.returncode, done.stdout.count('\n')) == (7, 1), done.stderr[-2000:]
  assert 'File too large' in done.stdout and str(tmp_path / 'full') in done.stdout
  assert {path.name for path in tmp_path.iterdir()} == {'corpus.txt', 'vocab.txt', 'data'}
