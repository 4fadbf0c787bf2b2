"""What is gathered of a corpus, or of shards, is the same by every engine: vocabularies, and what `inspect` finds."""

import contextlib
import functools
import os
import pathlib
import random
import re
import signal
import threading

import corpora
import numpy as np
import pytest

from input_pipeline import inspection, records
from input_pipeline.batches import shards
from input_pipeline.engines import on_ray, packing, ray_reading, table
from input_pipeline.inspection import looking
from input_pipeline.prepare import corpus, settings as settings_lib
from input_pipeline.text import sources
from input_pipeline.vocabulary import counting, training

ENGINES = {'two processes': {'workers': 2}, 'Beam': {'engine': 'beam'}, 'Beam, two workers': {'engine': 'beam'},
           'Ray, two nodes': {'engine': 'ray'}}
LOG = re.compile(r' \(more in ([^ ]*)\)$')


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """A place for a corpus that travels in many chunks, sections, values and parts."""
  monkeypatch.setattr(sources, 'CHUNK_BYTES', 1500)
  monkeypatch.setattr(sources, 'SECTION_BYTES', 4000)
  monkeypatch.setattr(on_ray, 'Sizes', functools.partial(ray_reading.Sizes, text=3000, value=3000))
  monkeypatch.setattr(training, '_PART_BYTES', 5000)
  return tmp_path


def vocabulary(folder: pathlib.Path, input: str, arguments=(), **chosen) -> bytes | str:
  """The file, or the sentence by which it is refused; nothing else is left."""
  before = {path.name for path in folder.iterdir()}
  settings = training.VocabularySettings(input, str(folder / 'vocab.txt'), **chosen)
  try:
    training.train_from(settings, arguments=arguments)
  except records.DataError as error:
    assert {path.name for path in folder.iterdir()} == before and '\n' not in str(error)
    return LOG.sub('', str(error))
  made = (folder / 'vocab.txt').read_bytes()
  for path in folder.glob('vocab.txt*'):
    path.unlink()
  assert {path.name for path in folder.iterdir()} == before
  return made


def same_vocabulary(other, folder: pathlib.Path, input: str, **chosen) -> bytes | str:
  """As large as the text gives."""
  engine, arguments = other
  first = vocabulary(folder, input, **{'size': 10**6} | chosen)
  if isinstance(first, str) and (most := re.search('gives only ([0-9,]+) tokens', first)):
    chosen |= {'size': int(most[1].replace(',', ''))}
    first = vocabulary(folder, input, **chosen)
  assert vocabulary(folder, input, arguments, **{'size': 10**6} | chosen | ENGINES[engine]) == first
  return first


@pytest.mark.parametrize('seed', range(4))
def test_vocabularies_of_random_corpora(other, folder, seed):
  draw = random.Random(seed)
  chosen = draw.choice([{}, {'lower_case': False}, {'limit': 7, 'lower_case': True}])
  made = same_vocabulary(other, folder, corpora.write(draw, folder), seed=seed if 'limit' in chosen else 0, **chosen)
  assert not isinstance(made, str) or 'holds no text' in made, made


@pytest.mark.parametrize('seed', [1, 3])
def test_vocabularies_of_random_corpora_on_a_cluster(on_cluster, folder, seed):
  test_vocabularies_of_random_corpora(on_cluster, folder, seed)


def test_a_vocabulary_that_is_extended(other, folder):
  (folder / 'a.txt').write_text('\n\n'.join(map(corpora.text_of, range(40))))
  (folder / 'old.txt').write_text('\n'.join(corpora.TOKENS[:20] + corpora.TOKENS[-29:]) + '\n')
  made = same_vocabulary(other, folder, str(folder / 'a.txt'), extend=str(folder / 'old.txt'))
  assert made.startswith((folder / 'old.txt').read_bytes()) and b'nineteen' in made


def test_a_bad_document_is_one_sentence_and_the_rest_is_in_a_log(on_cluster, folder, capfd):
  engine, arguments = on_cluster
  (folder / 'a.txt').write_bytes('\n\n'.join(map(corpora.text_of, range(40))).encode() + b'\n\nA \xff byte.\n')
  settings = training.VocabularySettings(str(folder / 'a.txt'), str(folder / 'vocab.txt'), lower_case=True,
                                         **ENGINES[engine])
  with pytest.raises(records.DataError, match='a.txt is not UTF-8: byte 0xff at byte .* with iconv') as error:
    training.train_from(settings, arguments=arguments)
  log = pathlib.Path(LOG.search(str(error.value))[1])
  assert 'Traceback' in log.read_text() and '\n' not in str(error.value)
  assert not [line for line in capfd.readouterr().err.splitlines() if 'waits for a free CPU' not in line]
  log.unlink()
  assert [path.name for path in folder.iterdir()] == ['a.txt']


@pytest.mark.ray
def test_workers_that_are_killed_change_nothing(folder, ray_nodes):
  """While they map, and while they merge, as far as they are met there."""
  (folder / 'a.txt').write_text('\n\n'.join(map(corpora.text_of, range(60))))
  killed, ended = [], threading.Event()

  def kill() -> None:
    left = ['_map', '_divide', '_merge']
    while left and not ended.is_set():
      for process, task in [found for node in ray_nodes.nodes for found in node.tasks().items()]:
        if task in left:
          with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
            killed.append(task)
            left.remove(task)

  killer = threading.Thread(target=kill)
  killer.start()
  try:
    same_vocabulary(('Ray, two nodes', ray_nodes.direct), folder, str(folder / 'a.txt'), lower_case=True)
  finally:
    ended.set()
    killer.join()
  assert '_map' in killed, killed


