"""What was read is in a split or was dropped for one reason; names of a group are capped, and none is lost."""

import ast
import collections
import dataclasses
import json
import pathlib
import shlex

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import input_pipeline.text
from bert_jax import phases, train
from input_pipeline import counts, records
from input_pipeline.prepare import columns, corpus, settings, spill
from launch import cli
from launch.commands import pretraining
from tests import corpora


def reasons() -> set[str]:
  """What the functions that give a document give in its place."""
  found = set()
  for path in pathlib.Path(input_pipeline.text.__file__).parent.rglob('*.py'):
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    for function in functions:
      if function.returns and 'Document | str' in ast.unparse(function.returns):
        values = [node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value]
        ends = [end for value in values
                for end in ([value.body, value.orelse] if isinstance(value, ast.IfExp) else [value])]
        found |= {end.value for end in ends if isinstance(end, ast.Constant) and isinstance(end.value, str)}
  return found


def test_every_reason_to_drop_a_document_has_its_words():
  assert {'redirects', 'empty'} <= reasons() <= counts.DROPS.keys()


def prepared(folder, lines: list[dict], **changes) -> records.Manifest:
  (folder / 'corpus.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  (folder / 'vocab.txt').write_text('\n'.join(corpora.TOKENS) + '\n')
  return corpus.prepare(settings.Prepare(
      str(folder / 'corpus.jsonl') + changes.pop('weight', ''), str(folder / 'vocab.txt'), str(folder / 'data'),
      sequence_length=32, **changes), progress=False)


LINES = [
    *({'id': i, 'text': corpora.text_of(i)} for i in range(20)),
    *({'id': 100 + i, 'text': corpora.text_of(i)} for i in range(3)),  # duplicates
    {'id': 200, 'text': ' '}, {'id': 201, 'title': 'One', 'text': '\n'},  # empty
    *({'id': 300 + i, 'text': 'one'} for i in range(3))]  # one token: two of them are duplicates, one has no piece


@pytest.mark.parametrize('changes', [
    {}, {'near_duplicates': 0.9}, {'limit': 5}, {'weight': '=0.5'}, {'weight': '=2.5'}, {'pairs': 'google'}])
def test_what_was_read_is_in_a_split_or_dropped_for_one_reason(tmp_path, changes):
  documents = counts.documents(prepared(tmp_path, LINES, **changes))
  assert documents.read == len(LINES) and not documents.unexplained
  assert sum(documents.splits.values()) + sum(documents.dropped.values()) == len(LINES)
  if not changes:
    assert documents.dropped == {'duplicates': 5, 'without_pieces': 1, 'empty': 2}
    assert sum(documents.splits.values()) == 20
  if 'limit' in changes:
    assert documents.dropped['beyond_limit'] == len(LINES) - 2 - 5


def test_counts_that_do_not_add_up_are_seen(tmp_path):
  manifest = prepared(tmp_path, LINES)
  fewer = dataclasses.replace(manifest, counts={**manifest.counts, 'duplicates': 3})
  assert counts.documents(fewer).unexplained == 2
  assert counts.documents(dataclasses.replace(manifest, counts={})) is None


@hypothesis.given(st.dictionaries(st.text(min_size=1), st.integers(1, 50)), st.integers(0, 500))
def test_the_names_of_a_group_are_capped_and_none_is_lost(names, more):
  given = {'pages': 7, **{f'template/{name}': count for name, count in names.items()},
           **{f'template/more {i}': 1 for i in range(more)}}
  kept = counts.for_manifest(given)
  assert kept['pages'] == 7 and sum(kept.values()) == sum(given.values())
  assert list(kept) == sorted(kept) and len(kept) <= counts.MOST_NAMES + 2
  if len(given) <= counts.MOST_NAMES:
    assert kept == dict(sorted(given.items()))
  shown = counts.groups(kept).get('template', {})
  assert list(shown.values()) == sorted(shown.values(), reverse=True)


def test_a_run_keeps_any_number_of_counts(tmp_path):
  own = collections.Counter({f'template/name {i}': i + 1 for i in range(3000)})
  run = spill.Run(np.arange(4, dtype='<u8').reshape(2, 2), np.arange(2, dtype='<u8'), np.arange(2, dtype='<u8'),
                  np.zeros((2, 0), '<u4'),
                  np.zeros(0, '<i4'), columns.empty(['input_ids', 'sentence_lengths', 'piece_sentences',
                                                     'document_ids'], np.dtype('<u2')))
  spill.write(tmp_path / 'a.run', run, own)
  assert spill.read_counts(tmp_path / 'a.run') == own
  found = spill.read(tmp_path / 'a.run')
  assert np.array_equal(found.texts, run.texts) and np.array_equal(found.ranks, run.ranks)


@pytest.mark.parametrize('changes', [
    [], ['--sequence-length', '32', '--long-sequence-length', '64'], ['--sequence-length', '600'],
    ['--pairs', 'google', '--sequence-length', '64'], ['--for', 'proof'],
    ['--for', 'sample_2018', '--dupe-factor', '2']])
def test_prepare_says_what_was_dropped_and_a_next_command_that_fits_its_data(tmp_path, capsys, monkeypatch, changes):
  monkeypatch.chdir(tmp_path)
  pathlib.Path('a corpus.jsonl').write_text('\n'.join(map(json.dumps, LINES)))
  pathlib.Path('vocab.txt').write_text('\n'.join(corpora.TOKENS) + '\n')
  argv = ['prepare', '--input', 'a corpus.jsonl', '--vocabulary', 'vocab.txt', '--output', 'my data', *changes]
  assert cli.run(argv) == 0
  lines = capsys.readouterr().out.splitlines()
  shown = [' '.join(line.split()) for line in lines]
  assert 'dropped: the same text as another one 5 17.9%' in shown and 'read 28 100.0%' in shown
  commands = [shlex.split(line) for line in lines[lines.index('next') + 1:]]
  assert [words[:2] for words in commands] == [['bert-jax', 'inspect'], ['bert-jax', 'pretrain']]
  assert cli.run(commands[0][1:]) == 0
  wanted = pretraining.read(commands[1][2:])
  args, config = wanted.args, pretraining.fitted(wanted).config
  assert config.model.max_positions >= config.batch.sequence_length and args.run_dir == 'runs/my data'
  for phase, stream in phases.open_streams(args.data, config):
    train.check_vocabulary(phase.config.model, stream.vocabulary, args.data)
    assert stream.batch(phase.first)['masked_lm_weights'].sum(1).max() <= phase.config.batch.predictions


def test_more_held_out_than_trained_on_is_told(tmp_path):
  """A long document, as a file of one line may be, is held out as a short one is."""
  lines = [{'id': str(i), 'text': corpora.text_of(i) * (30 if i % 2 else 1)} for i in range(12)]
  manifest = prepared(tmp_path, lines, validation_share=0.4)
  train, held_out = manifest.splits['train'], manifest.splits['validation']
  assert train.tokens != held_out.tokens
  said = [any('more is held out than trained on' in line for line in counts.warnings(one)) for one in (
      manifest, dataclasses.replace(manifest, splits={'train': held_out, 'validation': train}))]
  assert said == [held_out.tokens > train.tokens, train.tokens > held_out.tokens]
