"""Word lists that sentence boundaries in clinical text are decided by; all in lower case."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Never the end of a sentence; of ENDING_TITLES before a word that opens one.
TITLES = _words("""dr drs mr mrs prof st vs e.g i.e cf viz fig figs eq ref refs al approx ca pt pts dept jr sr""")
ENDING_TITLES = _words("al pt pts dept jr sr")
# Amounts: in capitals they end a sentence before any word that does not go on.
UNITS = _words("cap caps hr hrs lbs min mins mo mos sec secs tab tabs vol wk wks yr yrs")
# The end of a sentence only before an upper-case word.
ABBREVIATIONS = UNITS | _words(
    """abd adm appt assoc avg bilat chol chr conc cont diag diff disch disp dist esp est etc exam ft freq hosp hist htn
    hx incl inj lab labs lat max meds meth mod neg norm occ path phys pos post prev prob prox pulm rehab resp rt lt
    rx sol solut subq susp sx symp sys temp therap tx wt dx fx"""
)
# Dosing times: a sentence may well end on one, so an upper-case word after it starts a new sentence.
DOSING = _words("q.d q.o.d b.i.d t.i.d q.i.d q.h.s h.s p.r.n a.m p.m a.c p.c q.a.m q.p.m")
# Openers that settle the doubtful cases ("98.6 F. He", "vitamin K. The").
STARTERS = _words(
    """a after all although an and as at before both but by current currently during examination family following for
    from he her hers his however i if in it its laboratory no not on one otherwise our over past patient physical
    she since some temperature that the their then there these they this those today upon vital we what when which
    while with you"""
)
# Words that go on with a sentence. In capitals nothing but the word itself tells them from an opener.
CONTINUERS = _words(
    """and or nor of to for with without by in on at as than that which who is was are were be been has had daily until
    while per during after before then but"""
)
# Nothing ends after one of these: a line that does goes on in the next, and a capital after one is an initial.
LEADERS = _words(
    """the a an of to for with without by from in on at as and or nor than that is was are were be has had have his her
    their its per via versus about into dr mr mrs ms prof drs"""
)
# What is named by a letter: "Figure A.", "hepatitis B."
LETTERED = _words(
    """amphotericin antigen appendix arm blood category class coenzyme complement cyclosporin exhibit factor fig figs
    figure figures grade group groups haemoglobin haemophilia hemoglobin hemophilia hepatitis immunoglobulin
    influenza killip lobe mitomycin option panel part penicillin phenotype plan protein pugh section serotype stage
    strep streptococcus table toxin troponin type types unit vitamin vitamins ward weber zone"""
)
# What is named by a number, or leads up to one: the number after it is no item of a list.
NUMBERED = LEADERS | _words(
    """age aged approximately around bed block case class cycle day days dose equals exactly factor fig figs figure
    grade group hour item level line lobe month no not number over page par para part phase point question room
    score section sentence stage step table then trimester type under until visit week weeks year between least most
    only x ="""
)
# Second words of units; a break in front of one is an accident of reflowing.
UNIT_TAILS = _words("hg h2o")
# Names of species, written after the initial of their genus: "S. aureus", and "S. Aureus" where all words are.
SPECIES = _words(
    """abortus abscessus acnes adolescentis aerogenes aeruginosa africanum agalactiae albicans americanum anginosus
    anthracis asteroides aureus auris avium baumannii botulinum bovis brucei burgdorferi burnetii canimorsus canis
    capitis capsulatum carinii cati catarrhalis cepacia cereus chelonae cholerae cloacae coli corrodens cruzi
    dermatitidis diff difficile diphtheriae donovani ducreyi duodenale dysenteriae enterica enteritidis
    enterocolitica epidermidis equi faecalis faecium falciparum fetus flexneri fortuitum fragilis freundii fumigatus
    gallolyticus gattii genitalium glabrata gondii gonorrhoea gonorrhoeae granulosus haematobium haemolyticus
    henselae histolytica hominis hydrophila immitis influenzae interrogans israelii japonicum jeikeium jejuni
    jirovecii kansasii kingae knowlesi koseri krusei lamblia leprae lugdunensis lumbricoides lusitaniae malariae
    mallei maltophilia mansoni marcescens marinum marneffei melitensis meningitidis microti mirabilis mitis
    monocytogenes morganii multocida mutans neoformans niger nucleatum oralis ovale oxytoca pallidum parainfluenzae
    parapertussis parapsilosis perfringens pertussis pestis phagocytophilum pneumo pneumoniae pneumophila prowazekii
    pseudomallei psittaci putida pylori pyogenes quintana rickettsii saginata salivarius sanguinis saprophyticus
    schenckii sonnei spiralis spp stercoralis suis tetani trachomatis trichiura tropicalis tuberculosis tularensis
    typhi typhimurium ulcerans urealyticum vaginalis vermicularis viridans vivax vulgaris vulnificus whipplei xenopi"""
)
SPECIES_ENDINGS = ("ensis", "iae", "icola", "phila", "philum", "philus", "orum", "ii")
