"""Wikitext becomes what its reader sees: no character of prose is lost, no markup stays, what is left out is counted,
and no page takes long."""

import collections
import html
import re
import time

import pytest
from hypothesis import example, given, settings, strategies as st

from input_pipeline.text import document, sentences, wiki_units, wikitext

ENGLISH = wikitext.site_of(((6, 'File'), (14, 'Category')), 'en')


def clean(text, site=ENGLISH, **options):
  counts = collections.Counter()
  return wikitext.clean(text, site, counts, **options), counts

# ---------------------------------------------------------------- a grammar of wikitext whose prose is known


LETTERS = 'abcdefgxyzäß中文日本ж'
PROSE = [*LETTERS, *'0123456789', '.NET', 'main()', '__init__', 'a==b', '!x', '|x|', 'x<y', 'vector<int>', "it's",
    '{x}',
         '[1]', '#1', '*x', 'a_b', 'R&D', 'AT&T;', '-5', 'a:b', ';', '()', '.300', '¿qué?', 'C++', '&copy', '~',
         '--']
SPECIAL = ["''", '[[x]]', '{{x}}', '<div>', '</ref>', '{|', '|}', '|-', '==', '* y', '&amp;', '&lt;', "'''", '<!--',
    '-->', '-{x}-',
           '__NOTOC__', 'http://x.y', '[http://x y]', '|', '=', '}}', ']]']
words = st.sampled_from(PROSE)
looks_like_markup = st.lists(st.sampled_from([*SPECIAL, *LETTERS]), min_size=1, max_size=3).map(''.join)


def escaped(text):
  return ''.join(f'&#{ord(character)};' if not character.isalnum() else character for character in text)


def wrapped(pair, form):
  """A form with a % for what is inside, in its source and in what it shows."""
  source, shown = form
  if source[0] == "'" and "''" in pair[0]:  # six quotes are another thing
    return pair
  return source.replace('%', pair[0]), shown.replace('%', pair[1])


def is_argument(pair):
  """Whether it can stand in a template or a label: no | or = or bracket of its own."""
  return not re.search(r'[|=\[\]{}]', re.sub(r'<nowiki>.*?</nowiki>|<span.*?>|<ref.*?>', '', pair[0]))


LEAVES = st.one_of(
    words.map(lambda word: (word, word)), looks_like_markup.map(lambda text: (escaped(text), text)),
    looks_like_markup.map(lambda text: (f'<nowiki>{html.escape(text)}</nowiki>', text)),
    st.sampled_from([('{{convert|1300|mi|km}}', '1,300 miles (2,100 km)'), ('<math>x^2</math>', 'x²'),
                     ('{{formatnum:6000}}', '6,000'), ('{{frac|1|2}}', '1⁄2'), ('[[Town (x)|]]', 'Town'),
                     ('H<sub>2</sub>O', 'H₂O'), ('{{cvt|90|m}}', '90 m (300 ft)'), ('[[a b]]s', 'a bs')]))
INLINE = st.recursive(LEAVES, lambda inner: st.builds(wrapped, inner, st.sampled_from([
    ("'''%'''", '%'), ("''%''", '%'), ('<b>%</b>', '%'), ('<code>%</code>', '%'), ('<span class="x">%</span>', '%'),
    ('<noinclude>%</noinclude>', '%'), ('x<!-- {{a --> %', 'x %'), ('%<ref name="x">{{cite|[[a]]}}</ref>', '%'),
    ('%<ref name="y" />', '%')])), max_leaves=3)
WRAPPED = st.builds(wrapped, INLINE.filter(is_argument), st.sampled_from([
    ('{{nowrap|%}}', '%'), ('{{lang|de|%}}', '%'), ('[[target|%]]', '%'), ('[[:Category:x|%]]', '%'),
    ('{{Nobr|1=%}}', '%'), ('{{small|{{nowrap|%}}}}', '%'), ('[http://a.b %]', '%')]))
INVISIBLE = st.sampled_from(['{{citation needed|date=May}}', '<ref>x {{y}} [[z]]</ref>', '<!-- a\n\nb -->',
    '[[Category:X]]',
                             '[[de:X]]', '{{sfn|Smith|2000}}', '{{coord|1|2}}', '[[File:x.jpg|thumb|a [[b]] {{c}}]]'])
SENTENCES = st.lists(st.one_of(INLINE, INLINE, WRAPPED), min_size=1, max_size=6).flatmap(lambda parts: st.lists(
    INVISIBLE, min_size=len(parts), max_size=len(parts)).map(lambda gaps: (parts, gaps)))


