"""The way through by as few flags as there can be: a first short run, on with it, more of it, what is said of it."""

import collections
import json
import pathlib
import re

import pytest

from bert_jax import dry_run, metrics, run_directory, runs
from bert_jax.errors import ConfigError, DriftError
from input_pipeline import counts, records
from input_pipeline.errors import DataError
from input_pipeline.vocabulary import cases, tokenizer
from launch import cli
from tests import corpora

# For the time that tests have: no run needs them.
SMALL = ['--model.layers', '1', '--model.hidden-size', '32', '--model.intermediate-size', '64', '--model.dtype',
         'float32', '--distributed.no-auto']


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A folder in which somebody works: a vocabulary, `data` of many documents, `one` of a single one, and `run`."""
  folder = tmp_path_factory.mktemp('first')
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    pathlib.Path('vocab.txt').write_text('\n'.join(corpora.TOKENS) + '\n')
    pathlib.Path('many.txt').write_text('\n\n'.join(corpora.text_of(i) for i in range(120)))
    pathlib.Path('one.txt').write_text(' '.join(corpora.text_of(i) for i in range(40)))
    for name, more in (('many', ['--for', 'sample', '--sequence-length', '32']), ('one', ['--sequence-length', '32'])):
      assert cli.run(['prepare', '--input', f'{name}.txt', '--vocabulary', 'vocab.txt', '--output',
                      'data' if name == 'many' else name, *more]) == 0
    assert cli.run(['pretrain', 'proof', '--data', 'data', '--run-dir', 'run', '--run.steps', '4', *SMALL]) == 0
  return folder


@pytest.fixture
def here(place, monkeypatch):
  monkeypatch.chdir(place)
  return place


def test_what_is_given_goes_before_what_a_recipe_needs(here):
  assert records.read_manifest('data').sequence_length == 32


def test_a_run_records_how_it_was_begun(here):
  fields = json.loads((here / 'run' / run_directory.CONFIG).read_text())
  begun = fields['begun']
  assert begun['recipe'] == 'proof' and begun['folder'] == str(here)
  assert begun['command'].startswith('bert-jax pretrain proof --data data --run-dir run --run.steps 4 ')
  assert {'bert_jax', 'jax', 'numpy', 'python'} <= begun['versions'].keys()
  assert fields['data'] == str(here / 'data')
  config = run_directory.read('run').config
  assert config.model.vocab_size == len(corpora.TOKENS) and config.long.share == 0
  assert config.optimizer.warmup_steps == 1 and config.batch.sequence_length == 32
  assert all(abs(line['time'] - (here / 'run' / 'metrics.jsonl').stat().st_mtime) < 600 for line in metrics.read('run'))


def test_a_run_goes_on_without_its_recipe(here, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)  # its data is found from anywhere
  assert cli.run(['pretrain', '--run-dir', str(here / 'run'), '--distributed.no-auto']) == 0
  assert 'resuming from step 4 of 4' in capsys.readouterr().err
  with pytest.raises(DriftError, match='model.layers: 1 -> 2'):
    cli.run(['pretrain', '--run-dir', str(here / 'run'), '--distributed.no-auto', '--model.layers', '2'])
  with pytest.raises(DriftError, match='4 steps, and cannot go on to run.steps 8: by the schedule linear '
                                       '.*--initialize-from'):
    cli.run(['pretrain', '--run-dir', str(here / 'run'), '--distributed.no-auto', '--run.steps', '8'])
  with pytest.raises(ConfigError, match='no recipe was named, and nothing is no run to go on with: wanted `bert-jax p'):
    cli.run(['pretrain', '--run-dir', 'nothing'])


def test_a_run_that_a_file_of_settings_began_is_listed_by_its_name(here, capsys, tmp_path):
  settings = tmp_path / 'mine.json'
  settings.write_text((here / 'run' / run_directory.CONFIG).read_text())
  assert cli.run(['pretrain', '--config', str(settings), '--data', 'data', '--run-dir', str(tmp_path / 'runs' / 'one'),
                  '--run.steps', '1', *SMALL]) == 0
  capsys.readouterr()
  assert cli.run(['runs', str(tmp_path / 'runs')]) == 0
  assert capsys.readouterr().out.splitlines()[1].split()[1] == 'mine.json'


def test_a_dry_run_writes_nothing(here, capsys, monkeypatch):
  monkeypatch.setattr(dry_run, 'MOST_SECONDS', 0.1)
  before = sorted(here.rglob('*'))
  assert cli.run(['pretrain', 'sample', '--data', 'data', '--run-dir', 'dry', '--dry-run', *SMALL]) == 0
  out, errors = capsys.readouterr()
  for says in (r'epochs: [\d,]+ steps of \d+ rows of 32: [\d.]+ epochs', r'a step takes [\d.]+ GB of a device',
               r'a step: \S+ FLOP, \S+ s, as timed', r'in all: [\d,]+ steps, \S+ FLOP, \S+ days', 'nothing was written',
               'warning: each row is read'):
    assert re.search(says, out), out
  assert f'→ {len(corpora.TOKENS)}: the size of the data' in errors and sorted(here.rglob('*')) == before
  with pytest.raises(DriftError, match='model.layers: 1 -> 3'):
    cli.run(['pretrain', '--run-dir', 'run', '--dry-run', *SMALL, '--model.layers', '3'])
  with pytest.raises(ConfigError, match='one of the two'):
    cli.run(['pretrain', '--run-dir', 'run', '--dry-run', '--print-config'])


def test_one_document_trains_where_the_objective_allows_it(here, capsys):
  assert list(records.read_manifest('one').splits) == ['train']
  told = '\n'.join(counts.warnings(records.read_manifest('one')))
  assert 'a recipe with _no_nsp' in told and '--validation-share' in told
  with pytest.raises(ValueError, match='--objective mlm --batch.pairs none, as a recipe with _no_nsp'):
    cli.run(['pretrain', 'sample', '--data', 'one', '--run-dir', 'no', '--run.steps', '2', *SMALL])
  assert not (here / 'no').exists()
  argv = ['pretrain', 'proof_no_nsp', '--data', 'one', '--run-dir', 'alone', '--run.steps', '2', *SMALL]
  assert cli.run(argv) == 0
  said = capsys.readouterr().err
  assert 'no document is held out' in said and 'run.evaluate_every 10,000 → 0' in said
  assert metrics.read('alone')[-1]['step'] == 2


def test_runs_are_listed_and_compared(here, capsys):
  (here / 'damaged' / 'checkpoints').mkdir(parents=True)
  (here / 'damaged' / run_directory.CONFIG).write_text('{')
  assert cli.run(['runs', '.', '--json']) == 0
  found = {run['run']: run for run in json.loads(capsys.readouterr().out)['runs']}
  run = found['run']
  assert (run['recipe'], run['state'], run['step'], run['steps']) == ('proof', runs.DONE, 4, 4)
  assert run['loss'] > 0 and run['tokens_per_second'] > 0 and run['changed'] and found['damaged']['state'] == 'damaged'
  assert cli.run(['runs', '.']) == 0
  assert re.search(r'^run +proof +done +4 of 4 ', capsys.readouterr().out, flags=re.M)
  assert cli.run(['plot', 'run', 'run', '--output', 'both.png']) == 0
  assert (here / 'both.png').stat().st_size > 10_000
  with pytest.raises(ConfigError, match='is no folder'):
    cli.run(['runs', 'nowhere'])


@pytest.mark.parametrize('tokens, language, lost', [
    ((), 'de', 'German nouns'), ((), 'hi', 'vowel signs'), ((), 'en', None), (('the', '##ing', 'of'), 'en', None),
    (('か', 'れ', 'a'), 'en', 'が becomes か'), (('и', 'он', 'the'), '', 'й becomes и'),
    (('हिन्दी', 'a'), '', 'vowel signs')])
def test_what_is_lost_by_lower_casing_is_told(tokens, language, lost):
  found = cases.warning(True, tokens, language)
  assert (found is None) == (lost is None) and (not lost or lost in found and '--no-lower-case' in found)
  assert cases.warning(False, tokens, language) is None


GERMAN = 'Der Ort liegt am Fluss, ältere Brücken gibt es nicht. Sie weiß, daß die Straße naß ist. '
LANGUAGES = {
    'en': ('The quick brown fox jumps over a lazy dog near a river and the old town. ' * 20 + 'A café. ', True, True),
    'de': (GERMAN, False, False), 'fr': ('Où est-il allé ? Il a été à la fête, près du café. ', False, True),
    'ja': ('私はパンを食べます。学生です。', False, True), 'ar': ('القطة على السجادة وأكل الخبز إلى', False, True),
    'hi': ('यहाँ नदी के किनारे एक पुराना नगर है।', False, True), 'tr': ('Işık ılık sınıfa girdi. ', False, False),
    'zh': ('今天天气很好，我们去公园。', True, True), 'code': ('def f(x):\n  return x + 1\n', True, True)}


@pytest.mark.parametrize('language', LANGUAGES)
@pytest.mark.parametrize('kind, name', [('wordpiece', 'v.txt'), ('sentencepiece', 'v.model')])
def test_lower_case_follows_the_language(tmp_path, capsys, language, kind, name):
  """By its letters; SentencePiece drops no accents. What is said, recorded and done is the same; a flag goes before."""
  text, *lower = LANGUAGES[language]
  (tmp_path / 'text').write_text((text + '\n\n') * 30)
  wanted = lower[kind == 'sentencepiece']
  command = ['vocabulary', '--input', str(tmp_path / 'text'), '--kind', kind, '--overwrite', '--output',
             str(tmp_path / name), '--size']
  chosen = {(): wanted, ('--cased',): False, ('--lower-case',): True, ('--no-lower-case',): False}
  for more, lower_case in chosen.items() if language == 'de' else [((), wanted)]:
    with pytest.raises(DataError) as refused:  # which tells how many tokens this text has
      cli.run([*command, '10000' if kind == 'wordpiece' else '100000', *more])
    size = re.search(r'gives only ([\d,]+)', str(refused.value))[1].replace(',', '')
    capsys.readouterr()
    assert cli.run([*command, size, *more]) == 0
    said = capsys.readouterr().err
    assert ('the vocabulary is cased' in said) == (not more and not wanted), said
    assert tokenizer.load(tmp_path / name).lower_case == lower_case
    assert json.loads((tmp_path / f'{name}.json').read_text())['lower_case'] == lower_case


def test_a_language_that_is_named_goes_before_letters():
  letters = collections.Counter('Gruesse aus der Stadt am Fluss')
  assert cases.chosen(letters, '', True) == (True, None)
  for name in ('de', 'de-AT', 'de_CH', 'DE'):
    assert not cases.chosen(letters, name, True)[0] and not cases.chosen(letters, name, False)[0]
