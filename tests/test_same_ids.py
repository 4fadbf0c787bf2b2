"""Ours and the files that leave the house give the same ids for every text, and so do those that come in.

Ours is compared with the `tokenizers` library that reads our export, and with a directory's own tokenizer.json.
"""

import dataclasses
import functools
import io
import json
import sys
import unicodedata

import pytest
import tokenizers
from hypothesis import given, settings, strategies as st

from bert_jax.convert import tokenizer_files
from input_pipeline import records, storage
from input_pipeline.vocabulary import marks, others, tokenizer as tokenizer_lib

LETTERS = 'abcdefghijklmnopqrstuvwxyz'
TOKENS = [*tokenizer_lib.SPECIAL, *LETTERS, *(f'##{c}' for c in LETTERS), *'ABσςαéèßı.,-_#[]<>/', *'中文字博한국어',
          *(f'##{c}' for c in 'ABσςαéß'), *(f'##{c}' for c in '한국어가\u0301'), '가', '각', 'Việt', 'viet', '##ing',
          'un', 'ab', '##中', '한국어', '▁', '\u0301']
CORPUS = ['the quick brown fox jumps over the lazy dog', 'ab ba, abc. [x] <y> # - _ /',
          '한국어 문장 가각 Việt Nam tiếng', 'Ὀδυσσεύς ΟΔΟΣ ὁδός σοφός', '中文字 博物 かな カナ ﾊﾞ',
          'naïve café Åå ÉÈ ßıİ fi ﬁ ① 1 2', 'CLS SEP MASK PAD UNK'] * 30
UNUSUAL = (records.Added('<user>', len(TOKENS), special=False, normalized=True, known=False),
           records.Added('[E1]', len(TOKENS) + 1, known=False),
           records.Added('Q', len(TOKENS) + 2, single_word=True, special=False, known=False),
           records.Added('zz', len(TOKENS) + 3, lstrip=True, rstrip=True, special=False, known=False))
SPLITTINGS = {
    'usual': records.Splitting(), 'no_accents': records.Splitting(strip_accents=True),
    'accents': records.Splitting(strip_accents=False), 'ideographs': records.Splitting(ideographs=False),
    'short': records.Splitting(max_word=7), 'added': records.Splitting(added=UNUSUAL)}
MODELS = {
    'usual': {'normalization_rule_name': 'nmt_nfkc'}, 'folding': {'normalization_rule_name': 'nmt_nfkc_cf'},
    'nfkc': {'normalization_rule_name': 'nfkc'}, 'identity': {'normalization_rule_name': 'identity'},
    'spaces': {'normalization_rule_name': 'nmt_nfkc', 'remove_extra_whitespaces': False},
    'bare': {'normalization_rule_name': 'nmt_nfkc', 'add_dummy_prefix': False},
    'phrases': {'normalization_rule_name': 'nmt_nfkc', 'split_by_whitespace': False},
    'bytes': {'normalization_rule_name': 'identity', 'byte_fallback': True, 'vocab_size': 420},
    'symbols': {'normalization_rule_name': 'nfkc', 'user_defined_symbols': ['<user>', 'ab', '##']}}
NAMES = [f'wordpiece {name} {case}' for name in SPLITTINGS for case in ('cased', 'uncased')] + [
    f'sentencepiece {name} {case}' for name in MODELS for case in ('cased', 'uncased')]
# One character of each combining class: those that Unicode moves past each other, or joins.
MARKS = sorted({unicodedata.combining(chr(c)): chr(c) for c in reversed(range(0x20000))
                if unicodedata.combining(chr(c))}.values())


@functools.cache
def model_of(name):
  import sentencepiece
  model, wanted = io.BytesIO(), {'vocab_size': 160} | MODELS[name]
  sentencepiece.SentencePieceTrainer.Train(
      sentence_iterator=iter(CORPUS), model_writer=model, model_type='unigram', character_coverage=1.0,
      hard_vocab_limit=False, minloglevel=2, pad_id=0, unk_id=1, bos_id=2, eos_id=3, pad_piece='[PAD]',
      unk_piece='[UNK]', bos_piece='[CLS]', eos_piece='[SEP]', control_symbols=['[MASK]'], num_threads=1, **wanted)
  return model.getvalue()