@settings(max_examples=200, deadline=None)
@given(SENTENCES)
def test_no_character_of_prose_is_lost_and_no_markup_stays(made):
  parts, gaps = made
  source = 'The ' + ' '.join(source for source, _ in parts) + ' end.'
  shown = 'The ' + ' '.join(text for _, text in parts) + ' end.'
  assert clean(source)[0] == shown
  source = 'The ' + ' '.join(source + gap for (source, _), gap in zip(parts, gaps)) + ' end.'
  assert clean(source)[0].replace(' ', '') == shown.replace(' ', '')
  page = f'{{{{Infobox x\n| a = {{{{b}}}}\n}}}}\n{source}\n\n{{| class="x"\n|-\n| {parts[0][0]}\n|}}\nMore.'
  assert clean(page)[0].split('\n')[1:] == ['More.']


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_a_sentence_that_lacks_something_goes_and_is_counted(kinds):
  """0: prose, 1: with an unknown template, 2: with one that shows nothing, 3: with a formula that takes a picture."""
  forms = ['The town number {} is on a river.', 'The town number {} has {{{{Some thing|3}}}} houses today.',
           'The town number {} is old.{{{{fact}}}}',
           'The town number {} has <math>\\int_a^b \\begin{{x}}</math> parts.']
  shown = ['The town number {} is on a river.', None, 'The town number {} is old.', None]
  text, counts = clean(' '.join(forms[kind].format(i) for i, kind in enumerate(kinds)))
  assert text == ' '.join(shown[kind].format(i) for i, kind in enumerate(kinds) if shown[kind])
  number = collections.Counter(kinds)
  assert counts['sentences_left_out'] == number[1] + number[3] and counts['formulas_left_out'] == number[3]
  assert (counts['template/Some thing'], counts['template/Fact']) == (number[1], number[2])


@given(st.text(alphabet=LETTERS + ' .!?。A\u3000\xa0\n', max_size=200), st.sampled_from(['en', 'zh', 'ja', 'xx']))
def test_whole_sentences_are_the_line(text, language):
  assert ''.join(sentences.whole(text, language)) == text


@given(st.text(alphabet=st.characters(), max_size=30).map(lambda text: text + '\ud83d\ude00\ud800\x00\uffff'))
def test_text_is_made_valid(text):
  made = document.valid(text)
  assert document.valid(made) == made == made.encode().decode() and '\x00' not in made and '😀' in made
  assert document.valid('plain ä') == 'plain ä'


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([
    '{{', '}}', '[[', ']]', '|', '=', "''", "'''", '{|', '|}', '|-', '\n', '\n\n', 'a ', 'B. ', 'File:', '* ', '==',
    '{{x}}', '[[y]]', '<ref>', '</ref>', '<b>', '</b>', '&lt;', '{{nowrap|', '[http://x.y ', '<!--', '-->', '-{', '}-',
    '&amp;', '<br>', '{{cn}}', '<h2>', '</h2>', '<table>', '{{!}}', '[[Category:a]]']), max_size=24).map(''.join))
@example('[[|}[[|}a ')
def test_no_markup_stays_of_what_is_broken(source):
  text, counts = clean(source)
  assert not re.search(r"\{\{|\}\}|\[\[|</?(?:ref|b|br|table|h2)>|&(?:lt|amp);|<!--", text), text
  assert "''" not in text or "''''''" in source  # of more than five the first ones are shown
  assert '\ufdd0' > max(text, default='') and all(line == line.strip() != '' for line in text.split('\n') if text)
  assert all(counts.values()) and not any(re.search('[\ufdd0-\ufdef]', name) for name in counts)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(['{{x|a}}', '{{cn}}', '{{nowrap|a}}', '{{convert|1|mi}}', '{{convert|1|zz}}',
    '{{coord|1}}', '{{#expr:1+1}}', '{{lang-de|a}}', '{{IPAc-en|a}}', '{{Infobox\n|a=b\n}}']), max_size=12))
def test_every_template_is_counted_once(templates):
  _, counts = clean(' word '.join(templates))
  assert counts['templates_rendered'] + sum(
      count for name, count in counts.items() if name.startswith('template/')) == len(templates)

# ---------------------------------------------------------------- kinds of markup


