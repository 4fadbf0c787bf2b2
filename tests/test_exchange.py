"""Any checkpoint in, any format out: runs and directories of others, parameters to begin with, what a card claims."""

import dataclasses
import json
import re
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import parameters
import pytest
import synthetic
from etils import epath
from flax import nnx

from bert_jax import config as cfg, run_directory
from bert_jax.checkpoint import Loaded
from bert_jax.convert import exchange, huggingface, names, plain, programs, proof
from bert_jax.errors import CheckpointError
from bert_jax.model import build, layers
from bert_jax.model.encoder import BertEncoder
from bert_jax.model.heads import MaskedTokens, PairClasses, Pooler
from bert_jax.objectives import OBJECTIVES, PRETRAINING_HEADS, Objective
from bert_jax.tasks.settings import Finetune
from input_pipeline.vocabulary import tokenizer as tokenizer_lib
from launch import cli

MODEL = cfg.Model(vocab_size=40, hidden_size=12, layers=2, heads=2, intermediate_size=20, max_positions=16)
CONFIG = cfg.Config(model=MODEL, batch=cfg.BatchConfig(size=8, sequence_length=16, predictions=3),
                    optimizer=cfg.Optimizer(warmup_steps=0), run=cfg.Run(steps=9))
LABELS = ('bad', 'good')
TUNED = Finetune(labels=LABELS, model=MODEL, batch=dataclasses.replace(Finetune().batch, max_length=16))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return epath.Path(tmp_path_factory.mktemp('exchange'))


@pytest.fixture(scope='module')
def vocabulary(folder):
  (folder / 'vocabulary').mkdir()
  synthetic.write_vocabulary(folder / 'vocabulary', MODEL.vocab_size)
  return folder / 'vocabulary'


@pytest.fixture(scope='module')
def pretrained(folder, vocabulary):
  """(run directory, parameters of step 7)."""
  return folder / 'pretrained', parameters.write_run(folder / 'pretrained', CONFIG, vocabulary, steps=(3, 7))


@pytest.fixture(scope='module')
def tuned(folder, vocabulary):
  origin = run_directory.Origin('runs/base', 900, ('classifier/dense/bias', 'classifier/dense/kernel'))
  return folder / 'tuned', parameters.write_run(folder / 'tuned', TUNED, vocabulary, origin=origin)


@pytest.fixture(scope='module')
def of_others(folder, vocabulary):
  """A directory of BertForMaskedLM: no pooler, no pair classes."""
  heads = {'masked_tokens': MaskedTokens}
  objective = dataclasses.replace(OBJECTIVES['mlm'], heads=heads, huggingface='BertForMaskedLM')
  loaded = Loaded(MODEL, objective, parameters.random(MODEL, heads, seed=5), lambda: tokenizer_lib.load(vocabulary))
  return huggingface.export_checkpoint(folder / 'of_others', loaded), loaded.params


def heads_of(names):
  return {name.split('/')[0] for name in names}


def assert_equal(found, wanted):
  jax.tree.map(np.testing.assert_array_equal, found, wanted)

# ---------------------------------------------------------------- in


def test_runs_and_their_steps(pretrained, tuned):
  path, params = pretrained
  loaded = exchange.load(path)
  assert loaded.step == 7 and loaded.objective == OBJECTIVES['mlm_nsp'] and loaded.fresh == ()
  assert_equal(loaded.params, params)
  assert exchange.load(path / 'checkpoints' / '3').step == 3
  loaded = exchange.load(tuned[0])
  assert set(loaded.params) == {'encoder', 'pooler', 'classifier'} and loaded.record.kind == 'finetuned'
  assert_equal(loaded.params, tuned[1])


