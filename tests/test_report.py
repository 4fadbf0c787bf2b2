"""The page about a run: what it says is the run's, whatever a name holds; and a browser shows it as it is meant."""

import base64
import dataclasses
import html
import json
import os
import pathlib
import re
import shutil
import subprocess

import jax
import numpy as np
import pytest

from bert_jax import checkpoint, evaluate, finetune, metrics, rows, run_directory, train
from bert_jax.errors import ConfigError
from bert_jax.report import charts, report, seen
from bert_jax.tasks import settings
from input_pipeline import records
from input_pipeline.batches import loader
from launch.commands.table import COMMANDS
from tests import synthetic

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
NAME = 'a $1 <b>&é中'  # mathematics to matplotlib, markup to a browser


@pytest.fixture(scope='module')
def runs(still, tmp_path_factory):
  """Two runs that differ in their rate."""
  base = tmp_path_factory.mktemp('report')
  data = synthetic.write_data(base / 'data', vocabulary_size=still.model.vocab_size, pieces=200, documents=20,
                              sequence_length=still.batch.sequence_length, splits=('train', 'validation'))
  for name, rate in ((NAME, 1e-3), ('second', 2e-3)):
    config = dataclasses.replace(still, optimizer=dataclasses.replace(still.optimizer, peak_learning_rate=rate),
                                 run=dataclasses.replace(still.run, log_every=2, evaluate_every=5))
    train.train(config, data, base / name, devices=jax.devices()[:1], engine='threads', progress=False)
  evaluate.evaluate(base / NAME, progress=False)
  return base / NAME, base / 'second'


@pytest.fixture(scope='module')
def written(runs):
  return pathlib.Path(report(runs[:1]))


def words(page: str) -> str:
  """What a reader sees of a page, less its drawings."""
  bare = re.sub(r'<(style|script|svg).*?</\1>', ' ', page, flags=re.S)
  return ' '.join(html.unescape(re.sub(r'<[^>]*>', ' ', bare)).split())


def test_the_page_says_what_the_run_did(runs, written):
  page = written.read_text()
  text = words(page)
  found = json.loads((runs[0] / 'evaluation.json').read_text())
  assert f'{found["mlm_loss"]:.3f} nats evaluation: MLM loss' in text
  assert f'{found["nsp_accuracy"]:.1%} evaluation: NSP accuracy' in text
  assert f'evaluation: unigram_loss {found["unigram_loss"]:.4g}' in text
  trained = [line for line in metrics.read(runs[0]) if line['kind'] == 'train']
  assert f'last steps: gradient_norm {trained[-1]["gradient_norm"]:.4g}' in text
  assert 'optimizer.peak_learning_rate 0.001' in text
  assert page.count('<svg') == len(charts.charts([charts.told(runs[0])]))
  assert re.search(r'pieces 200 200 sentences', text)


def test_nothing_is_loaded_and_no_name_is_markup(written):
  page = written.read_text()
  assert not re.findall(r'(?:src|href)\s*=\s*"?(?![#"])|url\((?!#)|@import|<link', page)
  assert '<b>&' not in page and html.escape(NAME).replace('&#x27;', "'") in page.replace('&#39;', "'")


def test_the_log_is_what_is_drawn(runs):
  drawn = {chart.title: chart for chart in charts.charts([charts.told(run) for run in runs])}
  log = metrics.read(runs[1])
  curves = {(curve.run, curve.kind): list(curve.points) for curve in drawn['MLM loss (nats)'].curves}
  assert curves[str(runs[1]), 'train'] == [(x['step'], x['mlm_loss']) for x in log if x['kind'] == 'train']
  assert [step for step, _ in curves[str(runs[0]), 'validation']] == [5, 10]
  assert (str(runs[0]), 'evaluation') in curves and (str(runs[1]), 'evaluation') not in curves
  assert drawn['MLM loss (nats)'].baseline and drawn['NSP loss (nats)'].baseline is None


def test_runs_side_by_side(runs, tmp_path):
  page = report(runs, tmp_path / 'both.html').read_text()
  differing = re.findall(r'<tr class=differs><td>([^<]*)</td>', page)
  assert 'optimizer.peak_learning_rate' in differing and 'model.layers' not in differing
  assert {name for name in differing if '.' in name.split(':')[0]} == {'optimizer.peak_learning_rate'}


