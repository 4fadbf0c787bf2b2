"""A vocabulary as the files that Hugging Face's AutoTokenizer reads, giving the same ids, and back."""

import json
import warnings

from bert_jax.convert import foreign
from input_pipeline import records, storage
from input_pipeline.errors import DataError
from input_pipeline.vocabulary import marks as marks_lib, others, tokenizer as tokenizer_lib
from input_pipeline.vocabulary.tokenizer import Tokenizer

TOKENIZER, SETTINGS, SPECIAL_MAP = records.TOKENIZER, others.SETTINGS, 'special_tokens_map.json'


def files(tokenizer: Tokenizer, max_length: int) -> dict[str, bytes]:
  """{name: content} of the vocabulary, tokenizer.json, tokenizer_config.json and special_tokens_map.json.

  The class is PreTrainedTokenizerFast, which takes tokenizer.json as it is: transformers' BertTokenizer would build its
  own, with words over 100 characters unknown instead of over 200.
  """
  if tokenizer.rules != records.LIBRARY:
    warnings.warn(f'{TOKENIZER} splits text by the rules of the tokenizers library, and this checkpoint was trained by '
                  f'those of {tokenizer.rules}: they differ in rare characters (docs/fidelity.md)', stacklevel=2)
  roles = {'unk_token': tokenizer.unk_id, 'sep_token': tokenizer.sep_id, 'pad_token': tokenizer.pad_id,
           'cls_token': tokenizer.cls_id, 'mask_token': tokenizer.mask_id}
  special = {role: tokenizer.tokens[i] for role, i in roles.items()}  # ALBERT's names differ
  settings = special | {
      'tokenizer_class': 'PreTrainedTokenizerFast', 'model_max_length': max_length,
      'do_lower_case': tokenizer.lower_case,
      'model_input_names': ['input_ids', 'token_type_ids', 'attention_mask'], 'clean_up_tokenization_spaces': False}
  encode = lambda value: (json.dumps(value, indent=2, ensure_ascii=False) + '\n').encode()
  return tokenizer.files | {TOKENIZER: _finish(tokenizer, special), SETTINGS: encode(settings),
                            SPECIAL_MAP: encode(special)}


def _finish(tokenizer: Tokenizer, special: dict[str, str]) -> bytes:
  """tokenizer.json: the library's rules with the special tokens and the layout [CLS] A [SEP] B [SEP] around them.

  Raises DataError where the library would give tokens other ids.
  """
  import tokenizers
  library = marks_lib.add(tokenizer.library, tokenizer.marks)
  cls, sep = special['cls_token'], special['sep_token']
  library.post_processor = tokenizers.processors.TemplateProcessing(
      single=f'{cls}:0 $A:0 {sep}:0', pair=f'{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1',
      special_tokens=[(cls, tokenizer.cls_id), (sep, tokenizer.sep_id)])
  wanted = {token.content: token.id for token in tokenizer.marks}
  found = {token: library.token_to_id(token) for token in wanted}
  if found != wanted or library.get_vocab_size() != len(tokenizer.tokens):
    raise DataError(f'the vocabulary cannot be written as {TOKENIZER}: its special tokens would get the ids {found}, '
                    f'of {library.get_vocab_size()}; wanted {wanted}, of {len(tokenizer.tokens)}')
  return library.to_str(pretty=False).encode()


def load(directory: storage.PathLike) -> Tokenizer:
  """The tokenizer of a Hugging Face directory, of Google's, of data, or of a run; the files beside it say of its rules.

  Raises DataError where there is no vocabulary, and, by its name, for a rule that ours does not have.
  """
  directory = storage.path(directory)
  foreign.check_files(directory)
  return tokenizer_lib.load(directory)