def test_parts_of_what_is_counted():
  """Whatever their number, every word and character is in one of them."""
  counted = counting.of_lines([*map(corpora.text_of, range(5)), '\ud800 字 é'], lower_case=True)
  for parts in (1, 2, 7):
    divided = counting.divided(counted, parts)
    assert len(divided) == parts and counting.together(reversed(divided)) == counted
    assert sum(len(part.words) for part in divided) == len(counted.words)


@pytest.fixture
def data(folder, monkeypatch):
  """Of many windows, with unknown characters, remains of markup, and pieces of validation that stand in train."""
  monkeypatch.setattr(shards, 'WINDOW_BLOCKS', 2)
  texts = [corpora.text_of(number % 250) + ('\none more.' if number > 250 else '') for number in range(300)]
  texts[7] += '\none {{ two }} 字 three.'
  texts[9] += '\none {{ two 字 four.'
  (folder / 'a.txt').write_text('\n\n'.join(texts))
  (folder / 'words.txt').write_text('\n'.join([*corpora.TOKENS, '{', '}']) + '\n')
  corpus.prepare(settings_lib.Prepare(str(folder / 'a.txt'), str(folder / 'words.txt'), str(folder / 'data'),
                                      sequence_length=32, shards=3, validation_share=0.1), progress=False)
  return folder / 'data'


def looked_at(other, data: pathlib.Path, **chosen) -> inspection.Report:
  """What one process finds, and the other engine too."""
  engine, arguments = other
  by = inspection.looking_by(data, **{'engine': 'processes'} | ENGINES[engine], arguments=arguments)
  before = {path.name for path in data.parent.iterdir()}
  first = inspection.inspect(data, **chosen)
  assert inspection.inspect(data, **chosen, by=by) == first
  assert {path.name for path in data.parent.iterdir()} == before
  return first


def test_what_inspect_finds(other, data):
  found = looked_at(other, data)
  assert found.splits['train'].document_pieces and found.tokens.unknown and found.tokens.remains['{{'].count == 2
  assert found.copies.near_share + found.copies.exact_share > 0
  if 'Beam' not in other:
    sampled = looked_at(other, data, most_tokens=3000, verify='framing', pack=True)
    assert 0 < sampled.splits['train'].read_share < 1 and sampled.splits['train'].document_pieces is None


def test_what_inspect_finds_on_a_cluster(on_cluster, data):
  looked_at(on_cluster, data)


def test_a_damaged_shard_is_named_by_every_engine(other, data):
  engine, arguments = other
  shard = sorted(data.glob('*train*'))[1]
  content = bytearray(shard.read_bytes())
  content[-9] ^= 1
  shard.write_bytes(bytes(content))
  by = inspection.looking_by(data, **{'engine': 'processes'} | ENGINES[engine], arguments=arguments)
  with pytest.raises(records.DataError, match=f'{shard.name} differs from what was written') as error:
    inspection.inspect(data, by=by)
  assert '\n' not in str(error.value)


def test_values_are_files_of_which_nothing_is_run():
  counted = counting.of_lines(['the \ud800 字', 'a\tb "c" \x00'], lower_case=True)
  value = {('train', 3): np.arange(6).reshape(2, 3), 'x': (counted, [None, 1.5, True], frozenset([2]))}
  found = packing.unpack(packing.pack(value), (counting.Counted,))
  np.testing.assert_array_equal(found.pop(('train', 3)), value.pop(('train', 3)))
  assert found == value and packing.size(value) > 20
  for bad in (b'{"Counted": []}', b'{"Popen": ["true"]}', b'{"array": ["O", [1], "AAAAAAAAAAA="]}'):
    with pytest.raises((ValueError, KeyError, TypeError)):
      packing.unpack(bad, () if b'Counted' in bad else (counting.Counted,))


@pytest.mark.parametrize('counts', [[3], [0, 4, 1], [1, 0, 0, 5, 2, 2]])
def test_quantiles_of_counts(counts):
  values = np.repeat(np.arange(len(counts)), counts)
  assert looking.five(np.array(counts)) == tuple(np.quantile(values, looking.QUARTERS, method='nearest'))


@pytest.mark.parametrize('change, message', [
    ({'kind': 'sentencepiece', 'output': 'spm.model'}, '--engine beam with --kind sentencepiece, which is trained by'),
    ({'workers': 2}, '--workers does not go with --engine beam'),
    ({'first': 9}, '--first does not go with --engine beam'),
    ({'limit': 9}, '--limit with --engine beam needs --lower-case or --no-lower-case'),
    ({'engine': 'dask'}, '--engine dask: wanted one of processes, beam, ray')])
def test_what_one_process_does_is_refused_to_an_engine(change, message):
  with pytest.raises(records.DataError, match=message):
    training.VocabularySettings(**{'input': 'corpus.txt', 'output': 'vocab.txt', 'engine': 'beam'} | change)


def test_arguments_of_an_engine_are_looked_at_first(tmp_path):
  settings = training.VocabularySettings('missing.txt', str(tmp_path / 'vocab.txt'))
  with pytest.raises(records.DataError, match='there is --runner=X after --: processes of this machine take no flags'):
    training.train_from(settings, arguments=['--runner=X'])
  assert {*table.ENGINES} == {'processes', 'beam', 'ray'}