def test_what_is_not_there_is_said(runs, tmp_path, capsys):
  moved = shutil.copytree(runs[1], tmp_path / 'moved')
  fields = json.loads((moved / 'config.json').read_text())
  (moved / 'config.json').write_text(json.dumps(fields | {'data': str(tmp_path / 'gone')}))
  assert COMMANDS['report']([str(moved)]) == 0
  assert capsys.readouterr().out.strip() == str(moved / 'report.html')
  assert 'Not shown: ' in words((moved / 'report.html').read_text())
  (moved / 'metrics.jsonl').unlink()
  with pytest.raises(ConfigError, match='no metrics.jsonl with a line in it'):
    report([moved])
  with pytest.raises(ConfigError, match='named twice'):
    report([runs[0], runs[0]])


def test_data_that_took_the_place_of_a_runs_own_is_not_described(runs, still, tmp_path):
  """Of the same vocabulary and lengths; its own are known again wherever they lie."""
  moved, own, aside = shutil.copytree(runs[0], tmp_path / 'moved'), runs[0].parent / 'data', tmp_path / 'aside'
  own.rename(aside)
  try:
    synthetic.write_data(own, vocabulary_size=still.model.vocab_size, pieces=50, documents=10, seed=5,
                         sequence_length=still.batch.sequence_length, splits=('train', 'validation'))
    evaluate.evaluate(moved, progress=False)
    assert run_directory.figures(moved)[run_directory.COPIES] is None
    text = words(report([moved]).read_text())
  finally:
    shutil.rmtree(own)
    aside.rename(own)
  assert f'Not shown: {own} holds something else now than what' in text
  assert 'Text of validation' not in text and 'next-sentence negatives' not in text and '20 documents' in text
  assert 'on documents that were not compared with those that it learnt from' in text
  assert run_directory.figures(runs[0])[run_directory.COPIES] is not None


def test_what_is_held_out_is_compared(still, tmp_path):
  """A split that `prepare` did not make: a third of its pieces are those of training."""
  data = synthetic.write_data(tmp_path / 'data', vocabulary_size=still.model.vocab_size, pieces=120, documents=12,
                              block=8, sequence_length=16, splits=('train', 'validation'))
  manifest = records.read_manifest(data)
  train, own = (manifest.splits[name].shards[0] for name in ('train', 'validation'))
  for other, share in ((own, 0), (train, 1)):
    config = dataclasses.replace(still, batch=dataclasses.replace(still.batch, size=4, sequence_length=16))
    (data / own.file).write_bytes((data / other.file).read_bytes())
    splits = manifest.splits | {'validation': dataclasses.replace(manifest.splits['validation'], shards=(
        dataclasses.replace(other, file=own.file), *manifest.splits['validation'].shards[1:]))}
    changed = dataclasses.replace(manifest, splits=splits)
    (data / 'manifest.json').unlink()
    records.write_manifest(data, changed)
    validation = evaluate.open_validation(data, config, 'framing')
    record = run_directory.Record(config, str(data), manifest.vocabulary, shards=records.fingerprint([changed]))
    copies = evaluate.copies_of(record, data, config, validation)
    assert 0.2 * share <= copies <= 0.6 * share
    assert evaluate.copies_of(dataclasses.replace(record, shards='0'), data, config, validation) is None


def test_attention_is_a_distribution_inside_the_pair(runs, still):
  loaded = checkpoint.load(runs[0])
  stream = loader.open_split(runs[0].parent / 'data', 'validation', still.batch, 'framing')
  batch = {name: array for name, array in stream.rows(0, 4).items()
           if name in ('input_ids', 'token_type_ids', 'position_ids', 'pair_ids')}
  placed = rows.place(loaded, rows.mesh_of(), 'float32')
  weights = np.asarray(rows.outputs(seen.ATTENTION, placed.settings, placed.mesh,
                                    {'encoder': placed.params['encoder']}, batch))  # [B L H T T]
  assert weights.shape[:3] == (4, still.model.layers, still.model.heads)
  np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
  same = batch['pair_ids'][:, :, None] == batch['pair_ids'][:, None]
  assert weights[np.broadcast_to(~same[:, None, None], weights.shape)].max(initial=0) == 0
  assert weights.std() > 0


def test_what_the_model_thought_of_a_row(runs, still):
  loaded = checkpoint.load(runs[0])
  stream = loader.open_split(runs[0].parent / 'data', 'validation', still.batch, 'framing')
  batch = stream.rows(0, 3)
  made, attention = seen.look(loaded, batch, stream.kinds.continues)
  names = loaded.tokenizer().tokens
  for row, number in zip(made, range(3)):
    asked = batch['masked_lm_positions'][number][batch['masked_lm_weights'][number] > 0]
    assert sorted(asked) == [place for place, token in enumerate(row.tokens) if token.candidates]
    for place, token in enumerate(row.tokens):
      assert names[seen.unmasked({name: array[number] for name, array in batch.items()})[place]] == token.text
      if token.candidates:
        shares = [share for _, share in token.candidates]
        assert shares == sorted(shares, reverse=True) and 1 <= token.place <= still.model.vocab_size
        assert (token.place == 1) == (token.candidates[0][0] == token.text)
    assert row.right == ('is next', 'is random')[batch['next_sentence_labels'][number][0]]
    assert abs(sum(share for _, share in row.classes) - 1) < 1e-5
  T = len(attention.tokens)
  weights = np.frombuffer(base64.b64decode(attention.weights), np.uint8)
  assert len(weights) == attention.layers * attention.heads * T * T and '[MASK]' not in attention.tokens