@pytest.mark.parametrize('markup, shown', [
    ("'''!!!''' is a band.", '!!! is a band.'), ("|''x''| is a distance.", '|x| is a distance.'),
    ("A.\n\n'''||''' is the or.", 'A.\n|| is the or.'), ('{{nobold}}! marks it.', '! marks it.'),
    ('! one\n\n| two', '! one\n| two'), (' .NET reads.', '.NET reads.'), ('A.\n|-\n| x\n|}\nB.', 'A.\nB.'),
    ('&amp;lt; and &lt;div&gt; and &copy and &bogus;', '&lt; and <div> and &copy and &bogus;'),
    ('It is &#55357;&#56832; here.', 'It is 😀 here.'), ('{{{1|default}}} text', 'default text'),
    ('The {{lang|de|Fluss}} and {{transl|ru|ALA|reka}} {{nihongo|Edo|江戸}}.', 'The Fluss and reka Edo (江戸).'),
    ('It {{as of|2010|5|lc=y}} has {{val|1.5|u=km}} and {{US$|3}}.', 'It as of May 2010 has 1.5 km and US$3.'),
    ('The {{HMS|Victory|1765}} at {{circa|1800}}.', 'The HMS Victory (1765) at c. 1800.'),
    ('The name ({{IPAc-en|x}}; born 1900) is.', 'The name (born 1900) is.'), ('A {{ill|Town|de|Stadt|lt=city}}.',
    'A city.'),
    ('He said: {{quote|Be quick.|Author}} Then.', 'He said:\nBe quick.\nThen.'), ('{{lang-de|Fluss}}.',
    'German: Fluss.'),
    ('{{#if: x | yes | no}} {{lc:ABC}} {{PAGENAME}}.', 'yes abc Title.'), ('A {{chem|S|O|4|2-}} ion.', 'A SO₄²⁻ ion.'),
    ('<pre>x</pre>Text <syntaxhighlight lang="c" inline>a[1]</syntaxhighlight>.', 'Text a[1].'),
    ('<includeonly>no</includeonly><onlyinclude>yes.</onlyinclude>', 'yes.'), ('A {{=}} {{!}} b.', 'A = | b.'),
    ('The set {{1,2},{3}} is.', 'The set {{1,2},{3}} is.'), ('a <unknown> tag', 'a <unknown> tag'),
    ('One. Text {{unclosed | a\n| b = c\nmore. Two.', 'One. Two.'),
    ('{{unclosed | a\n| b = c\nMore.', 'More.'), ('[[File:a.jpg|thumb|open\nMore.', 'More.'),
    ("L''''amour''' and '''''both'''''.", "L'amour and both."), ('<table><tr><td>x</td></tr></table>y.', 'y.'),
    ('An [[open | link\n\nText [[a|b]].', 'An link\nText b.'), ('{{Unknown box|a=b}}\nText.', 'Text.'),
    ('Text.{{unknown note}} More.', 'Text. More.'), ('a\u3000\n\u200b\nb',
    'a\nb'),
])
def test_what_is_shown(markup, shown):
  assert clean(markup, title='Title')[0] == shown


@pytest.mark.parametrize('markup, shown', [
    ('The {{convert|2=km|1=5}} {{frac|2=4|1=3}} {{lang|2=x|1=de}}.', 'The 5 kilometres (3.1 mi) 3⁄4 x.'),
    ('The {{#ifexpr:1>0|y|n}} town. The {{#ifeq:a|a|C|c}}.', 'The C.'),
    ('{{FULLPAGENAME}} {{BASEPAGENAME}}.', 'Title Title.'),
    ('A {{{{b}}}} c.', 'A {} c.'), ('f(a[b[1]]) is [[1], [2]] here.', 'f(a[b[1]]) is [[1], [2]] here.'),
    ('See http://x.y/z_(w), or (http://v.w) a.\nhttp://x.y\n* http://x.y', 'See http://x.y/z_(w), or (http://v.w) a.'),
    ('A {{URL|http://x.y|Label}} b [[http://x.y c]] d [http://x.y] e.', 'A Label b c d e.'),
    ('The sum is\n\n:<math>a+b</math>\n\nwhere a is one. Two.', 'The sum is a+b where a is one. Two.'),
    ('It is\n:<math>\\int_a \\begin{x}</math>\nwhere a is one. Two.', 'Two.'),
    ('Is:\n* a\nWhere. Are:\n: b\nWhere.', 'Is:\nWhere. Are:\nWhere.'), ('<h2>References</h2>\nA is.', ''),
    ('{| a\n|-\n| b\n* c\n|valign=top|\n* d\nText.\n== A ==\n|x| is.', 'Text.\n|x| is.'),
    ('A.\n| valign=top | b\nC.', 'A.\nC.'), ('One. It is at {{coord|1|2}}. Two{{coord|1|2}} ({{coord|1|2}}).',
    'One. Two.'),
    ('{{dunno}}, the town, is. Next.', 'Next.'), ('{{M|5|ul=km}} is. Next.', 'Next.'),
    ('The {{snd|b}} town.\nNext.', 'Next.'),
    ('Press {{key press|Ctrl|C}}.', 'Press Ctrl+C.'), ('A [[File:a|thumb|b {{c]] d.', 'A d.')])
