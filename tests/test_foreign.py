"""Files that others wrote and that lie: refused with a sentence and soon; nothing that they name is opened or run."""

import json
import os
import pickle
import time
import warnings

import jax
import ml_dtypes
import numpy as np
import parameters
import pytest
import safetensors
import safetensors.numpy
import synthetic
from hypothesis import given, settings, strategies as st

from bert_jax import config as cfg
from bert_jax.checkpoint import Loaded
from bert_jax.convert import bert_config, directory, exchange, foreign, huggingface, tokenizer_files, weights
from bert_jax.objectives import OBJECTIVES
from input_pipeline.vocabulary import tokenizer as tokenizer_lib

MODEL = cfg.Model(vocab_size=40, hidden_size=12, layers=2, heads=2, intermediate_size=20, max_positions=16)
REFUSED = cfg.DataError, cfg.ConfigError
SECONDS = 10


class Bomb:
  """What a pickle could do."""

  def __reduce__(self):
    return os.abort, ()


@pytest.fixture(scope='module')
def vocabulary(tmp_path_factory):
  folder = tmp_path_factory.mktemp('vocabulary')
  synthetic.write_vocabulary(folder, MODEL.vocab_size)
  return folder


@pytest.fixture(scope='module')
def params():
  return parameters.random(MODEL)


@pytest.fixture
def exported(tmp_path, vocabulary, params):
  loaded = Loaded(MODEL, OBJECTIVES['mlm_nsp'], params, lambda: tokenizer_lib.load(vocabulary))
  path = huggingface.export_checkpoint(tmp_path / 'export', loaded)
  (path / tokenizer_files.TOKENIZER).unlink()
  (path / directory.MARKER).unlink()  # as of others: the files may be changed
  return path


@pytest.fixture
def refused(tally, exported):
  """Checks that each way in says so in one sentence, and soon. Before the files were changed, they were taken."""
  tally.control(exchange.load(exported).model == MODEL)
  before = contents(exported)

  def check(path, match=None):
    start = time.monotonic()
    for use in (lambda: exchange.load(path).tokenizer(), lambda: exchange.bring_in(path, path.parent / 'out'),
                lambda: exchange.export('huggingface', path, path.parent / 'out')):
      with pytest.raises(REFUSED, match=match) as caught:
        use()
      assert 10 < len(str(caught.value)) < 700 and '\n' not in str(caught.value)
    assert time.monotonic() - start < SECONDS
    tally.fault(contents(exported) != before, detected=True, survived=not (path.parent / 'out').exists())
    assert not (path.parent / 'out').exists()

  return check


def contents(folder) -> dict:
  """What lies there; of what is no file, or is huge, only that it is."""
  return {path.name: path.read_bytes() if path.is_file() and path.stat().st_size < 10**6 else path.lstat().st_mode
          for path in folder.iterdir()}


def update(path, **fields):
  path.write_text(json.dumps(json.loads(path.read_text()) | fields))

# ---------------------------------------------------------------- safetensors


def file_of(header, body=b'', length=None):
  data = header if isinstance(header, bytes) else json.dumps(header).encode()
  return (len(data) if length is None else length).to_bytes(8, 'little') + data + body


