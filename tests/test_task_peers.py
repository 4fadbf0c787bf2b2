"""Fine-tuning beside transformers' on the same rows and weights: where nothing is random, the same scores."""

import json
import random

import jax
import numpy as np
import pytest

from bert_jax import config as cfg, finetune, sweep
from bert_jax.benchmark import task_peers
from bert_jax.tasks.settings import Finetune, TaskBatch
from tests.test_benchmark_tasks import WORDS, write_encoder

pytestmark = pytest.mark.peers


@pytest.mark.parametrize('task', ['classification', 'regression'])
def test_without_dropout_and_with_whole_epochs_as_batches_the_peer_learns_the_same(
    tmp_path, task):
  draw = random.Random(0)
  for split in ('train', 'validation'):
    texts = [' '.join(draw.choices(WORDS, k=draw.randint(2, 12))) for _ in range(40)]
    label = lambda text: str('sun' in text) if task == 'classification' else text.count('sun') / 2
    lines = (json.dumps({'text': text, 'label': label(text)}) + '\n' for text in texts)
    (tmp_path / f'{split}.jsonl').write_text(''.join(lines))
  config = Finetune(
      task, epochs=6, batch=TaskBatch(size=40, max_length=24, lengths=1), mesh=cfg.MeshShape(data=1),
      model=cfg.Model(dtype='float32', hidden_dropout=0., attention_dropout=0.),
      optimizer=cfg.Optimizer(name='adamw', schedule='linear', peak_learning_rate=1e-3, warmup_steps=2))
  encoder = write_encoder(tmp_path / 'encoder')
  job = finetune.prepare(config, tmp_path, encoder, tmp_path / 'run', jax.devices()[:1])
  tuned, figures = finetune.run(job, job.config, tmp_path / 'run', progress=False)
  theirs = task_peers.theirs(job, job.config)
  mine = sweep.official(job.config, figures)
  assert theirs.metrics.keys() == mine.keys()
  np.testing.assert_allclose([theirs.metrics[name] for name in mine], list(mine.values()), atol=2e-3)
  assert theirs.examples_per_second > 0 and tuned.step == 6
