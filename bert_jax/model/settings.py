"""The encoder's settings: its shape, how it is initialised, and how it is computed."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Literal

from bert_jax.errors import require
from bert_jax.fields import one_of, require_fields
from bert_jax.model.attention import IMPLEMENTATIONS
from bert_jax.model.layers import ACTIVATIONS, WORKAROUNDS
from input_pipeline.ranges import CountOrNone, Size, Within

if TYPE_CHECKING:
  Activation = str
  Attention = str
  Workaround = str
else:
  Activation, Attention, Workaround = one_of(ACTIVATIONS), one_of(IMPLEMENTATIONS), one_of(WORKAROUNDS)


UNROLLED = 12  # layers that auto unrolls; of more, a program takes minutes to compile
Dropout = Annotated[float, Within(0, 1, below=True, wise=0.9)]
Layers = Annotated[int, Within(1, 1024)]


@dataclasses.dataclass(frozen=True)
class Model:
  """The encoder's shape (arXiv:1810.04805 section 3; google-research/bert modeling.py BertConfig)."""
  architecture: str = 'bert'
  """A key of bert_jax.model.encoder.ENCODERS."""
  vocab_size: Annotated[int, Within(6, 2**27)] = 30522
  """Tokens of the vocabulary; the data must have been prepared with one of this size."""
  hidden_size: Size = 768
  """Width of a token's vector, D: a multiple of `heads` (BERT-BASE's; 1,024 in BERT-LARGE)."""
  layers: Layers = 12
  """Blocks of attention and feed-forward (BERT-BASE's; 24 in BERT-LARGE)."""
  heads: Layers = 12
  """Attention heads of a layer, each hidden_size / heads wide: 64 in every BERT."""
  intermediate_size: Size = 3072
  """Width of the feed-forward layer."""
  max_positions: Size = 512
  """Longest sequence that has a position embedding."""
  type_vocab_size: Size = 2
  """Token types: 0 for the first segment of a pair, 1 for the second."""
  activation: Activation = 'gelu_tanh'
  """gelu_tanh: the tanh approximation of google-research/bert since 2019; gelu: exact, of the 2018 release and Hugging
  Face's 'gelu'."""
  hidden_dropout: Dropout = 0.1
  """Share of the elements that are dropped after the embeddings and after each half of a layer (appendix A.2)."""
  attention_dropout: Dropout = 0.1
  """Share of the attention weights that are dropped (appendix A.2)."""
  initializer_range: Annotated[float, Within(0, 100, wise=1)] = 0.02
  """Standard deviation of initial matrices, drawn from a normal distribution that is cut at two of it."""
  neighbour_heads: CountOrNone = 0
  """Heads of the first layer that begin by looking at the token before, the one after, 2 before, 2 after …: so many,
  with positions that begin as sines. 0: all is drawn at random, as in BERT."""
  layer_norm_epsilon: Annotated[float, Within(0, 1, above=True, wise=1e-2)] = 1e-12
  """Added to the variance (modeling.py layer_norm; LayerNorm's own default elsewhere is 1e-6 or 1e-5)."""
  dtype: Literal['auto', 'bfloat16', 'float32'] = 'auto'
  """What matrix products run in; parameters, statistics, softmax and losses are float32 always. auto: bfloat16 on TPU
  and on GPUs that have it; on a CPU float32, or what a short trial finds faster."""
  attention: Attention = 'auto'
  """pallas: a fused kernel for TPU, for rows of up to 1,024 tokens; triton: fused kernels for whole layers on NVIDIA
  GPUs, for rows of a multiple of 16; cudnn: NVIDIA's, without dropout; xla: everywhere; auto: what fits, for each row
  length."""
  causal: bool = False
  """Each token sees only itself and those before it, as in OpenAI GPT (arXiv:1810.04805 section 5.1, LTR)."""
  right_to_left: bool = False
  """Of a causal encoder: each token sees itself and those after it in place of those before (section 5.1, RTL)."""
  remat: Literal['none', 'elementwise', 'full'] = 'elementwise'
  """What the backward pass computes again instead of keeping: nothing, all but the matrix products, or whole layers."""
  unroll: Literal['auto'] | Layers = 'auto'
  """Layers a step of the scan over layers; all of them: no loop, faster to run, slower to compile. auto: all of up to
  12; `pretrain` on TPU and GPU all of more, where that fits with 1 GB to spare."""
  plain: tuple[Workaround, ...] = ()
  """Workarounds for a compiler that are turned off, to measure what they gain (docs/performance.md)."""

  @property
  def layers_at_once(self) -> int:
    """Of a step of the scan over layers."""
    return min(self.layers if self.unroll == 'auto' and self.layers <= UNROLLED else
               1 if self.unroll == 'auto' else self.unroll, self.layers)

  @property
  def computes_in(self) -> str:
    """The type of matrix products: of `auto`, before anything was chosen, float32."""
    return 'float32' if self.dtype == 'auto' else self.dtype

  @property
  def direction(self) -> int:
    """1: no token sees later ones; -1: none sees earlier ones; 0: all see all."""
    return (-1 if self.right_to_left else 1) if self.causal else 0

  def __post_init__(self):
    require_fields(self, 'model.')
    require(self.causal or not self.right_to_left,
            'model.right_to_left is True, and model.causal is False: set --model.causal too')
    require(self.hidden_size % self.heads == 0,
            f'model.hidden_size {self.hidden_size} is not a multiple of model.heads {self.heads}')
    require(0 <= self.neighbour_heads <= self.heads, f'model.neighbour_heads is {self.neighbour_heads}: wanted 0 up to '
            f'model.heads, {self.heads}')
    require(not self.neighbour_heads or self.hidden_size // self.heads % 2 == 0,
            f'model.neighbour_heads is {self.neighbour_heads}, and heads are {self.hidden_size // self.heads} wide: '
            'wanted an even width, or 0')