def entry(start, end, shape=None, dtype='F32'):
  return {'dtype': dtype, 'shape': [(end - start) // 4] if shape is None else shape, 'data_offsets': [start, end]}


@pytest.mark.reliability(31)
@pytest.mark.parametrize('content', [
    file_of({'a': entry(0, 8)}, bytes(4)), file_of({'a': entry(0, 8)}, bytes(12)),  # too short, too long
    file_of({'a': entry(0, 8), 'b': entry(4, 12)}, bytes(12)), file_of({'a': entry(4, 8)}, bytes(8)),  # overlap, hole
    file_of({'a': entry(0, 8, [3])}, bytes(8)), file_of({'a': entry(8, 0)}, bytes(8)),
    file_of({'a': entry(0, 8, [-2])}, bytes(8)), file_of({'a': entry(0, 0, [2**62, 2**62, 0])}, b''),
    file_of({'a': entry(0, 2**62, [2**60])}, bytes(8)), file_of({'a': entry(-4, 4, [2])}, bytes(8)),
    file_of({'a': entry(0, 8, [2.0])}, bytes(8)), file_of({'a': entry(0, 8, [True, 2])}, bytes(8)),
    file_of({'a': {'dtype': 'F32'}}), file_of({'a': []}), file_of([]), file_of(b'{', length=1),
    file_of(b'{}', length=2**63), file_of(b'{}', length=99_999_999), file_of(b'[' * 100_000), b'', b'\1' * 7,
    pickle.dumps(Bomb()), b'PK\3\4' + bytes(64), file_of({'a': entry(0, 8)}, bytes(8))])
def test_weights_that_lie(exported, refused, content):
  (exported / weights.WEIGHTS).write_bytes(content)
  refused(exported)


@pytest.mark.reliability(31)
def test_a_header_of_a_hundred_megabytes(exported, refused):
  """Sparse: no disk is filled."""
  with (exported / weights.WEIGHTS).open('wb') as file:
    file.write((90 << 20).to_bytes(8, 'little'))
    file.truncate(91 << 20)
  refused(exported, 'model.safetensors cannot be read')


@pytest.mark.reliability(31)
def test_tensors_of_a_terabyte_are_never_read(exported, refused):
  """The file has what its header says, but not what the settings want."""
  tensors = safetensors.numpy.load((exported / weights.WEIGHTS).read_bytes())
  place, header = 0, {}
  for name, value in tensors.items():
    shape = (2**34, 12) if name.endswith('word_embeddings.weight') else value.shape
    size = 4 * int(np.prod(shape))
    header[name], place = {'dtype': 'F32', 'shape': list(shape), 'data_offsets': [place, place + size]}, place + size
  data = json.dumps(header).encode()
  with (exported / weights.WEIGHTS).open('wb') as file:
    file.write(len(data).to_bytes(8, 'little') + data)
    file.truncate(8 + len(data) + place)
  refused(exported, 'word_embeddings.weight has the shape')


DTYPES = {'F32': np.float32, 'F16': np.float16, 'F64': np.float64, 'BF16': ml_dtypes.bfloat16, 'I64': np.int64}


@pytest.mark.parametrize('kind, value', [
    ('F64', 1e39), ('F64', -1e300), ('F16', np.inf), ('BF16', np.nan), ('F32', -np.inf)])
def test_a_weight_that_is_no_number_of_32_bits_is_refused(exported, kind, value):
  """What is finite in 64 bits need not be in ours."""
  tensors = safetensors.numpy.load((exported / weights.WEIGHTS).read_bytes())
  for name in ('bert.embeddings.word_embeddings.weight', 'bert.encoder.layer.1.output.dense.weight'):
    changed = tensors[name].astype(DTYPES[kind])
    changed[1, 1] = value
    (exported / weights.WEIGHTS).write_bytes(safetensors.numpy.save(tensors | {name: changed}, {'format': 'pt'}))
    with pytest.raises(cfg.DataError, match=f'{name} hold values that are not finite in float32'):
      huggingface.read(exported)


@given(st.dictionaries(st.text(min_size=1, max_size=4).filter(lambda name: name != '__metadata__'), st.tuples(
    st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 3), max_size=3)), max_size=4), st.binary(max_size=64))
@settings(max_examples=100, deadline=None)
def test_what_the_format_s_own_library_writes_is_read(shapes, noise):
  rng = np.random.default_rng(len(noise))
  tensors = {name: rng.integers(0, 99, shape).astype(DTYPES[kind]) for name, (kind, shape) in shapes.items()}
  found = weights.tensors_of(memoryview(safetensors.numpy.save(tensors, {'format': 'pt'})))
  assert found.keys() == tensors.keys()
  for name, value in tensors.items():
    assert found[name].tobytes() == value.tobytes()
    assert shapes[name][0] == 'I64' or (found[name].dtype == value.dtype and found[name].shape == value.shape)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_what_that_library_refuses_is_refused(data):
  """Bytes of the header changed at random: ours takes nothing that it does not take."""
  whole = bytearray(safetensors.numpy.save({'a': np.arange(4, dtype=np.float32), 'b': np.ones((2, 3), np.float16)}))
  for _ in range(data.draw(st.integers(1, 3))):
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.sampled_from(list(b'0123456789[]{},:"F\0\xff')))
  try:
    found = weights.tensors_of(memoryview(bytes(whole)))
  except (ValueError, RecursionError):
    return
  try:
    assert {name for name, _ in safetensors.deserialize(bytes(whole))} == found.keys()
  except safetensors.SafetensorError as error:
    assert 'unknown variant' in str(error)  # a type that the library does not know: for us bytes, refused as a weight

