"""Texts that are none, from the corpus to a training step and to a trained encoder: used, dropped and counted, or a
sentence; never a loss that is no number."""

import dataclasses

import jax
import numpy as np
import pytest

from bert_jax import config as cfg, metrics, train
from input_pipeline import records
from input_pipeline.errors import DataError
from input_pipeline.prepare import corpus, settings
from input_pipeline.text import given
from tests import corpora
from tests.saves import MODEL, SETTINGS

TEXTS = {
    'no bytes': b'', 'only blank lines': b'\n \n\t\n\n', 'one letter': b'a', 'a word of a megabyte': b'a' * 2**20,
    'a line of a megabyte': b'one two three. ' * 70_000, 'not UTF-8': b'one \xff\xfe two \xc3( three.',
    'NUL bytes': b'one\0two \0 three.', 'half a surrogate': b'one \xed\xa0\x80 two.', 'only punctuation': b'. , . , .',
    'only words that the vocabulary lacks': '\u4e00\u0416\u05d0 \u0e01.'.encode(),
    'only control characters': b'\1\2\x1b[2J\x7f',
    'from right to left': '\u202eone two\u202c three.'.encode(), 'combining marks': ('o' + '\u0301' * 5000).encode(),
    'special tokens': b'[MASK] [CLS] one [SEP] [PAD].', 'a byte order mark': b'\xef\xbb\xbfone two three.',
    'carriage returns': b'one two.\rthree four.\r\rfive.'}


GOOD = '\n\n'.join(map(corpora.text_of, range(40))).encode()


def losses(folder, content: bytes) -> tuple[records.Manifest, list[float]]:
  """The manifest of a corpus' data, and the losses of four steps. Raises DataError."""
  folder.mkdir()
  (folder / 'corpus.txt').write_bytes(content)
  (folder / 'vocab.txt').write_text('\n'.join(corpora.TOKENS) + '\n')
  prepare = settings.Prepare(str(folder / 'corpus.txt'), str(folder / 'vocab.txt'), str(folder / 'data'),
                             sequence_length=16, validation_share=0.1)
  manifest = corpus.prepare(prepare, progress=False)
  ids = np.concatenate([block.input_ids for block in corpora.blocks(prepare, manifest, 'train')])
  assert 0 < ids.min() and ids.max() < len(corpora.TOKENS)
  config = dataclasses.replace(
      SETTINGS, model=dataclasses.replace(MODEL, vocab_size=len(corpora.TOKENS)),
      batch=dataclasses.replace(SETTINGS.batch, size=64), run=cfg.Run(steps=4, log_every=1))
  train.train(config, folder / 'data', folder / 'run', devices=jax.devices()[:1], engine='threads', progress=False)
  lines = metrics.read(folder / 'run')
  assert not any(line.get('skipped_steps') for line in lines)
  return manifest, [line['loss'] for line in lines]


@pytest.fixture(scope='module')
def control(tmp_path_factory):
  return losses(tmp_path_factory.mktemp('good') / 'good', GOOD)


@pytest.mark.reliability(22)
@pytest.mark.parametrize('name', TEXTS)
def test_texts_that_are_none_on_the_way_to_a_step(tmp_path, tally, name, control):
  """Among 40 good documents."""
  tally.control(len(control[1]) == 4 and bool(np.isfinite(control[1]).all()))
  try:
    manifest, found = losses(tmp_path / 'mixed', GOOD + b'\n\n' + TEXTS[name] + b'\n\n' + GOOD[:200])
  except DataError as error:
    assert '\n' not in str(error) and 'corpus.txt' in str(error)
    tally.fault(True, detected=True, survived=not (tmp_path / 'mixed/data').exists())
    return
  finite = len(found) == 4 and bool(np.isfinite(found).all())
  tally.fault(name not in GOOD.decode(), survived=finite, detected=manifest.counts != control[0].counts)
  assert finite


@pytest.mark.reliability(22)
@pytest.mark.parametrize('text', ['\ud800', 'one \udfff', '\0', 'a\0b', '', ' \t '], ids=ascii)
def test_texts_of_a_command_line_that_are_none(tally, text):
  tally.control(given.checked('one two', 'text 1') == 'one two')
  try:
    found = given.checked(text, 'text 1')
  except DataError as error:
    assert 'text 1' in str(error) and str(error).isprintable()
    tally.fault(True, detected=True)
  else:
    tally.fault(found.encode() == text.encode(), survived=True)