def test_what_is_missing_is_initialised_and_named(of_others):
  path, params = of_others
  assert exchange.load(path).fresh == () and set(exchange.load(path).params) == {'encoder', 'masked_tokens'}
  loaded = exchange.load(path, PRETRAINING_HEADS)
  assert set(loaded.fresh) == {'pooler/dense/kernel', 'pooler/dense/bias', 'pair_classes/dense/kernel',
                               'pair_classes/dense/bias'}
  assert jax.tree.map(jnp.shape, loaded.params) == jax.tree.map(lambda x: x.shape,
                                                                build.describe(MODEL, PRETRAINING_HEADS)[1])
  assert_equal({name: loaded.params[name] for name in params}, dict(params))
  assert np.any(loaded.params['pooler']['dense']['kernel']) and not np.any(loaded.params['pooler']['dense']['bias'])
  assert_equal(loaded.params, exchange.load(path, PRETRAINING_HEADS).params)  # from a seed


def test_other_heads_of_a_run(tuned):
  heads = {'pooler': Pooler, 'pair_classes': PairClasses}
  loaded = exchange.load(tuned[0], heads)
  assert set(loaded.params) == {'encoder', *heads} and {name.split('/')[0] for name in loaded.fresh} == {'pair_classes'}
  assert_equal(loaded.params['pooler'], tuned[1]['pooler'])


def test_what_is_no_checkpoint(folder, vocabulary):
  with pytest.raises(cfg.ConfigError, match='does not exist: wanted a run directory'):
    exchange.load(folder / 'nowhere')
  with pytest.raises(cfg.ConfigError, match='is no checkpoint: wanted .*, a Hugging Face directory or the prefix'):
    exchange.load(vocabulary)


def test_a_format_is_one_entry_in_each_table(folder, pretrained, vocabulary, monkeypatch):
  """NumPy's, added here: names beside the classes, a reader, a writer."""
  form = names.Format('npz', '.', {'kernel': 'w', 'scale': 'g', 'embedding': 'table', 'bias': 'b'})
  for kind in (BertEncoder, Pooler, MaskedTokens, PairClasses):
    theirs = {ours: f'{kind.__name__}.{ours.replace("/", ".{}.") or "top"}' for ours in kind.NAMES['huggingface']}
    monkeypatch.setattr(kind, 'NAMES', {'npz': theirs})
  table = names.entries(MODEL, PRETRAINING_HEADS, form)

  def write(loaded, source, output, layout, verify):
    np.savez(output, **names.to_tensors(loaded.params, table))
    return output

  def read(path, heads):
    arrays = names.from_tensors(dict(np.load(path)), table, path)
    return Loaded(MODEL, OBJECTIVES['mlm_nsp'], names.tree(arrays, MODEL, PRETRAINING_HEADS),
                  lambda: tokenizer_lib.load(vocabulary))

  monkeypatch.setitem(exchange.EXPORTERS, 'npz', write)
  monkeypatch.setitem(exchange.IMPORTERS, 'npz',
                      exchange.Importer(lambda path: path.suffix == '.npz', read, 'an .npz file'))
  path = exchange.export('npz', pretrained[0], folder / 'weights.npz')
  assert np.load(path)['BertEncoder.blocks.1.query.w'].shape == (12, 12)
  assert_equal(exchange.load(path).params, pretrained[1])

# ---------------------------------------------------------------- parameters to begin with


def test_a_run_begins_with_what_there_is(pretrained, tuned, of_others):
  given = exchange.initial_parameters(pretrained[0] / 'checkpoints' / '3', MODEL, PRETRAINING_HEADS)
  assert given.step == 3 and given.fresh == () and given.record.kind == 'pretrained'
  assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(given.params))
  heads = parameters.task(LABELS).heads
  given = exchange.initial_parameters(pretrained[0], MODEL, heads)
  assert given.step == 7 and given.fresh == ('classifier/dense/bias', 'classifier/dense/kernel')
  assert given.params['classifier'] == {'dense': {'bias': None, 'kernel': None}}
  assert_equal({name: given.params[name] for name in ('encoder', 'pooler')},
               {name: pretrained[1][name] for name in ('encoder', 'pooler')})
  given = exchange.initial_parameters(tuned[0], MODEL, parameters.task(('a', 'b', 'c')).heads)
  assert given.fresh == ('classifier/dense/bias', 'classifier/dense/kernel')  # of two classes there
  given = exchange.initial_parameters(of_others[0], MODEL_OF_OTHERS, PRETRAINING_HEADS)
  assert given.step is None and given.record is None and heads_of(given.fresh) == {'pooler', 'pair_classes'}


