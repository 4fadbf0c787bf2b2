"""Names of templates by what they show, in lower case, from the large wikis."""

import re

from input_pipeline.text.wiki_marks import EQUALS

# Shows its first argument.
FIRST = frozenset(name.strip() for name in '''
  nowrap; nobr; nobreak; no wrap; nowr; nowiki; j; wrap; awrap; nobold; nb; noitalic; noitalics; normal; small;
  smaller; smalldiv; resize; big; larger; large; huge; em; strong; bold; b; italic; italics; i; it; underline; u;
  strike; del; ins; smallcaps; sc; smallcaps all; small caps; sc2; caps; allcaps; abbr; abbrv; abbreviation;
  abréviation; abrev; abbrlink; tooltip; tt; hover; define; definition; code; codett; mono; monospace; kbd; key;
  keypress; key press; samp; var; mvar; math; bigmath; mathit; mathcal; varserif; serif; sans-serif; font;
  proper name; not a typo; notatypo; as written; typo; sic; sic!; chem name; vanchor; visible anchor; vanch;
  ancre visible; cn span; citation needed span; cnspan; fact span; clarify span; clarify inline; dubious span;
  disputed inline span; unreferenced inline; nihongo2; jp; hani; hans; hant; unicode; polytonic; iast; hebrew; arabic;
  cyrl; greek; grc; nastaliq; urdu; rtl; rtl-para; ltr; script; korean; lang-roman; asiantitle; transl-text; ruby;
  overline; overbar; center; centre; centered; middle; nonfree; plainlink; section link; url; official url; website;
  déf; citation bloc span; référence nécessaire; refnec; référence souhaitée; réf nécessaire; référence incomplète;
  refsou; passage non neutre; passage évasif; flag; flagcountry; flagu; flag country; flagdeco text; flag+link;
  country; drapeau2; flagg text; bandera2; bandiera nome; nft; nftu; player; fb; fbw; fbu; cr; cricket; ru; rut; bk;
  ih; 要出典範囲; 要検証範囲; wikicite; lw; nounderlines; nounderline; no italics; no italic; upright; roman; versal;
  versalita; versalitas; kapitälchen; maiuscoletto; petites capitales; pc; gras; italique; nobreak span; nowrapspan;
  nobr span; крупно; мелко; comment; подсказка; подск; s-note; uppercase; lowercase; cita requerida span; sans ligne;
  texte; text; span; anchor text; mono2; mxt; xt; !xt; tq; tqq; green; red; blue; color text; fontcolor1; 小; 大; 色;
  r text; lang-text; dfn; term; trans; lit; literal translation; literally; translated; notation; pinyin; py;
  jyutping; wadegiles; romaji; rōmaji; hepburn; lk; wl; wikilink; pl.; pagelink; nobreakdash'''
    .split(';'))
# Shows its second argument.
SECOND = frozenset(name.strip() for name in '''
  lang; langue; idioma; lingua; langspan; lang2; rtl-lang; language text; color; colour; font color; font colour;
  fontcolor; farbe; couleur; bg; background color; sort; sort table; sortkey text; sorttext; hs text; langwithname;
  wikt-lang; wt; wt-lang; llang; lang-short; proto; m; mention; in lang; hover title; script text; style; tooltip2;
  style span; popis; langi; cor; fontsize; font size; fs; rubi; w języku; j2; transcription; 言語; 언어; язык текста;
  язык'''.split(';'))
# Shows its second argument, or its first where there is no other.
TWICE = frozenset(name.strip() for name in '''
  annotated link text; wikisource; ill-text; illm; cyr; lwd; lien direct; seealso text; plink; wp; aut; auth; bibleverse
  text; piped; aanduiding; lkt'''.split(';'))
# Shows its last argument.
LAST = frozenset({'transl', 'transliteration', 'translit', 'tlit', 'xlit', 'romanization', 'translittération'})
# A link to another language's article: its label, or its title.
TEXT_OR_TITLE = frozenset(name.strip() for name in '''
  ill; ill2; interlanguage link; interlanguage link multi; link-interwiki; link interwiki; lien; 仮リンク; iwl;
  enlace interlingüístico; sans pagename; red link; redlink; ilh; nrlink; dil bağlantısı; 임시링크; 임시 링크;
  bağlantı; reds; ligação interlíngua; interlanguage; link-en'''.split(';'))
