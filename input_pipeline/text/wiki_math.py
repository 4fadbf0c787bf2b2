"""Formulas → a line of plain text, where they are simple enough to be read so."""

import re

LONGEST = 60  # characters of a formula that is shown in a line
_SYMBOLS = {
    'alpha': 'α', 'beta': 'β', 'gamma': 'γ', 'delta': 'δ', 'epsilon': 'ε', 'varepsilon': 'ε', 'zeta': 'ζ', 'eta': 'η',
    'theta': 'θ', 'vartheta': 'ϑ', 'iota': 'ι', 'kappa': 'κ', 'lambda': 'λ', 'mu': 'μ', 'nu': 'ν', 'xi': 'ξ', 'pi': 'π',
    'rho': 'ρ', 'varrho': 'ρ', 'sigma': 'σ', 'tau': 'τ', 'upsilon': 'υ', 'phi': 'φ', 'varphi': 'φ', 'chi': 'χ',
    'psi': 'ψ', 'omega': 'ω', 'Gamma': 'Γ', 'Delta': 'Δ', 'Theta': 'Θ', 'Lambda': 'Λ', 'Xi': 'Ξ', 'Pi': 'Π',
    'Sigma': 'Σ', 'Phi': 'Φ', 'Psi': 'Ψ', 'Omega': 'Ω', 'times': '×', 'cdot': '·', 'div': '÷', 'pm': '±', 'mp': '∓',
    'leq': '≤', 'le': '≤', 'geq': '≥', 'ge': '≥', 'neq': '≠', 'ne': '≠', 'approx': '≈', 'equiv': '≡', 'sim': '~',
    'simeq': '≃', 'cong': '≅', 'propto': '∝', 'll': '≪', 'gg': '≫', 'in': '∈', 'notin': '∉', 'ni': '∋',
    'subset': '⊂', 'subseteq': '⊆', 'supset': '⊃', 'supseteq': '⊇', 'cup': '∪', 'cap': '∩', 'setminus': '∖',
    'emptyset': '∅', 'varnothing': '∅', 'forall': '∀', 'exists': '∃', 'neg': '¬', 'lnot': '¬', 'land': '∧',
    'wedge': '∧', 'lor': '∨', 'vee': '∨', 'oplus': '⊕', 'otimes': '⊗', 'circ': '∘', 'ast': '*', 'star': '⋆',
    'to': '→', 'rightarrow': '→', 'longrightarrow': '→', 'leftarrow': '←', 'leftrightarrow': '↔', 'Rightarrow': '⇒',
    'implies': '⇒', 'Leftrightarrow': '⇔', 'iff': '⇔', 'mapsto': '↦', 'infty': '∞', 'partial': '∂', 'nabla': '∇',
    'ell': 'ℓ', 'hbar': 'ħ', 'Re': 'Re', 'Im': 'Im', 'aleph': 'ℵ', 'prime': '′', 'degree': '°', 'perp': '⊥',
    'parallel': '∥', 'angle': '∠', 'ldots': '…', 'dots': '…', 'cdots': '…', 'mid': '|', 'vert': '|', 'lvert': '|',
    'rvert': '|', 'Vert': '‖', 'lVert': '‖', 'rVert': '‖', 'langle': '⟨', 'rangle': '⟩', 'lfloor': '⌊', 'rfloor': '⌋',
    'lceil': '⌈', 'rceil': '⌉', 'sum': '∑', 'prod': '∏', 'int': '∫', 'quad': ' ', 'qquad': ' ', 'colon': ':',
    'lbrace': '{', 'rbrace': '}', 'backslash': '\\', 'AA': 'Å', 'N': 'ℕ', 'Z': 'ℤ', 'Q': 'ℚ', 'R': 'ℝ', 'C': 'ℂ'}
_FUNCTIONS = frozenset({
    'sin', 'cos', 'tan', 'cot', 'sec', 'csc', 'arcsin', 'arccos', 'arctan', 'sinh', 'cosh', 'tanh', 'exp', 'log', 'ln',
    'lg', 'lim', 'min', 'max', 'sup', 'inf', 'det', 'dim', 'ker', 'gcd', 'deg', 'arg', 'mod', 'bmod'})