def test_the_tree_is_that_of_the_program(pretrained):
  """Where a leaf is lacking the caller's own goes there."""
  heads = parameters.task(LABELS).heads
  given = exchange.initial_parameters(pretrained[0], MODEL, heads)
  own = parameters.random(MODEL, heads, seed=9)
  merged = jax.tree.map(lambda own, given: own if given is None else given, own, given.params)
  assert_equal(merged['classifier'], own['classifier'])
  assert_equal(merged['encoder'], pretrained[1]['encoder'])


MODEL_OF_OTHERS = dataclasses.replace(MODEL, dtype='float32', hidden_dropout=0.0, attention_dropout=0.3,
                                      attention='xla', remat='full',
                                      unroll=2, initializer_range=0.5)


def test_what_only_training_sees_may_differ(pretrained):
  assert_equal(exchange.initial_parameters(pretrained[0], MODEL_OF_OTHERS, PRETRAINING_HEADS).params, pretrained[1])


@pytest.mark.parametrize('which', ['pretrained', 'of_others'])
@pytest.mark.parametrize('change, flags', [
    ({'vocab_size': 50}, '--model.vocab_size 40'), ({'hidden_size': 24}, '--model.hidden_size 12'),
    ({'layers': 3}, '--model.layers 2'),
    ({'heads': 3}, '--model.heads 2'),
    ({'activation': 'gelu'}, '--model.activation gelu_tanh'), ({'causal': True}, '--model.no-causal'),
    ({'layers': 3, 'intermediate_size': 40}, '--model.layers 2 --model.intermediate_size 20')])
def test_what_does_not_fit_is_refused_by_its_flag(request, which, change, flags):
  path = request.getfixturevalue(which)[0]
  with pytest.raises(cfg.ConfigError, match=f'{path} does not fit: .*set {flags}, or'):
    exchange.initial_parameters(path, dataclasses.replace(MODEL, **change), PRETRAINING_HEADS)


@pytest.mark.parametrize('which', ['pretrained', 'of_others'])
def test_another_vocabulary_of_the_same_size_is_refused(request, tmp_path, vocabulary, which):
  path = request.getfixturevalue(which)[0]
  same = tokenizer_lib.load(vocabulary).record
  assert exchange.initial_parameters(path, MODEL, PRETRAINING_HEADS, same)
  tokens = synthetic.vocabulary_tokens(MODEL.vocab_size)
  (tmp_path / 'vocab.txt').write_text('\n'.join([*tokens[:-1], 'else']) + '\n')
  with pytest.raises(cfg.ConfigError, match='another vocabulary than the data'):
    exchange.initial_parameters(path, MODEL, PRETRAINING_HEADS, tokenizer_lib.load(tmp_path).record)

# ---------------------------------------------------------------- out, and the card


def commands(capsys):
  cli.run(['help'])
  return set(re.findall(r'^  ([a-z-]+) ', capsys.readouterr().out, re.M))


def read_card(path, capsys):
  """The card's text; every command that it names is one."""
  text = (path / 'README.md').read_text()
  assert set(re.findall(r'bert-jax ([a-z-]+)', text)) <= commands(capsys)
  return text