def test_what_else_is_shown(markup, shown):
  assert clean(markup, title='Title')[0] == shown


@pytest.mark.parametrize('language, markup, shown', [
    ('de', 'Er wog {{convert|1300|kg|lb}}, {{"|Zitat}}.', 'Er wog 1.300 kg (2.900 lb), „Zitat“.'),
    ('zh', '長{{convert|5|to|6|km|mi}}。', '長5–6 km (3.1–3.7 mi)。'), ('pt', 'Tem {{converter|1.3|km}}.', ''),
    ('es', 'Mide {{convertir|5|km|mi|disp=or}}.', ''), ('ru', 'Весит {{s|5 кг}}.', 'Весит 5 кг.'),
    ('fr', 'Au {{XIXe siècle}}, {{unité|1234,5|km|2}} et {{nombre|1500|habitants}} : {{citation|oui}}.',
     'Au XIXe siècle, 1 234,5 km² et 1 500 habitants : « oui ».'),
    ('fr', 'La {{2e|guerre}} du {{1er mai}}.', 'La 2e guerre du 1er mai.'), ('de', 'Bei {{B|Mt|1|2}} steht.', ''),
    ('ja', '{{読み仮名の|東京}}は都市。次。', '次。'), ('en', '({{lang-he|שלום|shalom|peace}})',
    '(Hebrew: שלום, romanized: shalom, lit. ‘peace’)'), ('fr', '{{formatnum:1234,5}}', '1234,5')])
def test_what_is_shown_elsewhere(language, markup, shown):
  assert clean(markup, wikitext.site_of((), language))[0].replace('\xa0', ' ') == shown


@pytest.mark.parametrize('language, link', [
    ('de', 'Bild:x.jpg|mini|hochkant|links|a'), ('es', 'Imagen:x.jpg|miniaturadeimagen|a'), ('pt',
    'Ficheiro:x|esquerda|a'),
    ('nl', 'Afbeelding:x.jpg|links|a'), ('ru', 'Изображение:x.jpg|мини|слева|a'), ('ko', '그림:x.jpg|섬네일|a'),
    ('sv', 'Fil:x.jpg|miniatyr|a'), ('fi', 'Kuva:x.jpg|pienoiskuva|a'), ('zh', '圖像:x.jpg|thumb|a -{图}-'),
    ('ja', '画像:x.jpg|サムネイル|a'), ('it', 'Immagine:x|miniatura|a'), ('pl', 'Grafika:x|mały|a'), ('uk',
    'Зображення:x|міні|a'),
    ('tr', 'Resim:x|küçükresim|a'), ('ar', 'صورة:x|تصغير|a'), ('fa', 'تصویر:x|بندانگشتی|a'), ('hi',
    'चित्र:x|अंगूठाकार|a'),
    ('fr', 'Fichier:x.jpg|vignette|a'), ('en', 'Image: x.jpg |thumb|a\n\nb'), ('de', 'Kategorie:Tiere'), ('fr',
    'catégorie:x'),
    ('ko', '분류:x'), ('ar', 'تصنيف:x'), ('ja', 'カテゴリ:x'), ('zh', '分类:x|*')])
def test_files_and_categories_by_old_and_second_names(language, link):
  site = wikitext.site_of(((6, 'First name'), (14, 'Other')), language)
  assert clean(f'A [[{link}]] b [[First name:y|z|c]][[Other:x]].', site)[0] == 'A b.'
  assert clean(f'[[{link}]]\nText.', site)[0] == 'Text.'