QUOTES = frozenset(name.strip() for name in '''
  quote; blockquote; bquote; cquote; quotation; quote box text; rquote; centered pull quote; poemquote; poem quote;
  verse; zitat; citation bloc; cita; citazione; citaat; citat; cytat; цитата; цитата2; 引用; 인용문; citation début;
  blockcite; blockindent; block indent; indent text; poem; dispquote; bloque de cita; citação; sitaatti; alıntı;
  اقتباس; گفتاورد; cite block; long quote; longquote'''.split(';'))
SHIPS = (
    'HMS', 'USS', 'SS', 'MV', 'SMS', 'RMS', 'HMAS', 'HMCS', 'INS', 'USCGC', 'USNS', 'HNoMS', 'HMNZS', 'MS', 'MT', 'PS',
    'ORP', 'HDMS', 'HSwMS', 'ROKS', 'JDS', 'ARA', 'BAP', 'GTS', 'TSS', 'RV', 'MY', 'HMT', 'HMHS', 'CSS', 'FS', 'HNLMS')
SYMBOLS = {
    '!': '|', '=': EQUALS, '!!': '||', '·': ' · ', 'dot': ' · ', 'middot': ' · ', '•': ' • ', 'bull': ' • ',
    'bullet': ' • ', 'w·': ' · ', ',': ' · ', '–': '–', 'ndash': '–', 'en dash': '–', 'spaced ndash': ' – ',
    'spnd': ' – ', 'snd': ' – ', 'dash': ' – ', 'spaced en dash': ' – ', 'spaced en dash space': ' – ', 'nsndns': '–',
    'mdash': '—', 'mdashb': ' — ', 'eqm': '⇌', '⇌': '⇌', 'em dash': '—', 'spaced mdash': ' — ',
    'spaced em dash': ' — ', 'snds': ' – ', '—': '—', 'nbsp': ' ', 'space': ' ', 'thinspace': ' ', 'thin space': ' ',
    'thinsp': ' ', 'hair space': ' ', 'hairsp': ' ', 'nnbsp': ' ', 'figure space': ' ', 'spaces': ' ', 'indent': ' ',
    'pad': ' ', 'break': ' ', 'br': ' ', '-': ' ', 'crlf': ' ', '\\': ' / ', 'spaced slash': ' / ', 'slash': ' / ',
    "'": "'", '`': '`', "'s": "'s", '"': '"', 'okina': 'ʻ', 'ʻ': 'ʻ', 'hamza': 'ʾ', 'ayin': 'ʿ', 'prime': '′',
    'pprime': '″', '(': '{', ')': '}', '((': '{{', '))': '}}', '[': '[', ']': ']', 'minus': '−', '−': '−',
    'times': '×', 'half': '½', 'co2': 'CO₂', 'h2o': 'H₂O', 'carbon dioxide': 'CO₂', 'aka': 'a.k.a.', 'flat': '♭',
    'sharp': '♯', 'natural': '♮', 'e (mathematical constant)': 'e', 'pi': 'π', 'phi': 'φ', 'ie': 'i.e.', 'eg': 'e.g.',
    'us': 'United States', 'usa': 'United States', 'uk': 'United Kingdom', 'vs': 'vs.', 'degree': '°', 'deg': '°',
    'number': '#', 'euro': '€', 'yen': '¥', 'numero': 'No.', 'no.': 'No.', 'n°': 'n°', 'nº': 'nº',
    'av. j.-c.': 'av. J.-C.', 'av jc': 'av. J.-C.', 'ap jc': 'apr. J.-C.', 'n. chr.': 'n. Chr.', 'v. chr.': 'v. Chr.',
    'до н. э.': 'до н. э.', 'н. э.': 'н. э.', 'м': 'м', 'до н.э.': 'до н. э.', 'н.э.': 'н. э.', 'тире': ' — ',
    'zwj': '', 'zwnj': '', 'wbr': '', 'zwsp': '', 'shy': '', 'wj': '', 'ier': '1er', '1er': '1er', 'ire': '1re',
    '1re': '1re', 'ie siècle': 'Ie siècle', 'iie': 'IIe', 'iiie': 'IIIe', 'no wrap begin': '', 'ad': 'AD', 'bc': 'BC',
    'ce': 'CE', 'bce': 'BCE'}
# Pronunciations: in brackets they can go, elsewhere they are part of the sentence.
ASIDES = frozenset(name.strip() for name in '''
  respell; pronunciation; pron; pronounced; usdict; enpr; ipac; audio-ipa; ipa audio; ouvir; audio text;
  prononciation; prononcé; pronuncia; произношение; pron-en; langpron; sampa; x-sampa; inlinesound; hörbeispiel;
  lautschrift; lautschrift en; 發音; 发音; uitspraak; ipapron; listen inline; wymowa; вимова; söyleniş; تلفظ; 발음;
  読み; pinyin tone; ko-hhrm; ruw; korean name'''.split(';'))