def test_the_export_of_a_pretraining_run(pretrained, capsys):
  path, params = pretrained
  (path / run_directory.FIGURES).write_text(json.dumps({'mlm_loss': 3.25, 'step': 7}))
  lines = [{'kind': 'train', 'step': 7, 'loss': 4.5}, {'kind': 'train', 'step': 8, 'loss': 1.0}]
  (path / run_directory.LOG).write_text('\n'.join(map(json.dumps, lines)))
  output = exchange.export('huggingface', path)
  assert output == path / run_directory.EXPORT
  assert_equal(exchange.load(output).params, params)
  text = read_card(output, capsys)
  assert text.startswith('---\n') and '\n# license:' in text.split('---')[1]
  for part in ('# pretrained\n', 'pipeline_tag: fill-mask',
               'masked language model head and next-sentence head, pretrained with bert_jax',
               '7 steps. It began with random parameters.', '| loss | 4.5 |', '| mlm_loss | 3.25 |',
               '| model.layers | 2 |',
               '0 stands for "is next" and 1 stands for "is random"', 'Devlin', 'AutoTokenizer.from_pretrained',
               f'{build.parameter_count(params):,} parameters', 'bert-jax fill-mask',
               'BertForPreTraining.from_pretrained'):
    assert part in text, part
  assert 'did not train' not in text
  figures_of_another_step = exchange.export('huggingface', path / 'checkpoints' / '3', path.parent / 'third')
  assert 'mlm_loss' not in (figures_of_another_step / 'README.md').read_text()
  with pytest.raises(cfg.ConfigError, match='no default place: name one with --output'):
    exchange.export('huggingface', output)


@pytest.mark.parametrize('objective, told, untold', [
    ('mlm', 'This run did not train the pooler and next-sentence head.', 'stands for'),
    ('mlm_sop', '0 stands for "in order" and 1 stands for "swapped"', 'did not train'),
    ('left_to_right', 'This run did not train the pooler and next-sentence head.', 'fill-mask')])
def test_a_card_knows_what_was_learnt(folder, vocabulary, capsys, objective, told, untold):
  causal = OBJECTIVES[objective].causal
  model = dataclasses.replace(MODEL, causal=causal)
  config = dataclasses.replace(CONFIG, objective=objective, model=model, batch=dataclasses.replace(
      CONFIG.batch, pairs={'mlm_sop': 'sop'}.get(objective, 'none'),
      masking=cfg.Masking(share=0.0 if causal else 0.15)))
  origin = run_directory.Origin('runs/smaller', 400, ('masked_tokens/bias',))
  parameters.write_run(folder / objective, config, vocabulary, origin=origin)
  text = read_card(exchange.export('huggingface', folder / objective), capsys)
  assert told in text and untold not in text.split('## Settings')[0]
  assert 'parameters of `runs/smaller`, step 400, and with random ones of what that lacked: masked_tokens.' in text


def test_the_card_of_a_fine_tuned_run(tuned, capsys):
  output = exchange.export('huggingface', tuned[0])
  fields = json.loads((output / 'config.json').read_text())
  assert fields['architectures'] == ['BertForSequenceClassification']
  assert fields['id2label'] == {'0': 'bad', '1': 'good'}
  text = read_card(output, capsys)
  for part in ('pipeline_tag: text-classification', 'pooler and classifier, fine-tuned with bert_jax',
               'Task: classification',
               'parameters of `runs/base`, step 900, and with random ones of what that lacked: classifier.',
               'Classes, in the order of their scores: bad, good.', "pipeline('text-classification', model=directory)"):
    assert part in text, part
  assert 'fill-mask' not in text and 'next-sentence' not in text


def test_the_card_of_what_others_trained(folder, of_others, capsys):
  text = read_card(exchange.export('huggingface', of_others[0], folder / 'again'), capsys)
  assert 'BertForMaskedLM.from_pretrained' in text and 'with its masked language model head.' in text
  assert 'says nothing of its training' in text and 'steps.' not in text
  assert 'stands for' not in text and 'trained with bert_jax' not in text

# ---------------------------------------------------------------- both sides of a border


@pytest.fixture
def plainly(monkeypatch):
  """As where transformers is not installed."""
  monkeypatch.setattr(proof.importlib.util, 'find_spec', lambda name: None)


