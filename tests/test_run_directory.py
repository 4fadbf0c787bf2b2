"""A run's directory: what is written there comes back, and what is another run is refused."""

import dataclasses
import json

import pytest

from bert_jax import config as cfg, run_directory
from bert_jax.errors import ConfigError, DriftError
from bert_jax.run_directory import Origin, Record
from bert_jax.tasks.settings import Finetune, TaskBatch
from input_pipeline import records

VOCABULARY = records.Vocabulary('wordpiece', 64, 'a' * 64, True, 0, 1, 2, 3, 4)
PRETRAINED = Record(
    cfg.Config(objective='mlm', batch=cfg.BatchConfig(size=64, masking=cfg.Masking(unit='span')),
               mesh=cfg.MeshShape(fsdp=4), model=cfg.Model(plain=('lookup', 'add_bias')), run=cfg.Run(max_minutes=1.5)),
    'somewhere', VOCABULARY)
FINETUNED = Record(
    Finetune(task='classification', labels=('no', 'yes'), model=cfg.Model(layers=2),
             batch=TaskBatch(size=16, max_length=64)),
    'task', VOCABULARY, Origin('gs://bucket/run', 7, ('classifier/dense/kernel', 'classifier/dense/bias')))
OTHER_WORDS = dataclasses.replace(PRETRAINED, vocabulary=dataclasses.replace(VOCABULARY, sha256='b' * 64))
RECORDS = {'pretrained': PRETRAINED, 'finetuned': FINETUNED,
           'warm': dataclasses.replace(PRETRAINED, origin=Origin('huggingface', None, ()))}


@pytest.mark.parametrize('name', RECORDS)
def test_a_record_comes_back_from_config_json(tmp_path, name):
  record, run_dir = RECORDS[name], tmp_path / 'deep' / 'run'
  assert run_directory.open_run(run_dir, record, {'vocab.txt': b'words'}) == record
  again = run_directory.read(run_dir)
  assert again == record and again.kind == record.kind == ('finetuned' if name == 'finetuned' else 'pretrained')
  assert hash(again.config) == hash(record.config)
  assert again.config.learns.heads.keys() == record.config.learns.heads.keys()
  assert run_directory.vocabulary_files(run_dir) == {'vocab.txt': b'words'}
  assert json.loads((run_dir / run_directory.CONFIG).read_text())['kind'] == record.kind
  assert {path.name for path in run_dir.iterdir()} == {run_directory.CONFIG, 'vocab.txt'}
  assert run_directory.open_run(run_dir, record, {}) == record  # a second time: it goes on


def test_masks_of_another_version_are_refused_where_there_is_dropout(tmp_path):
  run_directory.open_run(tmp_path, PRETRAINED, {})
  path = tmp_path / run_directory.CONFIG
  fields = json.loads(path.read_text())
  assert fields.pop('masks') == 'multiply-add'
  path.write_text(json.dumps(fields))  # as runs before had it
  with pytest.raises(DriftError, match='dropout masks: lowbias32 -> multiply-add, another version of bert_jax'):
    run_directory.check(tmp_path, PRETRAINED)
  fields['config']['model'] |= {'hidden_dropout': 0.0, 'attention_dropout': 0.0}
  path.write_text(json.dumps(fields))
  model = dataclasses.replace(PRETRAINED.config.model, hidden_dropout=0.0, attention_dropout=0.0)
  assert run_directory.check(tmp_path, change(PRETRAINED, model=model)).masks == 'lowbias32'


def change(record, **changes):
  return dataclasses.replace(record, config=dataclasses.replace(record.config, **changes))


@pytest.mark.parametrize('old, new, says', [
    (PRETRAINED, FINETUNED, 'a pretrained run -> finetuned'),
    (FINETUNED, PRETRAINED, 'a finetuned run -> pretrained'),
    (FINETUNED, change(FINETUNED, labels=('no', 'so', 'yes')), r"labels: \('no', 'yes'\) -> \('no', 'so', 'yes'\)"),
    (PRETRAINED, change(PRETRAINED, objective='mlm_nsp'), 'objective: mlm -> mlm_nsp'),
    (PRETRAINED, OTHER_WORDS, 'vocabulary: SHA-256 a'),
    (PRETRAINED, RECORDS['warm'], 'initialize-from: None -> huggingface'),
    (FINETUNED, dataclasses.replace(FINETUNED, origin=Origin('other', 7, ())), 'from: gs://bucket/run -> other')])