@pytest.fixture(scope='module')
def tokenizer_of(tmp_path_factory):
  """name -> (ours, the library that reads our export's tokenizer.json)."""

  @functools.cache
  def make(name):
    kind, variant, case = name.split()
    folder = tmp_path_factory.mktemp('vocabulary')
    if kind == 'wordpiece':
      path, splitting = folder / 'vocab.txt', SPLITTINGS[variant]
      path.write_text('\n'.join(TOKENS) + '\n')
    else:
      path, splitting = folder / 'spm.model', None
      path.write_bytes(model_of(variant))
    ours = tokenizer_lib.load(path, case == 'uncased', splitting=splitting)
    return ours, tokenizers.Tokenizer.from_str(tokenizer_files.files(ours, 512)['tokenizer.json'].decode())

  return make


def assert_same(ours, library, texts):
  found = ours.marked.encode(texts)
  wanted = library.encode_batch_fast([marks.valid(text) for text in texts], add_special_tokens=False)
  for text, ids, row in zip(texts, found, wanted, strict=True):
    assert ids.tolist() == row.ids, (ascii(text), [ours.tokens[i] for i in ids], row.tokens)


def forms(character):
  """Alone, between letters, doubled, after a space."""
  return [character, f'a{character}b', character * 2, f'A {character}']


def marked(character):
  """With each combining class, on either side."""
  return [' '.join(character + mark for mark in MARKS), ' '.join(mark + character for mark in MARKS[::7])]


def is_text(c):
  return not 0xd800 <= c < 0xe000


@pytest.mark.parametrize('name', NAMES)
def test_code_points(tokenizer_of, name):
  """A sample with code points of every block, others for each vocabulary; `slow`: all."""
  number = NAMES.index(name)
  chosen = [c for c in (*range(number, 0x3400, 61), *range(0x3400 + number, sys.maxunicode, 4099),
                        *range(0xa000 + number, 0xac00, 61), *range(0xf900 + number, 0x20000, 127)) if is_text(c)]
  assert_same(*tokenizer_of(name), [text for c in chosen for text in forms(chr(c))])
  assert_same(*tokenizer_of(name), [text for c in chosen[number % 20::20] for text in marked(chr(c))])


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_every_code_point(tokenizer_of, name):
  """All alone; what is assigned in all forms; and but for ideographs and the like, with each combining class."""
  both = tokenizer_of(name)
  for start in range(0, sys.maxunicode, 0x2000):
    points = [c for c in range(start, start + 0x2000) if is_text(c)]
    assigned = [c for c in points if unicodedata.category(chr(c)) not in ('Cn', 'Co') or c % 256 == 7]
    marks_go = [c for c in assigned if unicodedata.category(chr(c)) != 'Lo' or c % 64 == 7]
    assert_same(*both, list(map(chr, points)))
    assert_same(*both, [text for c in assigned for text in forms(chr(c))])
    assert_same(*both, [text for c in marks_go for text in marked(chr(c))])


PIECES = st.sampled_from([
    *tokenizer_lib.SPECIAL, *(token.lower() for token in tokenizer_lib.SPECIAL), '[ＭＡＳＫ]', '[MASK', '[[SEP]]',
    '<user>', '<USER>', '[E1]', '[e1]', 'Q', 'aQb', 'zz', ' zz ', ' ', '  ', '\t', '\n', '\r\n', '\x00', '\x01', '\x0b',
    '\x85', '\xa0', '\u200b', '\u200d', '\u2028', '\u3000', '\ufeff', '\ufffd', '\ufdd0', '\xad', '▁', '▁▁', '##',
    '##ab', 'Σ', 'ΑΣ', 'ς', 'İ', 'ﬁ\u0301', 'Q\u0301', 'e\u0301', 'ﾊﾞ', '\u110b\u1165', '\u1112\u1161\u11ab',
    'Vie\u0323\u0302t', '한국어', '中文', 'ab', 'x' * 100, 'x' * 101, 'x' * 201, '👩\u200d👩', '🇩🇪', '①', '\ud800'])