# Shows nothing of prose: notes, sources, maintenance, icons, boxes, what belongs to the page as a whole.
INVISIBLE = frozenset(name.strip() for name in '''
  sfn; sfnp; sfnm; sfnref; harv; harvnb; harvp; harvcol; harvcolnb; efn; efn-ua; efn-lr; efn-la; efn-lg; refn; r; rp;
  ref; note; note label; ref label; notelist; reflist; refs; refbegin; refend; notetag; notefoot; ran; nobel; rma;
  cref; cnote; #tag:ref; fn; fnb; cn; cb; fact; facts; citation needed; citationneeded; cite needed; source?;
  sourced?; needs citation; better source; better source needed; page needed; page number needed; pn; volume needed;
  verify source; verification needed; verify; failed verification; not in source; nots; not in citation given; nicg;
  dubious; disputed inline; disputed-inline; discuss; clarify; clarification needed; clarifyme; vague; which; which?;
  who; who?; whom; whom?; when; when?; where; where?; why; why?; how; how?; how often; according to whom; by whom;
  by whom?; specify; example needed; examples; or; original research inline; original research; synth; pov-inline;
  pov statement; npov-statement; neutrality inline; lopsided; weasel-inline; weasel inline; weasel; peacock inline;
  peacock term; opinion; speculation inline; undue-inline; undue inline; update inline; update after; update-inline;
  needs update; unreliable source?; unreliable source; rs; self-published inline; self-published source;
  primary source inline; primary source-inline; psi; third-party-inline; dead link; deadlink; dl; webarchive; wayback;
  cbignore; registration required; subscription required; subscription; closed access; open access; free access;
  linkrot; full citation needed; full; bare url inline; contradict-inline; contradiction-inline; inconsistent;
  relevance inline; importance inline; non sequitur; jargon inline; jargon-inline; technical-statement;
  chronology citation needed; additional citation needed; request quotation; quote needed; attribution needed;
  tone inline; ambiguous; buzz; incomprehensible inline; copyedit inline; cleanup inline; year needed; date missing;
  circular reference; medcn; medrs; better source example; promotional source; obsolete source; rp-page; page;
  disambiguation needed; dn; citequote; coord; coords; coor; coordinate; coordinates; koordinaten; koordináty;
  koordinatki; coordonnées; coordenadas; coördinaten; koord; coord missing; координаты; координати; 좌표; 座標; 坐标;
  flagicon; flag icon; flagicon image; flagdeco; flagg; drapeau; bandera; bandiera; bandeira; флаг; флагификация;
  mini-flag; icon; iconize; anchor; anchors; ancre; anker; ancla; якорь; якір; kotwica; ankare; ancora; âncora;
  visible anchor target; audio; listen; speech; clear; clr; clear left; clear right; -; toc; toc limit; toc left;
  toc right; toclimit; compact toc; compacttoc; stack begin; stack end; main; see also; seealso; further; about; for;
  other uses; redirect; distinguish; hatnote; short description; use dmy dates; use mdy dates; use british english;
  good article; featured article; pp-move; pp-semi; pp-vandalism; pp-protected; italic title; italictitle;
  lowercase title; lowercase; displaytitle; authority control; commons; commons category; commonscat; portal;
  portal bar; portal inline; sister project links; wikiquote-inline; wiktionary; wikisource-inline; default sort;
  defaultsort; good; image label; image frame; multiple image; annotated image; gallery; css image crop;
  external media; side box; sidebar; section stub; stub; div col; div col end; col-begin; col-break; col-end; col div;
  colbegin; colend; columns-list end; columns; multicol; multicol-break; multicol-end; end div col; s-start; s-end;
  succession box; navbox; navboxes; ntsh; hs; sortkey; sort key; nbsp hidden; number table sorting; dagger sort;
  citation; citeweb; citebook; harvard citation; harvard citation no brackets; bots; nobots; dash hidden; tfd; prod;
  efn note; wikidata; qid; wdib; lang icon; en icon; de icon; fr icon; es icon; ru icon; in lang icon; pdf; pdflink;
  doc; rfc hidden; update; asof hidden; void; null; px2; noteta; noteTA; 来源请求; 來源請求; 需要引文; 需要解释; 谁;
  誰; 哪个; 何时; 何處; 原創研究; 可疑; 需要更新; 失效链接; 失效連結; need consensus; 註; 脚注; notefn; refnest;
  要出典; 要検証; 要説明; 誰2; いつ; どこ; 独自研究範囲end; 出典無効; リンク切れ; r/ref; 信頼性要検証; 要ページ番号;
  要追加記述; flagicon2; 仮リンク切れ; ここまで; 출처 필요; 출처; 사실; 언제; 누가; 확인 필요; 각주; 주석; 깨진 링크;
  출처2; citation needed lead; fakta; källa behövs; källor; ej i källan; när; vem; fotnot; enwp; lähde; lähde?;
  milloin; kuka; kuka?; tarkennettava; selvennä; viite; feit; bron?; bronvermelding; wie?; wanneer?; welke?; appendix;
  verduidelijking; refquote; kaynak belirt; kn; olgu; kim; ne zaman; açıklama; dipnot; kaynakça; fakt; przypis; odn;
  kiedy; kto; gdzie; dopracować; źródło?; potrzebny przypis; przypisy; uwaga; источник; источник?; нет аи; нет ссылок;
  нет в источнике; уточнить; кто; кто?; когда; когда?; где; какой; какие; что?; чего; стиль; неоднозначность;
  проверить факт; оценочное суждение; по данным; значимость факта; достоверность; переведено; sfn0; скрытая ссылка;
  недоступная ссылка; джерело; джерело?; уточнити; хто; хто?; коли; який; де; недоступне посилання; фактаж;
  немає в джерелі; belege; belege fehlen; beleg; quelle; nachweise; citation needed de; lückenhaft; überarbeiten;
  fußnote; fna; fnz; ref-info; dieser artikel; begriffsklärungshinweis; sekvence; cita requerida; cr span;
  referencia requerida; demostrar; cuándo; quién; dónde; cuál; por quién; aclarar; añadir referencias; refn es;
  refbegin es; carece de fontes; carece fontes; carece de fontes2; citar fonte; quando; quem; quem?; onde; qual; dn2;
  ligação inativa; ligação inactiva; sem fontes; nota de rodapé; senza fonte; citazione necessaria; cn it; chiarire;
  chi; dove; quale; non chiaro; collegamento interrotto; nota disambigua; référence à confirmer; quand; qui; où;
  lequel; laquelle; lesquels; pourquoi; comment; combien; précision; précision nécessaire; pas clair; pertinence;
  source ?; source détournée; évasif; lien brisé; lien mort; lien archive; article détaillé; loupe; voir homonymes;
  harvsp; plume; note groupée; références; références nombreuses; مصدر; بحاجة لمصدر; بحاجة لمرجع; شاهد; متى؟; من؟;
  شريط بوابات; وصلة مكسورة; مدرک; مدرک؟; نیازمند منبع; یادکرد; پم; سخ; چه کسی؟; کجا؟; کدام؟; پیوند مرده; پانویس;
  उद्धरण आवश्यक; तथ्य; संदर्भ आवश्यक; कब; कौन; किसने; thiếu nguồn; cần dẫn nguồn; fakta behövs; butuh rujukan;
  fact id; kapan; siapa; hivatkozás; forrás; forrás?; zdroj; zdroj?; doplňte zdroj; kdy; kdo; fakt/dne; poznámka;
  sursă; necesită citare; când; cine; מקור; דרוש מקור; הערה; מתי; מי; επισημανση; εκκρεμεί παραπομπή; πηγή; чињеница;
  извор; бр; факт; няма източник; източник; revizo; vols'''
    .split(';'))
