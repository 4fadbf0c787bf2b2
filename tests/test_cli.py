"""The front door: the whole way from text to filled masks, with both kinds of vocabulary; and bad input."""

import bz2
import json
import pathlib
import subprocess
import sys

import pytest

from bert_jax import errors as errors_lib, metrics, recipes
from input_pipeline import records
from launch import cli
from launch.commands import table
from tests import corpora

ROOT = pathlib.Path(__file__).parents[1]

ALONE = '--distributed.no-auto'  # this process has used its devices already, so it cannot look for others to join
TRAIN = ['--model.dtype', 'float32', '--long.share', '0', '--batch.size', '8', '--batch.sequence-length', '32',
         '--batch.predictions', '5', '--run.steps', '12', '--optimizer.warmup-steps', '2', '--run.log-every', '4',
         '--run.checkpoint-every', '6', ALONE]


def call(capsys, *argv: str) -> tuple[int, str, str]:
  """(exit code, stdout, stderr) of a command line."""
  with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
    patch.setattr('sys.argv', ['bert-jax', *map(str, argv)])
    cli.main()
  return ended.value.code, *capsys.readouterr()


@pytest.fixture(scope='module')
def corpus(tmp_path_factory) -> pathlib.Path:
  path = tmp_path_factory.mktemp('cli') / 'corpus.txt'
  path.write_text('\n\n'.join(corpora.text_of(i) for i in range(120)))
  return path


@pytest.fixture(scope='module')
def data(corpus) -> pathlib.Path:
  """Data of the corpus with a WordPiece vocabulary, beside it."""
  folder = corpus.parent
  (folder / 'vocab.txt').write_text('\n'.join(corpora.TOKENS) + '\n')
  with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
    patch.setattr('sys.argv', [
        'bert-jax', 'prepare', '--input', str(corpus), '--vocabulary', str(folder / 'vocab.txt'),
        '--sequence-length', '32', '--validation-share', '0.2', '--output', str(folder / 'data')])
    cli.main()
  assert ended.value.code == 0
  return folder / 'data'


@pytest.mark.parametrize('kind, name, size', [('wordpiece', 'vocab.txt', 70), ('sentencepiece', 'spm.model', 34)])
def test_the_whole_way(capsys, corpus, tmp_path, monkeypatch, kind, name, size):
  """By relative paths, as people type them."""
  monkeypatch.chdir(tmp_path)
  vocabulary, data, run = pathlib.Path(name), pathlib.Path('data'), pathlib.Path('run')

  def done(*argv):
    code, out, errors = call(capsys, *argv)
    assert code == 0, errors
    return out, errors

  done('vocabulary', '--input', corpus, '--kind', kind, '--size', size, '--output', vocabulary)
  out, _ = done('prepare', '--input', corpus, '--vocabulary', vocabulary, '--sequence-length', 32,
                '--validation-share', 0.2, '--output', data)
  assert 'in validation' in out and 'bert-jax pretrain' in out
  assert 'label 1' in done('inspect', data, '--examples', 8)[0]

  train = 'pretrain', 'tiny', '--data', data, '--run-dir', run, '--model.vocab-size', size, *TRAIN
  assert 'starting' in done(*train)[1]
  assert 'resuming from step 12 of 12' in done(*train)[1]
  out, _ = done('evaluate', run, '--json')
  figures = json.loads(out)
  assert {'mlm_loss', 'mlm_accuracy', 'nsp_loss', 'nsp_accuracy', 'unigram_loss', 'documents',
          'sequences'} <= figures.keys()
  assert figures['documents'] == records.read_manifest(data).splits['validation'].documents > 0

  done('verify', run)
  done('plot', run)
  assert (run / 'loss.png').stat().st_size > 10_000
  done('export', run)
  exported = {path.name for path in (run / 'export').iterdir()}
  assert {'config.json', 'model.safetensors', 'tokenizer.json', name, 'README.md'} <= exported
  texts = 'one [MASK] three .', 'four [MASK] [MASK] seven .'
  of_run = json.loads(done('fill-mask', run, *texts, '--json')[0])
  of_export = json.loads(done('fill-mask', run / 'export', *texts, '--json')[0])
  assert [len(result['masks']) for result in of_run['results']] == [1, 2] and of_run == of_export
  done('export', run)  # again, over our own
  done('verify', run / 'export')
  assert of_export == json.loads(done('fill-mask', run / 'checkpoints/12', *texts, '--json')[0])
  done('import', run / 'export', '--output', 'again')
  done('features', 'again', 'one two .', '--pooling', 'mean')
  if kind == 'wordpiece':  # the rest asks a tokenizer for ids only, as `features` did
    used(done, data, run, size)


