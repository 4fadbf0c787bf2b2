"""Masks of whole words reach their share of the tokens, or are refused where the vocabulary shows no words."""

import random

import numpy as np
import pytest

from input_pipeline import inspection, records
from input_pipeline.batches import loader
from input_pipeline.batches.loader import BatchConfig
from input_pipeline.batches.masking import Masking
from input_pipeline.prepare import corpus, settings
from input_pipeline.vocabulary import training

THAI = 'ภาษาไทยเป็นภาษาที่มีระดับเสียงของคำแน่นอน'
HAN, KANA = (''.join(map(chr, range(first, first + 60))) for first in (0x4e00, 0x3042))
SCRIPTS = {'han': HAN, 'thai': THAI, 'kana': KANA}


def prepared(folder, letters: str, kind: str, spaces: bool) -> str:
  """Data of sentences of 40 letters, with or without a space after each second one."""
  draw = random.Random(0)
  sentence = lambda: (' ' if spaces else '').join(''.join(draw.choices(letters, k=2)) for _ in range(20)) + '。'
  (folder / 'a.txt').write_text('\n\n'.join('\n'.join(sentence() for _ in range(8)) for _ in range(60)))
  name = str(folder / ('vocab.txt' if kind == 'wordpiece' else 'spm.model'))
  size = 2 * len(set(letters)) + 6 if kind == 'wordpiece' else len(set(letters)) + 30
  training.train_from(training.VocabularySettings(str(folder / 'a.txt'), name, kind, size, lower_case=False))
  prepare = settings.Prepare(str(folder / 'a.txt'), name, str(folder / 'data'), sequence_length=64)
  corpus.prepare(prepare, progress=False)
  return prepare.output


@pytest.mark.parametrize('script, kind, spaces, refused', [
    ('han', 'sentencepiece', False, True), ('thai', 'wordpiece', False, True), ('kana', 'wordpiece', False, True),
    ('han', 'sentencepiece', True, False), ('thai', 'wordpiece', True, False)])
def test_the_share_or_a_refusal(tmp_path, script, kind, spaces, refused):
  data = prepared(tmp_path, SCRIPTS[script], kind, spaces)
  config = BatchConfig(sequence_length=64, predictions=12, masking=Masking(unit='word'))
  if refused:
    said = '--words jieba, or set masking.unit to token or span'
    with pytest.raises(records.DataError, match=said):
      loader.open_split(data, 'train', config)
    with pytest.raises(records.DataError, match=said):
      inspection.inspect(data, masking=config.masking)
    inspection.inspect(data)
    return
  batch = loader.open_split(data, 'train', config).rows(0, 50)
  assert 0.1 < batch['masked_lm_weights'].sum() / np.count_nonzero(batch['pair_ids']) < 0.17