# The first words of names of the same kind.
INVISIBLE_BEGINNINGS = re.compile('(?:' + '|'.join(re.escape(name.strip()) for name in '''
  cite; cite-; citation/; cita; infobox; taxobox; speciesbox; automatic taxobox; use; pp-; stub; citation; literatur;
  ouvrage; lien web; article|; internetquelle; citar; navbox; s-; sfn; harv; efn; article issues; multiple issues;
  refimprove; unreferenced; more citations; more footnotes; image; flagicon; coord; commons; portal; wikt; wikivoyage;
  wikisource; wikiquote; wikinews; sister; main article; see; further; redirect; for; about; other; distinguish;
  article; cleanup; copyedit; pov; tone; expand; merge; move; original research; confus; disput; notability; update;
  globalize; webarchive; authority; persondata; geobox; ficha; fichier; ссылка на; карточка; книга; статья; cite_;
  citeer; tietolaatikko; verkkoviite; kirjaviite; webbref; bokref; tidningsref; kaynak; web kaynağı; kitap kaynağı;
  cytuj; شريط; استشهاد; cite/; یادکرد; 인용; cite_web; 웹 인용; cite journal; faktaruta; 基礎情報; infobox_;
  bilgi kutusu; جعبه; صندوق; #tag:ref; kutipan; citação; citer; info/; info; lienweb; cita_; bibleverse ref
  '''.split(';')) + r')(?!\w)')