@pytest.mark.reliability(31)
@pytest.mark.parametrize('change', [
    lambda header: header.decode().encode('utf-16'), lambda header: b'\xef\xbb\xbf' + header,
    lambda header: header.replace(b'{"format":"pt"}', b'["pt"]'), lambda header: header.replace(b'bert', b'b\xffrt')])
def test_a_header_is_an_object_in_utf_8(exported, refused, change):
  data = (exported / weights.WEIGHTS).read_bytes()
  end = 8 + int.from_bytes(data[:8], 'little')
  header = change(data[8:end])
  (exported / weights.WEIGHTS).write_bytes(len(header).to_bytes(8, 'little') + header + data[end:])
  refused(exported, 'model.safetensors cannot be read')


@pytest.mark.parametrize('name', ['a\nb', '\x1b[2Jred', 'x' * 10**5, '\u2028', '\u202e', '\0', '\ud800'])
def test_names_of_others_cannot_write_on_the_terminal(exported, name):
  """In tensors, an index, the marker and settings: each message is one line of printable characters."""
  one_line = lambda text: text.isprintable() and len(text) < 700
  tensors = safetensors.numpy.load((exported / weights.WEIGHTS).read_bytes())
  for where in ('bert.encoder.layer.0.', 'other.'):
    whole = tensors | {f'{where}NAME': np.zeros(2, np.float32)}
    data = safetensors.numpy.save(whole)
    header = data[8:8 + int.from_bytes(data[:8], 'little')]
    escaped = header.rstrip().replace(b'NAME', json.dumps(name)[1:-1].encode())
    (exported / weights.WEIGHTS).write_bytes(
        len(escaped).to_bytes(8, 'little') + escaped + data[8 + len(header):])
    with warnings.catch_warnings(record=True) as said:
      warnings.simplefilter('always')
      try:
        exchange.load(exported)
      except REFUSED as error:
        assert where == 'bert.encoder.layer.0.' and one_line(str(error))
      else:
        assert where == 'other.' and [one_line(str(one.message)) for one in said] == [True]
  update(exported / huggingface.CONFIG, **{name: 1})
  with pytest.warns(UserWarning, match='which bert_jax does not know') as said:
    exchange.load(exported)
  assert all(one_line(str(one.message)) for one in said)
  for file, content in ((directory.MARKER, {'kind': 'huggingface', 'files': {name: 'x'}}),
                        (huggingface.MODULES, [{'path': name, 'type': 'a.Transformer'}])):
    (exported / file).write_text(json.dumps(content))
    with pytest.raises(REFUSED) as caught:
      exchange.load(exported)
    assert one_line(str(caught.value))
    (exported / file).unlink()
  (exported / weights.WEIGHTS).unlink()
  (exported / weights.INDEX).write_text(json.dumps({'weight_map': {'a': name}}))
  with pytest.raises(REFUSED) as caught:
    exchange.load(exported)
  assert one_line(str(caught.value))


# ---------------------------------------------------------------- names, devices, settings


@pytest.mark.reliability(31)
@pytest.mark.parametrize('name', ['../secret', '..', '/etc/passwd', 'a/b', '', '.', 'C:\\..', 'missing.safetensors'])
def test_an_index_that_points_elsewhere(exported, refused, name):
  (exported / weights.WEIGHTS).rename(exported / 'part.safetensors')
  (exported / weights.INDEX).write_text(json.dumps({'weight_map': {'a': name}}))
  refused(exported)


@pytest.mark.reliability(31)
@pytest.mark.parametrize('name', ['../secret', '/dev/zero', 'a/../../b'])
def test_a_list_of_exported_files_that_points_elsewhere(exported, refused, name):
  (exported / directory.MARKER).write_text(json.dumps({'kind': 'huggingface', 'files': {name: 'x'}}))
  refused(exported, 'wanted files of its directory')


@pytest.mark.reliability(31)
def test_an_index_that_lies(exported, refused):
  (exported / weights.WEIGHTS).rename(exported / 'part.safetensors')
  (exported / weights.INDEX).write_text(json.dumps({'weight_map': {'a': 'part.safetensors'}}))
  refused(exported, 'differ in')