def used(done, data, run, size):
  """A run as what another, and a task, begin with."""
  again = 'pretrain', 'tiny', '--data', data, '--run-dir', 'warm', '--initialize-from', run, '--model.vocab-size', size
  done(*again, *TRAIN)
  task = pathlib.Path('task')
  task.mkdir()
  for split in ('train', 'validation'):
    (task / f'{split}.jsonl').write_text('{"text": "one two", "label": "a"}\n{"text": "three", "label": "b"}\n' * 4)
  out = done('finetune', 'classification', '--data', task, '--run-dir', 'tuned', '--checkpoint', run, '--epochs', 1,
             '--batch.size', 4, '--batch.max-length', 16, '--batch.lengths', 1, '--optimizer.warmup-steps', 1,
             '--distributed.no-auto')[0]
  assert 'one two\n    ' in out and 'classification, 1 seed' in out and 'best run: tuned' in out
  assert 'resuming from step' in done('finetune', '--run-dir', 'tuned', '--distributed.no-auto')[1]
  done('evaluate', 'tuned')
  done('predict', 'tuned', '--split', 'validation', '--output', 'answers')
  assert len(pathlib.Path('answers/predictions.jsonl').read_text().splitlines()) == 8


def test_help_teaches(capsys):
  code, out, _ = call(capsys, '--help')
  assert code == 0 and all(name in out for name in table.COMMANDS)
  for command in ('vocabulary', 'prepare', 'inspect', 'evaluate', 'plot', 'export', 'fill-mask'):
    code, out, _ = call(capsys, command, '--help')
    assert code == 0 and 'usage: bert-jax ' + command in out
  code, out, _ = call(capsys, 'pretrain', '--help')
  listed = recipes.RECIPES.keys() - recipes.SMALLER.keys() | recipes.VARIANTS.keys()  # the 24 are one line
  assert code == 0 and all(name in out for name in listed)
  code, out, _ = call(capsys, 'pretrain', 'base', '--help')
  assert code == 0 and '--optimizer.peak-learning-rate FLOAT' in out and 'default: 0.0001' in out


def test_exit_codes_stand_on_the_classes_of_errors():
  from input_pipeline.errors import DataError
  kinds = (errors_lib.ConfigError, DataError, errors_lib.DriftError, errors_lib.NonFiniteError,
           errors_lib.CheckpointError, errors_lib.PeerError)
  assert [cli.exit_code(kind('words')) for kind in kinds] == [2, 2, 8, 6, 7, 13] and errors_lib.STOPPED == 3
  assert cli.exit_code(type('Heir', (errors_lib.CheckpointError,), {})()) == 7
  assert cli.exit_code(ValueError('a bug')) is None and cli.exit_code(KeyError()) is None


@pytest.mark.parametrize('argv, says', [
    (['pretrian'], "did you mean 'pretrain'"),
    (['pretrain', 'huge'], 'wanted one of sample, proof, tiny'),
    (['pretrain', 'tiny', '--data', 'd', '--run-dir', 'r', '--optimizer.peak-learning-rat', '1'],
     '--optimizer.peak-learning-rate'),
    (['pretrain', 'tiny', '--data', 'no-data', '--run-dir', 'r', ALONE], 'no-data holds no manifest.json'),
    (['inspect', 'no-data'], 'no-data holds no manifest.json'),
    (['evaluate', 'no-run'], 'no-run is no run directory'),
    (['fill-mask', 'no-run', 'a [MASK]'], 'no-run is no checkpoint, for it does not exist'),
    (['prepare', '--input', 'missing.xml.bz2', '--vocabulary', 'VOCAB', '--output', 'out'], 'missing.xml.bz2'),
])
def test_wrong_arguments(capsys, data, tmp_path, monkeypatch, argv, says):
  monkeypatch.chdir(tmp_path)
  code, _, errors = call(capsys, *[str(data.parent / 'vocab.txt') if word == 'VOCAB' else word for word in argv])
  assert code == 2 and says in errors.replace('\n', ' ') and 'Traceback' not in errors
  assert not list(tmp_path.iterdir())