LANGUAGES = {
    'af': 'Afrikaans', 'ang': 'Old English', 'ar': 'Arabic', 'arz': 'Egyptian Arabic', 'arc': 'Aramaic',
    'az': 'Azerbaijani', 'be': 'Belarusian', 'ber': 'Berber', 'bg': 'Bulgarian', 'bn': 'Bengali', 'bo': 'Tibetan',
    'br': 'Breton', 'bs': 'Bosnian', 'ca': 'Catalan', 'cs': 'Czech', 'cy': 'Welsh', 'da': 'Danish', 'de': 'German',
    'el': 'Greek', 'en': 'English', 'eo': 'Esperanto', 'es': 'Spanish', 'et': 'Estonian', 'eu': 'Basque',
    'fa': 'Persian', 'fi': 'Finnish', 'fr': 'French', 'fro': 'Old French', 'fy': 'West Frisian', 'ga': 'Irish',
    'gd': 'Scottish Gaelic', 'gl': 'Galician', 'gmh': 'Middle High German', 'goh': 'Old High German', 'got': 'Gothic',
    'grc': 'Ancient Greek', 'gsw': 'Swiss German', 'gu': 'Gujarati', 'haw': 'Hawaiian', 'he': 'Hebrew', 'hi': 'Hindi',
    'hr': 'Croatian', 'hu': 'Hungarian', 'hy': 'Armenian', 'id': 'Indonesian', 'is': 'Icelandic', 'it': 'Italian',
    'iu': 'Inuktitut', 'ja': 'Japanese', 'jp': 'Japanese', 'ka': 'Georgian', 'kk': 'Kazakh', 'km': 'Khmer',
    'kn': 'Kannada', 'ko': 'Korean', 'ku': 'Kurdish', 'kw': 'Cornish', 'ky': 'Kyrgyz', 'la': 'Latin',
    'lb': 'Luxembourgish', 'lo': 'Lao', 'lt': 'Lithuanian', 'lv': 'Latvian', 'mi': 'Māori', 'mk': 'Macedonian',
    'ml': 'Malayalam', 'mn': 'Mongolian', 'mr': 'Marathi', 'ms': 'Malay', 'mt': 'Maltese', 'my': 'Burmese',
    'nah': 'Nahuatl', 'nds': 'Low German', 'ne': 'Nepali', 'nl': 'Dutch', 'nn': 'Norwegian Nynorsk',
    'no': 'Norwegian', 'non': 'Old Norse', 'oc': 'Occitan', 'or': 'Odia', 'pa': 'Punjabi', 'pl': 'Polish',
    'ps': 'Pashto', 'pt': 'Portuguese', 'qu': 'Quechua', 'rm': 'Romansh', 'ro': 'Romanian', 'ru': 'Russian',
    'sa': 'Sanskrit', 'sco': 'Scots', 'sd': 'Sindhi', 'se': 'Northern Sami', 'sh': 'Serbo-Croatian', 'si': 'Sinhala',
    'sk': 'Slovak', 'sl': 'Slovene', 'sq': 'Albanian', 'sr': 'Serbian', 'sv': 'Swedish', 'sw': 'Swahili',
    'ta': 'Tamil', 'te': 'Telugu', 'tg': 'Tajik', 'th': 'Thai', 'tl': 'Tagalog', 'tr': 'Turkish', 'tt': 'Tatar',
    'uk': 'Ukrainian', 'ur': 'Urdu', 'uz': 'Uzbek', 'vi': 'Vietnamese', 'yi': 'Yiddish', 'yo': 'Yoruba',
    'zh': 'Chinese', 'zu': 'Zulu'}
# {{enS|…}} of German Wikipedia.
GERMAN = {
    'en': 'englisch', 'fr': 'französisch', 'la': 'lateinisch', 'it': 'italienisch', 'es': 'spanisch',
    'ru': 'russisch', 'grc': 'altgriechisch', 'el': 'griechisch', 'ja': 'japanisch', 'pl': 'polnisch',
    'nl': 'niederländisch', 'pt': 'portugiesisch', 'tr': 'türkisch', 'ar': 'arabisch', 'he': 'hebräisch',
    'cs': 'tschechisch', 'sv': 'schwedisch', 'uk': 'ukrainisch', 'hu': 'ungarisch', 'zh': 'chinesisch',
    'ko': 'koreanisch', 'sr': 'serbisch', 'da': 'dänisch'}
