"""Where words start among the tokens of a text, where the vocabulary does not show it: in Chinese, through jieba.

A character of Chinese is a token of its own in BERT's vocabularies, so `##` says nothing about its words. As in Chinese
BERT with whole-word masking (Cui et al. 2019, arXiv:1906.08101) the text is segmented, and tokens of one word are
masked together.
Letters: S sentences, T their tokens, C characters of a sentence.
"""

import functools
import importlib.util
import itertools
import logging
import re
import unicodedata
import warnings

import numpy as np

from input_pipeline import records

# original tokenization.py, _is_chinese_char: what BERT isolates
_CHINESE = re.compile(
    '[\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002ceaf\uf900-\ufaff'
    '\U0002f800-\U0002fa1f]')

_MOST = 2000  # characters of a sentence that jieba is given at once: its time can grow with their square


# [S], -, [T], [S] -> bool [T]
def by_jieba(texts: list[str], vocabulary, ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
  """Which tokens start a word: those that begin where one of jieba's words does, and no ## piece.

  A token that reaches over the end of a word joins the two. The first token of a sentence always starts one.
  """
  starts = np.zeros(len(ids), bool)
  at = 0
  for text, length in zip(texts, lengths.tolist()):
    offsets = vocabulary.offsets(text)
    if len(offsets) != length:
      raise records.DataError(
          f'--words jieba: {text[:40]!r} has {length} tokens and the places of {len(offsets)}; wanted as many: '
          'install the versions of tokenizers and sentencepiece that setup.cfg names, or use --words none')
    # a lone '▁' begins where the next piece does
    starts[at:at + length] = boundaries(text)[offsets] & (np.diff(offsets, prepend=-1) > 0)
    starts[at:at + 1] = True
    at += length
  if vocabulary.kind == 'wordpiece':
    starts &= ~vocabulary.is_continuation[ids]
  return starts


def boundaries(text: str) -> np.ndarray:  # -> bool [C + 1]
  """Where jieba's words begin; but letters and digits of other scripts stay together: of 'naïve' it would make three
  words."""
  seen = np.array([_is_seen(character) for character in text], bool)
  text = ''.join(itertools.compress(text, seen))
  begins = np.zeros(len(text) + 1, bool)
  parts = [text[at:at + _MOST] for at in range(0, len(text), _MOST)]
  begins[np.cumsum([0, *(len(word) for part in parts for word in _jieba().lcut(part))])] = True
  other = np.array([character.isalnum() and not _CHINESE.match(character) for character in text], bool)
  begins[1:-1] &= ~(other[1:] & other[:-1])
  starts = np.zeros(len(seen) + 1, bool)
  starts[np.append(np.flatnonzero(seen), len(seen))] = begins
  return starts


def _is_seen(character: str) -> bool:
  """False for what BERT drops without a gap, such as zero-width spaces (original tokenization.py, _clean_text)."""
  return character in '\t\n\r' or character != '\ufffd' and unicodedata.category(character) not in ('Cc', 'Cf')


STARTS = {'none': None, 'jieba': by_jieba}  # --words; None: only the vocabulary's tokens tell words apart


def check(words: str) -> None:
  """Raises DataError where these words cannot be found."""
  if words not in STARTS:
    raise records.DataError(f'--words {words!r}: wanted one of {sorted(STARTS)}')
  if words == 'jieba' and importlib.util.find_spec('jieba') is None:
    raise records.DataError(
        "--words jieba needs jieba, which is not installed: pip install 'bert_jax[chinese]', or use --words none")


@functools.lru_cache(maxsize=1)
def _jieba():
  """Its segmenter with its own dictionary: a second a process, as its cache, any file of that name in /tmp, is neither
  read nor left."""
  check('jieba')
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    import jieba
  jieba.setLogLevel(logging.ERROR)
  segmenter = jieba.Tokenizer()
  segmenter.FREQ, segmenter.total = segmenter.gen_pfdict(segmenter.get_dict_file())
  segmenter.initialized = True
  return segmenter
