"""A run's picture whatever its name holds and however little was logged; an export's figures on data that is named."""

import dataclasses
import json
import warnings

import jax
import numpy as np
import parameters
import pytest
import synthetic

from bert_jax import evaluate, plot, run_directory
from bert_jax.checkpoint import Loaded
from bert_jax.convert import evaluating, exchange, huggingface
from bert_jax.errors import ConfigError
from bert_jax.objectives import OBJECTIVES
from bert_jax.report import lettering
from input_pipeline.vocabulary import tokenizer as tokenizer_lib
from tests.test_streams import shell

BLUE = np.array([31, 119, 180]) / 255  # matplotlib's tab:blue


@pytest.mark.parametrize('name', ['$', 'a $1 $2', r'\frac{1}{$', '中文 run', 'בְּרֵא $', '_x', '👩\u200d👩', 'a\tb\x01'])
def test_a_picture_of_one_point(tmp_path, still, name):
  from matplotlib import image
  run = tmp_path / name
  synthetic.write_vocabulary(tmp_path, still.model.vocab_size)
  record = run_directory.Record(still, 'nowhere', tokenizer_lib.load(tmp_path).record)
  run_directory.open_run(run, record, {})
  (run / run_directory.LOG).write_text(json.dumps({'kind': 'train', 'step': 1, 'mlm_loss': 4.5}) + '\n')
  with warnings.catch_warnings():
    warnings.simplefilter('error')  # of a letter that no font has, among others
    picture = image.imread(plot.plot(run))
  assert (np.abs(picture[..., :3] - BLUE).max(-1) < 0.35).sum() > 3  # the point


def test_letters_that_no_font_has_are_escaped():
  fonts = lettering.families()
  assert fonts[0] == lettering.BASE and lettering.drawable('naïve $1 Ωж') == 'naïve $1 Ωж'
  if len(fonts) == 1:
    assert lettering.drawable('a中\n') == 'a\\u4e2d\\n'


@pytest.fixture(scope='module')
def exported(tmp_path_factory, still):
  """(run, data, export) of one step of a run, with a name that is awkward."""
  base = tmp_path_factory.mktemp('exported')
  data = synthetic.write_data(base / 'data', vocabulary_size=still.model.vocab_size, pieces=60, documents=12,
                              sequence_length=16, splits=('train', 'validation'))
  config = dataclasses.replace(still, batch=dataclasses.replace(still.batch, size=32))
  parameters.write_run(base / 'run', config, data, steps=(1,), data=data)
  loaded = exchange.load(base / 'run')
  huggingface.export_checkpoint(base / 'out', loaded, exchange.card(loaded, base / 'run'))
  return base / 'run', data, base / 'out'


def test_an_export_has_the_figures_of_its_run(exported):
  run, data, out = exported
  with jax.default_matmul_precision('float32'):
    theirs, ours = evaluating.evaluate_export(out, data, progress=False), evaluate.evaluate(run, progress=False)
  assert theirs.keys() | {'step'} == ours.keys()
  assert not (out / run_directory.FIGURES).exists()
  assert theirs['documents'] == ours['documents'] and abs(theirs['mlm_loss'] - ours['mlm_loss']) < 0.2


def test_what_an_export_lacks_is_said(exported, tmp_path, still):
  _, data, out = exported
  with pytest.raises(ConfigError, match='name some with --data'):
    evaluating.evaluate_export(out, None)
  (tmp_path / 'other').mkdir()
  synthetic.write_vocabulary(tmp_path / 'other', still.model.vocab_size)
  loaded = Loaded(still.model, dataclasses.replace(OBJECTIVES['mlm'], heads={}), parameters.random(still.model, {}),
                  lambda: tokenizer_lib.load(tmp_path / 'other'))
  bare = huggingface.export_checkpoint(tmp_path / 'bare', loaded)
  with pytest.raises(ConfigError, match='no head for tokens'):
    evaluating.evaluate_export(bare, data)


@pytest.mark.slow
def test_the_command_says_it(exported):
  run, _, out = exported
  done = shell(f'evaluate {out}', run.parent, {})
  assert done.returncode == ConfigError.exit_code and b'--data' in done.stderr and done.stderr.count(b'\n') == 1