@pytest.mark.reliability(31)
@pytest.mark.parametrize('name', ['config.json', 'model.safetensors', 'vocab.txt', 'tokenizer.json', 'part.safetensors',
                                  'tokenizer_config.json', 'modules.json', 'bert_jax_export.json'])
@pytest.mark.parametrize('make', [os.mkfifo, lambda path: path.symlink_to('/dev/zero')], ids=['pipe', 'device'])
def test_what_never_ends_is_not_read(exported, refused, name, make):
  if name == 'part.safetensors':
    (exported / weights.WEIGHTS).unlink()
    (exported / weights.INDEX).write_text(json.dumps({'weight_map': {'a': name}}))
  (exported / name).unlink(missing_ok=True)
  make(exported / name)
  refused(exported, f'{name} is a pipe or a device')


@pytest.mark.reliability(31)
@pytest.mark.parametrize('name', ['config.json', 'vocab.txt', 'tokenizer.json', 'tokenizer_config.json'])
def test_settings_of_a_terabyte(exported, refused, name):
  with (exported / name).open('ab') as file:
    file.truncate(2**40)
  refused(exported, 'more than settings or vocabularies have')


@pytest.mark.reliability(31)
@pytest.mark.parametrize('fields', [
    {'num_hidden_layers': 10**7}, {'num_hidden_layers': 2**31}, {'hidden_size': 2**31 - 2, 'num_attention_heads': 1},
    {'hidden_size': 2 * 10**9}, {'intermediate_size': 2**31 - 1}, {'vocab_size': 2**31 - 1},
    {'max_position_embeddings': 10**300}, {'type_vocab_size': 2**30}, {'num_attention_heads': 0},
    {'num_attention_heads': 10**9}, {'layer_norm_eps': -1}, {'layer_norm_eps': 1e400}, {'model_type': '../bert'},
    {'model_type': None}, {'architectures': 'x'}, {'architectures': [1]}, {'hidden_act': '/etc/passwd'},
    {'hidden_act': {'a': 1}}, {'is_decoder': 1}, {'position_embedding_type': 'relative_key_query'},
    {'add_cross_attention': True}, {'tie_word_embeddings': False}, {'pruned_heads': {'1': [0]}},
    {'is_encoder_decoder': True}, {'problem_type': 'multi_label_classification'}, {'id2label': 3},
    {'hidden_act': 'relu'}, {'hidden_act': 'quick_gelu'}, {'hidden_act': 'gelu_fast'}, {'hidden_act': 'silu'},
    {'position_embedding_type': 'rotary'}, {'position_embedding_type': None}, {'pruned_heads': {'0': [1]}},
    {'quantization_config': {'bits': 4}}, {'problem_type': 'a\nb'}, {'hidden_size': 12.5}, {'num_hidden_layers': True},
    {'hidden_size': [12]}, {'hidden_dropout_prob': '0.1'}], ids=lambda fields: '_'.join(fields))
def test_settings_that_cannot_be(exported, refused, fields):
  update(exported / huggingface.CONFIG, **fields)
  refused(exported, f'{next(iter(fields))}|its settings make it|is no model: model.heads|not a multiple of model.heads')


def test_settings_that_change_nothing_are_taken_in_silence(exported, params):
  update(exported / huggingface.CONFIG, chunk_size_feed_forward=4, classifier_dropout=0.3, pruned_heads={},
         add_cross_attention=False, position_embedding_type='absolute', tie_word_embeddings=True, problem_type=None,
         gradient_checkpointing=False, output_attentions=True, torch_dtype='float16', use_cache=False, pad_token_id=3)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    loaded = exchange.load(exported)
  assert loaded.model == MODEL
  jax.tree.map(np.testing.assert_array_equal, loaded.params, params)


def test_settings_that_nobody_knows_are_named(exported):
  update(exported / huggingface.CONFIG, use_cache=True, transformers_version='4.8.2', rope='yes', embedding_size=3)
  with pytest.warns(UserWarning, match='says embedding_size, rope, which bert_jax does not know'):
    assert exchange.load(exported).model == MODEL


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
                    max_leaves=6)
KNOWN = [*bert_config.BertConfig.__dataclass_fields__, *bert_config.FIXED]


