"""Which language a passage is in, told by its small words, and only where that is clear: short passages, names and
mixtures get no answer.

The lists are our own, written for historical prints: with old spellings (hath, vnd, estoit, inu) and what text
recognition makes of the long s (fuch, ift). They serve to tell that a passage is in a language that weights were not
measured in; so a wrong alarm is worse than none, and a language without a list is never told.
"""

import regex

from .errors import Sentence

NAMES = {
    "en": Sentence("English"),
    "de": Sentence("German"),
    "fr": Sentence("French"),
    "it": Sentence("Italian"),
    "sl": Sentence("Slovenian"),
    "nl": Sentence("Dutch"),
    "es": Sentence("Spanish"),
    "pt": Sentence("Portuguese"),
    "la": Sentence("Latin"),
    "hr": Sentence("Croatian"),
    "cs": Sentence("Czech"),
    "pl": Sentence("Polish"),
    "da": Sentence("Danish"),
    "sv": Sentence("Swedish"),
}
READ = 400  # words of a passage that are looked at
COMMON = 0.2  # share of the words that are small words of the language, at least
APART = 5  # words that are small words of it and not of another language, at least; of every other
TIMES = 4  # as many as there are of the other and not of it, at least
_WORDS = {
    "en": """the and of to in that is was he for it with as his on be at by i this had not are but from or have an \
they which one you were her all she there
        would their we him been has when who will no more if out so said what up its about into than them can only \
other time some could these two may then do
        first any my now such like our over me most made after also did many must before through much where your well \
should because each those how too down
        hath doth thee thou thy unto vnto upon vpon vp vs haue giue ouer euery ye shal bee mee hee wee doe
        fuch fome thefe thofe alfo firft muft moft fhall fhould fhe faid becaufe itfelf""",
    "de": """der die das und ist nicht ein eine einen einem eines einer er sie es wir ihr ihre ihren ich den dem des \
zu in im von mit auf für an auch als sich so aber
        oder wenn nach bei aus dass wie noch nur wird werden wurde hat haben war sein sind seine seiner durch über um \
man zum zur vom vor bis unter kein
        keine wo was da dann doch mehr diese dieser dieses alle sehr welche welcher welches
        vnd vnnd vnter vmb vber jn jm jhr jhm jst auff seyn sey eyn eyne nit dz auss solche solches also bey wirt kan \
ift fich fie diefe diefer""",
    "fr": """le la les un une des de du et est que qui dans en pour par sur avec ne pas plus il elle ils elles on nous \
vous je au aux ce cette ces son sa ses leur
        leurs mais ou où se sont a à été être avoir fait tout tous toute comme si l d c s n qu j m y lui bien sans \
même aussi deux dont ont était étaient avait peut
        autre autres entre ainsi cet quand sous
        estoit estoient auoit avoit avoient estre faict ledit ladite iceluy icelle celuy ceste cest mesme aultre vn \
vne plusieurs moult luy eft étoit étoient""",
    "it": """il lo la i gli le un uno una di a da in con su per tra fra e è che non si del dello della dei degli delle \
al allo alla ai agli alle dal dallo dalla dai dalle
        nel nello nella nei negli nelle sul sulla sulle col coi come ma più anche se o ed sono era erano essere ha \
hanno aveva questo questa questi queste
        quello quella quelli quale quali suo sua suoi sue loro ne ci mi ti vi quando dove molto tutto tutti tutta \
tutte dell nell all dall sull l d così poi fu
        perché et ad hauer hauea havea ò à fù ogni onde però percioche perciò acciò anco ancora detto detta vn vna \
effere""",
    "sl": """in je se na v da so ki pa ne za po s z tudi pri ali iz kot če le bi bil bila bilo bili od do ga mu jih \
jim jo mi ti on ona ter kar kakor ker ko tako
        še že to ta te tega tem teh ni niso sem si smo ste bo bodo vse ves vsi vsa več nad pod pred skozi med brez \
zato toda nje njega njih njegov
        njegova svoj svoje svojo svojega svojih kateri katera katero kteri ktera ktero nekaj lahko zelo kaj kje tam tu
        inu ino de nej kir koker tiga nar skuz skoz pak al per bode bodi kterih kterim zdaj nič kdor""",
    "nl": """de het een en van is dat die in te niet op zijn met voor aan er om ook als bij maar door naar uit nog \
over hij ze zij wij haar hem werd worden wordt
        heeft had was hun deze dit dan geen wel al zoo zo tot wat men onder hare zyn zijne den der des eene eenen \
hebben kan
        ende ghy vande inde ick wy sy hy dese desen oft sijn sijne welcke naer seer t""",
    "es": """el la los las un una unos unas de del al a en y que es no se por con para su sus lo le les como más pero \
o este esta estos estas ese esa muy ya sin
        sobre entre cuando también donde todo toda todos todas había era eran fue ser han ha está están hay cual qual \
cuyo porque hasta desde ni si yo mi me
        te nos mas assi dixo hazer tiene tienen otro otra otros""",
    "pt": """o a os as um uma uns umas de do da dos das e é que em no na nos nas por pelo pela com para não se ao aos \
à às seu sua seus suas mais mas ou como
        este esta isto isso ele ela eles elas foi era são ser tem muito já também quando onde todo toda todos todas \
lhe lhes sem sobre entre até porque há
        nem hum huma nam naõ muyto mui""",
    "la": """et in est non ut ad cum quod qui quae quam ex ab a de per si sed aut vel atque ac nec neque enim autem \
etiam quoque hoc haec hic huius eius ejus
        sunt esse fuit erat eo ea id ipse ipsa ita tamen nam igitur ergo sic pro sub super inter apud post ante sine \
quo qua quibus omnia omnes quidem
        vero sicut dum ubi quia se suo sua suum nisi inde""",
    "hr": """i je u na se da su za od s sa ne koji koja koje kojih što kao ali iz po do bi biti bio bila bilo bili \
nije nisu ili te a o k kod kad kada kako samo
        jer ovaj ova ovo taj ta to tako već još može mogu sam smo ste svi sve sva svoj svoje njegov njegova njih njim \
njega mu ga joj ju pak nego onda
        ovdje gdje uz pri prije poslije među nad pod kroz bez""",
    "cs": """a v se na je že to s z do o i k ve ne by jsem jsou byl byla bylo byli které který která kteří jak jako \
ale tak po od za pro při nebo aby když si jeho
        její jejich ho mu jim už ještě jen také podle před mezi pod nad bez co kdo tento tato toto ten ta této jest \
již aneb""",
    "pl": """i w z na się nie to że jest do o jak a po co za od tak ale przez przy dla ich jego jej który która które \
by był była było były są te ten ta tym tego
        lub oraz już tylko jeszcze może przed pod nad bez między jako czy gdy kiedy gdzie ze we albo iest iako""",
    "da": """og i er det en at den af til på for med ikke der som et de har han hun var jeg sig men om vi kan fra så \
vil skal efter ved være eller over nu også
        her hvor hvad blev dem sin sine hans hendes ud op meget mange noget under""",
    "sv": """och i att det en som är på av af för med den till inte icke har de ett om han hon var jag sig men vi kan \
från så skall ska efter vid vara eller över
        nu också här där blev dem sin sina hans hennes ut upp mycket många något under hade utan när""",
}
SMALL_WORDS = {tag: frozenset(words.split()) for tag, words in _WORDS.items()}
_WORD = regex.compile(r"\p{L}[\p{L}\p{M}]*+")  # "l'eau" is two
_LETTER = regex.compile(r"\p{L}")
_FOREIGN = regex.compile(r"[\p{L}--[\p{Latin}\p{Common}]]", regex.V1)


def is_latin(text: str) -> bool:
    """Whether at least half of its letters are Latin ones, old and ornamental ones included."""
    return 2 * len(_FOREIGN.findall(text)) <= len(_LETTER.findall(text))


def language_of(text: str) -> str | None:
    """The tag of the language that a passage is clearly in; None for one that is short, mixed, or in a language without
    a list."""
    words = [match[0].casefold() for match, _ in zip(_WORD.finditer(text), range(READ), strict=False)]
    found = {tag: sum(word in small for word in words) for tag, small in SMALL_WORDS.items()}
    best = max(found, key=found.__getitem__)
    if found[best] < COMMON * len(words):
        return None
    return (
        best
        if all(_apart(words, SMALL_WORDS[best], small) for tag, small in SMALL_WORDS.items() if tag != best)
        else None
    )


def _apart(words: list[str], one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether words are clearly of one language and not of another."""
    ours, theirs = one - other, other - one
    mine = sum(word in ours for word in words)
    return mine >= max(APART, TIMES * sum(word in theirs for word in words))
