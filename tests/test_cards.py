"""What a card and a report say is what the run recorded when it trained: each sentence, for every recipe and variant.

It says the same after another export, wherever the run lies by then, and whatever lies about there.
"""

import dataclasses
import itertools
import json
import re

import parameters
import pytest
import safetensors.numpy
import synthetic

from bert_jax import config as cfg, phases, recipes, run_directory
from bert_jax.checkpoint import Loaded
from bert_jax.convert import exchange, google, huggingface, weights
from bert_jax.report import charts, page
from bert_jax.tasks import settings
from input_pipeline import records
from input_pipeline.vocabulary import tokenizer as tokenizer_lib

TINY = dict(vocab_size=40, hidden_size=8, layers=1, heads=2, intermediate_size=8, dtype='float32')
STEP = 7
NAMES = sorted(f'{size}{variant and "_"}{variant}' for size, variant in itertools.product(
    recipes.RECIPES, ('', *recipes.VARIANTS)))
WORDS = {'pooler': 'pooler', 'masked_tokens': 'masked language model head', 'pair_classes': 'next-sentence head'}
CLASSES = {'nsp': ('is next', 'is random'), 'sop': ('in order', 'swapped')}
READS = {'mlm': {'masked_tokens'}, 'lm': {'masked_tokens'}, 'nsp': {'pooler', 'pair_classes'},
         'sop': {'pooler', 'pair_classes'}}
TEXT = 'Text: "corpus.txt"; 12 documents, 345 tokens in pieces for rows of up to 128.'


@pytest.fixture(scope='module')
def vocabulary(tmp_path_factory):
  folder = tmp_path_factory.mktemp('vocabulary')
  synthetic.write_vocabulary(folder, TINY['vocab_size'])
  return tokenizer_lib.load(folder)


def config_of(name):
  config = recipes.recipe(name)
  return dataclasses.replace(config, model=dataclasses.replace(config.model, **TINY))


def write_run(folder, config, vocabulary, origin=None, figures=None):
  """(the run's directory, what of it is exported), of its step 7."""
  record = run_directory.Record(config, 'nowhere', vocabulary.record, origin, TEXT, 'f' * 64)
  run_directory.open_run(folder, record, vocabulary.files)
  (folder / run_directory.LOG).write_text(json.dumps({'kind': 'train', 'step': STEP, 'loss': 4.5}) + '\n')
  if figures is not None:
    (folder / run_directory.FIGURES).write_text(json.dumps({'step': STEP, 'mlm_loss': 3.25} | figures))
  return folder, Loaded(config.model, config.learns, parameters.random(config.model, config.learns.heads),
                        lambda: vocabulary, run_directory.read(folder), STEP)


def export(loaded, source, output):
  """As exchange.export, but what another program finds of it, which compiles."""
  loaded = exchange.trained(loaded)
  huggingface.export_checkpoint(output, loaded, exchange.card(loaded, source))
  return (output / 'README.md').read_text()


def sentences(text):
  """Those on the model and its training."""
  return split(text.split('\n## Training\n\n')[1].split('\n\n')[0])


def split(part):
  return re.split(r'(?<=\.) (?=[A-Z])', part)


def expected(config):
  """From the settings alone, not by the code that writes it."""
  long = round(config.run.steps * config.long.share)
  assert STEP < config.run.steps - long or not long
  heads = set().union(*(READS[term] for term in config.learns.terms))
  words = WORDS | ({'pair_classes': 'sentence-order head'} if 'sop' in config.learns.terms else {})
  named = [words[head] for head in config.learns.heads if head in heads]
  listed = ' and '.join(filter(None, (', '.join(named[:-1]), named[-1])))
  return heads, [f'{STEP} steps.', 'It began with random parameters.', *split(TEXT),
                 f'It made {STEP} steps on rows of up to {config.batch.sequence_length} tokens.',
                 f'Trained in all of these steps: the {listed}.']


def kinds():
  """The recipes and variants that differ in what a card tells in sentences; of the others, `slow` makes it, too."""
  found = {}
  for name in NAMES:
    config = config_of(name)
    told = config.objective, config.batch.sequence_length, config.batch.pairs, config.long.share
    found.setdefault(told, name)
  return sorted(found.values())


KINDS = kinds()


@pytest.mark.parametrize('name', [
    name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in NAMES])