HEADS_OF = {'BertForPreTraining': {'pooler', 'masked_tokens', 'pair_classes'}, 'BertForMaskedLM': {'masked_tokens'},
            'BertModel': {'pooler'}}
OUTPUTS_OF = {'BertForPreTraining': ['pooler_output', 'prediction_logits', 'seq_relationship_logits'],
              'BertForMaskedLM': ['logits'], 'BertModel': ['pooler_output']}


@pytest.mark.parametrize('architecture', HEADS_OF)
def test_an_export_is_of_the_class_that_is_asked_for(folder, pretrained, plainly, capsys, architecture):
  path, params = pretrained
  output = folder / architecture
  said: list[str] = []
  exchange.export('huggingface', path, output, architecture, tell=lambda text: said.extend(text.split('\n')))
  assert json.loads((output / 'config.json').read_text())['architectures'] == [architecture]
  found = exchange.load(output)
  assert set(found.params) == {'encoder'} | HEADS_OF[architecture]
  assert_equal(dict(found.params), {name: params[name] for name in found.params})
  assert said[0].endswith('equal to the last bit') and 'plain forward pass in float64' in said[1]
  assert [line.split()[0] for line in said[2:]] == ['last_hidden_state', *OUTPUTS_OF[architecture]]
  assert f'{architecture}.from_pretrained' in read_card(output, capsys)


def test_a_class_whose_head_lacks_is_refused(folder, of_others, tuned):
  for path, architecture, match in ((of_others[0], 'BertForPreTraining', 'no pooler and next-sentence head, which'),
                                    (tuned[0], 'BertForMaskedLM', 'no masked language model head, which')):
    with pytest.raises(cfg.ConfigError, match=match):
      exchange.export('huggingface', path, folder / 'never', architecture)
  with pytest.raises(cfg.ConfigError, match='--layout sentence-transformers is of --format huggingface'):
    exchange.export('tf1', of_others[0], folder / 'never', layout='sentence-transformers')
  with pytest.raises(cfg.ConfigError, match='sentence-transformers wants BertModel'):
    exchange.export('huggingface', of_others[0], folder / 'never', 'BertForMaskedLM', 'sentence-transformers')
  assert not (folder / 'never').exists()


def test_the_layout_of_sentence_transformers(folder, pretrained, plainly, capsys):
  output = exchange.export('huggingface', pretrained[0], folder / 'sentences', layout='sentence-transformers')
  modules = json.loads((output / 'modules.json').read_text())
  assert [module['path'] for module in modules] == ['', '1_Pooling']
  pooling = json.loads((output / '1_Pooling' / 'config.json').read_text())
  assert pooling['word_embedding_dimension'] == 12 and [key for key, value in pooling.items() if value is True] == [
      'pooling_mode_mean_tokens']
  text = read_card(output, capsys)
  assert 'library_name: sentence-transformers' in text and 'SentenceTransformer(' in text
  assert_equal(exchange.load(output).params['encoder'], pretrained[1]['encoder'])
  exchange.export('huggingface', pretrained[0], output)  # replaces all of it
  assert not (output / '1_Pooling').exists()
  (output / '1_Pooling').mkdir()
  (output / '1_Pooling' / 'mine.txt').write_text('x')
  with pytest.raises(cfg.ConfigError, match='1_Pooling/mine.txt'):
    exchange.export('huggingface', pretrained[0], output)


@pytest.mark.parametrize('format', ['huggingface', 'tf1'])
def test_what_comes_back_is_what_went_out(folder, pretrained, plainly, format):
  if format == 'tf1':
    pytest.importorskip('tensorflow')
  path, params = pretrained
  out = exchange.export(format, path, folder / f'{format}_out')
  back = exchange.bring_in(out, folder / f'{format}_back')
  for found in (exchange.load(out), exchange.load(back)):
    assert_equal(found.params, params)
    assert found.model == dataclasses.replace(MODEL, dtype=found.model.dtype)
    assert found.tokenizer().tokens == exchange.load(path).tokenizer().tokens
    assert found.tokenizer().lower_case == exchange.load(path).tokenizer().lower_case
  with pytest.raises(cfg.ConfigError, match='which every command takes as it is'):
    exchange.bring_in(path, folder / 'never')


