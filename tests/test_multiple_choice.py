"""Multiple choice: SWAG's files, choices that do not see each other, what is learnt, and what is refused."""

import csv
import json
import pathlib
import random

import jax
import numpy as np
import parameters
import pytest
from flax import nnx

from bert_jax import checkpoint, config as cfg, finetune, objectives
from bert_jax.convert import exchange
from bert_jax.errors import ConfigError
from bert_jax.model import build
from bert_jax.tasks import batches, multiple_choice
from bert_jax.tasks.settings import Finetune, TaskBatch
from bert_jax.tasks.task import Encoding, Settings
from input_pipeline.errors import DataError
from input_pipeline.vocabulary import tokenizer as tokenizer_lib

SWAG = pathlib.Path(__file__).parents[1] / '../shared/data/tasks/swag'
GOOD, BAD = 'sun rose milk song'.split(), 'rain mud tar noise'.split()
TOKENS = [*tokenizer_lib.SPECIAL, *GOOD, *BAD, 'she', 'saw', '.']
MODEL = cfg.Model(vocab_size=len(TOKENS), hidden_size=32, layers=1, heads=2, intermediate_size=32, max_positions=64,
                  dtype='float32', hidden_dropout=0, attention_dropout=0)
COLUMNS = ('', 'video-id', 'fold-ind', 'startphrase', 'sent1', 'sent2', 'gold-source', 'ending0', 'ending1', 'ending2',
           'ending3', 'label')


@pytest.fixture(scope='module')
def vocabulary(tmp_path_factory):
  folder = tmp_path_factory.mktemp('vocabulary')
  (folder / 'vocab.txt').write_text('\n'.join(TOKENS) + '\n')
  return folder


@pytest.fixture(scope='module')
def tokenizer(vocabulary):
  return tokenizer_lib.load(vocabulary, lower_case=True)


def encoding(tokenizer, length=64):
  return Encoding(tokenizer, length, tuple('0123'), Settings())


def read(path):
  return multiple_choice.SWAG.read(path, Settings())


def write_csv(path, rows, columns=COLUMNS):
  with path.open('w', newline='') as file:
    csv.writer(file).writerows([columns, *rows])
  return path


def line(choices, **more):
  return json.dumps({'startphrase': 'a', 'choices': choices} | more) + '\n'


def row(text='She saw', endings=('sun.', 'mud.', 'tar.', 'rain.'), label: object = 0):
  return ['0', 'v', '1', text, 'She', 'saw', 'gold', *endings, label]

# ---------------------------------------------------------------- files


def test_both_layouts_are_the_same_examples(tmp_path):
  rows = [row(), row('She,\nin "quotes"', ('a, b', '"c"', 'd\ne', ''), 3)]
  of_csv = read(write_csv(tmp_path / 'train.csv', rows))
  lines = [{'startphrase': x[3], 'choices': x[7:11], 'answer': x[11]} for x in rows]
  (tmp_path / 'train.jsonl').write_text('\n'.join(map(json.dumps, lines)) + '\n\n')
  assert read(tmp_path / 'train.jsonl') == of_csv
  assert of_csv[1] == multiple_choice.Choice('She,\nin "quotes"', ('a, b', '"c"', 'd\ne', ''), 3)
  unlabelled = read(write_csv(tmp_path / 'test.csv', [x[:-1] for x in rows], COLUMNS[:-1]))
  assert [example.answer for example in unlabelled] == [None, None]
  with pytest.raises(DataError, match=r'test.csv, line 2: the examples to train on have no answer'):
    multiple_choice.places(unlabelled)
  with pytest.raises(DataError, match='the examples to evaluate on have no answer'):
    multiple_choice.accuracy(unlabelled, [{'answer': 0}] * 2)
  assert multiple_choice.places(of_csv) == tuple('0123')