def test_each_sentence(vocabulary, tmp_path, name):
  config = config_of(name)
  run, loaded = write_run(tmp_path / 'run', config, vocabulary)
  heads, wanted = expected(config)
  assert split(' '.join(page.said(charts.told(run), run))) == wanted  # and so does a report
  if config.model.right_to_left:
    with pytest.raises(cfg.ConfigError, match='right to left'):
      export(loaded, run, tmp_path / 'out')
    return
  text = export(loaded, run, tmp_path / 'out')
  assert sentences(text) == wanted
  said = text.split('## Settings')[0]
  for head, word in WORDS.items():
    if head not in heads:
      assert word not in said
  for term, classes in CLASSES.items():
    assert all((f'stands for "{meaning}"' in said) == (term in config.learns.terms) for meaning in classes)
  assert ('A causal BERT' in said) == config.model.causal == ('fill-mask' not in said)
  assert '## Evaluation' not in text
  assert f'| batch.sequence_length | {config.batch.sequence_length} |' in text
  tensors = safetensors.numpy.load((tmp_path / 'out' / weights.WEIGHTS).read_bytes())
  assert any('cls.seq_relationship' in tensor for tensor in tensors) == ('pair_classes' in heads)
  assert any('pooler' in tensor for tensor in tensors) == ('pooler' in heads)
  usual, positions = config.batch.sequence_length, config.model.max_positions
  tokenizer = json.loads((tmp_path / 'out' / 'tokenizer_config.json').read_text())
  assert tokenizer['model_max_length'] == usual and f'up to {positions} tokens' in said
  assert (f'trained on rows of up to {usual}' in said) == (usual < positions)
  fields = json.loads((tmp_path / 'out' / huggingface.CONFIG).read_text())
  assert fields['architectures'] == ['BertForPreTraining' if 'pair_classes' in heads else 'BertForMaskedLM']

  source = tmp_path / 'out'  # its export, and the export of that
  for again in ('again', 'and_again'):
    found = huggingface.read(source)
    assert found.objective.terms.keys() == config.learns.terms.keys() and not found.untrained()
    assert export(found, source, tmp_path / again).replace(f'# {again}\n', '# out\n') == text
    source = tmp_path / again


@pytest.mark.parametrize('copies, said', [
    (0., 'On documents held out from training; '), (None, 'On documents that were not compared with those that it '),
    (.031, 'On documents, of whose pieces 3.1% stand in training, too; '), (1e-5, 'less than 0.1% stand in training')])
def test_held_out_is_said_of_what_is(vocabulary, tmp_path, copies, said):
  run, loaded = write_run(tmp_path / 'run', config_of('tiny'), vocabulary, figures={run_directory.COPIES: copies})
  text = export(loaded, run, tmp_path / 'out')
  assert said in text and ('held out' in text) == (copies == 0)
  assert '| mlm_loss | 3.25 |' in text and '| copies |' not in text


TASKS = {'classification': ('pooler and classifier', ('a', 'b')), 'regression': ('pooler and classifier', ()),
         'squad': ('head of starts and ends', ()), 'swag': ('pooler and head of choices', ()),
         'tagging': ('classifier of words', ('O', 'B-X', 'I-X'))}


@pytest.mark.parametrize('task', TASKS)
def test_a_task_is_what_was_learnt(vocabulary, tmp_path, task):
  words, labels = TASKS[task]
  model = dataclasses.replace(config_of('tiny').model, max_positions=512)
  config = dataclasses.replace(settings.of(task), model=model, labels=labels)
  run, loaded = write_run(tmp_path / 'run', config, vocabulary, run_directory.Origin('first', 5, ('classifier/bias',)),
                          {run_directory.COPIES: .25})
  text = export(dataclasses.replace(loaded, labels=labels), run, tmp_path / 'out')
  wanted = [f'{STEP} steps.', 'It began with the parameters of `first`, step 5, and with random ones of what that '
            'lacked: classifier.', *split(TEXT), f'Trained in all of these steps: the {words}.']
  if labels:
    wanted.insert(-1, f'Classes, in the order of their scores: {", ".join(labels)}.')
  assert sentences(text) == wanted
  assert 'On examples of which 25.0% stand in training, too.' in text
  source = tmp_path / 'out'
  for again in ('again', 'and_again'):
    assert export(huggingface.read(source), source, tmp_path / again).replace(f'# {again}\n', '# out\n') == text
    source = tmp_path / again


