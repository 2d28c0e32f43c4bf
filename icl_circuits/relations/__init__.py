"""Relations between words of a text: syntactic dependencies and knowledge graphs (arXiv 2402.13055)."""

from icl_circuits.relations.align import (
    RelationBatch as RelationBatch,
    relation_batch as relation_batch,
)
from icl_circuits.relations.corpus import (
    Corpus as Corpus,
    RelationText as RelationText,
    Span as Span,
    Triplet as Triplet,
)
from icl_circuits.relations.dependencies import (
    DEPENDENCIES as DEPENDENCIES,
    SENTENCES as SENTENCES,
    ParsedSentence as ParsedSentence,
    load_conllu as load_conllu,
    load_parses as load_parses,
    parse_dependencies as parse_dependencies,
    parse_sentences as parse_sentences,
)
from icl_circuits.relations.forms import (
    KNOWLEDGE as KNOWLEDGE,
)
from icl_circuits.relations.index import (
    relation_index as relation_index,
)
from icl_circuits.relations.indices import (
    EDGES as EDGES,
    RelationIndex as RelationIndex,
)
from icl_circuits.relations.letters import (
    FUNCTION_WORDS as FUNCTION_WORDS,
    LETTERS as LETTERS,
    in_sentences as in_sentences,
    with_letters as with_letters,
    without_words as without_words,
)
from icl_circuits.relations.probe import (
    HeadProbe as HeadProbe,
    head_probe as head_probe,
)
from icl_circuits.relations.triplets import (
    TRIPLETS as TRIPLETS,
    load_triplets as load_triplets,
)
from icl_circuits.relations.words import (
    usable_sentences as usable_sentences,
)
