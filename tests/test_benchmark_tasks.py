"""Suites of tasks: one table for several checkpoints, gone on with where it stopped, and in the model card."""

import json
import re
import zipfile

import jax
import pytest

from bert_jax import config as cfg, sweep
from bert_jax.benchmark import tasks
from bert_jax.errors import ConfigError
from tests import parameters, synthetic

WORDS = 'sun rose milk song mud tar and the'.split()
TOKENS = [*synthetic.SPECIALS, *WORDS]


def write_encoder(folder):
  """A run of a small model whose vocabulary has WORDS."""
  folder.mkdir()
  (folder / 'vocab.txt').write_text('\n'.join(TOKENS) + '\n')
  model = cfg.Model(vocab_size=len(TOKENS), hidden_size=16, layers=1, heads=2, intermediate_size=32, max_positions=32)
  parameters.write_run(folder / 'run', cfg.Config(
      model=model, batch=cfg.BatchConfig(size=8, sequence_length=16, predictions=3)), folder)
  return folder / 'run'


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
  return write_encoder(tmp_path_factory.mktemp('encoder') / 'of')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """A data root with the one task CoLA, in its own layout, and minimal pairs."""
  root = tmp_path_factory.mktemp('root')
  folder = root / 'tasks/glue/CoLA'
  folder.mkdir(parents=True)
  texts = 'mud tar', 'sun rose'
  lines = [f'x\t{i % 2}\t\t{texts[i % 2]} and the {"milk" if i % 3 else "song"}' for i in range(24)]
  for name in ('train.tsv', 'dev.tsv'):
    (folder / name).write_text('\n'.join(lines) + '\n')
  (root / 'blimp').mkdir()
  pairs = [{'sentence_good': f'the {a}', 'sentence_bad': f'{a} the', 'linguistics_term': 'order'}
           for a in ('sun', 'rose', 'milk', 'song')]
  with zipfile.ZipFile(root / tasks.BLIMP_FILE, 'w') as archive:
    archive.writestr('data/order.jsonl', ''.join(json.dumps(pair) + '\n' for pair in pairs))
  return root


def test_two_checkpoints_side_by_side(root, pretrained, tmp_path, monkeypatch):
  amount = tasks.Amount(seeds=2, limit=16, epochs=8, learning_rate=1e-2)
  of = lambda: tasks.run([str(pretrained), tasks.UNTRAINED], 'quick', root, tmp_path / 'out', amount,
                         devices=jax.devices()[:1], progress=False)
  report = of()
  assert report['checkpoints'] == ['run', tasks.UNTRAINED] and set(report['missing']) == {
      'mrpc', 'rte', 'stsb', 'sst2', 'mnli'}
  cola, blimp = report['tasks']
  assert (cola['task'], cola['metric'], blimp['task']) == ('cola', 'matthews', 'blimp')
  for row in (cola, blimp):
    mine, other = (row['figures'][name][row['metric']] for name in report['checkpoints'])
    found = row['differences'][tasks.UNTRAINED]
    assert found['difference'] == pytest.approx(mine['mean'] - other['mean'])
    assert found['exceeds_spread'] == (abs(found['difference']) > mine['std'] + other['std'])
  assert 0 <= blimp['figures']['run']['accuracy']['mean'] <= 1
  text = tasks.table(report)
  assert re.search('cola +matthews +[0-9.]+ ± ', text) and 'the spread' in text and 'rte: ' in text
  assert {path.suffix for path in (tmp_path / 'out' / 'run').iterdir()} == {'.json'}  # runs that are done are removed
  monkeypatch.setattr(sweep, 'sweep', None)
  assert of() == report  # nothing is made again

  card = tmp_path / 'README.md'
  card.write_text('# A model\n\nwords\n\n## More\n\nother words\n')
  for _ in range(2):  # a second time in place of the first
    assert tasks.to_card(tmp_path, report) == card
    assert card.read_text().count(tasks.HEADING) == card.read_text().count('| cola | matthews | ') == 1
    assert card.read_text().startswith('# A model\n\nwords\n\n## More\n\nother words\n')
  assert tasks.to_card(f'untrained:{tmp_path}', report) is None  # its weights are not those of the card
  assert tasks.to_card(pretrained, report) is None


def test_what_cannot_be_is_refused(root, tmp_path):
  run = lambda checkpoints=('a',), suite='quick', where=root, **more: tasks.run(
      checkpoints, suite, where, tmp_path, tasks.Amount(**more), progress=False)
  with pytest.raises(ConfigError, match="no suite 'slow': wanted one of quick, proof"):
    run(suite='slow')
  with pytest.raises(ConfigError, match='has no rte'):
    run(suite='proof', tasks=('rte',))
  with pytest.raises(ConfigError, match='nothing of the suite'):
    run(where=tmp_path)
  with pytest.raises(ConfigError, match='named twice'):
    run(('a', 'a'))
  assert tasks.names_of(['/x/a/run', '/x/b/run', 'untrained:/x/a/run']) == ['a/run', 'b/run', 'untrained']