def dump(pages: int) -> bytes:
  page = ('<page><title>T{0}</title><ns>0</ns><id>{0}</id><revision><id>1</id><text xml:space="preserve">{1}</text>'
          '</revision></page>')
  body = ''.join(page.format(i, corpora.text_of(i)) for i in range(1, pages + 1))
  return f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="en">{body}</mediawiki>'.encode()


BAD = {
    'truncated.xml.bz2': (bz2.compress(dump(50))[:-40], 'truncated'),
    'truncated.xml': (dump(50)[:-2000], 'truncated'),
    'latin.txt': ('café au lait.\n\nun deux.'.encode('latin-1'), 'UTF-8'),
    'empty.txt': (b'', 'empty'),
    'blank.txt': (b'\n\n  \n', 'holds 0 documents'),
    'broken.jsonl': (b'{"text": "one two."}\n{"text": \n', 'byte 21'),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_corpora(capsys, data, tmp_path, name):
  content, says = BAD[name]
  (tmp_path / name).write_bytes(content)
  code, _, errors = call(capsys, 'prepare', '--input', tmp_path / name, '--vocabulary', data.parent / 'vocab.txt',
                         '--output', tmp_path / 'out')
  assert code == 2 and name in errors and 'Traceback' not in errors
  assert says in errors, errors
  assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_vocabulary_without_mask(capsys, corpus, tmp_path):
  (tmp_path / 'vocab.txt').write_text('\n'.join(token for token in corpora.TOKENS if token != '[MASK]') + '\n')
  code, _, errors = call(capsys, 'prepare', '--input', corpus, '--vocabulary', tmp_path / 'vocab.txt',
                         '--output', tmp_path / 'out')
  assert code == 2 and '[MASK]' in errors and 'vocab.txt' in errors
  assert [path.name for path in tmp_path.iterdir()] == ['vocab.txt']


def test_data_that_does_not_fit(capsys, data, tmp_path):
  """Another vocabulary or length, a mesh that does not divide: exit code 2, the flag to change, no run directory."""
  size = len(corpora.TOKENS)
  train = ['pretrain', 'tiny', '--data', data, '--run-dir', tmp_path / 'run', *TRAIN]
  for change, says in ((['--model.vocab-size', size + 1], f'--model.vocab-size {size}'),
                       (['--model.vocab-size', size, '--batch.sequence-length', 64, '--batch.predictions', 10],
                        '--batch.sequence-length 32'),
                       (['--model.vocab-size', size, '--mesh.data', 3], 'mesh.data 3'),
                       (['--model.vocab-size', size, '--mesh.tensor', 8], 'model.heads 2 does not divide')):
    code, _, errors = call(capsys, *train, *change)
    assert code == 2 and says in errors and 'Traceback' not in errors, errors
    assert not (tmp_path / 'run').exists()


def test_what_is_not_ours_is_left_alone(capsys, corpus, data, tmp_path):
  foreign = tmp_path / 'foreign'
  foreign.mkdir()
  (foreign / 'thesis.tex').write_text('years of work')
  run = tmp_path / 'run'
  train = ['pretrain', 'tiny', '--data', data, '--model.vocab-size', len(corpora.TOKENS), *TRAIN]
  assert call(capsys, *train, '--run-dir', run)[0] == 0
  vocabulary = data.parent / 'vocab.txt'
  for argv in (['prepare', '--input', corpus, '--vocabulary', vocabulary, '--sequence-length', 32, '--output', foreign],
               [*train, '--run-dir', foreign], ['export', run, '--output', foreign],
               ['vocabulary', '--input', corpus, '--size', 70, '--output', foreign / 'thesis.tex']):
    code, _, errors = call(capsys, *argv)
    assert code == 2 and str(foreign) in errors and 'Traceback' not in errors, errors
  assert [(path.name, path.read_text()) for path in foreign.iterdir()] == [('thesis.tex', 'years of work')]
  code, _, errors = call(capsys, *train, '--run-dir', run, '--model.layers', 1)
  assert code == errors_lib.DriftError.exit_code and 'model.layers: 2 -> 1' in errors
  assert metrics.read(run)[-1]['step'] == 12


def test_a_full_disk_behind_stderr_changes_nothing():
  with open('/dev/full', 'w') as full:
    ran = subprocess.run([sys.executable, '-P', '-m', 'bert_jax_command', 'nonsense'], stderr=full, cwd=ROOT,
                         stdout=subprocess.PIPE, timeout=120)
  assert ran.returncode == errors_lib.ConfigError.exit_code and not ran.stdout