def test_another_run_is_refused_and_nothing_is_written(tmp_path, old, new, says):
  run_directory.open_run(tmp_path / 'run', old, {'vocab.txt': b'words'})
  before = {path.name: path.read_bytes() for path in (tmp_path / 'run').iterdir()}
  with pytest.raises(DriftError, match=says) as caught:
    run_directory.open_run(tmp_path / 'run', new, {'vocab.txt': b'others'})
  assert caught.value.exit_code == 8
  assert {path.name: path.read_bytes() for path in (tmp_path / 'run').iterdir()} == before


def test_a_run_that_is_gone_on_with_keeps_its_origin(tmp_path):
  run_directory.open_run(tmp_path / 'run', FINETUNED, {})
  plain = dataclasses.replace(change(FINETUNED, mesh=cfg.MeshShape(data=1)), origin=None)  # free to change
  assert run_directory.open_run(tmp_path / 'run', plain, {}).origin == FINETUNED.origin


@pytest.mark.parametrize('damage', [
    lambda text: text[:-20], lambda text: '[]', lambda text: text.replace('"kind"', '"sort"'),
    lambda text: text.replace('"pretrained"', '"sculpted"'), lambda text: text.replace('"sha256"', '"sha1"')])
def test_a_damaged_config_is_one_sentence(tmp_path, damage):
  run_directory.open_run(tmp_path / 'run', PRETRAINED, {})
  path = tmp_path / 'run' / run_directory.CONFIG
  path.write_text(damage(path.read_text()))
  with pytest.raises(ConfigError, match='config.json is damaged|is no run of ours|of the kind') as caught:
    run_directory.read(tmp_path / 'run')
  assert '\n' not in str(caught.value)


def test_runs_and_their_steps_are_told_from_other_directories(tmp_path):
  run = tmp_path / 'run'
  run_directory.open_run(run, PRETRAINED, {})
  assert run_directory.run_of(run) == run == run_directory.run_of(run / run_directory.CHECKPOINTS / '12')
  (tmp_path / 'config.json').write_text('{"model_type": "bert"}')
  assert run_directory.run_of(tmp_path) is None and run_directory.run_of(tmp_path / 'absent') is None
  with pytest.raises(ConfigError, match='is no run directory'):
    run_directory.read(tmp_path / 'absent')

# ---------------------------------------------------------------- what somebody edited

WRONG = (None, True, -1, 1.5, 'x', [], {}, [[1]], 10**400)


def places(fields, path=()):
  """The path of every value of a JSON object."""
  for name, value in fields.items():
    yield (*path, name)
    if isinstance(value, dict):
      yield from places(value, (*path, name))


def with_value(fields, path, value):
  changed = json.loads(json.dumps(fields))
  inside = changed
  for name in path[:-1]:
    inside = inside[name]
  inside[path[-1]] = value
  return changed


@pytest.mark.parametrize('name', RECORDS)
def test_a_value_of_another_type_is_refused_by_name_or_can_stand(tmp_path, name):
  """Every field of config.json, with every kind of wrong value: a sentence, or a record that config.json can say."""
  run_directory.open_run(tmp_path / 'run', RECORDS[name], {})
  path = tmp_path / 'run' / run_directory.CONFIG
  fields, refused = json.loads(path.read_text()), 0
  for place in places(fields):
    for value in WRONG:
      path.write_text(json.dumps(with_value(fields, place, value)))
      try:
        found = run_directory.read(tmp_path / 'run')
      except ValueError as error:
        assert getattr(error, 'exit_code', None) == 2, (place, value, error)
        refused += 1
      else:
        json.dumps(dataclasses.asdict(found))
        assert not isinstance(value, list | dict) or value in ([], {}), (place, value)
  assert refused > 400


@pytest.mark.parametrize('text', ['', '[]', 'null', '{"a": ' * 20_000, '\x00', '{"model_type": "bert"}'])
def test_a_file_that_is_none_of_ours_is_a_sentence(tmp_path, text):
  (tmp_path / run_directory.CONFIG).write_text(text)
  with pytest.raises(ConfigError, match='damaged|no run of ours'):
    run_directory.read(tmp_path)
  (tmp_path / run_directory.CONFIG).unlink()
  (tmp_path / run_directory.CONFIG).mkdir()
  with pytest.raises(ConfigError, match='damaged'):
    run_directory.read(tmp_path)
