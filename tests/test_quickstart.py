"""examples/quickstart.py from its first cell to its last, with fewer steps; again it finds all that is there."""

import jax
import numpy as np
import pytest

from tests import pages

PROGRAM = pages.ROOT / 'examples/quickstart.py'
STEPS = 'STEPS = 1_000'


def test_from_text_to_vectors(tmp_path, monkeypatch, capsys):
  pytest.importorskip('gensim')
  text = PROGRAM.read_text(encoding='utf-8')
  assert STEPS in text
  monkeypatch.chdir(tmp_path)
  one = jax.devices()[:1]
  monkeypatch.setattr(jax, 'devices', lambda *_: one)  # a laptop's
  program = compile(text.replace(STEPS, 'STEPS = 20'), str(PROGRAM), 'exec')
  for steps in (None, 20):
    names: dict = {'__name__': 'quickstart'}
    exec(program, names)
    assert names['result'].step == 20 and names['result'].resumed_from == steps
    assert np.isfinite(names['vectors']).all() and names['vectors'].shape == (4, 128)
    assert names['figures']['mlm_loss'] > names['figures']['unigram_loss'] / 2
  assert (tmp_path / 'runs/quickstart/export/model.safetensors').exists()
  assert "'train': 98" in capsys.readouterr().out