@pytest.mark.skipif(CHROMIUM is None, reason='needs a browser: chromium')
@pytest.mark.parametrize('width', [390, 1280])
def test_in_a_browser(written, width, tmp_path):
  """On a phone and on a desk: nothing is wider than the screen, the script runs, and a touch changes what is shown."""
  probe = """<script>
    const told = {errors: [], wide: document.documentElement.scrollWidth - window.innerWidth};
    window.onerror = text => told.errors.push(text);
    const shades = () => [...document.querySelectorAll('#tokens span')].map(span => span.style.background).join();
    told.canvases = document.querySelectorAll('#heads canvas').length;
    const before = shades();
    document.querySelectorAll('#tokens span')[3].click();
    told.changed = before !== shades();
    document.querySelector('details.mask').open = true;
    told.open = document.querySelector('details.mask div').getBoundingClientRect().height > 20;
    told.drawn = [...document.querySelectorAll('svg')].every(svg => svg.getBoundingClientRect().height > 100);
    told.requests = performance.getEntriesByType('resource').length;
    parent.postMessage(told, '*');
  </script>"""
  page = written.read_text().replace('</body>', probe + '</body>')
  frame = f"""<body><pre id="told"></pre>
    <iframe style="width:{width}px;height:800px" srcdoc="{html.escape(page)}"></iframe>
    <script>onmessage = event => document.getElementById('told').textContent = JSON.stringify(event.data)</script>"""
  (tmp_path / 'frame.html').write_text('<!doctype html><meta charset="utf-8">' + frame)
  command = [CHROMIUM, '--headless', '--disable-gpu', '--no-sandbox', f'--user-data-dir={tmp_path}/profile',
             '--virtual-time-budget=5000', '--dump-dom', (tmp_path / 'frame.html').as_uri()]
  done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {'HOME': str(tmp_path)})
  text = html.unescape(re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.S)[1])
  told = json.loads(text)
  assert told == {'errors': [], 'wide': told['wide'], 'canvases': 4, 'changed': True, 'open': True, 'drawn': True,
                  'requests': 0}
  assert told['wide'] <= 0


def test_a_fine_tuned_run_shows_its_answers(runs, tmp_path):
  lines = [{'text': f'T{5 + i} T{6 + i % 3}', 'label': ('yes & <no>', 'other')[i % 2]} for i in range(30)]
  for split in ('train', 'validation'):
    (tmp_path / f'{split}.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  config = settings.of('classification')
  config = dataclasses.replace(config, epochs=1, batch=dataclasses.replace(config.batch, size=8, max_length=16))
  finetune.finetune(config, tmp_path, tmp_path / 'run', runs[0], devices=jax.devices()[:1], progress=False)
  page = report([tmp_path / 'run']).read_text()
  text, found = words(page), json.loads((tmp_path / 'run/evaluation.json').read_text())
  assert 'On the first 30 examples of validation' in text and 'class wanted predicted right' in text
  assert f'right: {round(found["accuracy"] * 30)}' in text and f'evaluation: accuracy {found["accuracy"]:.4g}' in text
  assert '<no>' not in page and 'yes & <no>' in text
  assert 'Task: classification, on 30 examples of' in text
  assert 'of which 100.0% stand in training, too' in text  # as both files have the same
  (tmp_path / 'new.jsonl').write_text(json.dumps({'text': 'T30 T31 T32', 'label': 'other'}))
  finetune.evaluate(tmp_path / 'run', tmp_path / 'new.jsonl', progress=False)
  assert run_directory.figures(tmp_path / 'run')[run_directory.COPIES] == 0
  (tmp_path / 'validation.jsonl').write_bytes((tmp_path / 'new.jsonl').read_bytes())
  finetune.evaluate(tmp_path / 'run', progress=False)
  assert run_directory.figures(tmp_path / 'run')[run_directory.COPIES] is None
  text = words(report([tmp_path / 'run']).read_text())
  assert 'holds something else now' in text and 'examples of validation' not in text
  assert 'on examples that were not compared with those that it learnt from' in text