@pytest.mark.parametrize('name, match', [
    ('encoder.layer.1.output.dense.weight', 'last_hidden_state differ by .* prediction_logits'),
    ('cls.seq_relationship.bias', 'with a plain forward pass in float64, seq_relationship_logits differ by')])
def test_a_fault_on_the_way_leaves_nothing(folder, pretrained, plainly, monkeypatch, name, match):
  """What another program would read is not what we wrote."""
  linear = plain.HuggingFace.__getitem__
  wrong = lambda self, asked: linear(self, asked) * (1.1 if asked == name else 1)
  monkeypatch.setattr(plain.HuggingFace, '__getitem__', wrong)
  before = sorted(path.name for path in folder.iterdir())
  with pytest.raises(CheckpointError, match=match):
    exchange.export('huggingface', pretrained[0], folder / 'never')
  good = exchange.load(pretrained[0])
  source = huggingface.export_checkpoint(folder / f'source of {name}', good)
  with pytest.raises(CheckpointError, match=match):
    exchange.bring_in(source, folder / 'never')
  assert sorted(path.name for path in folder.iterdir()) == sorted([*before, source.name])


def test_a_bit_that_changes_is_found(folder, pretrained, plainly, monkeypatch):
  read = exchange.IMPORTERS['huggingface'].read

  def other(path, heads):
    loaded = read(path, heads)
    loaded.params['encoder']['embeddings_norm']['bias'][3] += np.float32(1e-9)
    return loaded

  importer = dataclasses.replace(exchange.IMPORTERS['huggingface'], read=other)
  monkeypatch.setitem(exchange.IMPORTERS, 'huggingface', importer)
  with pytest.raises(CheckpointError, match='encoder/embeddings_norm/bias is another'):
    exchange.export('huggingface', pretrained[0], folder / 'never')


def test_numbers_that_are_none_are_a_difference(pretrained):
  batch = {'pair_ids': np.ones((1, 2), np.int32)}
  found = proof.compare({'logits': np.full((1, 2), np.nan)}, {'logits': np.zeros((1, 2))}, batch)
  with pytest.raises(CheckpointError, match='logits differ by nan'):
    proof.check(found, 'x', batch)
  large = np.full((1, 2), 1e30, np.float32)  # of which the squares are more than 32 bits hold
  with pytest.raises(CheckpointError, match='logits differ by 1.0e'):
    proof.check(proof.compare({'logits': 2 * large}, {'logits': large}, batch), 'x', batch)
  with pytest.raises(CheckpointError, match='no output that both have'):
    proof.check([], 'x', batch)

# ---------------------------------------------------------------- programs


@pytest.mark.parametrize('format', programs.FILES)
def test_a_program_gives_what_we_give_at_any_size(folder, pretrained, format):
  """Of heads of pretraining; imported arrays, which are views, do as well as a run's."""
  if format == programs.SAVED_MODEL:
    pytest.importorskip('tensorflow')
  source = huggingface.export_checkpoint(folder / f'source of {format}', exchange.load(pretrained[0]))
  said: list[str] = []
  output = exchange.export(format, source, folder / format, tell=lambda text: said.extend(text.split('\n')))
  assert 'at 3 sizes on 12 rows of 4 to 16 tokens' in said[0]
  assert [line.split()[0] for line in said[1:]] == ['last_hidden_state', *OUTPUTS_OF['BertForPreTraining']]
  assert {'vocab.txt', 'README.md'} <= {path.name for path in output.iterdir()}
  rng = np.random.default_rng(1)
  loaded = exchange.load(pretrained[0])
  for B, T in ((1, 3), (5, 16), (2, 9)):
    batch = {'input_ids': rng.integers(0, MODEL.vocab_size, (B, T)), 'token_type_ids': rng.integers(0, 2, (B, T)),
             'pair_ids': np.arange(T)[None] < rng.integers(1, T + 1, (B, 1)),
             'position_ids': np.broadcast_to(np.arange(T), (B, T))}
    batch = {name: value.astype(np.int32) for name, value in batch.items()}
    _, theirs = programs.RUNS[format](output, loaded, batch)
    proof.check(proof.compare(proof.ours(loaded, batch), theirs, batch), format, batch)