ODD = st.text(st.characters(categories=['Mn', 'Mc', 'Zs', 'Cc', 'Cf']), max_size=4)
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=6), ODD), max_size=8).map(''.join)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(NAMES), st.lists(TEXTS, min_size=1, max_size=6))
def test_texts(tokenizer_of, name, texts):
  assert_same(*tokenizer_of(name), texts)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=12))
def test_more_texts(tokenizer_of, texts):
  for name in NAMES:
    assert_same(*tokenizer_of(name), texts)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NAMES), st.lists(TEXTS, max_size=4))
def test_the_text_of_a_corpus_names_no_special_token(tokenizer_of, name, texts):
  ours, _ = tokenizer_of(name)
  special = {ours.pad_id, ours.cls_id, ours.sep_id, ours.mask_id}
  for text, ids in zip(texts, ours.encode(texts), strict=True):
    assert not special & set(ids.tolist())
    assert len(ours.offsets(text)) == len(ids)


def test_letters_and_marks_are_joined(tokenizer_of):
  """What a keyboard of Apple's writes is the same text."""
  for name in ('usual', 'folding', 'nfkc'):
    ours, _ = tokenizer_of(f'sentencepiece {name} cased')
    for text in ('한국어 문장', 'Việt Nam tiếng', 'naïve café'):
      composed, apart = ours.encode([text, unicodedata.normalize('NFD', text)])
      assert composed.tolist() == apart.tolist() and ours.unk_id not in composed

# ---------------------------------------------------------------- directories of others


def write_directory(folder, ours):
  """As save_pretrained of transformers 5 leaves it: tokenizer.json, and no vocabulary beside."""
  folder.mkdir()
  files = tokenizer_files.files(ours, 512)
  (folder / 'tokenizer.json').write_bytes(files['tokenizer.json'])
  (folder / 'tokenizer_config.json').write_bytes(files['tokenizer_config.json'])
  return folder


@pytest.mark.parametrize('name', NAMES)
def test_there_and_back(tokenizer_of, tmp_path, name):
  """Of the tokenizer.json only, from shards that were made with it, and written again."""
  ours, library = tokenizer_of(name)
  texts = [*CORPUS[:7], '[MASK] <user> <USER> [E1] Q zz [SEP]a', 'E\u0301 ﬁ\u0301  x ', 'x' * 150, '한국어', 'ΑΣ Σ']
  folder = write_directory(tmp_path / 'there', ours)
  found = tokenizer_files.load(folder)
  assert (found.tokens, found.record) == (ours.tokens, ours.record)
  assert_same(found, library, texts)
  shards = tmp_path / 'shards'
  shards.mkdir()
  for file, data in found.files.items():
    (shards / file).write_bytes(data)
  (shards / 'manifest.json').write_text(json.dumps({'vocabulary': dataclasses.asdict(found.record)}))
  for kept in (tokenizer_lib.of(shards, found.record), tokenizer_lib.load(shards)):
    assert (kept.tokens, kept.record) == (ours.tokens, ours.record)
    assert_same(kept, library, texts)
    assert_same(kept, tokenizers.Tokenizer.from_str(tokenizer_files.files(kept, 512)['tokenizer.json'].decode()), texts)


PIPELINES = {
    'albert': {'type': 'Sequence', 'normalizers': [
        {'type': 'Replace', 'pattern': {'String': '``'}, 'content': '"'}, {'type': 'NFKD'}, {'type': 'StripAccents'},
        {'type': 'Lowercase'}, {'type': 'Replace', 'pattern': {'Regex': ' {2,}'}, 'content': ' '}]},
    'none': None, 'nfc': {'type': 'NFC'}}