@pytest.mark.skipif(not SWAG.exists(), reason='../shared/data is not here')
def test_real_files():
  lines, rows = read(SWAG / 'swag_val_first500.jsonl'), read(SWAG / 'allennlp_swag.csv')
  assert (len(lines), len(rows)) == (500, 11) and all(len(example.choices) == 4 for example in lines + rows)
  assert set(rows) <= set(lines)  # the same rows of the same file
  assert np.bincount([example.answer for example in lines]).min() > 90


@pytest.mark.parametrize('change, match', [
    (lambda path: path.write_text(' \n'), 'train.csv holds no example: wanted CSV'),
    (lambda path: write_csv(path, []), 'holds no example'),
    (lambda path: path.write_bytes(b'a\n,\xff'), 'line 2 is not UTF-8'),
    (lambda path: write_csv(path, [], ('text', 'label')), 'line 1 has the columns text, label: wanted startphrase'),
    (lambda path: write_csv(path, [row(), row()[:-2]]), 'line 3 has 10 values: wanted 12'),
    (lambda path: write_csv(path, [row(), row(label='x')]), 'line 3 says that x is right: wanted a whole number'),
    (lambda path: write_csv(path, [row(label=4)]), 'line 2 says that 4 is right'),
    (lambda path: write_csv(path, [row(), row(label='')]), 'line 3 has no answer, unlike the first'),
    (lambda path: path.write_text(path.read_text() + '"x'), 'line 3: unexpected end of data: wanted CSV'),
    (lambda path: path.write_text('{"startphrase": "a"'), 'line 1 is no JSON'),
    (lambda path: path.write_text('{"a": 1}'), 'line 1 has no startphrase or no choices'),
    (lambda path: path.write_text('\n{"startphrase": 1, "choices": ["a", "b"]}'), 'line 2: startphrase is 1'),
    (lambda path: path.write_text(line('ab')), 'the choices are ab: wanted text, and a list'),
    (lambda path: path.write_text(line(['a'])), 'has 1 choices: wanted two at least'),
    (lambda path: path.write_text(line(['a', 'b'], answer=True)), 'says that True is right'),
    (lambda path: path.write_text(line(['a', 'b']) + line(['a', 'b', 'c'])), 'line 2 has 3 choices, the first')])
def test_what_is_no_file_of_swag_is_refused_by_line(tmp_path, change, match):
  path = write_csv(tmp_path / 'train.csv', [row()])
  change(path)
  with pytest.raises(DataError, match=match) as error:
    read(path)
  assert str(path) in str(error.value) and '\n' not in str(error.value)

# ---------------------------------------------------------------- rows


def test_choices_stand_side_by_side_and_share_the_room(tokenizer):
  example = multiple_choice.Choice('she saw', ('sun .', 'mud', 'tar ' * 30, ''), 2)
  one, = multiple_choice.rows([example], encoding(tokenizer))
  begins = one.targets['cls_positions'].tolist()
  assert begins == [0, 7, 13, 29] and one.targets['label'] == 2 and len(one.input_ids) == 34
  assert tokenizer.decode(one.input_ids[:7]) == '[CLS] she saw [SEP] sun . [SEP]'
  for number, (begin, end) in enumerate(zip(begins, [*begins[1:], 34]), 1):
    assert (one.pair_ids[begin:end] == number).all()
    assert one.position_ids[begin:end].tolist() == list(range(end - begin))
    assert one.input_ids[begin] == tokenizer.cls_id and one.input_ids[end - 1] == tokenizer.sep_id
    first = one.input_ids[begin:end].tolist().index(tokenizer.sep_id)
    assert one.token_type_ids[begin:end].tolist() == [0] * (first + 1) + [1] * (end - begin - first - 1)
  with pytest.raises(ConfigError, match='max_length is 16: wanted 20 at least, as 4 choices share it'):
    multiple_choice.rows([example], encoding(tokenizer, 16))
  with pytest.raises(DataError, match='have 2 choices: wanted 4, as the training examples have'):
    multiple_choice.rows([multiple_choice.Choice('a', ('b', 'c'), 0)], encoding(tokenizer))