@pytest.mark.parametrize('labels, format', [
    (LABELS, 'huggingface'), (LABELS, 'tf1'), (LABELS, 'stablehlo'), (LABELS, 'savedmodel'), (LABELS, 'onnx'),
    ((), 'huggingface'), ((), 'tf1'), ((), 'onnx')])
def test_a_task_goes_out_in_every_format(folder, vocabulary, plainly, labels, format):
  """Classes and numbers: one exporter, whatever the head."""
  if format in ('tf1', 'savedmodel'):
    pytest.importorskip('tensorflow')
  run, said = folder / f'of {len(labels)} classes', []
  if not run.exists():
    settings = dataclasses.replace(TUNED, task='classification' if labels else 'regression', labels=labels)
    parameters.write_run(run, settings, vocabulary)
  output = exchange.export(format, run, folder / f'{format} of {len(labels)} classes',
                           tell=lambda text: said.extend(text.split('\n')))
  found = [line.split()[0] for line in said if 'differ by' in line]
  assert found == ['last_hidden_state', 'logits', 'pooler_output']
  if format in exchange.IMPORTERS:
    assert_equal(exchange.load(output).params, exchange.load(run).params)
  else:
    assert 'logits [B, ' in (output / 'README.md').read_text()
    assert all(label in (output / 'README.md').read_text() for label in labels)


class Lengths(nnx.Module):
  """A head that only we have."""
  NAMES: ClassVar = {'huggingface': {'dense': 'lengths'}}

  def __init__(self, settings, rngs):
    self.dense = layers.LayerMaker(settings, rngs).linear(settings.hidden_size, 3, ('embed', None), dtype='float32')

  def outputs(self, model, hidden):  # [B T D] -> {[B T], [B T], [B]}
    scores = self.dense(hidden)
    return {'start_logits': scores[..., 0], 'end_logits': scores[:, :, 1], 'length': scores[:, 0, 2]}


def test_a_head_that_a_format_cannot_carry_is_named(folder, vocabulary, monkeypatch):
  heads = {'lengths': Lengths}
  loaded = Loaded(MODEL, Objective({}, heads), parameters.random(MODEL, heads), lambda: tokenizer_lib.load(vocabulary))
  monkeypatch.setattr(exchange, 'load', lambda source: loaded)
  for format in ('huggingface', 'tf1'):
    with pytest.raises(cfg.ConfigError, match='no class of transformers is known that has the head lengths'):
      exchange.export(format, folder, folder / 'never')
  said: list[str] = []
  exchange.export('onnx', folder, folder / 'own head', tell=lambda text: said.extend(text.split('\n')))
  assert [line.split()[0] for line in said[1:]] == ['end_logits', 'last_hidden_state', 'length', 'start_logits']
  monkeypatch.delattr(Lengths, 'outputs')
  with pytest.raises(cfg.ConfigError, match='the head lengths does not say what it gives.*add Lengths.outputs'):
    exchange.export('onnx', folder, folder / 'never')
  objective = dataclasses.replace(TUNED.learns, huggingface='BertForTokenClassification')
  loaded = Loaded(MODEL, objective, parameters.random(MODEL, objective.heads), lambda: tokenizer_lib.load(vocabulary))
  monkeypatch.setattr(exchange, 'load', lambda source: loaded)
  with pytest.raises(cfg.ConfigError, match='Google\'s code has no head as BertForTokenClassification has'):
    exchange.export('tf1', folder, folder / 'never')
  assert not (folder / 'never').exists()