@pytest.mark.parametrize('language, markup, shown', [
    ('zh', "'''-{zh-cn:软件; zh-tw:軟體;}-'''是-{zh-hans:计算机;zh-hant:電腦}-。", '软件是计算机。'),
    ('zh', '-{A|zh-cn:程序;zh-tw:程式}-也是。-{H|zh-cn:内存;zh-tw:記憶體}-[[-{zh-cn:硬件;zh-tw:硬體}-|硬件]]。',
    '程序也是。硬件。'),
    ('zh', '-{R|里}-面-{T|x}-有-{字}-。{{nowrap|-{zh-tw:電;zh-cn:电}-}}', '里面有字。电'), ('zh',
    '-{H|a=>zh-cn:b;}-c', 'c'),
    ('sr', '-{Latinica}- и -{sr-ec:ћир; sr-el:lat}-.', 'Latinica и ћир.'), ('en', 'the -{x}- bond', 'the -{x}- bond'),
    ('zh', '-{zh:{{lang|en|a}}}-b', 'ab')])
def test_language_variants(language, markup, shown):
  assert clean(markup, wikitext.site_of((), language))[0] == shown


@pytest.mark.parametrize('name', ['References', 'external links', 'See also', 'Einzelnachweise', 'Voir aussi',
    'Véase también',
                                  'Примечания', '参考文献', '外部链接', '각주', 'Przypisy', 'مراجع', 'Kaynakça',
                                  "''Notes''"])
def test_end_sections(name):
  text = f'One.\n== {name} ==\nA list of things that is a sentence.\n=== Deeper ===\nX is.\n== Legacy ==\nTwo.'
  assert clean(text)[0] == 'One.\nTwo.' and clean(text)[1]['end_sections'] == 1
  kept, counts = clean(text, keep_end_sections=True)
  assert kept.split('\n') == ['One.', 'A list of things that is a sentence.', 'X is.',
      'Two.'] and not counts['end_sections']


@pytest.mark.parametrize('arguments, shown', [
    ('1300|mi|km', '1,300 miles (2,100 km)'), ('90|m', '90 metres (300 ft)'), ('5|ft|11|in|m',
    '5 feet 11 inches (1.80 m)'),
    ('10|to|20|km|mi|abbr=on', '10 to 20 km (6.2 to 12 mi)'), ('20|C', '20 °C (68 °F)'), ('1|mi', '1 mile (1.6 km)'),
    ('12|nmi|km|order=flip|sp=us', '22 kilometers (12 nmi)'), ('3|mi|km|adj=on', '3-mile (4.8 km)'), ('100|blobs',
    None),
    ('87|e6acre|e6ha|abbr=off', '87 million acres (35 million hectares)'), ('3|ft|m|bogus=1', None), ('', None)])
def test_convert(arguments, shown):
  words = arguments.split('|')
  named = dict(word.split('=') for word in words if '=' in word)
  assert wiki_units.convert([word for word in words if '=' not in word], named, False) == shown

# ---------------------------------------------------------------- time


HOSTILE = ['{{', '}}', '{{a|', '{{a|\n', '{{{a|', '[[', '[[a|', '[[File:a|', '[http://a ', '<ref>', '<ref name="',
    '<nowiki>', '<!--', "''a",
           '{|\n', '{|\n|-\n| a\n}\nText.\n', '|}\n', '| a\n', '!\n', '==a\n', ':\n', '-{', '-{zh-cn:a;', '&a',
           '&lt;', '{{cn}}, ', 'A {{b}} c. ',
           '我去{{b|x}}了', '( ', ' ', '\n', '__a', '<table>', '<math>\\frac{a}{', '<sup>1</sup>', 'a', '\u200b',
           'http://', '{{IPAc-en|x}} ',
           '{{#if:', '{{nowrap|', '[[a|b {{c|', '<span style="', '{{convert|1|km}} ', '{{convert|9', 'is {{lang|',
           "'", '[[a|x', '-{a']


@pytest.mark.parametrize('unit', HOSTILE)
def test_time_grows_with_the_length(unit):
  """Far from 20 s a megabyte: what grew with the square of a length would take minutes."""
  for text in (unit * (60_000 // len(unit)),
      unit * (30_000 // len(unit)) + '}}' * 2000 + 'y]]' * (30_000 // len(unit)) + '}-' * 2000 + '|}\n' * 2000):
    # Of this thread alone, and once more where the collector of garbage came between.
    assert any(seconds_of_cleaning(text) < 1.2 for _ in range(2))


def seconds_of_cleaning(text: str) -> float:
  start = time.thread_time()
  clean(text, wikitext.site_of((), 'zh'))
  return time.thread_time() - start