_PLAIN = frozenset({'text', 'mathrm', 'mathbf', 'mathit', 'mathsf', 'mathcal', 'mathfrak', 'operatorname', 'textrm',
                    'textbf', 'textit', 'mbox', 'boldsymbol', 'rm', 'bf', 'it', 'mathscr', 'scriptstyle',
                    'textstyle', 'displaystyle', 'left', 'right', 'big', 'Big', 'bigl', 'bigr', 'limits', 'vec', 'ce'})
_DOUBLE = {'A': '𝔸', 'C': 'ℂ', 'F': '𝔽', 'H': 'ℍ', 'K': '𝕂', 'N': 'ℕ', 'P': 'ℙ', 'Q': 'ℚ', 'R': 'ℝ', 'Z': 'ℤ'}
_UP = str.maketrans('0123456789+-−=()ni', '⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿⁱ')
_DOWN = str.maketrans('0123456789+-−=()aeoxhklmnpstij', '₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎ₐₑₒₓₕₖₗₘₙₚₛₜᵢⱼ')
_RAISABLE, _LOWERABLE = frozenset(map(chr, _UP)), frozenset(map(chr, _DOWN))
_DIGITS = re.compile(r'(?<=[A-Za-z)\]])\d+')


def plain(formula: str) -> str | None:
  """A formula as text, None where it takes more than a line of symbols."""
  if len(formula) > 8 * LONGEST:
    return None
  text = re.sub(r'\\[,;:! ]|~', ' ', formula)
  text = re.sub(r'\\mathbb\s*\{?\s*([A-Z])\s*\}?', lambda found: _DOUBLE.get(found[1], found[1]), text)
  text = re.sub(r'\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}', lambda found: _fraction(found[1], found[2]), text)
  text = re.sub(r'\\sqrt\s*\{([^{}]*)\}', lambda found: '√' + _grouped(found[1]), text)
  text = re.sub(r'\\([A-Za-z]+)\s*', _command, text)
  text = re.sub(r'\\([{}%&#_$|])', r'\1', text) if re.search(r'\\[%&#$|]', text) else text
  text = re.sub(r"\^\s*(?:\{([^{}]*)\}|(\S))", lambda found: superscript(found[1] or found[2] or ''), text)
  text = re.sub(r'_\s*(?:\{([^{}]*)\}|(\S))', lambda found: subscript(found[1] or found[2] or ''), text)
  text = ' '.join(re.sub(r'(?<!\\)[{}]', '', text).replace('\\{', '{').replace('\\}', '}').split())
  return text if text and '\\' not in text and len(text) <= LONGEST else None


def _command(found: re.Match) -> str:
  name = found[1]
  if name in _SYMBOLS:
    return _SYMBOLS[name]
  return f'{name} ' if name in _FUNCTIONS else '' if name in _PLAIN else found[0]


def _fraction(above: str, below: str) -> str:
  return f'{_grouped(above)}/{_grouped(below)}'


def _grouped(text: str) -> str:
  return text if re.fullmatch(r'\\?\w+', text.strip()) else f'({text.strip()})'


def superscript(text: str) -> str:
  """As raised characters where there are such, and after ^ else."""
  return text.translate(_UP) if _RAISABLE.issuperset(text) else '^' + _grouped(text)


def subscript(text: str) -> str:
  return text.translate(_DOWN) if _LOWERABLE.issuperset(text) else '_' + _grouped(text)


def script(text: str, tag: str) -> str:
  """What `<sup>` or `<sub>` shows: numbers get the characters that Unicode has, as in 10⁶ and H₂O; 1st stays."""
  if any(map(str.isdigit, text)) or text in ('n', '+', '-', '−'):
    allowed, table = (_RAISABLE, _UP) if tag == 'sup' else (_LOWERABLE, _DOWN)
    if allowed.issuperset(text):
      return text.translate(table)
  return text


def chemical(formula: str) -> str | None:
  """H2O → H₂O; None for what has arrows and charges that must be set."""
  formula = formula.strip()
  if not re.fullmatch(r'[A-Za-z0-9()\[\]·.]+', formula):
    return None
  return _DIGITS.sub(lambda found: found[0].translate(_DOWN), formula)