@pytest.fixture(scope='module')
def unigrams(tokenizer_of, tmp_path_factory):
  """(ours, the library) of a tokenizer.json with other rules than an export of ours has."""
  found = []
  for name, normalizer in PIPELINES.items():
    folder = write_directory(tmp_path_factory.mktemp('others') / name, tokenizer_of('sentencepiece usual cased')[0])
    fields = json.loads((folder / 'tokenizer.json').read_text())
    fields['normalizer'] = normalizer
    fields['pre_tokenizer'] = {'type': 'Metaspace', 'replacement': '▁', 'prepend_scheme': 'always', 'split': True}
    next(token for token in fields['added_tokens'] if token['content'] == '[MASK]')['lstrip'] = True
    (folder / 'tokenizer.json').write_text(json.dumps(fields))
    found.append((tokenizer_files.load(folder), tokenizers.Tokenizer.from_file(str(folder / 'tokenizer.json'))))
  return found


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(TEXTS, max_size=6))
def test_a_unigram_of_others(unigrams, texts):
  """Whatever rules its tokenizer.json has: they are run as they are."""
  for ours, library in unigrams:
    assert_same(ours, library, texts)
    special = {ours.pad_id, ours.cls_id, ours.sep_id, ours.mask_id}
    assert not any(special & set(ids.tolist()) for ids in ours.encode(texts))


def test_what_would_give_other_ids_is_refused_by_name(tokenizer_of, tmp_path):
  def refused(change, match):
    path = tmp_path / 'tokenizer.json'
    fields = json.loads(tokenizer_files.files(tokenizer_of('wordpiece added uncased')[0], 512)['tokenizer.json'])
    change(fields)
    path.write_text(json.dumps(fields))
    with pytest.raises(records.DataError, match=match) as error:
      tokenizer_lib.load(tmp_path)
    assert '\n' not in str(error.value)

  refused(lambda f: f['normalizer'].update(clean_text=False), 'clean_text')
  refused(lambda f: f['added_tokens'][-1].update(id=99_999), 'added_tokens')
  refused(lambda f: f['post_processor'].update(single=[{'Sequence': {'id': 'A', 'type_id': 0}}],
                                               pair=[{'Sequence': {'id': 'A', 'type_id': 0}},
                                                     {'Sequence': {'id': 'B', 'type_id': 0}}]), 'post_processor')
  refused(lambda f: f.update(pre_tokenizer={'type': 'Whitespace'}), 'pre_tokenizer.type Whitespace')
  refused(lambda f: f['model'].update(type='BPE'), 'model.type BPE')


def test_a_model_that_no_export_can_carry_is_refused_before_training(tmp_path):
  import sentencepiece
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.Train(
      sentence_iterator=iter(CORPUS), model_writer=model, model_type='bpe', vocab_size=160, hard_vocab_limit=False,
      minloglevel=2, pad_id=0, unk_id=1, bos_id=2, eos_id=3, pad_piece='[PAD]', unk_piece='[UNK]', bos_piece='[CLS]',
      eos_piece='[SEP]', control_symbols=['[MASK]'])
  (tmp_path / 'spm.model').write_bytes(model.getvalue())
  with pytest.raises(records.DataError, match='type BPE: wanted UNIGRAM'):
    tokenizer_lib.load(tmp_path)


def test_tokens_that_were_added_to_a_vocabulary_without_tokenizer_json(tmp_path):
  """As transformers 4 saved a slow tokenizer: vocab.txt, and the others in tokenizer_config.json."""
  (tmp_path / 'vocab.txt').write_text('\n'.join(TOKENS) + '\n')
  count = len(TOKENS)
  (tmp_path / 'config.json').write_text('{"model_type": "bert"}')
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps({
      'do_lower_case': True, 'strip_accents': False, 'tokenize_chinese_chars': False,
      'tokenizer_class': 'BertTokenizer',
      'added_tokens_decoder': {'0': {'content': '[PAD]', 'special': True},
                               str(count): {'content': '<user>', 'special': False, 'normalized': True}}}))
  found = tokenizer_lib.load(tmp_path)
  assert found.tokens == (*TOKENS, '<user>') and found.splitting == records.Splitting(
      False, False, others.MAX_WORD, (records.Added('<user>', count, normalized=True, special=False, known=False),))
  assert [found.tokens[i] for i in found.encode(['é<USER>中文'])[0]] == ['é', '<user>', '中', '##文'][:2] + [
      found.tokens[i] for i in found.encode(['中文'])[0]]
  (tmp_path / 'tokenizer_config.json').unlink()
  (tmp_path / 'added_tokens.json').write_text(json.dumps({'<user>': count}))
  assert tokenizer_lib.load(storage.path(tmp_path)).tokens[-1] == '<user>'