@pytest.mark.parametrize('name', ['tiny', 'tiny_sop', 'tiny_no_nsp'])
def test_by_way_of_googles_code(vocabulary, tmp_path, name):
  """What it says survives a format that has no card."""
  run, loaded = write_run(tmp_path / 'run', config_of(name), vocabulary)
  text = export(loaded, run, tmp_path / 'out')
  loaded = exchange.trained(loaded)
  google.export_checkpoint(tmp_path / 'tf1', loaded, card=exchange.card(loaded, run))
  found = google.read(tmp_path / 'tf1')
  assert found.objective.terms.keys() == loaded.objective.terms.keys()
  assert export(found, tmp_path / 'tf1', tmp_path / 'again').replace('# again\n', '# out\n') == text


def test_a_run_that_was_moved_is_described_by_what_it_recorded(vocabulary, tmp_path, monkeypatch):
  """Other data of the same name lies where it is read now."""
  synthetic.write_data(tmp_path / 'nowhere', vocabulary_size=40, pieces=20, documents=4, sequence_length=128)
  run, loaded = write_run(tmp_path / 'run', config_of('tiny'), vocabulary)
  run.rename(tmp_path / 'moved')
  monkeypatch.chdir(tmp_path)
  assert TEXT.split('. ')[0] in export(loaded, tmp_path / 'moved', tmp_path / 'out')


def test_a_run_that_began_with_a_model_only(vocabulary, tmp_path):
  origin = run_directory.Origin('untrained:runs/first', 900, ('all of them',))
  run, loaded = write_run(tmp_path / 'run', config_of('tiny'), vocabulary, origin)
  text = export(loaded, run, tmp_path / 'out')
  assert 'It began with random parameters, for the model and the vocabulary of `runs/first`, step 900.' in text


@pytest.mark.parametrize('name', [
    '<script>alert(1)</script>', 'a|b', 'a`b', '[l](x)', '*a* $x$', 'a\nb', '# a', '&lt;', 'a\x1b[31mb', '中文 é_x_y'])
def test_a_name_is_no_markup(vocabulary, tmp_path, name):
  """Neither the export's own, nor that of what the run began with."""
  folder = name.replace('/', '\u2215')
  run, loaded = write_run(tmp_path / 'run', config_of('tiny'), vocabulary, run_directory.Origin(name, 900, ()))
  text = export(loaded, run, tmp_path / folder)
  heading, = [line for line in text.splitlines() if line.startswith('# ') and not line.startswith('# l')
              and not line.startswith('# Left')]
  assert re.sub(r'\\([^\w\s])', r'\1', heading[2:]) == ''.join(c if c.isprintable() else ' ' for c in folder)
  assert not re.search(r'(?<!\\)[<|`*\[$]', heading)
  origin, = [line for line in text.splitlines() if 'It began with the parameters of `' in line]
  assert re.search(r'parameters of `[^`\n]*`, step 900\. ', origin)


@pytest.mark.parametrize('untrained', [(), ('pair_classes', 'pooler')])
def test_heads_that_a_run_only_kept(vocabulary, tmp_path, untrained):
  """Those that were trained before are there, and named; those that never were are not."""
  origin = run_directory.Origin('runs/first', 900, (), None, untrained)
  run, loaded = write_run(tmp_path / 'run', config_of('tiny_no_nsp'), vocabulary, origin)
  text = export(loaded, run, tmp_path / 'out')
  assert ('This run did not train the pooler and next-sentence head.' in text) == (not untrained)
  tensors = safetensors.numpy.load((tmp_path / 'out' / weights.WEIGHTS).read_bytes())
  assert any('cls.seq_relationship' in tensor for tensor in tensors) == (not untrained)
  assert exchange.untrained_of(run) == tuple(head for head in loaded.objective.heads if head in untrained)


def test_lengths_that_were_seen(vocabulary, tmp_path):
  config = config_of('tiny')
  config = dataclasses.replace(
      config, run=dataclasses.replace(config.run, steps=8),
      optimizer=dataclasses.replace(config.optimizer, warmup_steps=0),
      long=dataclasses.replace(config.long, share=.5, sequence_length=256, predictions=40))
  assert [phase.last for phase in phases.phases(config)] == [4, 8]
  run, loaded = write_run(tmp_path / 'run', config, vocabulary)
  assert 'It made 4 steps on rows of up to 128 tokens and 3 steps on rows of up to 256 tokens.' in export(
      loaded, run, tmp_path / 'out')


def test_data_is_known_by_what_it_holds(tmp_path):
  first, second, other = (records.read_manifest(synthetic.write_data(
      tmp_path / name, vocabulary_size=40, pieces=pieces, documents=4, sequence_length=16))
      for name, pieces in (('a', 20), ('b', 20), ('c', 24)))
  assert records.fingerprint([first]) == records.fingerprint([second]) != records.fingerprint([other])