@pytest.mark.filterwarnings('ignore:.*does not know')
@given(st.dictionaries(st.sampled_from(KNOWN), JSON, min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_any_settings_give_a_model_or_a_sentence(tmp_path_factory, fields):
  path = tmp_path_factory.getbasetemp() / 'any_config.json'
  path.write_text(json.dumps(fields))
  try:
    model = bert_config.to_model(bert_config.read(path), path, bert_config.types_of('huggingface'),
                                 bert_config.ACTIVATIONS)
  except cfg.DataError as error:
    assert str(path) in str(error) and len(str(error)) < 500
  else:
    assert isinstance(model, cfg.Model)

@pytest.mark.reliability(31)
def test_a_classifier_of_no_class(exported, refused):
  tensors = safetensors.numpy.load((exported / weights.WEIGHTS).read_bytes())
  tensors |= {'classifier.weight': np.zeros((0, 12), np.float32), 'classifier.bias': np.zeros(0, np.float32)}
  (exported / weights.WEIGHTS).write_bytes(safetensors.numpy.save(tensors))
  update(exported / huggingface.CONFIG, architectures=['BertForSequenceClassification'])
  refused(exported, 'has no class')

# ---------------------------------------------------------------- vocabularies


@pytest.mark.reliability(31)
@pytest.mark.parametrize('text, match', [
    ('[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\na\n', 'twice'), ('a\nb\n', r'has no \[PAD\]'), ('', 'empty'),
    ('\xff', 'has no'), ('[PAD]\n', 'has no')])
def test_a_vocabulary_that_is_none(exported, refused, text, match):
  (exported / 'vocab.txt').write_text(text)
  refused(exported, match)


@pytest.mark.reliability(31)
@pytest.mark.parametrize('file, fields, match', [
    ('tokenizer_config.json', {'strip_accents': 'no'}, 'strip_accents'),
    ('tokenizer_config.json', {'tokenize_chinese_chars': 3}, 'tokenize_chinese_chars'),
    ('tokenizer_config.json', {'added_tokens_decoder': {'x': {}}}, 'added_tokens_decoder'),
    ('tokenizer_config.json', {'added_tokens_decoder': {'99': {'content': '<user>'}}}, '<user> as 99'),
    ('added_tokens.json', {'<user>': 3}, '<user> as 3'),
    ('tokenizer_config.json', {'do_basic_tokenize': False}, 'do_basic_tokenize False'),
    ('tokenizer_config.json', {'never_split': ['a']}, 'never_split'),
    ('tokenizer_config.json', {'tokenizer_class': 'BertJapaneseTokenizer'}, 'tokenizer_class BertJapaneseTokenizer'),
    ('tokenizer_config.json', {'do_lower_case': 'yes'}, 'do_lower_case'),
    ('sentence_bert_config.json', {'do_lower_case': True}, 'do_lower_case True')])
def test_rules_of_a_tokenizer_that_ours_has_not(exported, refused, file, fields, match):
  if not (exported / file).exists():
    update(exported / 'tokenizer_config.json', do_lower_case=False)
    (exported / file).write_text('{}')
  update(exported / file, **fields)
  refused(exported, match)


def of_library(change):
  """A tokenizer.json of the vocabulary, changed."""
  tokens = synthetic.vocabulary_tokens(MODEL.vocab_size)
  special = [{'id': tokens.index(token), 'content': token, 'special': True} for token in tokenizer_lib.SPECIAL]
  value = {'normalizer': {'type': 'BertNormalizer', 'clean_text': True, 'handle_chinese_chars': True,
                          'strip_accents': None, 'lowercase': True}, 'pre_tokenizer': {'type': 'BertPreTokenizer'},
           'model': {'type': 'WordPiece', 'unk_token': '[UNK]', 'continuing_subword_prefix': '##',
                     'max_input_chars_per_word': 100, 'vocab': {token: i for i, token in enumerate(tokens)}},
           'added_tokens': special}
  change(value)
  return json.dumps(value)


@pytest.mark.reliability(31)
@pytest.mark.parametrize('change, match', [
    (lambda value: value['normalizer'].update(strip_accents='no'), 'strip_accents'),
    (lambda value: value['model'].update(max_input_chars_per_word=0), 'max_input_chars_per_word 0'),
    (lambda value: value['normalizer'].update(clean_text=False), 'clean_text False'),
    (lambda value: value['normalizer'].update(lowercase='yes'), 'lowercase'),
    (lambda value: value['normalizer'].update(lowercase=False), 'do_lower_case'),
    (lambda value: value.update(normalizer={'type': 'Sequence'}), 'normalizer.type Sequence'),
    (lambda value: value.update(normalizer=None), 'normalizer.type None'),
    (lambda value: value.update(pre_tokenizer={'type': 'Whitespace'}), 'pre_tokenizer.type Whitespace'),
    (lambda value: value['model'].update(type='BPE'), 'model.type BPE'),
    (lambda value: value['model'].update(unk_token='<unk>'), 'model.unk_token <unk>'),
    (lambda value: value['model'].update(continuing_subword_prefix='@@'), 'continuing_subword_prefix @@'),
    (lambda value: value['model'].update(vocab=['a']), 'vocab'),
    (lambda value: value['model']['vocab'].update(new=99), 'without gaps'),
    (lambda value: value['model']['vocab'].update({'[CLS]': 1.5}), 'without gaps'),
    (lambda value: value['model']['vocab'].update(new=40), 'another vocabulary'),
    (lambda value: value['added_tokens'].append({'id': 41, 'content': '<user>'}), '<user> as 41'),
    (lambda value: value['added_tokens'].append({'id': 7, 'content': 't9', 'lstrip': 3}), 'added_tokens'),
    (lambda value: value.update(post_processor={'type': 'RobertaProcessing'}), 'tokenizers library'),
    (lambda value: value.update(added_tokens=[1]), 'added_tokens'),
    (lambda value: value.update(added_tokens=[{'id': 0, 'content': ['a']}]), 'added_tokens')])
def test_rules_in_tokenizer_json_that_ours_has_not(exported, refused, change, match):
  update(exported / 'tokenizer_config.json', do_lower_case=True)
  (exported / tokenizer_files.TOKENIZER).write_text(of_library(lambda value: None))
  assert exchange.load(exported).tokenizer().lower_case
  (exported / tokenizer_files.TOKENIZER).write_text(of_library(change))
  refused(exported, match)


def test_a_padded_vocabulary_is_trimmed(exported, params):
  """48 rows for 40 tokens, as NVIDIA's; not 56 for 41 less one, which is no padding."""
  tensors = safetensors.numpy.load((exported / weights.WEIGHTS).read_bytes())
  for name in ('bert.embeddings.word_embeddings.weight', 'cls.predictions.bias'):
    tensors[name] = np.concatenate([tensors[name], np.ones((8, *tensors[name].shape[1:]), np.float32)])
  (exported / weights.WEIGHTS).write_bytes(safetensors.numpy.save(tensors))
  update(exported / huggingface.CONFIG, vocab_size=48)
  found = exchange.load(exported)
  assert found.model == MODEL
  jax.tree.map(np.testing.assert_array_equal, found.params, params)

# ---------------------------------------------------------------- sentence-transformers


@pytest.mark.reliability(31)
@pytest.mark.parametrize('modules', [
    [{'path': '../x', 'type': 'a.Transformer'}], [{'path': '/etc', 'type': 'a.Transformer'}], [{'path': 3}], [], {}, 3,
    [{'path': '..', 'type': 'a.Transformer'}], [{'path': '', 'type': 'a.Dense'}], [{'path': '', 'type': None}]])
def test_modules_that_point_elsewhere(exported, refused, modules):
  (exported / huggingface.MODULES).write_text(json.dumps(modules))
  refused(exported)


def test_modules_in_folders(exported, params):
  """As old versions of sentence-transformers wrote them."""
  inner = exported / '0_Transformer'
  inner.mkdir()
  for path in list(exported.iterdir()):
    if path != inner:
      path.rename(inner / path.name)
  kinds = [('0_Transformer', 'Transformer'), ('1_Pooling', 'Pooling'), ('2_Dense', 'Dense')]
  (exported / huggingface.MODULES).write_text(json.dumps(
      [{'path': path, 'type': f'sentence_transformers.models.{kind}'} for path, kind in kinds]))
  with pytest.warns(UserWarning, match='names Dense after the encoder: left out'):
    jax.tree.map(np.testing.assert_array_equal, exchange.load(exported).params, params)


def test_only_files_are_read(tmp_path):
  (tmp_path / 'x.json').mkdir()
  foreign.check_files(tmp_path)
  with pytest.raises(cfg.DataError, match='cannot be read'):
    foreign.read_json(tmp_path / 'x.json')