@pytest.fixture(scope='module')
def tuned(vocabulary, tmp_path_factory):
  """A run that was to learn which ending is of good words."""
  folder, draw = tmp_path_factory.mktemp('runs'), random.Random(0)
  for name, count in (('train', 64), ('validation', 21)):
    rows = []
    for _ in range(count):
      endings = [' '.join(draw.choices(BAD, k=2)) for _ in range(4)]
      label = draw.randrange(4)
      endings[label] = ' '.join(draw.choices(GOOD, k=2))
      rows.append(row(endings=endings, label=label))
    write_csv(folder / f'{name}.csv', rows)
  pretraining = cfg.Config(model=MODEL, batch=cfg.BatchConfig(size=8, sequence_length=32, predictions=5))
  parameters.write_run(folder / 'pretrained', pretraining, vocabulary)
  config = Finetune(task='swag', epochs=15, batch=TaskBatch(size=16, max_length=36), model=MODEL,
                    mesh=cfg.MeshShape(data=1),
                    optimizer=cfg.Optimizer(name='adamw', schedule='linear', peak_learning_rate=1e-2, warmup_steps=5),
                    run=cfg.Run(log_every=60, checkpoint_every=1000))
  _, figures = finetune.finetune(config, folder, folder / 'run', folder / 'pretrained', devices=jax.devices()[:1],
                                 progress=False)
  return folder / 'run', figures


def test_the_better_choice_is_learnt_and_exported(tuned, tmp_path):
  run_dir, figures = tuned
  assert figures['accuracy'] == figures['choice_accuracy'] == 1 and figures['examples'] == 21
  told: list[str] = []
  path = exchange.export('huggingface', run_dir, tmp_path / 'export', tell=told.append)
  fields = json.loads((path / 'config.json').read_text())
  assert fields['architectures'] == ['BertForMultipleChoice'] and any('logits ' in line for line in told)
  found = exchange.load(path)
  assert found.fresh == () and set(found.params) == {'encoder', 'pooler', 'choice'}
  jax.tree.map(np.testing.assert_array_equal, dict(found.params), dict(checkpoint.load(run_dir).params))
  assert 'pipeline_tag: multiple-choice' in (path / 'README.md').read_text()


def test_a_score_depends_on_its_own_choice_only(tuned, tokenizer):
  """The scores of a packed row are those of its choices alone, in whatever order, without and with padding."""
  loaded = checkpoint.load(tuned[0])
  graphdef, _, _ = build.describe(loaded.model, loaded.objective.heads)
  model = nnx.merge(graphdef, loaded.params)
  choices = ('sun rose', 'mud', 'tar tar tar noise', 'milk mud')

  def scores(*choices):
    rows = multiple_choice.rows([multiple_choice.Choice('she saw', choices, 0)],
                                Encoding(tokenizer, 64, tuple(map(str, range(len(choices)))), Settings()))
    batch = batches.pad(rows, 2, 64, tokenizer.pad_id, rows[0])
    sums, kept = objectives.term_sums(loaded.objective, model, batch, kept=True)
    assert sums['choice']['weight'] == 1
    return np.asarray(kept['choice'][0])

  together = scores(*choices)
  assert together.shape == (4,) and together[[0, 3]].min() > together[[1, 2]].max()
  np.testing.assert_allclose(scores(*choices[::-1])[::-1], together, atol=1e-5)
  alone = [scores(a, b)[0] for a, b in zip(choices, choices[1:] + choices[:1])]
  np.testing.assert_allclose(alone, together, atol=1e-5)


def test_answers_and_what_is_shown():
  example = multiple_choice.Choice('she saw', ('sun', 'mud'), 1)
  found = multiple_choice.answers([example], [], [{'choice': np.array([0.0, np.log(3)])}], None)
  assert found == [{'answer': 1, 'probabilities': pytest.approx([.25, .75])}]
  assert multiple_choice.accuracy([example] * 2, [found[0], {'answer': 0}]) == {'accuracy': .5}
  shown = multiple_choice.shown(example, found[0])
  assert (shown.predicted, shown.wanted, shown.right) == ('mud', 'mud', True)
