"""The encoder's settings: its shape, how it is initialised, and how it is computed."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from bert_jax.errors import require
from bert_jax.fields import one_of, require_choices
from bert_jax.model.attention import IMPLEMENTATIONS
from bert_jax.model.layers import ACTIVATIONS, WORKAROUNDS

if TYPE_CHECKING:
  Activation = Attention = Workaround = str
else:
  Activation, Attention, Workaround = one_of(ACTIVATIONS), one_of(IMPLEMENTATIONS), one_of(WORKAROUNDS)


@dataclasses.dataclass(frozen=True)
class Model:
  """The encoder's shape (arXiv:1810.04805 section 3; google-research/bert modeling.py BertConfig)."""
  architecture: str = 'bert'
  """A key of bert_jax.model.encoder.ENCODERS."""
  vocab_size: int = 30522
  """Tokens of the vocabulary; the data must have been prepared with one of this size."""
  hidden_size: int = 768
  layers: int = 12
  heads: int = 12
  intermediate_size: int = 3072
  """Width of the feed-forward layer."""
  max_positions: int = 512
  """Longest sequence that has a position embedding."""
  type_vocab_size: int = 2
  activation: Activation = 'gelu_tanh'
  """gelu_tanh: the tanh approximation of google-research/bert since 2019; gelu: exact, of the 2018 release and Hugging Face's 'gelu'."""
  hidden_dropout: float = 0.1
  attention_dropout: float = 0.1
  initializer_range: float = 0.02
  layer_norm_epsilon: float = 1e-12
  dtype: Literal['bfloat16', 'float32'] = 'bfloat16'
  """What matrix products run in; parameters, statistics, softmax and losses are float32 always."""
  attention: Attention = 'auto'
  """pallas: a fused kernel for TPU, for rows of up to 1,024 tokens; cudnn: NVIDIA's, without dropout; xla: everywhere; auto: what
  fits, for each row length."""
  causal: bool = False
  """Each token sees only itself and those before it, as in OpenAI GPT (arXiv:1810.04805 section 5.1, LTR)."""
  remat: Literal['none', 'elementwise', 'full'] = 'elementwise'
  """What the backward pass computes again instead of keeping: nothing, all but the matrix products, or whole layers."""
  unroll: int = 1
  """Layers a step of the scan over layers; all of them: no loop, faster to run, slower to compile."""
  plain: tuple[Workaround, ...] = ()
  """Workarounds for a compiler that are turned off, to measure what they gain (docs/performance.md)."""

  def __post_init__(self):
    require_choices(self, 'model.')
    require(self.heads >= 1 and self.unroll >= 1, f'model.heads is {self.heads}, model.unroll is {self.unroll}: wanted at least 1 each')
    require(self.hidden_size % self.heads == 0, f'model.hidden_size {self.hidden_size} is not a multiple of model.heads {self.heads}')
    require(self.layers >= 1 and self.vocab_size >= 6, 'model.layers must be at least 1 and model.vocab_size at least 6')
    for name in ('hidden_dropout', 'attention_dropout'):
      require(0 <= getattr(self, name) < 1, f'model.{name} is {getattr(self, name)}: wanted 0 <= rate < 1')
